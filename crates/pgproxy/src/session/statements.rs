//! What a client has prepared, by its names, and what of it is there on the connection that serves it.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::Session;
use super::expected::{Audience, What};
use crate::message::{self, error_field};
use crate::prepared::{Named, Statement, write_close};

impl Session {
    pub(super) fn named(&self, name: &[u8]) -> Option<Arc<Statement>> {
        if name.is_empty() { self.unnamed.clone() } else { self.statements.get(name).cloned() }
    }

    pub(super) fn remember_statements(&mut self) {
        self.statements_before.get_or_insert_with(|| self.statements.clone());
    }

    /// The client has by its names what it had before it asked for this.
    pub(super) fn take_back_names(&mut self, asked: What) {
        match asked {
            What::Parse { name: Some(name), .. } | What::ParseDone { name } => {
                drop(self.statements.remove(&name));
            }
            What::CloseDone { name, statement } => drop(self.statements.insert(name, statement)),
            What::ParseUnnamed { before } | What::CloseUnnamed { before } | What::Query { before, .. } => {
                self.unnamed_is_again(before)
            }
            _ => {}
        }
    }

    /// Up to where the next was sent that changes it.
    pub(super) fn unnamed_is_again(&mut self, statement: Option<Arc<Statement>>) {
        match self.expected.unnamed_before() {
            Some(before) => *before = statement,
            None => self.unnamed = statement,
        }
    }

    /// Sees to it that the client's statement is there under the name that we give it on the server, and says which that is.
    pub(super) fn ensure(
        &mut self,
        name: &[u8],
        statement: Option<Arc<Statement>>,
    ) -> Option<Arc<Statement>> {
        let Some(server) = &mut self.server else { return statement };
        match &statement {
            Some(_) if !name.is_empty() => {
                return statement.map(|statement| self.prepare_named(name, statement));
            }
            Some(statement)
                if server.unnamed != statement.id
                    && statement.write_parse(Named::Unnamed, &mut server.wire.output) =>
            {
                server.unnamed = statement.id;
                self.expected.push(What::Parse { id: 0, name: None }, Audience::Proxy);
            }
            // The unnamed statement there is somebody else's.
            None if name.is_empty() && server.unnamed != 0 => {
                message::message(&mut server.wire.output, b'C', |out| out.put_slice(b"S\0"));
                server.unnamed = 0;
                self.expected.push(What::Close, Audience::Proxy);
            }
            _ => {}
        }
        statement
    }

    /// What the client has by this name, as it is there from now on.
    pub(super) fn prepare_named(&mut self, name: &[u8], statement: Arc<Statement>) -> Arc<Statement> {
        let Some(server) = &mut self.server else { return statement };
        let is_there = server.prepared.touch(statement.id);
        if is_there && !(self.has_altered && self.is_read_otherwise(&statement)) {
            return statement;
        }
        let now = self.as_read_now(&statement);
        if now.id != statement.id {
            self.statements.insert(name.to_vec(), now.clone());
        }
        self.prepare(&now);
        now
    }

    pub(super) fn prepare(&mut self, statement: &Arc<Statement>) {
        let Some(server) = &mut self.server else { return };
        if server.prepared.touch(statement.id) {
            return;
        }
        if statement.write_parse(Named::Ours, &mut BytesMut::new()) {
            self.make_room(statement);
            statement.write_parse(Named::Ours, self.output());
            self.expected.push(What::Parse { id: statement.id, name: None }, Audience::Proxy);
        }
    }

    /// Notes that the statement will be there, and closes the one that was used longest ago when there are too many.
    pub(super) fn make_room(&mut self, statement: &Statement) {
        let Some(server) = &mut self.server else { return };
        let outdated = server.prepared.take_outdated();
        let evicted = server.prepared.insert(statement.id);
        for closed in outdated.into_iter().chain(evicted) {
            write_close(closed, &mut server.wire.output);
            self.expected.push(What::CloseOurs(closed), Audience::Proxy);
        }
    }

    /// A statement whose result has other columns than when it was prepared never works again on its connection, nor does
    /// one that is not there.
    pub(super) fn forget_outdated_statement(&mut self, error: &[u8]) {
        let Some(&What::Bind { of }) = self.expected.front().map(|head| &head.what) else { return };
        let Some(server) = &mut self.server else { return };
        match error_field(error, b'C') {
            Some(b"0A000") => server.prepared.outdate(of),
            // By SQL in a function, or among other statements, one can be taken away unseen.
            Some(b"26000") => server.prepared.remove(of),
            _ => {}
        }
    }
}

//! On what it depends here and now what the text of a statement means.
//!
//! A statement that others have prepared is as good as the client's own where PostgreSQL would read its text alike: by the
//! same settings, and by what PostgreSQL itself says of those that it reports. Where nobody knows what a session has set,
//! or its transaction so far, its statements are its own.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, PoisonError};

use super::Session;
use crate::prepared::{Context, Statement};
use crate::server::Parameters;

/// What PostgreSQL reports, and reads literals and names by. The search path is among it since version 18.
const REPORTED: [&[u8]; 6] = [
    b"DateStyle",
    b"IntervalStyle",
    b"TimeZone",
    b"client_encoding",
    b"search_path",
    b"standard_conforming_strings",
];

/// The hash of those, remembered for as long as nothing is reported.
#[derive(Default)]
pub(super) struct Reported {
    parameters: Arc<Parameters>,
    hash: u64,
}

impl Reported {
    fn hash(&mut self, parameters: &Arc<Parameters>) -> u64 {
        if !Arc::ptr_eq(&self.parameters, parameters) {
            let mut hasher = DefaultHasher::new();
            REPORTED.map(|name| parameters.get(name)).hash(&mut hasher);
            *self = Reported { parameters: parameters.clone(), hash: hasher.finish() };
        }
        self.hash
    }
}

impl Session {
    /// `None`: it cannot be told.
    fn context(&mut self) -> Option<Context> {
        let server = self.server.as_ref()?;
        let is_known = !self.is_pinned && !self.may_have_altered && server.settings == self.settings;
        is_known.then(|| {
            let mut hasher = DefaultHasher::new();
            (self.settings.meaning(), self.reported.hash(&server.parameters)).hash(&mut hasher);
            Context(hasher.finish())
        })
    }

    /// The statement that a client is about to prepare by a name.
    pub(super) fn defined(&mut self, definition: &[u8]) -> Arc<Statement> {
        match self.context() {
            Some(context) => self.cached(definition, context),
            None => Arc::new(Statement::new(definition)),
        }
    }

    /// What is to be prepared for a client's statement that is not there. Nobody else shall find it read otherwise than they
    /// would have it read.
    pub(super) fn as_read_now(&mut self, statement: &Arc<Statement>) -> Arc<Statement> {
        let context = self.context();
        let Some(definition) = statement.definition().filter(|_| statement.context != context) else {
            return statement.clone();
        };
        let now = self.defined(definition);
        // One of a moment is as good as it is.
        if now.context == statement.context { statement.clone() } else { now }
    }

    /// Whether others have the statement who would have it read otherwise. PostgreSQL reads it again when something that it
    /// names has changed, by the settings of whoever runs it then, and they would find it so.
    pub(super) fn is_read_otherwise(&mut self, statement: &Statement) -> bool {
        let is_other = |now| statement.context.is_some_and(|context| context != now);
        self.context().is_some_and(is_other)
    }

    fn cached(&self, definition: &[u8], context: Context) -> Arc<Statement> {
        let mut cache = self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get_or_insert(definition, context)
    }
}

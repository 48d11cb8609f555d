//! What a client has set, once the server has said that it is set.
//!
//! A setting that holds is noted as the session's, which any connection can be given, and as that of the connection that has
//! it. A reset goes back to what the session began with. Of that a server knows nothing: it goes back to what its own connection
//! began with, and is told the rest.

use super::Session;
use super::expected::{Audience, What};
use crate::message::{self, TransactionStatus};
use crate::settings::{Setting, Settings};
use crate::statement::{ALL, Assignment};

/// Sets one setting, as the rest of a Parse.
pub(crate) const SET_CONFIG: &[u8] = b"SELECT pg_catalog.set_config($1, $2, false)\0\0\0";

/// What a `RESET ALL` leaves as it is.
const NOT_RESET_BY_ALL: [&str; 2] = ["role", "session_authorization"];

impl Session {
    /// Settings hold once their transaction has ended well; in a block that may still fail, only this connection knows.
    #[cold]
    pub(super) fn settle_settings(&mut self, status: TransactionStatus) {
        if status != TransactionStatus::Idle {
            self.pin();
            // What is sent already may end the block, and then this would come too late: see `is_discarding`.
            if self.expected.is_empty() && !self.is_in_group {
                self.set_back_in_block();
            }
            return;
        }
        // A reset goes back to the client's startup value, of which the server does not know: it is set before the
        // connection serves the client again.
        let before = self.settings.clone();
        let mut at_server = before.clone();
        for Assignment { name, value } in std::mem::take(&mut self.set) {
            if name == ALL {
                at_server = at_server.only(&NOT_RESET_BY_ALL);
                self.settings = self.startup_settings.clone();
                continue;
            }
            at_server = match &value {
                Some(setting) => at_server.with(&name, setting.clone()),
                None => at_server.without(&name),
            };
            self.settings = match value.or_else(|| self.startup_settings.get(&name).cloned()) {
                Some(setting) => self.settings.with(&name, setting),
                None => self.settings.without(&name),
            };
        }
        self.has_altered |= !self.statements.is_empty() && means_other(&before, &self.settings);
        self.shared.pool.has_set(&mut self.settings);
        let Some(server) = &mut self.server else { return };
        self.shared.pool.has_set(&mut at_server);
        server.settings = at_server;
        if self.is_pinned {
            // This is the connection that serves the client again.
            let sql = server.settings.change_to(&self.settings);
            server.settings = self.settings.clone();
            self.set_at_server(&sql);
        }
    }

    /// The same for what was reset in a block: its end decides about both.
    fn set_back_in_block(&mut self) {
        let set = std::mem::take(&mut self.set);
        let sql = Settings::default().change_to(&self.reset_to(&set));
        self.set_at_server(&sql);
    }

    /// Notes behind what is set in a group what [`Session::set_back_in_group`] sets behind that.
    pub(super) fn add_what_is_set_back(&self, set: &mut Vec<Assignment>) -> Settings {
        let back = self.reset_to(set);
        set.extend(back.raw().map(|(name, value)| Assignment {
            name: name.to_owned(),
            value: Some(Setting::Raw(value.to_owned())),
        }));
        back
    }

    /// What is reset in a group may be found by more of it: in the same transaction it is set to what the session began with.
    pub(super) fn set_back_in_group(&mut self, back: &Settings) {
        let statement = self.shared.set_config.clone();
        for (name, value) in back.raw() {
            self.prepare(&statement);
            self.write_run_beside(&statement, &[name, value], What::Execute { sets: None });
        }
    }

    /// What the session began with, of that which is reset in the end.
    fn reset_to(&self, set: &[Assignment]) -> Settings {
        let mut back = Settings::default();
        for Assignment { name, value } in set {
            back = match (&**name, value, self.startup_settings.get(name)) {
                (ALL, ..) => self.startup_settings.except(&NOT_RESET_BY_ALL),
                (_, None, Some(setting)) => back.with(name, setting.clone()),
                _ => back.without(name),
            };
        }
        back
    }

    /// Behind everything that was sent so far, by a Query.
    fn set_at_server(&mut self, sql: &str) {
        let Some(server) = self.server.as_mut().filter(|_| !sql.is_empty()) else { return };
        message::query(&mut server.wire.output, sql);
        // It destroys the unnamed statement there.
        server.unnamed = 0;
        self.expected.push(What::Query { sets: None, is_complete: false, before: None }, Audience::Proxy);
    }
}

/// Whether PostgreSQL may take the one for the other when it reads a statement that it has. It looks at the search path itself.
fn means_other(before: &Settings, now: &Settings) -> bool {
    let meaning = |settings: &Settings| settings.except(&["search_path"]).meaning();
    before.meaning() != now.meaning() && meaning(before) != meaning(now)
}

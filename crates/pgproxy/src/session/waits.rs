//! What is not sent while something before it is not answered, because that decides what it is.

use super::Session;
use crate::message::{body, split_cstr, until_nul};

impl Session {
    /// A write whose replies are held is not sent behind what is not answered: those answers are none of its own. Nor is what
    /// depends on whether a statement was prepared or closed: by a name that may be free by then, or not be, or the unnamed
    /// one, in whose place there may be somebody else's. So does what a DEALLOCATE finds.
    pub(super) fn waits_for_answers(&mut self, tag: u8, bytes: usize) -> bool {
        // Within the data of a COPY the server ends the session for it.
        let is_settled = !self.unit.has_unanswered() || self.is_copying_in || self.is_read_over();
        if is_settled || !matches!(tag, b'Q' | b'P' | b'B' | b'D' | b'C') {
            return false;
        }
        let input = std::mem::take(&mut self.client.input);
        let said = &input[..bytes];
        let waits = match (tag, body(said)) {
            (b'P', body) => {
                let name = until_nul(body);
                // In a block that has failed by then, it is refused.
                let is_in_block = !name.is_empty() && self.unit.is_block_open();
                is_in_block || self.statements.contains_key(name) || self.is_unsettled(name)
            }
            (b'D', [b'S', 0]) => !self.is_in_group,
            (b'D' | b'C', [b'S', name @ ..]) => self.is_unsettled(until_nul(name)),
            (b'D' | b'C', _) => false,
            _ => self.must_wait(tag, said),
        };
        self.client.input = input;
        waits
    }

    fn must_wait(&mut self, tag: u8, said: &[u8]) -> bool {
        if tag == b'Q' {
            let facts = self.facts(until_nul(body(said)));
            let is_written_as_extended = self.as_extended(said, &facts).is_some();
            return facts.discards || is_written_as_extended && self.can_be_settled_by_sync(&facts);
        }
        let name = split_cstr(body(said)).map(|(_, rest)| until_nul(rest)).unwrap_or_default();
        if name.is_empty() && !self.is_in_group || self.is_unsettled(name) {
            return true;
        }
        let Some(statement) = self.named(name) else { return false };
        let facts = self.facts_of(&statement);
        facts.discards || self.can_be_settled_by_sync(&facts)
    }

    /// Whether an error that is still to come would skip what this name was given to, or taken from.
    fn is_unsettled(&self, name: &[u8]) -> bool {
        self.statements_before.is_some() && self.expected.concerns(name)
    }

    /// Nothing is sent behind a DISCARD ALL or DEALLOCATE ALL that is not answered: what it ends must not be taken for what
    /// follows it. Nor behind a RESET: what follows finds what the session began with, which is set again when it is answered.
    pub(super) fn is_discarding(&mut self) -> bool {
        if !self.has_discarded || self.is_copying_in {
            return false;
        }
        self.has_discarded = !self.expected.is_empty() && !self.is_read_over();
        if !self.has_discarded && !self.is_muted {
            // What follows is for a connection that has the settings which the session has now.
            self.release();
        }
        self.has_discarded
    }

    /// Whether what is sent now is not answered, nor anything before it, until there is a Sync.
    pub(super) fn is_read_over(&self) -> bool {
        self.skips_to_sync() && !self.expected.has_sync()
    }

    pub(super) fn skips_to_sync(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.skips_to_sync)
    }
}

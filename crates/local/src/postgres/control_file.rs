//! What the control file of a node tells of a start: whether the server came to take writes.
//!
//! PostgreSQL writes the file anew with each checkpoint and with each change of its state. A server that was not shut down
//! in order recovers first, and ends that with a checkpoint before it lets anybody in; one that was shut down in order says
//! in the file that it is in production. So one that has served has left its trace there.

use std::fs;
use std::io::{self, Read as _};

use super::NodePaths;

/// `PG_CONTROL_FILE_SIZE`.
const FILE_BYTES: u64 = 8_192;
/// `PG_CONTROL_VERSION` of PostgreSQL 13 to 17, whose layout is known here.
const KNOWN_VERSION: u32 = 1_300;
/// Of the fields of `ControlFileData`.
const VERSION_AT: usize = 8;
const STATE_AT: usize = 16;
const CHECKPOINT_AT: usize = 32;
/// `DBState`: a server that ended in one of these has to recover.
const IN_CRASH_RECOVERY: u32 = 4;
const IN_PRODUCTION: u32 = 6;

/// As it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// `None` when there was none.
    bytes: Option<Vec<u8>>,
}

impl ControlFile {
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(paths: &NodePaths) -> io::Result<ControlFile> {
        let file = match fs::File::open(paths.control_file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ControlFile { bytes: None }),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(ControlFile { bytes: Some(bytes) })
    }

    /// Whether it is certain that a primary that was started when the file was `before`, and has ended since, let nobody in.
    pub fn never_served_since(&self, before: &ControlFile) -> bool {
        if self == before {
            return true;
        }
        let checkpoint = before.checkpoint_to_recover_from();
        checkpoint.is_some() && checkpoint == self.checkpoint_to_recover_from()
    }

    /// The last checkpoint; `None` of one that need not recover.
    fn checkpoint_to_recover_from(&self) -> Option<u64> {
        let bytes = self.bytes.as_deref()?;
        let number = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let has_to_recover = number(VERSION_AT)? == KNOWN_VERSION
            && [IN_CRASH_RECOVERY, IN_PRODUCTION].contains(&number(STATE_AT)?);
        let checkpoint = bytes.get(CHECKPOINT_AT..CHECKPOINT_AT + 8)?;
        has_to_recover.then_some(u64::from_ne_bytes(checkpoint.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHUT_DOWN: u32 = 1;

    fn file(version: u32, state: u32, checkpoint: u64) -> ControlFile {
        let mut bytes = vec![0; FILE_BYTES as usize];
        bytes[VERSION_AT..VERSION_AT + 4].copy_from_slice(&version.to_ne_bytes());
        bytes[STATE_AT..STATE_AT + 4].copy_from_slice(&state.to_ne_bytes());
        bytes[CHECKPOINT_AT..CHECKPOINT_AT + 8].copy_from_slice(&checkpoint.to_ne_bytes());
        ControlFile { bytes: Some(bytes) }
    }

    #[test]
    fn only_one_that_left_its_last_checkpoint_where_it_was_or_touched_nothing_never_served() {
        let known = |state, checkpoint| file(KNOWN_VERSION, state, checkpoint);
        let crashed = known(IN_PRODUCTION, 7);
        for (before, after, never_served) in [
            (&crashed, &crashed, true),
            (&crashed, &known(IN_CRASH_RECOVERY, 7), true),
            (&crashed, &known(IN_PRODUCTION, 8), false),
            // Its next recovery began where the one before had ended.
            (&crashed, &known(IN_CRASH_RECOVERY, 8), false),
            (&crashed, &known(SHUT_DOWN, 8), false),
            // It needs no checkpoint to serve.
            (&known(SHUT_DOWN, 7), &known(IN_PRODUCTION, 7), false),
            (&known(SHUT_DOWN, 7), &known(IN_CRASH_RECOVERY, 7), false),
            (&known(SHUT_DOWN, 7), &known(SHUT_DOWN, 7), true),
            (&crashed, &file(1_800, IN_CRASH_RECOVERY, 7), false),
            (&file(1_800, IN_PRODUCTION, 7), &file(1_800, IN_CRASH_RECOVERY, 7), false),
            (&crashed, &ControlFile { bytes: None }, false),
            (&ControlFile { bytes: None }, &ControlFile { bytes: None }, true),
            (&crashed, &ControlFile { bytes: Some(vec![0; 20]) }, false),
        ] {
            assert_eq!(after.never_served_since(before), never_served, "{before:?} {after:?}");
        }
    }
}

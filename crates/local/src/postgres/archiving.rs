//! Where a node's log goes: PostgreSQL runs this program for each segment, and forgets it when that ends well.

use std::path::{Path, PathBuf};

use crate::backup::Archive;

/// A segment is handed over at the latest this long after the first thing was written to it: what a lost disk may cost.
pub(super) const HANDED_OVER_AFTER: &str = "60s";

/// What becomes of a segment that is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Archiving {
    /// Nobody needs it.
    Off,
    /// It stays on the node: whether this node's log will ever be the cluster's is not decided yet.
    Waits,
    /// `program` stores it.
    To { program: PathBuf, archive: Archive },
}

impl Archiving {
    /// The value of `archive_command`.
    pub(super) fn command(&self) -> String {
        match self {
            // A setting that cannot be changed without a restart is left on, and what it asks for is done: nothing.
            Archiving::Off => "/bin/true".to_owned(),
            Archiving::Waits => String::new(),
            Archiving::To { program, archive } => {
                format!("{} wal-push --archive {} %p", shell(program), shell(archive.root()))
            }
        }
    }
}

/// The value of `restore_command`.
pub(super) fn restore_command(program: &Path, archive: &Archive) -> String {
    format!("{} wal-fetch --archive {} %f %p", shell(program), shell(archive.root()))
}

/// One word for the shell that PostgreSQL hands the command to, after it has replaced what follows a `%`.
fn shell(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''").replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_with_odd_names_are_one_word_for_the_shell() {
        let archive = Archive::at(Path::new("/srv/it's 100%"));
        let to = Archiving::To { program: "/usr/bin/switchback".into(), archive };
        assert_eq!(to.command(), r"'/usr/bin/switchback' wal-push --archive '/srv/it'\''s 100%%' %p");
    }
}

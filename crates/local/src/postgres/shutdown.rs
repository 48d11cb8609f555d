//! How a node that is down has ended, from its control file.

use std::ffi::OsStr;
use std::io;
use std::time::Duration;

use model::Lsn;
use tokio::time::timeout;

use super::{NodePaths, Owner, PostgresError, diagnose, tool};
use crate::engines::PostgresEngine;

/// A control file that takes longer to read is on a disk that does not answer.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// Where the log of a node ends that was shut down in order; `None` of one that was not. Whoever has received more than
/// this has everything that it ever wrote.
///
/// # Errors
/// When its control file cannot be read, or not within ten seconds.
pub async fn shut_down_at(
    engine: &PostgresEngine,
    paths: &NodePaths,
    owner: &Owner,
) -> Result<Option<Lsn>, PostgresError> {
    let pgdata = paths.pgdata();
    let arguments: [&OsStr; 2] = ["--pgdata".as_ref(), pgdata.as_os_str()];
    let said = timeout(READ_LIMIT, tool::run(engine, owner, &pgdata, "pg_controldata", &arguments)).await;
    let late = |_| PostgresError::Io { path: paths.control_file(), source: io::ErrorKind::TimedOut.into() };
    let said =
        said.map_err(late)??.map_err(|said| diagnose("pg_controldata", &said, &pgdata, &owner.name()))?;
    Ok(parse(&said))
}

fn parse(said: &str) -> Option<Lsn> {
    let value =
        |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    if value("Database cluster state")? != "shut down" {
        return None;
    }
    let (high, low) = value("Latest checkpoint location")?.split_once('/')?;
    let part = |text| u64::from_str_radix(text, 16).ok();
    Some(Lsn((part(high)? << 32) | part(low)?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::engines::{PgVersion, Source};

    /// Whoever asks holds up every failover.
    #[tokio::test(start_paused = true)]
    async fn a_control_file_on_a_disk_that_does_not_answer_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let engine = PostgresEngine {
            bin_dir: folder.path().to_owned(),
            version: PgVersion::parse("17.5").unwrap(),
            source: Source::Installed,
            env: BTreeMap::new(),
        };
        let program = engine.program("pg_controldata");
        fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let paths = NodePaths::new(folder.path(), folder.path(), 5432).unwrap();
        fs::create_dir(paths.pgdata()).unwrap();
        let read = shut_down_at(&engine, &paths, &Owner::Ourselves).await;
        assert!(matches!(read, Err(PostgresError::Io { .. })), "{read:?}");
    }

    #[test]
    fn only_a_shutdown_in_order_has_an_end() {
        let said = |state| {
            format!(
                "Database cluster state:               {state}\nLatest checkpoint location:           16/B374D848\n"
            )
        };
        assert_eq!(parse(&said("shut down")), Some(Lsn(0x16_B374_D848)));
        for state in ["in production", "shut down in recovery", "shutting down"] {
            assert_eq!(parse(&said(state)), None, "{state}");
        }
    }
}

//! How a node that is down has ended, from its control file.

use std::ffi::OsStr;

use model::Lsn;

use super::{NodePaths, Owner, PostgresError, diagnose, tool};
use crate::engines::PostgresEngine;

/// Where the log of a node ends that was shut down in order; `None` of one that was not. Whoever has received more than
/// this has everything that it ever wrote.
///
/// # Errors
/// When its control file cannot be read.
pub async fn shut_down_at(
    engine: &PostgresEngine,
    paths: &NodePaths,
    owner: &Owner,
) -> Result<Option<Lsn>, PostgresError> {
    let pgdata = paths.pgdata();
    let arguments: [&OsStr; 2] = ["--pgdata".as_ref(), pgdata.as_os_str()];
    let said = tool::run(engine, owner, &pgdata, "pg_controldata", &arguments).await?;
    let said = said.map_err(|said| diagnose("pg_controldata", &said, &pgdata, &owner.name()))?;
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
    use super::*;

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

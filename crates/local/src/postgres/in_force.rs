//! Whether commits already go by a changed `synchronous_standby_names`.
//!
//! Every process of PostgreSQL reads a changed configuration for itself, once it comes to it. Whose confirmation counts
//! is up to each process that sends the log, and `pg_stat_replication` shows what it goes by (`sync_priority`). But
//! whether a commit waits at all stands in a flag in shared memory. The checkpointer sets it, which may be busy with a
//! checkpoint for minutes, and nothing in SQL shows it.
//!
//! What can be seen is that the checkpointer rests. It reads a new configuration before it waits for work, and with
//! SIGHUP on record it does not begin to wait. So it is sent SIGHUP itself, and then looked at twice, with a question
//! to PostgreSQL in between: it sleeps, no SIGHUP is pending, it has not run meanwhile (its context switches), and what
//! it sleeps in is that wait. All of this is done a second time. A process shows as sleeping from a moment before it
//! sleeps, in which it may still find that it was told something; it cannot be in that moment of the same wait after
//! another signal.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep};

use super::{NodePaths, Session, standby_names};

/// For a process that has nothing to do to read a file of a few lines, twice.
const PROOF_LIMIT: Duration = Duration::from_millis(200);
const PROOF_POLL: Duration = Duration::from_millis(2);
const SIGNALS: usize = 2;
/// Waits that the checkpointer begins only after it has read its configuration. The second, within a checkpoint that is
/// spread over time, has a name since version 15, and only since then ends by a signal.
const RESTS: [&str; 2] = ["CheckpointerMain", "CheckpointWriteDelay"];

/// Proves that commits on this node wait for one of `confirmed_by`, or for nobody where there are none. Whose confirmation
/// counts has to be looked at afterwards: see [`super::Follower::counts`].
///
/// Gives up after 200 ms, or when the session does not answer. Cancel safe.
///
/// # Errors
/// Why it is not proved, in words.
pub async fn prove_in_force(
    session: &Session,
    paths: &NodePaths,
    confirmed_by: &[String],
) -> Result<(), String> {
    let names = standby_names(confirmed_by);
    let deadline = Instant::now() + PROOF_LIMIT;
    for _ in 0..SIGNALS {
        let pid = checkpointer(session, &names).await?.pid;
        tell(pid, &paths.pgdata())?;
        while let Err(reason) = rests(session, pid, &names).await {
            if Instant::now() >= deadline {
                return Err(reason);
            }
            sleep(PROOF_POLL).await;
        }
    }
    Ok(())
}

/// Also that the postmaster has read the configuration, from which whoever connects next has it: a session is only ever
/// told by it.
async fn checkpointer(session: &Session, names: &str) -> Result<super::Checkpointer, String> {
    let seen = session.checkpointer().await.map_err(|error| crate::chain(&error))?;
    let (checkpointer, told) = seen.ok_or("it has no checkpointer")?;
    if told != names {
        return Err(format!("`synchronous_standby_names` is still {told:?}"));
    }
    Ok(checkpointer)
}

async fn rests(session: &Session, pid: u32, names: &str) -> Result<(), String> {
    let before = sleeping(pid)?;
    let checkpointer = checkpointer(session, names).await?;
    let wait = checkpointer.wait.unwrap_or_default();
    if checkpointer.pid != pid || !RESTS.contains(&wait.as_str()) {
        return Err(format!("its checkpointer is busy ({wait})"));
    }
    if sleeping(pid)? != before {
        return Err("its checkpointer does not rest".to_owned());
    }
    Ok(())
}

fn tell(pid: u32, pgdata: &Path) -> Result<(), String> {
    let cannot = |error: std::io::Error| format!("its checkpointer, pid {pid}, cannot be told: {error}");
    let named = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("its checkpointer has no pid")?;
    let process = pidfd_open(named, PidfdFlags::empty()).map_err(|error| cannot(error.into()))?;
    // A pid from within another namespace would be somebody else's here.
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).map_err(cannot)?;
    if cwd != pgdata.canonicalize().map_err(cannot)? {
        return Err(format!("pid {pid} is not its checkpointer"));
    }
    pidfd_send_signal(&process, Signal::HUP).map_err(|error| cannot(error.into()))
}

/// A process that sleeps, by how often it has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sleep {
    voluntary_switches: u64,
    other_switches: u64,
}

fn sleeping(pid: u32) -> Result<Sleep, String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.map_err(|error| format!("its checkpointer cannot be looked at: {error}"))?;
    sleep_of(&status)
}

/// Reads `/proc/PID/status` of a process that sleeps and has no SIGHUP pending.
fn sleep_of(status: &str) -> Result<Sleep, String> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).ok_or_else(|| format!("the kernel does not say `{name}` of its checkpointer"))
    };
    let number = |name: &str| field(name)?.parse::<u64>().map_err(|error| format!("{name}: {error}"));
    let state = field("State")?;
    if !state.starts_with('S') {
        return Err(format!("its checkpointer is {state}"));
    }
    for pending in ["SigPnd", "ShdPnd"] {
        let signals =
            u64::from_str_radix(field(pending)?, 16).map_err(|error| format!("{pending}: {error}"))?;
        if signals & 1 << (Signal::HUP.as_raw() - 1) != 0 {
            return Err("its checkpointer has not heard SIGHUP yet".to_owned());
        }
    }
    Ok(Sleep {
        voluntary_switches: number("voluntary_ctxt_switches")?,
        other_switches: number("nonvoluntary_ctxt_switches")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: &str, pending: &str) -> String {
        format!(
            "Name:\tpostgres\nState:\t{state}\nSigPnd:\t0000000000000000\nShdPnd:\t{pending}\n\
             voluntary_ctxt_switches:\t127\nnonvoluntary_ctxt_switches:\t7\n"
        )
    }

    #[test]
    fn only_a_process_that_sleeps_and_has_heard_every_sighup_rests() {
        let rest = |state, pending| sleep_of(&status(state, pending));
        let slept = Sleep { voluntary_switches: 127, other_switches: 7 };
        assert_eq!(rest("S (sleeping)", "0000000000000000"), Ok(slept));
        assert_eq!(rest("S (sleeping)", "0000000000000200"), Ok(slept), "SIGUSR1 is something else");
        assert!(rest("S (sleeping)", "0000000000000001").unwrap_err().contains("SIGHUP"));
        for state in ["R (running)", "T (stopped)", "D (disk sleep)"] {
            assert!(rest(state, "0000000000000000").unwrap_err().contains(state));
        }
    }

    #[test]
    fn what_the_kernel_does_not_say_is_no_proof() {
        let whole = status("S (sleeping)", "0000000000000000");
        for name in ["State", "SigPnd", "ShdPnd", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"] {
            let without = whole.replace(&format!("{name}:"), "Other:");
            assert!(sleep_of(&without).is_err(), "{name}");
        }
    }
}

//! What a process and its descendants use: CPU time and memory.
//!
//! The control group knows both for everyone who ever was in it, in two reads. Without one, `/proc` is walked
//! for the members of the session that are there now: what those used that have ended is missing, and shared
//! memory counts for each of them.

use std::time::Instant;

use crate::process::Process;
use crate::process::stat::Stat;

/// A reading. CPU time only grows as long as the control group lasts; rates come from two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub at: Instant,
    /// Since the start, in microseconds.
    pub cpu_us: u64,
    pub memory_bytes: u64,
    pub processes: usize,
    /// Processes killed because the size's memory was used up. `None` without a control group.
    pub oom_kills: Option<u64>,
}

/// Reads what `process` uses now. Costs some tens of microseconds with a control group, a walk of `/proc`
/// without.
pub fn of(process: &Process) -> Usage {
    let at = Instant::now();
    let pids = process.pids();
    let group = process.group().map(|group| group.usage()).unwrap_or_default();
    let walked = match (group.cpu_us, group.memory_bytes) {
        (Some(_), Some(_)) => Walked::default(),
        _ => walk(&pids),
    };
    Usage {
        at,
        cpu_us: group.cpu_us.unwrap_or(walked.cpu_us),
        memory_bytes: group.memory_bytes.unwrap_or(walked.memory_bytes),
        processes: pids.len(),
        oom_kills: group.oom_kills,
    }
}

impl Usage {
    /// Cores used since an earlier reading, on average: 0.5 is half of one core. 0 when no time has passed.
    pub fn cores_since(&self, earlier: &Usage) -> f64 {
        let elapsed_us = self.at.saturating_duration_since(earlier.at).as_micros();
        if elapsed_us == 0 {
            return 0.0;
        }
        self.cpu_us.saturating_sub(earlier.cpu_us) as f64 / elapsed_us as f64
    }
}

#[derive(Default)]
struct Walked {
    cpu_us: u64,
    memory_bytes: u64,
}

fn walk(pids: &[u32]) -> Walked {
    let ticks_per_second = system_constant(libc::_SC_CLK_TCK, 100);
    let page_bytes = system_constant(libc::_SC_PAGESIZE, 4096);
    let stats = pids.iter().filter_map(|pid| Stat::of(*pid));
    stats.fold(Walked::default(), |sum, stat| Walked {
        cpu_us: sum.cpu_us + stat.cpu_ticks * 1_000_000 / ticks_per_second,
        memory_bytes: sum.memory_bytes + stat.resident_pages * page_bytes,
    })
}

fn system_constant(name: libc::c_int, otherwise: u64) -> u64 {
    // SAFETY: asks for a number, with no memory involved.
    let value = unsafe { libc::sysconf(name) };
    u64::try_from(value).ok().filter(|value| *value > 0).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::cgroup::Cgroups;
    use crate::process::{BaseEnv, Command, OutputFiles, Priority, Processes, Spec, StopSignal};

    /// Holds 64 MiB, burns some CPU in a child, and says when it has done so.
    const PROGRAM: &str = "import os, sys, time\nheld = bytearray(os.urandom(1 << 20) * 64)\nif os.fork() == 0:\n    while time.process_time() < 0.3: pass\n    print('burnt', flush=True)\ntime.sleep(600)\n";

    async fn check(cgroups: Cgroups) {
        let dir = tempfile::tempdir().unwrap();
        let processes = Processes::new(dir.path(), cgroups, BaseEnv::pick(std::env::vars_os()));
        let out = dir.path().join("out");
        let spec = Spec {
            name: "web.1".to_owned(),
            command: Command::Argv(["python3", "-c", PROGRAM].map(Into::into).to_vec()),
            cwd: dir.path().to_owned(),
            env: BTreeMap::new(),
            user: None,
            size: model::Size::UNLIMITED,
            output: OutputFiles { stdout: out.clone(), stderr: dir.path().join("err") },
            priority: Priority::Normal,
            inherited_fds: Vec::new(),
            oom_score_adj: None,
            stop_signal: StopSignal::TermGroup,
        };
        let process = processes.spawn(spec).unwrap();
        let before = of(&process);
        let burnt = async {
            while !std::fs::read_to_string(&out).is_ok_and(|text| text.contains("burnt")) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), burnt).await.unwrap();
        let after = of(&process);
        assert_eq!(after.processes, 2);
        assert!(after.cpu_us - before.cpu_us >= 250_000, "{after:?}");
        assert!(after.cores_since(&before) > 0.0);
        assert!((60 << 20..400 << 20).contains(&after.memory_bytes), "{after:?}");
        process.kill_group().await.unwrap();
        processes.forget("web.1");
        processes.cgroups().remove_empty();
    }

    #[tokio::test]
    async fn a_process_and_its_children_are_counted_without_control_groups() {
        check(Cgroups::none("test", "switched off by the test")).await;
    }

    #[tokio::test]
    async fn a_process_and_its_children_are_counted_by_their_control_group() {
        let cgroups = Cgroups::detect(&format!("usagetest-{}", std::process::id()));
        match cgroups.unavailable() {
            Some(why) => eprintln!("skipped: {why}"),
            None => check(cgroups).await,
        }
    }
}

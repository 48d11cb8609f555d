//! What a process and its descendants use: CPU time and memory.
//!
//! The control group knows both for everyone who ever was in it, in two reads. Without one, `/proc` is walked
//! for the members of the session that are there now: what those used that have ended is missing, and shared
//! memory counts for each of them.
//!
//! A group is charged only for the pages that its own members touched first: of a small process the program and its
//! libraries are mostly somebody else's, and next to nothing is left. So memory is at least what the largest member has
//! resident, which is what `ps` and `top` say of it.

use std::time::Instant;

use crate::cgroup::Group;
use crate::process::Process;
use crate::process::stat::{self, Stat};

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
    /// How often the CPU of its size was given anew while it wanted any, and how often it was used up before: from two
    /// readings, the share of the time that it is held back. `None` without a limit.
    pub periods: Option<(u64, u64)>,
    /// The limit of CPU in force, in thousandths of a core.
    pub cpu_limit: Option<u32>,
}

/// Reads what `process` uses now. Costs a read for each of its members, and a handful more with a control group.
pub fn of(process: &Process) -> Usage {
    let at = Instant::now();
    let pids = process.pids();
    let group = process.group();
    let used = group.map(Group::usage).unwrap_or_default();
    let walked = walk(&pids);
    Usage {
        at,
        cpu_us: used.cpu_us.unwrap_or(walked.cpu_us),
        memory_bytes: used
            .memory_bytes
            .map_or(walked.memory_bytes, |charged| charged.max(walked.largest_bytes)),
        processes: pids.len(),
        oom_kills: used.oom_kills,
        periods: used.periods.zip(used.throttled_periods),
        cpu_limit: group.and_then(Group::cpu_limit),
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
    largest_bytes: u64,
}

fn walk(pids: &[u32]) -> Walked {
    let page_bytes = system_constant(libc::_SC_PAGESIZE, 4096);
    let stats = pids.iter().filter_map(|pid| Stat::of(*pid));
    stats.fold(Walked::default(), |sum, stat| Walked {
        cpu_us: sum.cpu_us + cpu_us(&stat),
        memory_bytes: sum.memory_bytes + stat.resident_pages * page_bytes,
        largest_bytes: sum.largest_bytes.max(stat.resident_pages * page_bytes),
    })
}

/// What one process itself has used, its children that ended left out.
pub(crate) fn cpu_us(stat: &Stat) -> u64 {
    ticks_us(stat.cpu_ticks)
}

/// What this process has used, and the programs that it runs now: all below it that stayed in its session, as who is
/// supervised does not. Less when a program has ended, for nobody tells those apart from who was supervised.
pub(crate) fn cpu_us_with_programs() -> u64 {
    let all: Vec<Stat> = stat::all().collect();
    let Some(own) = all.iter().find(|stat| stat.pid == std::process::id()) else { return 0 };
    let mut ticks = own.cpu_ticks;
    let mut parents = vec![own.pid];
    while let Some(parent) = parents.pop() {
        for stat in all.iter().filter(|stat| stat.parent == parent && stat.session == own.session) {
            ticks += stat.cpu_ticks + stat.waited_cpu_ticks;
            parents.push(stat.pid);
        }
    }
    ticks_us(ticks)
}

/// The kernel's ticks of `/proc`, in microseconds.
pub(crate) fn ticks_us(ticks: u64) -> u64 {
    ticks * 1_000_000 / system_constant(libc::_SC_CLK_TCK, 100)
}

fn system_constant(name: libc::c_int, otherwise: u64) -> u64 {
    // SAFETY: asks for a number, with no memory involved.
    let value = unsafe { libc::sysconf(name) };
    u64::try_from(value).ok().filter(|value| *value > 0).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::cgroup::Cgroups;
    use crate::process::{BaseEnv, Command, OutputFiles, Priority, Processes, Spec, StopSignal};

    /// Holds 64 MiB, burns some CPU in a child, and says when it has done so.
    const PROGRAM: &str = "import os, sys, time\nheld = bytearray(os.urandom(1 << 20) * 64)\nif os.fork() == 0:\n    while time.process_time() < 0.3: pass\n    print('burnt', flush=True)\ntime.sleep(600)\n";

    fn start(dir: &Path, cgroups: Cgroups, command: &[&str]) -> (Processes, Process) {
        let processes = Processes::new(dir, cgroups, BaseEnv::pick(std::env::vars_os()));
        let spec = Spec {
            name: "web.1".to_owned(),
            command: Command::Argv(command.iter().map(Into::into).collect()),
            cwd: dir.to_owned(),
            env: BTreeMap::new(),
            user: None,
            size: model::Size::UNLIMITED,
            output: OutputFiles { stdout: dir.join("out"), stderr: dir.join("err") },
            priority: Priority::Normal,
            inherited_fds: Vec::new(),
            oom_score_adj: None,
            stop_signal: StopSignal::TermGroup,
        };
        let process = processes.spawn(spec).unwrap();
        (processes, process)
    }

    async fn check(cgroups: Cgroups) {
        let dir = tempfile::tempdir().unwrap();
        let (processes, process) = start(dir.path(), cgroups, &["python3", "-c", PROGRAM]);
        let out = dir.path().join("out");
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

    /// Burns some CPU, says so, and ends when its input does.
    fn burner(program: &mut std::process::Command) -> std::process::Child {
        use std::process::Stdio;
        let mut burner = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 5];
        std::io::Read::read_exact(&mut burner.stdout.take().unwrap(), &mut said).unwrap();
        burner
    }

    #[test]
    fn a_program_that_is_run_counts_and_who_is_supervised_does_not() {
        const BURNS: &str = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint('burnt', flush=True)\nsys.stdin.read()";
        let end = |mut burner: std::process::Child| {
            drop(burner.stdin.take());
            burner.wait().unwrap();
        };
        let before = cpu_us_with_programs();
        // In a session of its own, as who is supervised.
        let supervised = burner(std::process::Command::new("setsid").args(["python3", "-c", BURNS]));
        assert!(cpu_us_with_programs() - before < 250_000);
        end(supervised);
        assert!(cpu_us_with_programs() - before < 250_000);
        // As a child of a program, and as one that has ended below a program.
        let running =
            burner(std::process::Command::new("sh").args(["-c", &format!("python3 -c \"{BURNS}\"; :")]));
        assert!(cpu_us_with_programs() - before >= 250_000);
        let ended = burner(
            std::process::Command::new("sh")
                .args(["-c", &format!("python3 -c \"{BURNS}\" < /dev/null; read x")]),
        );
        assert!(cpu_us_with_programs() - before >= 500_000);
        end(running);
        end(ended);
    }

    fn real_cgroups(tag: &str) -> Option<Cgroups> {
        let cgroups = Cgroups::detect(&format!("{tag}-{}", std::process::id()));
        if let Some(why) = cgroups.unavailable() {
            eprintln!("skipped: {why}");
            return None;
        }
        Some(cgroups)
    }

    #[tokio::test]
    async fn a_process_and_its_children_are_counted_by_their_control_group() {
        let Some(cgroups) = real_cgroups("usagetest") else { return };
        check(cgroups).await;
    }

    #[tokio::test]
    async fn a_small_process_is_shown_with_what_it_has_resident() {
        let Some(cgroups) = real_cgroups("smalltest") else { return };
        let dir = tempfile::tempdir().unwrap();
        // Once before: the pages of the program are charged to whoever is first.
        std::process::Command::new("sleep").arg("0").status().unwrap();
        let (processes, process) = start(dir.path(), cgroups, &["sleep", "600"]);
        let resident = || std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
        let kilobytes = |status: String| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        // It only grows from here; the kernel counts by the dozen pages.
        let before = kilobytes(resident()) * 1024;
        let shown = of(&process).memory_bytes;
        assert!(shown > 0 && shown >= before / 2, "{shown} bytes of {before}");
        process.kill_group().await.unwrap();
        processes.forget("web.1");
        processes.cgroups().remove_empty();
    }
}

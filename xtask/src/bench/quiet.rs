//! Whether the machine is quiet enough to be believed: before a run, between two, and what other programs use meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::machine::{CpuTimes, load_average};
use crate::failure::{Failure, Result};
use crate::house;

/// Processes that wished to run, per core, over the last minute.
const MAX_LOAD_PER_CORE: f64 = 0.5;
/// Of the time of all cores, just before a run by all, and during it by others.
const MAX_BUSY_PERCENT: f64 = 10.0;
/// Of the time of all cores, taken by other guests of the host.
const MAX_STEAL_PERCENT: f64 = 1.0;
const LOOK: Duration = Duration::from_secs(2);

/// Whether to measure on a busy machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    Refuse,
    /// And say so in the report.
    Measure,
}

/// From now on looks at what others use, until it is ended.
///
/// # Errors
/// When the machine is busy and that is to be refused.
pub fn must_be_quiet(busy: Busy) -> Result<Watch> {
    match (seen(), busy) {
        (Some(seen), Busy::Refuse) => Err(Failure::new(format!(
            "the machine is busy: {seen}\nhint: wait until it is quiet (a build leaves a load average behind), or \
             measure with --anyway, which marks the report"
        ))),
        (before, _) => Ok(Watch::begin(before)),
    }
}

/// Waits until the machine is quiet, and says so: what was measured before leaves a load average behind. Whoever waits in vain
/// finds out by [`must_be_quiet`].
pub fn wait(limit: Duration) {
    wait_until_nothing_is(limit, seen);
}

fn wait_until_nothing_is(limit: Duration, mut seen: impl FnMut() -> Option<String>) {
    let began = Instant::now();
    let mut is_said = false;
    while let Some(seen) = seen() {
        if began.elapsed() >= limit {
            eprintln!("    still busy after {} s: {seen}", limit.as_secs());
            return;
        }
        if !is_said {
            is_said = true;
            eprintln!("    waiting up to {} s for the machine to be quiet: {seen}", limit.as_secs());
        }
    }
}

/// What makes the machine busy now. Takes [`LOOK`].
fn seen() -> Option<String> {
    let load = load_average();
    let before = CpuTimes::now();
    std::thread::sleep(LOOK);
    let used = CpuTimes::now().since(&before);
    let limit = MAX_LOAD_PER_CORE * house::cores() as f64;
    let mut seen = Vec::new();
    if load > limit {
        seen.push(format!("load average {load:.2}, more than {limit:.2}"));
    }
    if used.busy_percent > MAX_BUSY_PERCENT {
        seen.push(format!(
            "{:.0} % of the processors in use, more than {MAX_BUSY_PERCENT} %",
            used.busy_percent
        ));
    }
    if used.steal_percent > MAX_STEAL_PERCENT {
        seen.push(format!("{:.1} % stolen by the host, more than {MAX_STEAL_PERCENT} %", used.steal_percent));
    }
    (!seen.is_empty()).then(|| seen.join("; "))
}

/// Looks at what other programs use while something is measured, on a thread of its own.
pub struct Watch {
    before: Option<String>,
    stop: Sender<()>,
    /// Gives the mean, in percent of all processors.
    thread: JoinHandle<f64>,
}

impl Watch {
    fn begin(before: Option<String>) -> Watch {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let (mut of_others, mut all) = (0, 0);
            let mut last = Look::now();
            loop {
                let is_over = stopped.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout);
                let now = Look::now();
                of_others += now.of_others_since(&last);
                all += now.times.all_since(&last.times);
                last = now;
                if is_over {
                    return of_others as f64 / f64::max(all as f64, 1.0) * 100.0;
                }
            }
        });
        Watch { before, stop, thread }
    }

    /// What makes the figures doubtful, for the report. `None`: nothing.
    pub fn end(self) -> Option<String> {
        drop(self.stop);
        // A thread that has panicked has said so.
        let percent = self.thread.join().unwrap_or_default();
        said(self.before, percent)
    }
}

fn said(before: Option<String>, percent: f64) -> Option<String> {
    let meanwhile = (percent > MAX_BUSY_PERCENT).then(|| {
        format!(
            "meanwhile other programs used {percent:.0} % of the processors, more than {MAX_BUSY_PERCENT} %"
        )
    });
    let seen: Vec<String> = before.into_iter().chain(meanwhile).collect();
    (!seen.is_empty()).then(|| seen.join("; "))
}

/// What all programs have used so far, and ours of that.
struct Look {
    times: CpuTimes,
    ours: u64,
}

impl Look {
    fn now() -> Look {
        let processes: Vec<Process> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Process::of(entry.file_name().to_str()?.parse().ok()?))
            .collect();
        let homes =
            [house::target(), house::root().to_owned()].map(|home| home.canonicalize().unwrap_or(home));
        let is_root =
            |process: &Process| process.pid == std::process::id() || process.is_of(homes.each_ref());
        Look { times: CpuTimes::now(), ours: ticks_below(&processes, is_root) }
    }

    /// What of ours ended within, and whose parent is gone, counts as of others: that is one look of many.
    fn of_others_since(&self, before: &Look) -> u64 {
        self.times.of_programs_since(&before.times).saturating_sub(self.ours.saturating_sub(before.ours))
    }
}

#[derive(Debug)]
struct Process {
    pid: u32,
    parent: u32,
    /// Used by it, and by those of its children that have ended (proc(5)).
    ticks: u64,
    /// Not known of those of other users.
    program: Option<PathBuf>,
}

impl Process {
    fn of(pid: u32) -> Option<Process> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok();
        Process::parse(pid, &text, program)
    }

    fn parse(pid: u32, stat: &str, program: Option<PathBuf>) -> Option<Process> {
        // The second field is a name in parentheses, which may itself hold anything.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let ticks = [14, 15, 16, 17].into_iter().filter_map(number).sum();
        Some(Process { pid, parent: u32::try_from(number(4)?).ok()?, ticks, program })
    }

    /// What was built here is ours: a daemon is nobody's child.
    fn is_of(&self, homes: [&PathBuf; 2]) -> bool {
        let is_in = |program: &Path| homes.iter().any(|home| program.starts_with(home));
        self.program.as_deref().is_some_and(is_in)
    }
}

/// Of those that are ours and of all below them.
fn ticks_below(processes: &[Process], is_root: impl Fn(&Process) -> bool) -> u64 {
    let mut ours: Vec<&Process> = processes.iter().filter(|process| is_root(process)).collect();
    let mut at = 0;
    while let Some(parent) = ours.get(at).map(|process| process.pid) {
        let is_new =
            |child: &&Process| child.parent == parent && !ours.iter().any(|one| one.pid == child.pid);
        let children: Vec<&Process> = processes.iter().filter(is_new).collect();
        ours.extend(children);
        at += 1;
    }
    ours.iter().map(|process| process.ticks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_busy_before_is_waited_for_and_not_for_ever() {
        let mut looks = [Some("load average 9"), Some("load average 2"), None].into_iter();
        wait_until_nothing_is(Duration::from_secs(60), || {
            looks.next().expect("no more looks").map(str::to_owned)
        });
        assert_eq!(looks.next(), None, "it looked until it was quiet");
        wait_until_nothing_is(Duration::ZERO, || Some("for ever".to_owned()));
    }

    #[test]
    fn ours_are_what_we_started_and_what_was_built_here_with_all_below_them() {
        let stat = |parent: u32, ticks: u32| {
            format!("1 (a ) b) S {parent} 1 1 0 -1 0 0 0 0 0 {ticks} 1 2 3 20 0 1 0 100 0 0\n")
        };
        let process = |pid, parent, ticks, program: &str| {
            Process::parse(pid, &stat(parent, ticks), Some(program.into())).unwrap()
        };
        let processes = [
            process(10, 1, 100, "/usr/bin/xtask"),
            process(12, 11, 200, "/usr/bin/pgbench"),
            process(11, 10, 300, "/bin/sh"),
            process(20, 1, 400, "/repo/target/release/switchback"),
            process(21, 20, 500, "/usr/lib/postgresql/postgres"),
            process(30, 1, 9_000, "/usr/bin/rustc"),
        ];
        let homes = ["/repo/target", "/repo"].map(PathBuf::from);
        let ours = |process: &Process| process.pid == 10 || process.is_of(homes.each_ref());
        assert_eq!(ticks_below(&processes, ours), 1_500 + 5 * 6);
    }

    #[test]
    fn a_page_is_marked_by_what_was_seen_before_and_by_what_others_used_meanwhile() {
        assert_eq!(said(None, 9.0), None);
        assert_eq!(said(Some("load average 9".to_owned()), 9.0).as_deref(), Some("load average 9"));
        let both = said(Some("load average 9".to_owned()), 23.4).unwrap();
        assert_eq!(
            both,
            "load average 9; meanwhile other programs used 23 % of the processors, more than 10 %"
        );
    }

    #[test]
    fn the_work_of_a_child_is_ours() {
        let before = Look::now();
        let burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        assert!(std::process::Command::new("sh").args(["-c", burn]).status().unwrap().success());
        let now = Look::now();
        assert!(now.ours > before.ours, "{} {}", now.ours, before.ours);
        assert!(now.of_others_since(&before) <= now.times.all_since(&before.times));
    }
}

//! A program under test with all its children: started, stopped, and what it has used.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::machine;
use crate::failure::{Failure, Result};

const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Stopped when dropped.
pub struct Program {
    child: Child,
}

/// Processor time since the start, two ways, and memory now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// `utime + stime` of proc(5), all processes.
    pub cpu_seconds: f64,
    /// The scheduler's own count of all threads: a cross-check.
    pub scheduled_seconds: f64,
    /// Memory shared between processes counts once (Pss).
    pub memory_bytes: u64,
}

impl Program {
    /// Starts `command` with its output in `log`. Its input is left as it was set.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> Result<Program> {
        let what = || Failure::while_doing(format!("{}", command.get_program().to_string_lossy()));
        let file = fs::File::create(log).map_err(Failure::while_doing(log.display()))?;
        let copy = file.try_clone().map_err(Failure::while_doing(log.display()))?;
        let what = what();
        let child = command.stdout(Stdio::from(file)).stderr(Stdio::from(copy)).spawn().map_err(what)?;
        Ok(Program { child })
    }

    pub fn usage(&self) -> Usage {
        usage_of_family(self.child.id())
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // TERM first: a master process takes its workers along.
        let _ = Command::new("kill").arg(self.child.id().to_string()).stderr(Stdio::null()).status();
        let deadline = Instant::now() + STOP_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        for pid in family(self.child.id()) {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        let _ = self.child.wait();
    }
}

/// What all of them have used together.
pub fn usage_of_all(programs: &[Program]) -> Usage {
    let pids: Vec<u32> = programs.iter().flat_map(|program| family(program.child.id())).collect();
    sum(&pids)
}

/// What the process `pid` and everything below it has used.
pub fn usage_of_family(pid: u32) -> Usage {
    sum(&family(pid))
}

/// What the process `pid` alone has used.
pub fn usage_of_one(pid: u32) -> Usage {
    sum(&[pid])
}

fn sum(pids: &[u32]) -> Usage {
    let ticks = machine::ticks_per_second();
    let mut usage = Usage::default();
    for &pid in pids {
        usage.cpu_seconds += cpu_ticks(pid) as f64 / ticks;
        usage.scheduled_seconds += scheduled_nanos(pid) as f64 / 1e9;
        usage.memory_bytes += memory_bytes(pid);
    }
    usage
}

/// The process and everything below it.
fn family(root: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> =
        pids.filter_map(|pid| Some((pid, stat_field(pid, 4)?.parse().ok()?))).collect();
    let mut family: Vec<u32> = parents.iter().filter(|(pid, _)| *pid == root).map(|(pid, _)| *pid).collect();
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    family
}

/// Field `number` of /proc/PID/stat, counted from 1 as in proc(5), from the third on.
fn stat_field(pid: u32, number: usize) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may itself hold anything.
    let (_, rest) = text.rsplit_once(") ")?;
    rest.split(' ').nth(number - 3).map(|field| field.trim().to_owned())
}

fn cpu_ticks(pid: u32) -> u64 {
    [14, 15].iter().filter_map(|field| stat_field(pid, *field)?.parse::<u64>().ok()).sum()
}

fn scheduled_nanos(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = |path: &Path| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    tasks.filter_map(|task| of_task(&task.path())).sum()
}

fn memory_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_belongs_to_the_family_and_its_work_is_counted() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let family = family(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(family.contains(&child.id()) && family.contains(&std::process::id()));
        assert!(usage_of_one(std::process::id()).memory_bytes > 0);
    }
}

//! The machine: what it is, and whether it is quiet enough to be believed.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::house;
use crate::shell;

/// Processes that wished to run, per core, over the last minute.
const MAX_LOAD_PER_CORE: f64 = 0.5;
/// Of the time of all cores, just before a run.
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

/// `None`: quiet. Otherwise what was seen, for the report.
///
/// # Errors
/// When it is busy and that is to be refused.
pub fn must_be_quiet(busy: Busy) -> Result<Option<String>> {
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
    if seen.is_empty() {
        return Ok(None);
    }
    let seen = seen.join("; ");
    match busy {
        Busy::Measure => Ok(Some(seen)),
        Busy::Refuse => Err(Failure::new(format!(
            "the machine is busy: {seen}\nhint: wait until it is quiet (a build leaves a load average behind), or \
             measure with --anyway, which marks the report"
        ))),
    }
}

fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// The line `cpu` of /proc/stat, in ticks (proc(5)).
#[derive(Debug, Clone)]
pub struct CpuTimes {
    all: u64,
    idle: u64,
    steal: u64,
}

pub struct Used {
    pub busy_percent: f64,
    pub steal_percent: f64,
}

impl CpuTimes {
    pub fn now() -> CpuTimes {
        CpuTimes::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn parse(text: &str) -> CpuTimes {
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        let of = |at: usize| ticks.get(at).copied().unwrap_or(0);
        // user nice system idle iowait irq softirq steal; what guests use is in user already.
        CpuTimes { all: ticks.iter().take(8).sum(), idle: of(3) + of(4), steal: of(7) }
    }

    pub fn since(&self, before: &CpuTimes) -> Used {
        let all = self.all.saturating_sub(before.all).max(1) as f64;
        let idle = self.idle.saturating_sub(before.idle) as f64;
        let steal = self.steal.saturating_sub(before.steal) as f64;
        Used { busy_percent: (all - idle) / all * 100.0, steal_percent: steal / all * 100.0 }
    }
}

/// For the head of a report.
pub fn description() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, m)| m);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = meminfo.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    json!({
        "processor": model.unwrap_or("unknown"),
        "cores": house::cores(),
        "memory_gb": kilobytes / 1024 / 1024,
        "kernel": said(Command::new("uname").arg("-sr")),
    })
}

/// The same for a page.
pub fn words() -> String {
    let machine = description();
    let text = |name: &str| machine[name].as_str().unwrap_or("unknown").to_owned();
    format!(
        "{}, {} cores, {} GB, {}",
        text("processor"),
        machine["cores"],
        machine["memory_gb"],
        text("kernel")
    )
}

pub fn today() -> String {
    said(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))
}

/// The first line a program says, on whichever stream it says it.
pub fn said(command: &mut Command) -> String {
    let output = command.output().ok();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").trim().to_owned()
}

/// Ticks per second of the figures in /proc.
pub fn ticks_per_second() -> f64 {
    let text = shell::read(Command::new("getconf").arg("CLK_TCK")).unwrap_or_default();
    text.trim().parse().unwrap_or(100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_the_disk_is_no_work_and_stolen_time_is_known() {
        let before = CpuTimes::parse("cpu  0 0 0 0 0 0 0 0 0 0\n");
        let used = CpuTimes::parse("cpu  20 0 10 60 5 0 0 5 20 0\n").since(&before);
        assert_eq!((used.busy_percent, used.steal_percent), (35.0, 5.0));
    }
}

//! The machine: what it is, and what its processors did.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::house;
use crate::shell;

/// Processes that wished to run, over the last minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// The line `cpu` of /proc/stat, in ticks (proc(5)).
#[derive(Debug, Clone)]
pub struct CpuTimes {
    all: u64,
    idle: u64,
    steal: u64,
    /// In programs, and in the kernel for them. What interrupts took is nobody's, and nobody's process has it.
    programs: u64,
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
        CpuTimes {
            all: ticks.iter().take(8).sum(),
            idle: of(3) + of(4),
            steal: of(7),
            programs: of(0) + of(1) + of(2),
        }
    }

    /// In ticks.
    pub fn all_since(&self, before: &CpuTimes) -> u64 {
        self.all.saturating_sub(before.all)
    }

    /// In ticks, by programs alone.
    pub fn of_programs_since(&self, before: &CpuTimes) -> u64 {
        self.programs.saturating_sub(before.programs)
    }

    pub fn since(&self, before: &CpuTimes) -> Used {
        let all = self.all_since(before).max(1) as f64;
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
        let after = CpuTimes::parse("cpu  20 0 8 60 5 1 1 5 20 0\n");
        let used = after.since(&before);
        assert_eq!((used.busy_percent, used.steal_percent), (35.0, 5.0));
        assert_eq!(after.of_programs_since(&before), 28);
    }
}

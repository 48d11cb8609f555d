//! `/proc/PID/stat`: the one line the kernel tells about a process.

/// The fields we use. All belong to the process as a whole, not to its first thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub pid: u32,
    pub state: u8,
    pub parent: u32,
    pub pgid: u32,
    pub session: u32,
    /// User and system time in clock ticks.
    pub cpu_ticks: u64,
    /// The same of its children that ended and were waited for, and of theirs.
    pub waited_cpu_ticks: u64,
    /// Since boot, in clock ticks. Together with the pid this names a process for the life of the machine.
    pub start_time_ticks: u64,
    pub resident_pages: u64,
    /// As `wait` would tell it. 0 while it runs, and for who may not look.
    pub exit_status: i32,
}

impl Stat {
    pub fn of(pid: u32) -> Option<Stat> {
        Stat::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name of the program stands in brackets and may itself hold brackets, spaces and newlines: the
    /// fields begin after the last bracket.
    pub fn parse(line: &[u8]) -> Option<Stat> {
        let open = line.iter().position(|b| *b == b'(')?;
        let close = line.iter().rposition(|b| *b == b')')?;
        let pid = std::str::from_utf8(line.get(..open)?).ok()?.trim().parse().ok()?;
        let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
        // The first field here is the third of the line.
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |nth: usize| fields.get(nth - 3)?.parse::<u64>().ok();
        Some(Stat {
            pid,
            state: *fields.first()?.as_bytes().first()?,
            parent: u32::try_from(number(4)?).ok()?,
            pgid: u32::try_from(number(5)?).ok()?,
            session: u32::try_from(number(6)?).ok()?,
            cpu_ticks: number(14)? + number(15)?,
            waited_cpu_ticks: number(16)? + number(17)?,
            start_time_ticks: number(22)?,
            resident_pages: number(24)?,
            exit_status: number(52).and_then(|status| i32::try_from(status).ok()).unwrap_or(0),
        })
    }

    /// It ended, and waits only to be reaped.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Whether SIGKILL waits for this process to come out of the kernel: it sits in a call that cannot be broken off, as one
/// to a disk that does not answer. It executes nothing of its program any more: the kernel looks for signals before it
/// returns to it. What it has asked the kernel for may still be done.
pub(crate) fn is_killed_in_kernel(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    is_held(&status) && kill_is_pending(&status)
}

/// In an uninterruptible sleep.
fn is_held(status: &str) -> bool {
    status
        .lines()
        .any(|line| line.strip_prefix("State:").is_some_and(|state| state.trim_start().starts_with('D')))
}

/// Of one thread, and of the process.
fn kill_is_pending(status: &str) -> bool {
    const SIGKILL: u64 = 1 << (libc::SIGKILL - 1);
    let pending = |line: &str| {
        let mask = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    status.lines().filter_map(pending).any(|mask| mask & SIGKILL != 0)
}

/// How often a process has had a processor, while it neither has one nor waits for one or for a disk; `None` otherwise. The
/// same number again: it has done nothing in between.
pub(crate) fn at_rest(pid: u32) -> Option<u64> {
    rest_in(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn rest_in(status: &str) -> Option<u64> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // Asleep, or stopped by a signal or a debugger.
    if !field("State:")?.starts_with(['S', 'T', 't']) {
        return None;
    }
    let switches = |name: &str| field(name)?.parse::<u64>().ok();
    Some(switches("voluntary_ctxt_switches:")? + switches("nonvoluntary_ctxt_switches:")?)
}

/// Every process that can be seen now.
pub(crate) fn all() -> impl Iterator<Item = Stat> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Stat::of(entry.file_name().to_str()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_named_to_confuse_does_not() {
        let line = b"42 (a) S 1) (\n) S 1 40 39 0 -1 4194560 1 0 0 0 7 5 30 4 20 0 1 0 12345 1000 33 18446744073709551615";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.pid, stat.state, stat.parent, stat.pgid, stat.session), (42, b'S', 1, 40, 39));
        assert_eq!((stat.cpu_ticks, stat.waited_cpu_ticks), (12, 34));
        assert_eq!((stat.start_time_ticks, stat.resident_pages), (12345, 33));
    }

    #[test]
    fn one_that_was_killed_and_has_not_ended_is_known_by_the_signal_that_waits() {
        let status =
            |thread: &str, process: &str| format!("Name:\tpostgres\nSigPnd:\t{thread}\nShdPnd:\t{process}\n");
        assert!(kill_is_pending(&status("0000000000000100", "0000000000000000")));
        assert!(kill_is_pending(&status("0000000000000000", "0000000000004100")));
        assert!(!kill_is_pending(&status("0000000000000000", "0000000000004000")));
        assert!(!kill_is_pending(""));
        assert!(is_held("Name:\tpostgres\nState:\tD (disk sleep)\n"));
        for state in ["R (running)", "S (sleeping)", "Z (zombie)"] {
            assert!(!is_held(&format!("Name:\tD\nState:\t{state}\n")), "{state}");
        }
        assert!(!is_killed_in_kernel(std::process::id()));
    }

    #[test]
    fn who_waits_for_a_processor_or_a_disk_is_not_at_rest() {
        let status = |state: &str| {
            format!("State:\t{state}\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n")
        };
        for state in ["S (sleeping)", "T (stopped)", "t (tracing stop)"] {
            assert_eq!(rest_in(&status(state)), Some(9), "{state}");
        }
        for state in ["R (running)", "D (disk sleep)", "Z (zombie)"] {
            assert_eq!(rest_in(&status(state)), None, "{state}");
        }
        assert_eq!(rest_in(""), None);
    }

    #[test]
    fn half_a_line_is_nobody() {
        assert_eq!(Stat::parse(b"42 (a) S 1 40"), None);
        assert_eq!(Stat::parse(b""), None);
    }
}

//! One group: its limits, who is in it, what it used, and its end.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use model::{ByteSize, Size};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Unavailable, V1Bases, detect};

/// The quota of CPU time is given anew this often. The kernel's own default.
const PERIOD_US: u64 = 100_000;

/// From here on a limit of version 1 is none: the kernel rounds its largest number down to whole pages.
const UNLIMITED_V1: u64 = 1 << 62;

/// The group of one process and all its descendants.
#[derive(Debug, Clone)]
pub struct Group {
    name: String,
    dirs: Dirs,
}

#[derive(Debug, Clone)]
pub(super) enum Dirs {
    V2(PathBuf),
    V1(V1Bases),
}

/// What a group used. A part is `None` when its controller is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time since the group was made, in microseconds.
    pub cpu_us: Option<u64>,
    /// Without the page cache that the kernel would give back first, as Kubernetes counts a working set.
    pub memory_bytes: Option<u64>,
    /// Processes killed because the group reached its memory limit.
    pub oom_kills: Option<u64>,
    /// Of a group with a quota: how often that was given anew while somebody wanted to run.
    pub periods: Option<u64>,
    /// And how often it was used up before the next was due.
    pub throttled_periods: Option<u64>,
}

/// A group's share of the CPU when others want it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    Normal,
    /// Yields to everything else: for builds.
    Low,
}

/// Why a limit or a group could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The group holds more than the new limit: it keeps the old one. Smaller only by starting it anew.
    #[error("memory cannot shrink to {limit} while {usage} is in use")]
    MemoryBusy { limit: ByteSize, usage: ByteSize },
    #[error("{}", file.display())]
    Io { file: PathBuf, source: io::Error },
}

impl LimitError {
    fn io(file: &Path, source: io::Error) -> LimitError {
        LimitError::Io { file: file.to_owned(), source }
    }
}

impl Group {
    pub(super) fn at(name: &str, dirs: Dirs) -> Group {
        Group { name: name.to_owned(), dirs }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes the limits of what runs, at once. An absent part of `size` becomes unlimited; a part whose
    /// controller is not there is left out ([`super::Cgroups::missing`]).
    ///
    /// # Errors
    /// [`LimitError::MemoryBusy`] when memory would shrink below what is in use: the CPU limit is
    /// set then, the memory limit stays. Otherwise what the kernel refused.
    pub fn apply(&self, size: Size) -> Result<(), LimitError> {
        self.apply_cpu(size.cpu.map(model::Cpu::millis))?;
        self.apply_memory(size.memory)
    }

    /// Changes the limit of CPU alone, in thousandths of a core. `None`: no limit.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn apply_cpu(&self, millis: Option<u32>) -> Result<(), LimitError> {
        let quota = millis.map(|millis| u64::from(millis) * PERIOD_US / 1_000);
        match &self.dirs {
            Dirs::V2(dir) => {
                let quota = quota.map_or("max".to_owned(), |us| us.to_string());
                write(&dir.join("cpu.max"), &format!("{quota} {PERIOD_US}"))
            }
            Dirs::V1(V1Bases { cpu: Some(dir), .. }) => {
                write(&dir.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
                let quota = quota.map_or("-1".to_owned(), |us| us.to_string());
                write(&dir.join("cpu.cfs_quota_us"), &quota)
            }
            Dirs::V1(_) => Ok(()),
        }
    }

    /// The limit of CPU in force, in thousandths of a core. `None`: there is none.
    pub fn cpu_limit(&self) -> Option<u32> {
        let (quota, period) = match &self.dirs {
            Dirs::V2(dir) => {
                let text = std::fs::read_to_string(dir.join("cpu.max")).ok()?;
                let (quota, period) = text.trim().split_once(' ')?;
                (quota.parse().ok()?, period.parse().ok()?)
            }
            Dirs::V1(bases) => {
                let dir = bases.cpu.as_ref()?;
                // Unlimited is -1, which is no number here.
                (number(&dir.join("cpu.cfs_quota_us"))?, number(&dir.join("cpu.cfs_period_us"))?)
            }
        };
        u32::try_from((quota * 1_000_u64).checked_div(period)?).ok()
    }

    fn apply_memory(&self, limit: Option<ByteSize>) -> Result<(), LimitError> {
        let (file, unlimited) = match &self.dirs {
            Dirs::V2(dir) => (dir.join("memory.max"), "max"),
            Dirs::V1(V1Bases { memory: Some(dir), .. }) => (dir.join("memory.limit_in_bytes"), "-1"),
            Dirs::V1(_) => return Ok(()),
        };
        let Some(limit) = limit else { return write(&file, unlimited) };
        // Version 2 takes any limit and then kills until it is kept; so we look first. Version 1 refuses by
        // itself, after it tried to reclaim.
        let usage = self.usage().memory_bytes.unwrap_or(0);
        let busy = LimitError::MemoryBusy { limit, usage: ByteSize::from_bytes(usage) };
        if usage > limit.bytes() {
            return Err(busy);
        }
        match write_file(&file, &limit.bytes().to_string()) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(busy),
            other => other.map_err(|error| LimitError::io(&file, error)),
        }
    }

    /// # Errors
    /// What the kernel refused.
    pub fn set_weight(&self, weight: Weight) -> Result<(), LimitError> {
        let (file, value) = match (&self.dirs, weight) {
            (Dirs::V2(dir), Weight::Normal) => (dir.join("cpu.weight"), "100"),
            (Dirs::V2(dir), Weight::Low) => (dir.join("cpu.weight"), "1"),
            (Dirs::V1(V1Bases { cpu: Some(dir), .. }), Weight::Normal) => (dir.join("cpu.shares"), "1024"),
            (Dirs::V1(V1Bases { cpu: Some(dir), .. }), Weight::Low) => (dir.join("cpu.shares"), "2"),
            (Dirs::V1(_), _) => return Ok(()),
        };
        write(&file, value)
    }

    /// Moves a running process in. What it started before stays where it is: better to join before the first
    /// `exec`.
    ///
    /// # Errors
    /// What the kernel refused: the process is gone, or may not be moved by us.
    pub fn join(&self, pid: u32) -> Result<(), LimitError> {
        for dir in self.folders() {
            write(&dir.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Open files that a child writes `0` to in order to enter the group itself.
    pub(crate) fn doors(&self) -> Result<Vec<OwnedFd>, LimitError> {
        let open = |dir: PathBuf| {
            let file = dir.join("cgroup.procs");
            let opened = OpenOptions::new().write(true).open(&file);
            opened.map(OwnedFd::from).map_err(|error| LimitError::io(&file, error))
        };
        self.folders().into_iter().map(open).collect()
    }

    /// The processes in the group. A process that ended and was not yet waited for is not one of them.
    ///
    /// # Errors
    /// When the group cannot be read. A group that is gone has no processes.
    pub fn procs(&self) -> Result<Vec<u32>, LimitError> {
        let mut all = Vec::new();
        for dir in self.folders() {
            match read_procs(&dir) {
                Ok(procs) => all.extend(procs),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(LimitError::io(&dir, error)),
            }
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// SIGKILL to everyone in the group, once; someone being born meanwhile may be missed where the kernel
    /// has no `cgroup.kill`, so repeat until [`Group::procs`] is empty.
    ///
    /// # Errors
    /// When the group cannot be read.
    pub fn kill(&self) -> Result<(), LimitError> {
        if let Dirs::V2(dir) = &self.dirs
            && write_file(&dir.join("cgroup.kill"), "1").is_ok()
        {
            return Ok(());
        }
        self.signal(Signal::KILL)
    }

    /// A signal to everyone in the group.
    ///
    /// # Errors
    /// When the group cannot be read.
    pub fn signal(&self, signal: Signal) -> Result<(), LimitError> {
        let pinned: Vec<_> = self
            .procs()?
            .into_iter()
            .filter_map(|pid| {
                let pid_typed = Pid::from_raw(i32::try_from(pid).ok()?)?;
                Some((pid, pidfd_open(pid_typed, PidfdFlags::empty()).ok()?))
            })
            .collect();
        // Listed, pinned, and still listed: so the number was not given to a stranger in between.
        let still = self.procs()?;
        for (pid, pidfd) in pinned {
            if still.contains(&pid) {
                // Gone meanwhile is what we want.
                let _ = pidfd_send_signal(&pidfd, signal);
            }
        }
        Ok(())
    }

    /// What the group used so far.
    pub fn usage(&self) -> Usage {
        match &self.dirs {
            Dirs::V2(dir) => {
                let current = number(&dir.join("memory.current"));
                let cache = keyed(&dir.join("memory.stat"), "inactive_file").unwrap_or(0);
                let cpu = std::fs::read_to_string(dir.join("cpu.stat")).unwrap_or_default();
                Usage {
                    cpu_us: value_of(&cpu, "usage_usec"),
                    periods: value_of(&cpu, "nr_periods"),
                    throttled_periods: value_of(&cpu, "nr_throttled"),
                    memory_bytes: current.map(|bytes| bytes.saturating_sub(cache)),
                    oom_kills: self.oom_kills(),
                }
            }
            Dirs::V1(bases) => {
                let memory = |file| bases.memory.as_ref().map(|dir| dir.join(file));
                let current = memory("memory.usage_in_bytes").and_then(|file| number(&file));
                let cache = memory("memory.stat").and_then(|file| keyed(&file, "total_inactive_file"));
                let cpu = bases.cpu.as_ref().map(|dir| dir.join("cpu.stat"));
                let cpu = cpu.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
                Usage {
                    periods: value_of(&cpu, "nr_periods"),
                    throttled_periods: value_of(&cpu, "nr_throttled"),
                    cpu_us: bases
                        .cpuacct
                        .as_ref()
                        .and_then(|dir| number(&dir.join("cpuacct.usage")))
                        .map(|ns| ns / 1_000),
                    memory_bytes: current.map(|bytes| bytes.saturating_sub(cache.unwrap_or(0))),
                    oom_kills: self.oom_kills(),
                }
            }
        }
    }

    /// Processes of the group that the kernel has killed because memory ran out, since the group was made.
    pub fn oom_kills(&self) -> Option<u64> {
        match &self.dirs {
            Dirs::V2(dir) => keyed(&dir.join("memory.events"), "oom_kill"),
            Dirs::V1(bases) => keyed(&bases.memory.as_ref()?.join("memory.oom_control"), "oom_kill"),
        }
    }

    /// What the group may use, where that is limited.
    pub fn memory_limit(&self) -> Option<ByteSize> {
        let file = match &self.dirs {
            Dirs::V2(dir) => dir.join("memory.max"),
            Dirs::V1(bases) => bases.memory.as_ref()?.join("memory.limit_in_bytes"),
        };
        // Unlimited is `max` in version 2, and in version 1 a number that no machine reaches.
        number(&file).filter(|bytes| *bytes < UNLIMITED_V1).map(ByteSize::from_bytes)
    }

    /// # Errors
    /// When something still runs in it.
    pub fn remove(&self) -> Result<(), LimitError> {
        for dir in self.folders() {
            match std::fs::remove_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(LimitError::io(&dir, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn exists(&self) -> bool {
        self.folders().iter().any(|dir| dir.is_dir())
    }

    pub(super) fn make(&self, app_dirs: &[PathBuf]) -> Result<(), LimitError> {
        let make = |dir: &Path| match std::fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(LimitError::io(dir, error)),
            _ => Ok(()),
        };
        for dir in app_dirs {
            make(dir)?;
            if matches!(self.dirs, Dirs::V2(_)) && !detect::hands_down(dir) {
                detect::enable(dir).map_err(|error| LimitError::io(dir, error))?;
            }
        }
        self.folders().iter().try_for_each(|dir| make(dir))
    }

    fn folders(&self) -> Vec<PathBuf> {
        match &self.dirs {
            Dirs::V2(dir) => vec![dir.clone()],
            Dirs::V1(dirs) => dirs.distinct(),
        }
    }
}

impl Dirs {
    /// Only the folders that pass; `None` when none does.
    pub(super) fn filtered(self, pass: impl Fn(&Path) -> bool) -> Option<Dirs> {
        match self {
            Dirs::V2(dir) => pass(&dir).then_some(Dirs::V2(dir)),
            Dirs::V1(dirs) => {
                let pass = |dir: Option<PathBuf>| dir.filter(|dir| pass(dir));
                let dirs = V1Bases {
                    cpu: pass(dirs.cpu),
                    cpuacct: pass(dirs.cpuacct),
                    memory: pass(dirs.memory),
                    pids: pass(dirs.pids),
                };
                (!dirs.distinct().is_empty()).then_some(Dirs::V1(dirs))
            }
        }
    }
}

pub(super) fn read_procs(dir: &Path) -> io::Result<Vec<u32>> {
    let text = std::fs::read_to_string(dir.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.trim().parse().ok()).collect())
}

/// One `write` call, as the kernel's files want it, and never making a file that is not there.
pub(super) fn write_file(file: &Path, value: &str) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).truncate(true).open(file)?;
    file.write_all(value.as_bytes())
}

fn write(file: &Path, value: &str) -> Result<(), LimitError> {
    write_file(file, value).map_err(|error| LimitError::io(file, error))
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The value in a line `key value`.
fn keyed(file: &Path, key: &str) -> Option<u64> {
    value_of(&std::fs::read_to_string(file).ok()?, key)
}

fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

//! A temporary folder that other users may walk through, and the processes that live off it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// After SIGKILL a process is gone at once, unless the disk holds it.
const KILL_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    pub(crate) fn new() -> Folder {
        let dir = tempfile::Builder::new().prefix("switchback-test-").tempdir().expect("a temporary folder");
        // Under a root daemon PostgreSQL and the app may be other users.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its owner may");
        Folder { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("a folder in a temporary folder");
        }
        fs::write(path, text).expect("a file in a temporary folder");
    }
}

/// The processes that work in `folder` or name it in their command line, this one excepted. Zombies do not count.
pub(crate) fn inhabitants(folder: &Path) -> Vec<Inhabitant> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id()).filter_map(|pid| Inhabitant::of(folder, pid)).collect()
}

#[derive(Debug)]
pub(crate) struct Inhabitant {
    pub(crate) pid: u32,
    pub(crate) command_line: String,
}

impl Inhabitant {
    fn of(folder: &Path, pid: u32) -> Option<Inhabitant> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        // A zombie has an empty command line, and its links cannot be read.
        let command_line = fs::read(proc.join("cmdline")).ok()?;
        let command_line = String::from_utf8_lossy(&command_line).replace('\0', " ").trim().to_owned();
        let works_there = fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        let is_named = command_line.contains(folder.to_str()?);
        (works_there || is_named).then_some(Inhabitant { pid, command_line })
    }
}

/// Kills whatever lives off `folder`, until nothing does.
pub(crate) fn evict(folder: &Path) {
    let deadline = Instant::now() + KILL_LIMIT;
    loop {
        let left = inhabitants(folder);
        if left.is_empty() || Instant::now() > deadline {
            return;
        }
        for inhabitant in left {
            signal(inhabitant.pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal. `false`: there is no such process.
pub(crate) fn signal(pid: u32, signal: Signal) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
}

/// Gone, or a zombie that only waits to be counted.
pub(crate) fn is_gone(pid: u32) -> bool {
    state(pid).is_none_or(|state| matches!(state, 'Z' | 'X'))
}

/// By a signal.
pub(crate) fn is_stopped(pid: u32) -> bool {
    state(pid) == Some('T')
}

/// As in proc_pid_stat(5). `None` where there is no such process.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The state follows the name, which may itself hold anything, in parentheses.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The processes whose parent is `pid`.
pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let parent = |candidate: &u32| {
        let stat = fs::read_to_string(format!("/proc/{candidate}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|candidate| parent(candidate) == Some(pid)).collect()
}

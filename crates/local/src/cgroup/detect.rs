//! Which folder we may make groups in.
//!
//! Version 2 has two rules that decide: a group that holds processes cannot hand controllers to its children,
//! and a process may be moved only by someone who may write to the group above both places. Hence the search
//! upwards from our own group for the first that hands out `cpu` and `memory`, or can be made to, and that we
//! may write to.

use std::io;
use std::path::{Path, PathBuf};

use super::group::{Dirs, read_procs, write_file};
use super::view::{Hierarchy, View};
use super::{Base, Unavailable, V1Bases};

const HINT_V2: &str =
    "sizes are not enforced; start as root, or with `systemd-run --user --scope -p Delegate=yes`";
const HINT_NONE: &str =
    "sizes are not enforced; they need a kernel with control groups mounted at /sys/fs/cgroup";
const HINT_V1: &str = "sizes are not enforced; with version 1 of control groups only root may set limits";

/// The leaf that the daemon moves to when its own group is needed as a parent.
const LEAF: &str = "switchback-daemon";

pub(super) fn base(view: &View) -> Base {
    let v2 = view.place(&Hierarchy::V2);
    if let Some(place) = &v2
        && controllers(&place.mount_point).is_some_and(|c| has_both(&c))
    {
        return match v2_base(view.movable, &place.dir, &place.mount_point) {
            Ok(base) => Base::V2(base),
            Err(reason) => Base::None(Unavailable { reason, hint: HINT_V2 }),
        };
    }
    let bases = v1_dirs(view);
    if bases.distinct().is_empty() {
        let reason = if v2.is_some() {
            "version 2 is mounted, but without its cpu and memory controllers".to_owned()
        } else {
            "neither version is mounted with a cpu or memory controller".to_owned()
        };
        return Base::None(Unavailable { reason, hint: HINT_NONE });
    }
    let writable = V1Bases {
        cpu: bases.cpu.filter(|dir| is_writable(dir)),
        cpuacct: bases.cpuacct.filter(|dir| is_writable(dir)),
        memory: bases.memory.filter(|dir| is_writable(dir)),
        pids: bases.pids.filter(|dir| is_writable(dir)),
    };
    if writable.distinct().is_empty() {
        return Base::None(Unavailable {
            reason: "this user may not make groups (version 1)".to_owned(),
            hint: HINT_V1,
        });
    }
    Base::V1(writable)
}

/// Where the process of `view` stands now.
pub(super) fn dirs_of(view: &View) -> Dirs {
    match view.place(&Hierarchy::V2) {
        Some(place) if controllers(&place.mount_point).is_some_and(|c| has_both(&c)) => Dirs::V2(place.dir),
        _ => Dirs::V1(v1_dirs(view)),
    }
}

fn v1_dirs(view: &View) -> V1Bases {
    let dir = |controller| view.place(&Hierarchy::V1 { controller }).map(|place| place.dir);
    V1Bases { cpu: dir("cpu"), cpuacct: dir("cpuacct"), memory: dir("memory"), pids: dir("pids") }
}

fn v2_base(movable: Option<u32>, own: &Path, mount_point: &Path) -> Result<PathBuf, String> {
    for dir in own.ancestors().take_while(|dir| dir.starts_with(mount_point)) {
        let writable = is_writable(dir)
            && is_writable(&dir.join("cgroup.procs"))
            && is_writable(&dir.join("cgroup.subtree_control"));
        if !writable {
            return Err(format!("this user may not make groups below {}", dir.display()));
        }
        if !controllers(dir).is_some_and(|c| has_both(&c)) {
            // The parent does not hand them down to here: look there.
            continue;
        }
        if hands_down(dir) || enable(dir).is_ok() {
            return Ok(dir.to_owned());
        }
        let alone = movable.is_some_and(|pid| read_procs(dir).is_ok_and(|procs| procs == [pid]));
        if alone && enter_leaf(dir).is_ok() {
            return Ok(dir.to_owned());
        }
    }
    Err(format!("processes stand in {}, and no group above it hands out cpu and memory", own.display()))
}

/// Safe because nobody else is there: moving only ourselves changes no limit that anyone relies on.
fn enter_leaf(dir: &Path) -> io::Result<()> {
    let leaf = dir.join(LEAF);
    match std::fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    write_file(&leaf.join("cgroup.procs"), "0")?;
    enable(dir).inspect_err(|_| {
        // Back to where we were: a half move would surprise whoever looks for the daemon.
        let _ = write_file(&dir.join("cgroup.procs"), "0");
        let _ = std::fs::remove_dir(&leaf);
    })
}

/// Hands the controllers we need to the children of `dir`.
pub(super) fn enable(dir: &Path) -> io::Result<()> {
    write_file(&dir.join("cgroup.subtree_control"), "+cpu +memory")?;
    if controllers(dir).is_some_and(|c| c.iter().any(|c| c == "pids")) {
        // Only for counting: worth having, never worth failing for.
        let _ = write_file(&dir.join("cgroup.subtree_control"), "+pids");
    }
    Ok(())
}

pub(super) fn hands_down(dir: &Path) -> bool {
    words(&dir.join("cgroup.subtree_control")).is_some_and(|c| has_both(&c))
}

fn controllers(dir: &Path) -> Option<Vec<String>> {
    words(&dir.join("cgroup.controllers"))
}

fn words(file: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(file).ok()?;
    Some(text.split_whitespace().map(str::to_owned).collect())
}

fn has_both(controllers: &[String]) -> bool {
    ["cpu", "memory"].iter().all(|needed| controllers.iter().any(|c| c == needed))
}

fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

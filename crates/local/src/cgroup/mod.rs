//! Control groups: the limits behind `size`, and the one list of processes that nobody can slip out of.
//!
//! A process group is left by anyone who calls `setsid`; a control group is not. So each process we start
//! stands in a group of its own even when it has no limit: stopping and fencing ask the group who is still
//! there. Version 2 and version 1 of the kernel's interface are spoken, the latter with its controllers
//! mounted apart. Without the right to make groups everything still runs, unlimited, and
//! [`Cgroups::unavailable`] says why, for the caller to say once.
//!
//! Groups stand at `<base>/switchback-<tag>/<name>`, where the base is our own group or the nearest one above
//! it that we may write to, and the tag, which the caller makes of the app's name and its state folder, tells
//! apps apart: two never meet.

mod detect;
mod group;
#[cfg(test)]
mod tests;
mod view;

use std::path::{Path, PathBuf};

pub use group::{Group, LimitError, Usage, Weight};
pub use view::View;

use group::Dirs;

/// Where this app's groups are made, if anywhere.
#[derive(Debug, Clone)]
pub struct Cgroups {
    tag: String,
    base: Base,
}

#[derive(Debug, Clone)]
enum Base {
    V2(PathBuf),
    V1(V1Bases),
    None(Unavailable),
}

/// The folder above ours in each hierarchy of version 1 that we may write to.
#[derive(Debug, Clone, Default)]
struct V1Bases {
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
}

/// Why processes run unlimited, and what would change that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no control groups: {reason}")]
pub struct Unavailable {
    pub reason: String,
    pub hint: &'static str,
}

/// A part of `size` that this machine cannot enforce although it has control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Cpu,
    Memory,
}

impl Cgroups {
    /// Finds out what this process may do. With version 2 this may move the daemon, when it is alone in its
    /// group, to a leaf below it, because a group that holds processes cannot hand controllers to its
    /// children.
    ///
    /// `tag` must differ between apps and between state folders, and be fit for a file name.
    ///
    /// Never fails: without groups, [`Cgroups::unavailable`] has the reason.
    pub fn detect(tag: &str) -> Cgroups {
        Cgroups::detect_in_any(View::of_this_process(), tag)
    }

    /// [`Cgroups::detect`] without moving anybody: a service manager puts the next daemon where it has put this one, and
    /// could not, were groups with controllers below.
    pub fn detect_in_place(tag: &str) -> Cgroups {
        Cgroups::detect_in_any(View::of_this_process().map(|view| View { movable: None, ..view }), tag)
    }

    fn detect_in_any(view: std::io::Result<View>, tag: &str) -> Cgroups {
        match view {
            Ok(view) => Cgroups::detect_in(&view, tag),
            Err(error) => Cgroups::none(tag, format!("/proc cannot be read: {error}")),
        }
    }

    /// [`Cgroups::detect`] for another view of the hierarchies than the real one.
    pub fn detect_in(view: &View, tag: &str) -> Cgroups {
        Cgroups { tag: tag.to_owned(), base: detect::base(view) }
    }

    /// Groups switched off, for whoever wants to run without.
    pub fn none(tag: &str, reason: impl Into<String>) -> Cgroups {
        Cgroups {
            tag: tag.to_owned(),
            base: Base::None(Unavailable { reason: reason.into(), hint: "sizes are not enforced" }),
        }
    }

    /// Why there are no groups; `None` when there are.
    pub fn unavailable(&self) -> Option<&Unavailable> {
        match &self.base {
            Base::None(why) => Some(why),
            _ => None,
        }
    }

    /// The parts of a `size` that cannot be enforced here.
    pub fn missing(&self) -> Vec<Missing> {
        let mut missing = Vec::new();
        let (cpu, memory) = match &self.base {
            Base::V2(_) => (true, true),
            Base::V1(bases) => (bases.cpu.is_some(), bases.memory.is_some()),
            Base::None(_) => (false, false),
        };
        if !cpu {
            missing.push(Missing::Cpu);
        }
        if !memory {
            missing.push(Missing::Memory);
        }
        missing
    }

    /// Makes the group `name` with the limits of `size`; one left from earlier is taken over and its limits
    /// set anew.
    ///
    /// # Errors
    /// [`LimitError::Unavailable`] without groups; otherwise what the kernel refused.
    pub fn create(&self, name: &str, size: model::Size) -> Result<Group, LimitError> {
        let group = self.group(name)?;
        group.make(&self.app_dirs())?;
        group.apply(size)?;
        Ok(group)
    }

    /// The group `name` as an earlier daemon left it, if it is there.
    pub fn adopt(&self, name: &str) -> Option<Group> {
        self.group(name).ok().filter(Group::exists)
    }

    /// The group of this app that `pid` stands in, wherever the daemon that made it was running.
    pub fn of_process(&self, pid: u32, name: &str) -> Option<Group> {
        if self.unavailable().is_some() {
            return None;
        }
        let view = View::of_process(pid).ok()?;
        let suffix = PathBuf::from(self.app_folder()).join(name);
        let dirs = detect::dirs_of(&view).filtered(|dir| dir.ends_with(&suffix))?;
        Some(Group::at(name, dirs))
    }

    /// Names of this app's groups that exist, whether or not anything runs in them.
    pub fn names(&self) -> Vec<String> {
        let app_dirs = self.app_dirs();
        let Some(dir) = app_dirs.first() else { return Vec::new() };
        let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Removes every group of this app in which nothing runs, and the app's own folder when none is left.
    pub fn remove_empty(&self) {
        for name in self.names() {
            if let Ok(group) = self.group(&name)
                && group.procs().is_ok_and(|procs| procs.is_empty())
            {
                // Someone may have entered since: then the kernel refuses, and rightly so.
                let _ = group.remove();
            }
        }
        for dir in self.app_dirs() {
            let _ = std::fs::remove_dir(dir);
        }
    }

    fn app_folder(&self) -> String {
        format!("switchback-{}", self.tag)
    }

    fn app_dirs(&self) -> Vec<PathBuf> {
        match &self.base {
            Base::V2(base) => vec![base.join(self.app_folder())],
            Base::V1(bases) => bases.map(|base| base.join(self.app_folder())).distinct(),
            Base::None(_) => Vec::new(),
        }
    }

    fn group(&self, name: &str) -> Result<Group, LimitError> {
        let below = |base: &Path| base.join(self.app_folder()).join(name);
        let dirs = match &self.base {
            Base::V2(base) => Dirs::V2(below(base)),
            Base::V1(bases) => Dirs::V1(bases.map(below)),
            Base::None(why) => return Err(LimitError::Unavailable(why.clone())),
        };
        Ok(Group::at(name, dirs))
    }
}

impl V1Bases {
    fn map(&self, f: impl Fn(&Path) -> PathBuf) -> V1Bases {
        let f = |dir: &Option<PathBuf>| dir.as_deref().map(&f);
        V1Bases { cpu: f(&self.cpu), cpuacct: f(&self.cpuacct), memory: f(&self.memory), pids: f(&self.pids) }
    }

    /// Controllers mounted together share a folder, which is to be made, joined and removed once.
    fn distinct(&self) -> Vec<PathBuf> {
        let mut dirs = Vec::new();
        for dir in [&self.pids, &self.cpu, &self.cpuacct, &self.memory].into_iter().flatten() {
            if !dirs.contains(dir) {
                dirs.push(dir.clone());
            }
        }
        dirs
    }
}

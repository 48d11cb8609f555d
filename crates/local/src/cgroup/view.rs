//! What the kernel says about hierarchies and where a process stands in them: `/proc/PID/cgroup` and
//! `mountinfo`.

use std::io;
use std::path::{Path, PathBuf};

/// The two texts that everything about groups is read from; given by tests to stand in a made-up hierarchy.
#[derive(Debug, Clone)]
pub struct View {
    /// As `/proc/PID/cgroup`.
    pub cgroup: String,
    /// As `/proc/self/mountinfo`.
    pub mountinfo: String,
    /// The one process that may be moved to a leaf, if any.
    pub movable: Option<u32>,
}

/// The mounted hierarchies, as they concern us.
pub(super) enum Hierarchy {
    V2,
    V1 { controller: &'static str },
}

impl View {
    /// # Errors
    /// When `/proc` is not there to be read.
    pub fn of_this_process() -> io::Result<View> {
        View::of_process(std::process::id())
    }

    /// # Errors
    /// When the process is gone or `/proc` cannot be read.
    pub fn of_process(pid: u32) -> io::Result<View> {
        Ok(View {
            cgroup: std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?,
            mountinfo: std::fs::read_to_string("/proc/self/mountinfo")?,
            movable: Some(pid),
        })
    }

    /// Where the process stands in one hierarchy: the mount point, and the folder of its group below or at
    /// it.
    pub(super) fn place(&self, hierarchy: &Hierarchy) -> Option<Place> {
        let (mount_point, mount_root) = self.mount(hierarchy)?;
        let path = self.cgroup.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let this = match hierarchy {
                Hierarchy::V2 => controllers.is_empty(),
                Hierarchy::V1 { controller } => controllers.split(',').any(|c| c == *controller),
            };
            this.then_some(path)
        })?;
        // In a container the mount may show only a part of the hierarchy: its root is then not `/`.
        let below =
            Path::new(path).strip_prefix(&mount_root).or_else(|_| Path::new(path).strip_prefix("/")).ok()?;
        // A path that begins with `..` lies outside of our namespace.
        if below.components().any(|part| part.as_os_str() == "..") {
            return None;
        }
        Some(Place {
            dir: if below.as_os_str().is_empty() { mount_point.clone() } else { mount_point.join(below) },
            mount_point,
        })
    }

    fn mount(&self, hierarchy: &Hierarchy) -> Option<(PathBuf, PathBuf)> {
        self.mountinfo.lines().find_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let mut mount = mount.split(' ').skip(3);
            let (root, point) = (mount.next()?, mount.next()?);
            let mut filesystem = filesystem.split(' ');
            let (kind, options) = (filesystem.next()?, filesystem.nth(1)?);
            let this = match hierarchy {
                Hierarchy::V2 => kind == "cgroup2",
                Hierarchy::V1 { controller } => {
                    kind == "cgroup" && options.split(',').any(|o| o == *controller)
                }
            };
            this.then(|| (unescape(point), unescape(root)))
        })
    }
}

pub(super) struct Place {
    pub dir: PathBuf,
    pub mount_point: PathBuf,
}

/// The kernel writes space, tab, newline and backslash in paths as three octal digits.
fn unescape(path: &str) -> PathBuf {
    PathBuf::from(
        path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\"),
    )
}

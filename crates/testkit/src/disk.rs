//! A disk that is full, or does not answer, when a test says so.
//!
//! It is mounted where only the calling thread and what that starts can see it: with the last of them it is gone, however
//! the test ends. One that is to be filled is a tmpfs: filling it shrinks it to what is in use, so that it costs no memory.
//! One that is to be frozen is an ext4 in a file: whoever writes to it then hangs in the kernel, as over a dead disk.

use std::ffi::{CString, OsStr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};
use rustix::thread::UnshareFlags;

/// While somebody writes, what is in use grows between a look and the shrinking.
const TRIES: u32 = 1_000;

/// A mounted disk of its own. Unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    bytes: u64,
    /// Of what can be frozen: the file that it is in.
    image: Option<tempfile::NamedTempFile>,
}

impl Disk {
    /// At `path`, which is made.
    ///
    /// # Errors
    /// When this user may not mount: why.
    pub fn mount(path: &Path, bytes: u64) -> Result<Disk, String> {
        let mounted = || {
            leave_mounts_to_ourselves(path)?;
            mount("switchback-test", path, "tmpfs", MountFlags::empty(), size(bytes).as_c_str())?;
            Ok::<(), std::io::Error>(())
        };
        mounted().map_err(|error| format!("a disk of its own cannot be mounted: {error}"))?;
        Ok(Disk { path: path.to_owned(), bytes, image: None })
    }

    /// One that can be frozen, at `path`, which is made.
    ///
    /// # Errors
    /// When this user may not mount, or has no file system to mount: why.
    pub fn mount_freezable(path: &Path, bytes: u64) -> Result<Disk, String> {
        let mounted = || {
            leave_mounts_to_ourselves(path)?;
            let image = tempfile::NamedTempFile::new()?;
            image.as_file().set_len(bytes)?;
            run("mkfs.ext4", &["-q".as_ref(), image.path().as_os_str()])?;
            run("mount", &["-o".as_ref(), "loop".as_ref(), image.path().as_os_str(), path.as_os_str()])?;
            let disk = Disk { path: path.to_owned(), bytes, image: Some(image) };
            // Whether it can be, is known before a test depends on it.
            run("fsfreeze", &["--freeze".as_ref(), path.as_os_str()])?;
            disk.thaw();
            Ok::<_, std::io::Error>(disk)
        };
        mounted().map_err(|error| format!("a disk of its own cannot be mounted and frozen: {error}"))
    }

    /// From now on it answers no write.
    ///
    /// # Panics
    /// When it cannot be frozen; see [`Disk::mount_freezable`].
    pub fn freeze(&self) {
        run("fsfreeze", &["--freeze".as_ref(), self.path.as_os_str()]).expect("it could be before");
    }

    /// It answers again.
    ///
    /// # Panics
    /// When it is not frozen.
    pub fn thaw(&self) {
        run("fsfreeze", &["--unfreeze".as_ref(), self.path.as_os_str()]).expect("it was frozen");
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Not one more block can be had on it.
    ///
    /// # Panics
    /// When what is in use does not stand still.
    pub fn fill(&self) {
        for _ in 0..TRIES {
            let disk = rustix::fs::statvfs(&self.path).expect("it is mounted");
            let used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize;
            // Refused when more is in use by now.
            if mount_remount(&self.path, MountFlags::empty(), size(used).as_c_str()).is_ok() {
                return;
            }
        }
        panic!("{} does not come to rest", self.path.display());
    }

    /// Gives it its size again.
    ///
    /// # Panics
    /// When the kernel refuses, which has no reason to.
    pub fn free(&self) {
        mount_remount(&self.path, MountFlags::empty(), size(self.bytes).as_c_str()).expect("it may grow");
    }
}

/// What a test needs, or that it is skipped, which is said.
///
/// # Panics
/// In CI, as `CI` says it, on a machine where loop devices can be had: there nothing stands in the way of a disk, and a test
/// that skips itself proves nothing.
pub fn or_skip<T>(had: Result<T, String>) -> Option<T> {
    let reason = match had {
        Ok(had) => return Some(had),
        Err(reason) => reason,
    };
    let in_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    let has_loop_devices =
        std::fs::OpenOptions::new().read(true).write(true).open("/dev/loop-control").is_ok();
    assert!(!(in_ci && has_loop_devices), "this machine has loop devices, and yet: {reason}");
    eprintln!("skipped: {reason}");
    None
}

fn size(bytes: u64) -> CString {
    CString::new(format!("size={bytes},mode=0755")).expect("a number holds no NUL")
}

impl Disk {
    /// Whatever a test that has failed has left: nobody who waits for a disk can be ended.
    pub(crate) fn answer_again(&self) {
        if self.image.is_some() {
            // Refused when it is not frozen.
            let _ = run("fsfreeze", &["--unfreeze".as_ref(), self.path.as_os_str()]);
        }
    }
}

/// Makes the folder. What is mounted from now on is seen by this thread and what it starts.
fn leave_mounts_to_ourselves(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path)?;
    // SAFETY: no table of file descriptors is unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    let ours_alone = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(mount_change("/", ours_alone)?)
}

fn run(program: &str, arguments: &[&OsStr]) -> std::io::Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(std::io::Error::other(format!("{program}: {}", said.trim())))
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.answer_again();
        // What is busy is detached: nobody finds it any more.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

//! A disk that is full when a test says so.
//!
//! It is a tmpfs, mounted where only the calling thread and what that starts can see it: with the last of them it is
//! gone, however the test ends. Filling it shrinks it to what is in use, so that it costs no memory.

use std::ffi::CString;
use std::path::{Path, PathBuf};

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
}

impl Disk {
    /// At `path`, which is made.
    ///
    /// # Errors
    /// When this user may not mount: why.
    pub fn mount(path: &Path, bytes: u64) -> Result<Disk, String> {
        let mounted = || {
            std::fs::create_dir_all(path)?;
            // SAFETY: no table of file descriptors is unshared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
            let ours_alone = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", ours_alone)?;
            mount("switchback-test", path, "tmpfs", MountFlags::empty(), size(bytes).as_c_str())?;
            Ok::<(), std::io::Error>(())
        };
        mounted().map_err(|error| format!("a disk of its own cannot be mounted: {error}"))?;
        Ok(Disk { path: path.to_owned(), bytes })
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

fn size(bytes: u64) -> CString {
    CString::new(format!("size={bytes},mode=0755")).expect("a number holds no NUL")
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is busy is detached: nobody finds it any more.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

//! How a process ended that is not our child.
//!
//! Its parent reaps it and learns the status; we only see the end. But as long as it is a zombie,
//! `/proc/PID/stat` shows the status to who may look, and since Linux 6.15 a pidfd that was open before tells
//! it once the parent has reaped. Older kernels do not, and then it is a matter of luck.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use super::stat::Stat;
use super::{Exit, Record};

/// `struct pidfd_info` of linux/pidfd.h, in its first size.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)`
const GET_INFO: libc::Ioctl = (3 << 30 | size_of::<PidfdInfo>() << 16 | 0xFF << 8 | 11) as libc::Ioctl;

pub(super) enum Told {
    Exit(Exit),
    /// Its parent has not reaped it yet.
    NotYet,
    Never,
}

pub(super) fn exit_of(record: &Record, pidfd: BorrowedFd<'_>) -> Told {
    if let Some(exit) = exit_of_zombie(record) {
        return Told::Exit(exit);
    }
    let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request names the size of the structure that the pointer is to.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &raw mut info) };
    match result {
        0 if info.mask & INFO_EXIT != 0 => Told::Exit(Exit::from_status(info.exit_code)),
        0 => Told::NotYet,
        _ => Told::Never,
    }
}

fn exit_of_zombie(record: &Record) -> Option<Exit> {
    let owner = std::fs::metadata(format!("/proc/{}", record.pid)).ok()?.uid();
    let stat = Stat::of(record.pid)?;
    let is_ours = stat.start_time_ticks == record.start_time_ticks && stat.is_zombie();
    // To others the kernel shows 0, which looks like success.
    let may_look = stat.exit_status != 0 || owner == rustix::process::geteuid().as_raw();
    (is_ours && may_look).then(|| Exit::from_status(stat.exit_status))
}

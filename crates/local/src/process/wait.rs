//! Waiting for the end of a process by its pidfd, which becomes readable then.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How often we look when the runtime cannot watch one more descriptor.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether the process has ended, reaped or not.
pub(super) fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
}

/// Cancel safe.
pub(super) async fn ended(pidfd: BorrowedFd<'_>) {
    // A copy of its own, because a descriptor can be watched only once and several may wait for one process.
    let watched = rustix::io::fcntl_dupfd_cloexec(pidfd, 3).map(watch);
    if let Ok(Ok(watched)) = watched {
        while !has_ended(pidfd) {
            match watched.readable().await {
                Ok(mut ready) => {
                    if !has_ended(pidfd) {
                        ready.clear_ready();
                    }
                }
                Err(_) => break,
            }
        }
    }
    // Out of descriptors, most likely: slower, but not less certain.
    while !has_ended(pidfd) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Cancel safe.
pub(super) async fn all_ended(pidfds: &[OwnedFd]) {
    for pidfd in pidfds {
        ended(pidfd.as_fd()).await;
    }
}

fn watch(pidfd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names one open descriptor until it is dropped, and is dropped after it was taken
    // off the watch.
    Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?)
}

//! A daemon that ends with whoever started it, however that ends: by a pipe of which the other end is theirs alone, and which
//! the kernel closes when they are gone.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use local::machine::{Report, StopMode};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::{Daemon, log_event};
use crate::api::Failure;

/// How often it is tried to delete everything. What is just being made, such as a release that is stored, stands in the way
/// until it is done.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// The daemon's end of the pipe, which is its standard input.
///
/// # Errors
/// When that is no pipe.
pub(super) fn lifeline() -> Result<Receiver, Failure> {
    let pipe = || Receiver::from_file(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    pipe().map_err(|error| Failure::refused(format!("--bound needs a pipe as standard input: {error}")))
}

impl Daemon {
    /// Waits until nobody holds the other end, then stops and deletes everything. Without a lifeline it never comes to that.
    ///
    /// # Errors
    /// When something cannot be stopped or deleted.
    pub(super) async fn outlive(&self, lifeline: Option<Receiver>) -> Result<(), Failure> {
        let Some(mut lifeline) = lifeline else { return std::future::pending().await };
        let mut nothing = [0; 64];
        while lifeline.read(&mut nothing).await.is_ok_and(|count| count > 0) {}
        tracing::info!("whoever started this daemon is gone: everything is stopped and deleted");
        let report: Report = Arc::new(log_event);
        let mut tries = 1;
        loop {
            match self.down(StopMode::Now, true, &report).await {
                Err(failure) if tries < TRIES => {
                    tracing::warn!(reason = failure.message, "not everything is deleted yet");
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done.map(drop),
            }
        }
    }
}

//! What the tests share: an edge on port 0, instances behind it and a client that sees every byte.

pub mod client;
pub mod front;
pub mod instance;

pub use client::{Client, Message};
pub use front::{Front, endpoint, upstream};
pub use instance::Instance;

use std::time::Duration;

/// Nothing in these tests takes so long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Fails the test instead of hanging it.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("this never happened: {what}"),
    }
}

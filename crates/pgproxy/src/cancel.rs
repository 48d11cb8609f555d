//! Passing a cancel request on to the connection that serves its client at this moment.

use std::io;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::connection::connect;
use crate::server::CancelKey;
use crate::shared::Shared;

/// A cancel request that cannot be delivered by then is dropped, as PostgreSQL drops one that comes too late.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// `packet`: of the CancelRequest, what follows the length. Whoever asks learns nothing, whatever happens.
pub(crate) async fn cancel(packet: &[u8], shared: &Shared) {
    shared.counters.cancel_requests.fetch_add(1, Relaxed);
    let Some((code, key)) = packet.split_first_chunk::<4>() else { return };
    let Some(serving) = shared.clients.serving(key) else { return };
    match timeout(CANCEL_TIMEOUT, deliver(code, &serving)).await {
        Ok(Ok(())) => {}
        Ok(Err(cause)) => {
            tracing::debug!(database = shared.name, %cause, "a cancel request was not delivered")
        }
        Err(_) => tracing::debug!(database = shared.name, "a cancel request was not delivered in time"),
    }
    serving.under_way.fetch_sub(1, AcqRel);
}

async fn deliver(code: &[u8; 4], serving: &CancelKey) -> io::Result<()> {
    let mut connection = connect(&serving.target.upstream).await?;
    let length = (8 + serving.pid_and_secret.len() as u32).to_be_bytes();
    connection.write_all(&[&length, &code[..], &serving.pid_and_secret].concat()).await?;
    // PostgreSQL closes when it has sent the signal.
    let _closed = connection.read(&mut [0]).await?;
    Ok(())
}

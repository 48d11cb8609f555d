//! After an upgrade: bytes both ways until both directions have ended, or nothing moves for too long.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::seam::{Next, Sink, Source};
use crate::server::Timeouts;
use crate::watchdog::Watchdog;

/// Relays until the end: `up` is from the client to the upstream, `down` the way back. `received` counts the bytes
/// towards the client.
pub(crate) async fn tunnel(
    timeouts: &Timeouts,
    up: (impl Source, impl Sink),
    down: (impl Source, impl Sink),
    received: &mut u64,
) {
    let (idle, write_idle) = (timeouts.tunnel_idle, timeouts.write_idle);
    let active = Cell::new(Instant::now());
    let mut watchdog = Watchdog::default();
    let mut sent = 0;
    let mut up = pin!(one_way(up, write_idle, &active, &mut sent));
    let mut down = pin!(one_way(down, write_idle, &active, received));
    let (mut up_open, mut down_open) = (true, true);
    poll_fn(|cx| {
        if up_open && let Poll::Ready(end) = up.as_mut().poll(cx) {
            up_open = false;
            down_open &= end == End::Orderly;
        }
        if down_open && let Poll::Ready(end) = down.as_mut().poll(cx) {
            down_open = false;
            up_open &= end == End::Orderly;
        }
        if !up_open && !down_open {
            return Poll::Ready(());
        }
        // The deadline moves with every byte of either direction.
        while watchdog.poll_expired(cx, active.get() + idle).is_ready() {
            if active.get().elapsed() >= idle {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The source ended and the sink's direction was closed.
    Orderly,
    Failed,
}

async fn one_way(
    (mut source, mut sink): (impl Source, impl Sink),
    write_idle: Duration,
    active: &Cell<Instant>,
    bytes: &mut u64,
) -> End {
    let mut watchdog = Watchdog::default();
    loop {
        let step = poll_fn(|cx| source.poll_next(cx)).await;
        active.set(Instant::now());
        let written = match step {
            Ok(Next::Data) => {
                let piece = source.piece();
                *bytes += piece.as_slice().len() as u64;
                let write = pin!(async {
                    sink.send(piece).await?;
                    sink.flush().await
                });
                watchdog.within(write_idle, write).await
            }
            Ok(Next::End) => {
                let _ = watchdog.within(write_idle, pin!(sink.end(None))).await;
                return End::Orderly;
            }
            Err(_) => return End::Failed,
        };
        if written != Ok(Ok(())) {
            return End::Failed;
        }
    }
}

//! Listening, serving, and stopping in order.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::config;
use crate::db::Database;
use crate::error::StartError;
use crate::web;

/// After the order to stop, running requests get this long. Below the 30 s that a supervisor usually grants.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// Serves until SIGTERM or SIGINT, then closes idle connections, finishes running requests, and returns.
///
/// # Errors
/// When the port cannot be had, or requests still run after [`DRAIN_LIMIT`].
pub fn run(config: config::Serve) -> Result<(), StartError> {
    let runtime = tokio::runtime::Runtime::new().map_err(StartError::Server)?;
    runtime.block_on(serve(config))
}

async fn serve(config: config::Serve) -> Result<(), StartError> {
    let terminate = signal(SignalKind::terminate()).map_err(StartError::Server)?;
    let interrupt = signal(SignalKind::interrupt()).map_err(StartError::Server)?;
    let app = web::router(web::Site::new(Database::new(&config.database)?));

    let listener = listen(config.port).await?;
    let port = listener.local_addr().map_err(StartError::Server)?.port();
    println!(r#"{{"event":"listening","port":{port}}}"#);

    // Answers are written whole, so waiting to fill packets would only delay them. A connection that refuses the
    // option works without it.
    let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
    let (stopping, stop_seen) = oneshot::channel();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        stop_asked(terminate, interrupt).await;
        // Nobody listens only when the server has ended already.
        let _ = stopping.send(());
    });
    let overdue = async {
        match stop_seen.await {
            Ok(()) => tokio::time::sleep(DRAIN_LIMIT).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = server => ended.map_err(StartError::Server)?,
        () = overdue => return Err(StartError::Drain(DRAIN_LIMIT)),
    }
    println!(r#"{{"event":"stopped"}}"#);
    Ok(())
}

async fn stop_asked(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
    println!(r#"{{"event":"stopping"}}"#);
}

/// Listens on every address, of both families where the system has IPv6.
async fn listen(port: u16) -> Result<TcpListener, StartError> {
    let without_ipv6 = |error: &std::io::Error| {
        matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::Unsupported)
            || error.raw_os_error() == Some(EAFNOSUPPORT)
    };
    let listening = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if without_ipv6(&error) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
        other => other,
    };
    listening.map_err(|cause| StartError::Listen { port, cause })
}

/// Linux's number for a missing address family, which `ErrorKind` has no stable name for.
const EAFNOSUPPORT: i32 = 97;

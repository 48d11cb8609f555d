//! One client: what it came for, its wait for the database, and its session.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::config::Database;
use crate::opening::{NotOpened, Opening, fatal, read_opening};
use crate::relay::relay;
use crate::status::{Counters, Gauge};
use crate::upstream::{Answered, Connection, begin_session};

/// Between attempts to reach the database: short enough that a restart is not prolonged noticeably.
const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_millis(100);
/// A cancel request that cannot be delivered by then is dropped, as PostgreSQL drops one that comes too late.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// For the client to take a refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 6;

/// What every session of one database shares.
pub(crate) struct Context {
    pub name: String,
    pub settings: watch::Receiver<Database>,
    pub counters: std::sync::Arc<Counters>,
}

/// Serves one client to its end. Dropping the future closes both connections.
pub(crate) async fn serve(mut client: TcpStream, mut context: Context) {
    if let Err(cause) = tune(&client) {
        tracing::debug!(%cause, "a client connection could not be tuned");
        return;
    }
    match read_opening(&mut client).await {
        Ok(Opening::Session(startup)) => session(client, &startup, &mut context).await,
        Ok(Opening::Cancel(packet)) => cancel(&packet, &context).await,
        Err(NotOpened::Silent) => {}
        Err(NotOpened::Protocol) => {
            context.counters.refused_protocol.fetch_add(1, Relaxed);
        }
    }
}

fn tune(client: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(client).set_tcp_keepalive(&keepalive)
}

async fn session(mut client: TcpStream, startup: &[u8], context: &mut Context) {
    let counters = context.counters.clone();
    let max_clients = context.settings.borrow().max_clients;
    let Some(_client) = Gauge::enter_below(&counters.clients, max_clients.into()) else {
        counters.refused_full.fetch_add(1, Relaxed);
        let message = format!("sorry, too many clients already: `{}` takes {max_clients}", context.name);
        let hint = "Close idle connections, or give the app's connection pools a smaller maximum.";
        return refuse(client, &fatal("53300", &message, hint)).await;
    };
    counters.received_bytes.fetch_add(startup.len() as u64, Relaxed);
    let mut answered = match wait_for_database(&client, startup, context).await {
        Waited::Answered(answered) => answered,
        Waited::ClientLeft => return,
        Waited::GaveUp { after, cause } => {
            counters.refused_unavailable.fetch_add(1, Relaxed);
            tracing::warn!(database = context.name, %cause, "gave up waiting for the database");
            let message = format!(
                "the database `{}` did not answer within {} ms: {cause}",
                context.name,
                after.as_millis()
            );
            let hint = "It may be restarting or stopped; its own log says why.";
            return refuse(client, &fatal("57P03", &message, hint)).await;
        }
    };
    let first = &answered.first_bytes;
    counters.sent_bytes.fetch_add(first.len() as u64, Relaxed);
    if client.write_all(first).await.is_ok() {
        // A reset by either side is an ordinary end of a session.
        let _ = relay(&mut client, &mut answered.connection, &counters).await;
    }
}

enum Waited {
    Answered(Answered),
    ClientLeft,
    GaveUp { after: Duration, cause: io::Error },
}

async fn wait_for_database(client: &TcpStream, startup: &[u8], context: &mut Context) -> Waited {
    let _waiting = Gauge::enter(&context.counters.waiting);
    let began = Instant::now();
    let mut pause = RETRY_FIRST;
    loop {
        // Read anew for each attempt: the database may have moved.
        let (upstream, wait) = {
            let settings = context.settings.borrow_and_update();
            (settings.upstream.clone(), Duration::from_millis(settings.connect_wait_ms))
        };
        let deadline = began + wait;
        let attempt = async {
            timeout_at(deadline, begin_session(&upstream, startup))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        let cause = tokio::select! {
            attempt = attempt => match attempt {
                Ok(answered) => return Waited::Answered(answered),
                Err(cause) => cause,
            },
            () = left(client) => return Waited::ClientLeft,
            // An attempt at an upstream that is no longer the one is not worth waiting for.
            Ok(()) = context.settings.changed() => continue,
        };
        if Instant::now() + pause >= deadline {
            return Waited::GaveUp { after: wait, cause };
        }
        tokio::select! {
            () = sleep(pause) => pause = RETRY_MAX.min(pause * 2),
            () = left(client) => return Waited::ClientLeft,
            Ok(()) = context.settings.changed() => pause = RETRY_FIRST,
        }
    }
}

/// Resolves when the client has closed. One that sends more before it was answered is simply not watched.
async fn left(client: &TcpStream) {
    match client.peek(&mut [0]).await {
        Ok(0) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}

/// The key in the packet is PostgreSQL's own and goes through as it is.
async fn cancel(packet: &[u8], context: &Context) {
    context.counters.cancel_requests.fetch_add(1, Relaxed);
    let upstream = context.settings.borrow().upstream.clone();
    let deliver = async {
        let mut connection = Connection::open(&upstream).await?;
        connection.write_all(packet).await?;
        // PostgreSQL closes when it has acted; the client waits for the same.
        connection.read(&mut [0]).await
    };
    match timeout(CANCEL_TIMEOUT, deliver).await {
        Ok(Ok(_)) => {}
        Ok(Err(cause)) => {
            tracing::debug!(database = context.name, %cause, "a cancel request was not delivered")
        }
        Err(_) => tracing::debug!(database = context.name, "a cancel request was not delivered in time"),
    }
}

async fn refuse(mut client: TcpStream, packet: &[u8]) {
    let answer = async {
        client.write_all(packet).await?;
        client.shutdown().await?;
        // Closing before the client has read would reset the connection and with it lose the message.
        while client.read(&mut [0; 256]).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether it was heard makes no difference to us.
    let _ = timeout(REFUSAL_TIMEOUT, answer).await;
}

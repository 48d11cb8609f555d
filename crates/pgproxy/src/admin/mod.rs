//! Views of a database's proxy, for people and their tools: `SHOW POOLS` and the like, in the words of PgBouncer's console.
//!
//! Whoever names the database `switchback` and has the login that [`crate::config::Database::admin`] names comes in here and
//! not to PostgreSQL. The views can be read by the simple protocol, and nothing can be changed. No query of a client and no
//! password is in them. Without that login there is no such database.

mod table;
mod views;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::credentials::AdminLogin;
use crate::frame::{Cut, Framer};
use crate::login::refuse;
use crate::message::{Refusal, Severity, TransactionStatus, body, parameter_status, ready, until_nul};
use crate::shared::{Served, Shared};
use crate::status::Gauge;
use crate::tls::ClientStream;
use crate::wire::Wire;

/// What a client names to come here.
pub(crate) const DATABASE: &str = "switchback";
/// Sessions at once. They do not count as clients: one must get in when there are too many of these.
const MAX_SESSIONS: u64 = 8;
/// A session that asks nothing for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// For a client to take an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer messages have no answer.
const MAX_MESSAGE_BYTES: usize = 1024;

/// Serves one client that has logged in to its end. Dropping the future closes its connection.
pub(crate) async fn serve(
    mut client: Wire<ClientStream>,
    login: &Arc<AdminLogin>,
    shared: &Shared,
    served: &watch::Receiver<Arc<Served>>,
) {
    // Counted once they are let in: whoever has no password must keep nobody out.
    let Some(_session) = Gauge::enter_below(&shared.counters.admins, MAX_SESSIONS) else {
        let message = format!("{MAX_SESSIONS} sessions look at `{}` already", shared.name);
        return refuse(client, &Refusal::new("53300", message, "Close one of them.")).await;
    };
    greet(&mut client.output);
    let end = converse(&mut client, login, shared, served).await;
    if let Err(End::Told(refusal)) = end {
        refuse(client, &refusal).await;
    }
}

/// Why a session ends.
enum End {
    /// The client said so, or is gone.
    Client,
    Told(Refusal),
}

/// What libraries need to know of a server before they ask.
fn greet(out: &mut BytesMut) {
    for (name, value) in [
        ("server_version", concat!(env!("CARGO_PKG_VERSION"), " (switchback)")),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ] {
        parameter_status(out, name.as_bytes(), value.as_bytes());
    }
    ready(out, TransactionStatus::Idle);
}

async fn converse(
    client: &mut Wire<ClientStream>,
    login: &Arc<AdminLogin>,
    shared: &Shared,
    served: &watch::Receiver<Arc<Served>>,
) -> Result<(), End> {
    let mut framer = Framer::new(0);
    // After an error in the extended protocol, until the client's Sync.
    let mut is_skipping = false;
    loop {
        let written = timeout(WRITE_TIMEOUT, client.flush()).await;
        written.map_err(io::Error::from).flatten().map_err(|_| End::Client)?;
        let said =
            timeout(IDLE_TIMEOUT, next(client, &mut framer)).await.unwrap_or_else(|_| Err(too_idle()))?;
        let now = served.borrow().clone();
        if !now.admin.as_ref().is_some_and(|in_force| Arc::ptr_eq(in_force, login)) {
            let message = "the login for this view has changed";
            return Err(End::Told(Refusal::new("57P01", message, "Log in anew.")));
        }
        let out = &mut client.output;
        match said.first() {
            Some(b'Q') => {
                is_skipping = false;
                views::answer(until_nul(body(&said)), shared, &now, out);
                ready(out, TransactionStatus::Idle);
            }
            Some(b'X') | None => return Err(End::Client),
            Some(b'S') => {
                is_skipping = false;
                ready(out, TransactionStatus::Idle);
            }
            Some(b'H') => {}
            Some(_) if is_skipping => {}
            Some(_) => {
                is_skipping = true;
                let message = "these views can be read by the simple protocol alone";
                let hint = "psql speaks it; libraries have an option for it.";
                Refusal::new("0A000", message, hint).write(Severity::Error, out);
            }
        }
    }
}

fn too_idle() -> End {
    let message = format!("nothing was asked for {} s", IDLE_TIMEOUT.as_secs());
    End::Told(Refusal::new("57P05", message, "Connect again."))
}

async fn next(client: &mut Wire<ClientStream>, framer: &mut Framer) -> Result<BytesMut, End> {
    loop {
        match framer.cut(&client.input) {
            Ok(Cut::Whole { bytes, .. }) if bytes <= MAX_MESSAGE_BYTES => {
                return Ok(client.input.split_to(bytes));
            }
            Ok(Cut::More) => client.fill().await.map_err(|_| End::Client)?,
            _ => {
                let message = format!("nothing that is longer than {MAX_MESSAGE_BYTES} bytes is understood");
                return Err(End::Told(Refusal::new("08P01", message, "SHOW HELP lists what is.")));
            }
        }
    }
}

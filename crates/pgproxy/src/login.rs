//! A client's way in: what it came for, encryption, its password, and what it is told before its first request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::acquire::acquire;
use crate::admin;
use crate::cancel::cancel;
use crate::credentials::AdminLogin;
use crate::door::{self, Place};
use crate::frame::{Cut, Framer, HEADER_BYTES};
use crate::message::{
    Refusal, Severity, TransactionStatus, body, cstr, message, parameter_status, ready, split_cstr,
};
use crate::opening::{Encryption, NotOpened, Opening, read_opening};
use crate::scram::{Exchange, Failed, MECHANISM, Verifier};
use crate::server::Parameters;
use crate::session::Session;
use crate::settings::Settings;
use crate::shared::{Arrival, Clients, Served, Shared};
use crate::startup::Startup;
use crate::status::Gauge;
use crate::tls::ClientStream;
use crate::wire::{Either, Wire};

/// From the first byte to the password's proof. A client that takes longer is closed.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);
/// For the client to take a refusal.
pub(crate) const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Of the messages in a SASL exchange.
const MAX_SASL_BYTES: usize = 2_048;

const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 6;

/// Who has come to the door, and may come in.
enum Came {
    /// With the packet of a cancel request.
    ToCancel(Vec<u8>),
    AsAdmin(Wire<ClientStream>, Arc<AdminLogin>),
    AsClient(Wire<ClientStream>, Startup),
}

/// Why a client does not come in.
enum Refused {
    /// It left, or broke the protocol so early that there is nothing to tell it.
    Silently,
    With(Refusal),
}

/// Serves one client to its end. Dropping the future closes its connections.
pub(crate) async fn serve(
    client: TcpStream,
    shared: Arc<Shared>,
    mut served: watch::Receiver<Arc<Served>>,
    place: Place,
) {
    let (at, address) = (Instant::now(), client.peer_addr().ok());
    if let Err(cause) = tune(&client) {
        tracing::debug!(%cause, "a client connection could not be tuned");
        return;
    }
    let max_clients = served.borrow().config.max_clients;
    let (mut client, startup) = match place.come_in(come_in(client, &shared, &served)).await.flatten() {
        None => return,
        Some(Came::ToCancel(packet)) => {
            let limit = door::capacity(max_clients) as u64;
            match Gauge::enter_below(&shared.counters.cancelling, limit) {
                Some(_request) => cancel(&packet, &shared).await,
                None => drop(shared.counters.refused_full.fetch_add(1, Relaxed)),
            }
            return;
        }
        Some(Came::AsAdmin(client, login)) => return admin::serve(client, &login, &shared, &served).await,
        Some(Came::AsClient(client, startup)) => (client, startup),
    };
    // Counted once it is let in: whoever has no password must take nobody's place.
    let Some(_client) = Gauge::enter_below(&shared.counters.clients, max_clients.into()) else {
        shared.counters.refused_full.fetch_add(1, Relaxed);
        let message = format!("sorry, too many clients already: `{}` takes {max_clients}", shared.name);
        let hint = "Close idle connections, or give the app's connection pools a smaller maximum.";
        return refuse(client, &Refusal::new("53300", message, hint)).await;
    };
    let settings = startup.settings;
    let told = match begin(&mut client, &settings, &shared, &mut served).await {
        Ok(told) => told,
        Err(Refused::Silently) => return,
        Err(Refused::With(refusal)) => return refuse(client, &refusal).await,
    };
    let named = settings.raw().find(|(name, _)| *name == "application_name");
    let application_name = named.map(|(_, value)| value.to_owned());
    let is_encrypted = matches!(client.stream(), Either::Other(_));
    let arrival = Arrival { at, address, is_encrypted, application_name };
    let session = match Clients::register(&shared, arrival) {
        Ok(registered) => {
            let key = registered.slot.key();
            message(&mut client.output, b'K', |out| out.put_slice(&key));
            ready(&mut client.output, TransactionStatus::Idle);
            Session::new(shared.clone(), served, registered, client, settings, told)
        }
        Err(cause) => {
            tracing::error!(%cause, "the system gives no random numbers");
            return;
        }
    };
    session.run().await;
}

/// From the first byte to the proof of the password. `None`: there is nothing more to say to it.
async fn come_in(
    client: TcpStream,
    shared: &Arc<Shared>,
    served: &watch::Receiver<Arc<Served>>,
) -> Option<Came> {
    let opened = timeout(LOGIN_TIMEOUT, open(client, served)).await.unwrap_or(Err(NotOpened::Protocol));
    let (client, packet) = match opened {
        Ok((client, Opening::Session(packet))) => (client, packet),
        Ok((_client, Opening::Cancel(packet))) => return Some(Came::ToCancel(packet)),
        Ok((_, Opening::Tls)) | Err(NotOpened::Protocol) => {
            shared.counters.refused_protocol.fetch_add(1, Relaxed);
            return None;
        }
        Err(NotOpened::Silent) => return None,
    };
    let mut client = Wire::new(client);
    match prove(&mut client, &packet, shared, served).await {
        Ok((_, Some(login))) => Some(Came::AsAdmin(client, login)),
        Ok((startup, None)) => Some(Came::AsClient(client, startup)),
        Err(Refused::Silently) => None,
        Err(Refused::With(refusal)) => {
            refuse(client, &refusal).await;
            None
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

async fn open(
    mut client: TcpStream,
    served: &watch::Receiver<Arc<Served>>,
) -> Result<(ClientStream, Opening), NotOpened> {
    let tls = served.borrow().tls.clone();
    let encryption = if tls.is_some() { Encryption::Offered } else { Encryption::Declined };
    match (read_opening(&mut client, encryption).await?, tls) {
        (Opening::Tls, Some(tls)) => {
            let stream = tls.accept(client).await.map_err(|_| NotOpened::Protocol)?;
            let mut stream = Either::Other(Box::new(stream));
            let opening = read_opening(&mut stream, Encryption::Declined).await?;
            Ok((stream, opening))
        }
        (opening, _) => Ok((Either::One(client), opening)),
    }
}

/// From the startup packet to the proof of the password, with the login for views where that is what it was.
async fn prove(
    client: &mut Wire<ClientStream>,
    packet: &[u8],
    shared: &Arc<Shared>,
    served: &watch::Receiver<Arc<Served>>,
) -> Result<(Startup, Option<Arc<AdminLogin>>), Refused> {
    let startup = Startup::parse(packet).map_err(Refused::With)?;
    let now = served.borrow().clone();
    if let Some(login) = now.admin.clone()
        && startup.database == admin::DATABASE
    {
        let verifier = (startup.user == login.role).then_some(&login.verifier);
        authenticate(client, &startup, shared, verifier).await?;
        return Ok((startup, Some(login)));
    }
    if let Some(unknown) = &startup.beyond {
        message(&mut client.output, b'v', |out| {
            // Protocol 3.0.
            out.put_u32(196_608);
            out.put_u32(unknown.len() as u32);
            unknown.iter().for_each(|option| cstr(out, option));
        });
    }
    let credentials = now.credentials.clone();
    drop(now);
    let verifier = (startup.user == credentials.role).then_some(&credentials.verifier);
    authenticate(client, &startup, shared, verifier).await?;
    if startup.database != credentials.database {
        let message = format!("database \"{}\" does not exist", startup.database);
        return Err(Refused::With(Refusal::new("3D000", message, "The URL's path names the database.")));
    }
    Ok((startup, None))
}

/// What a client is told of the server.
async fn begin(
    client: &mut Wire<ClientStream>,
    settings: &Settings,
    shared: &Arc<Shared>,
    served: &mut watch::Receiver<Arc<Served>>,
) -> Result<Arc<Parameters>, Refused> {
    let told = parameters(client, shared, served).await?;
    let told = Arc::new(with_startup_settings(told, settings));
    for (name, value) in &*told {
        parameter_status(&mut client.output, name, value);
    }
    Ok(told)
}

/// `verifier`: of the role that the client names, where it may come in here.
async fn authenticate(
    client: &mut Wire<ClientStream>,
    startup: &Startup,
    shared: &Shared,
    verifier: Option<&Verifier>,
) -> Result<(), Refused> {
    let exchange = exchange(client, startup, shared, verifier);
    timeout(LOGIN_TIMEOUT, exchange).await.unwrap_or(Err(Refused::Silently))
}

async fn exchange(
    client: &mut Wire<ClientStream>,
    startup: &Startup,
    shared: &Shared,
    verifier: Option<&Verifier>,
) -> Result<(), Refused> {
    let mut framer = Framer::new(0);
    authentication(client, 10, &[MECHANISM.as_bytes(), b"\0\0"].concat());
    let first = sasl_message(client, &mut framer).await?;
    let (mechanism, rest) = split_cstr(body(&first)).ok_or_else(broken)?;
    if mechanism != MECHANISM.as_bytes() {
        return Err(broken());
    }
    let (_length, client_first) = rest.split_first_chunk::<4>().ok_or_else(broken)?;
    let begun = Exchange::begin(client_first, &startup.user, verifier, &shared.pretender);
    let (exchange, ours) = begun.map_err(|failed| not_let_in(shared, startup, failed))?;
    authentication(client, 11, ours.as_bytes());
    let last = sasl_message(client, &mut framer).await?;
    let ours = exchange.finish(body(&last)).map_err(|failed| not_let_in(shared, startup, failed))?;
    authentication(client, 12, ours.as_bytes());
    authentication(client, 0, b"");
    Ok(())
}

fn authentication(client: &mut Wire<ClientStream>, code: u32, data: &[u8]) {
    message(&mut client.output, b'R', |out| {
        out.put_u32(code);
        out.put_slice(data);
    });
}

async fn sasl_message(client: &mut Wire<ClientStream>, framer: &mut Framer) -> Result<BytesMut, Refused> {
    client.flush().await.map_err(|_| Refused::Silently)?;
    loop {
        match framer.cut(&client.input) {
            Ok(Cut::Whole { tag: b'p', bytes }) if bytes <= HEADER_BYTES + MAX_SASL_BYTES => {
                return Ok(client.input.split_to(bytes));
            }
            Ok(Cut::More) => client.fill().await.map_err(|_| Refused::Silently)?,
            _ => return Err(broken()),
        }
    }
}

fn broken() -> Refused {
    Refused::With(Refusal::new(
        "08P01",
        "malformed SASL message",
        "The client library must speak SCRAM-SHA-256.",
    ))
}

/// The same words for every reason.
fn not_let_in(shared: &Shared, startup: &Startup, failed: Failed) -> Refused {
    if failed == Failed::Protocol {
        return broken();
    }
    shared.counters.refused_login.fetch_add(1, Relaxed);
    tracing::info!(database = shared.name, user = startup.user, "a login was refused");
    let message = format!("password authentication failed for user \"{}\"", startup.user);
    Refused::With(Refusal::new(
        "28P01",
        message,
        "User and password stand in the URL that the app was given.",
    ))
}

/// What a server says of itself. Once one has said so, clients need no server to begin.
async fn parameters(
    client: &mut Wire<ClientStream>,
    shared: &Shared,
    served: &mut watch::Receiver<Arc<Served>>,
) -> Result<Parameters, Refused> {
    if let Some(known) = shared.pool.defaults() {
        return Ok(Parameters::clone(&known));
    }
    client.flush().await.map_err(|_| Refused::Silently)?;
    let no_settings = Settings::default();
    let server = tokio::select! {
        server = acquire(shared, served, &no_settings) => server.map_err(Refused::With)?,
        // It has nothing to say before it is answered; so it has left, or is no client.
        _ = client.fill() => return Err(Refused::Silently),
    };
    let known = Parameters::clone(&server.parameters);
    shared.pool.put(server);
    Ok(known)
}

/// What the parameters will be once the client's own settings are in force.
fn with_startup_settings(mut told: Parameters, settings: &Settings) -> Parameters {
    for (name, value) in settings.raw() {
        let reported = told.keys().find(|reported| reported.eq_ignore_ascii_case(name.as_bytes())).cloned();
        if let Some(reported) = reported {
            let is_utf8 = name == "client_encoding"
                && ["utf8", "utf-8", "unicode"].iter().any(|utf8| utf8.eq_ignore_ascii_case(value));
            let value = if is_utf8 { "UTF8" } else { value };
            told.insert(reported, value.as_bytes().to_vec());
        }
    }
    told
}

pub(crate) async fn refuse(mut client: Wire<ClientStream>, refusal: &Refusal) {
    refusal.write(Severity::Fatal, &mut client.output);
    let answer = async {
        client.flush().await?;
        client.shut_down().await?;
        // Closing before the client has read would reset the connection and with it lose the message.
        loop {
            client.input.clear();
            client.fill().await?;
        }
    };
    // Whether it was heard makes no difference to us.
    let _: Result<io::Result<std::convert::Infallible>, _> = timeout(REFUSAL_TIMEOUT, answer).await;
}

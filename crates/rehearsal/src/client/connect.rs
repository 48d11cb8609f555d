//! Connecting: addresses, TLS, and how many connections there may be.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::answer::Failure;
use super::socket::{Arrived, Socket};
use crate::load::{Origin, Protocol};

/// Read at once. Larger than most answers, so that one read is enough.
const READ_BYTES: usize = 64 * 1024;
/// Visitors to a loopback address come from 127.64.0.0 to 127.127.255.255.
const SOURCES: u64 = 1 << 22;

/// How TLS is spoken; made once and shared by all threads.
#[derive(Clone)]
pub struct TlsClient {
    connector: TlsConnector,
    server_name: ServerName<'static>,
}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the authorities in {path} cannot be read")]
    Authorities { path: String, source: rustls::pki_types::pem::Error },
    #[error("{path} names no authority")]
    NoAuthority { path: String },
    #[error("`{name}` is no name that a certificate can be for")]
    ServerName { name: String },
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

impl TlsClient {
    /// # Errors
    /// When the authorities cannot be read, or the name is none.
    pub fn new(tls: &crate::load::Tls, protocol: Protocol) -> Result<TlsClient, TlsError> {
        let path = || tls.authorities.display().to_string();
        let failed = |source| TlsError::Authorities { path: path(), source };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&tls.authorities).map_err(failed)? {
            roots.add(certificate.map_err(failed)?)?;
        }
        if roots.is_empty() {
            return Err(TlsError::NoAuthority { path: path() });
        }
        let server_name = ServerName::try_from(tls.server_name.clone())
            .map_err(|_| TlsError::ServerName { name: tls.server_name.clone() })?;
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![match protocol {
            Protocol::Http1 => b"http/1.1".to_vec(),
            Protocol::Http2 => b"h2".to_vec(),
        }];
        // A visitor who comes for the first time has no session to resume, and all share this configuration.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(TlsClient { connector: TlsConnector::from(Arc::new(config)), server_name })
    }
}

/// What the connections of one thread have in common.
pub struct Shared {
    pub origin: Origin,
    pub scheme: &'static str,
    tls: Option<TlsClient>,
    open: Rc<Cell<u32>>,
    limit: u32,
    /// Of an answer.
    pub body_limit: u64,
    /// What was read, until it is looked at: never held over a wait.
    pub read: RefCell<Box<[u8]>>,
    /// A request while it is written: never held over a wait.
    pub write: RefCell<Vec<u8>>,
}

impl Shared {
    pub fn new(origin: Origin, tls: Option<TlsClient>, connections: u32, body_limit: u64) -> Shared {
        Shared {
            scheme: origin.scheme(),
            origin,
            tls,
            open: Rc::new(Cell::new(0)),
            limit: connections,
            body_limit,
            read: RefCell::new(vec![0; READ_BYTES].into()),
            write: RefCell::new(Vec::new()),
        }
    }

    /// Connections that are open or being opened.
    pub fn open(&self) -> u32 {
        self.open.get()
    }

    /// No more connections may be opened.
    pub fn is_full(&self) -> bool {
        self.open.get() >= self.limit
    }

    pub fn protocol(&self) -> Protocol {
        self.origin.protocol
    }
}

/// One of the connections that there may be.
#[derive(Debug)]
struct Permit(Rc<Cell<u32>>);

impl Permit {
    fn take(shared: &Shared) -> Result<Permit, Failure> {
        if shared.is_full() {
            return Err(Failure::NotOffered);
        }
        shared.open.set(shared.open.get() + 1);
        Ok(Permit(Rc::clone(&shared.open)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A connection on which nothing has been said yet.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    arrived: Arrived,
    _permit: Permit,
}

#[derive(Debug)]
enum Stream {
    Plain(Socket),
    /// Many times as large.
    Tls(Box<TlsStream<Socket>>),
}

impl Wire {
    pub async fn open(shared: &Shared, visitor: u64) -> Result<Wire, Failure> {
        let permit = Permit::take(shared)?;
        let socket = socket(shared.origin.address, visitor).map_err(|error| failure(&error))?;
        let stream = Socket::connect(socket, shared.origin.address).await.map_err(|error| failure(&error))?;
        let arrived = stream.arrived();
        let stream = match &shared.tls {
            None => Stream::Plain(stream),
            Some(tls) => {
                let connecting = tls.connector.connect(tls.server_name.clone(), stream);
                let stream = Box::pin(connecting).await.map_err(|_| Failure::Refused)?;
                if shared.protocol() == Protocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(Failure::Refused);
                }
                Stream::Tls(Box::new(stream))
            }
        };
        Ok(Wire { stream, arrived, _permit: permit })
    }

    /// Of what is read from it.
    pub fn arrived(&self) -> &Arrived {
        &self.arrived
    }
}

/// On this machine each visitor comes from an address of its own, as a crowd does: an app that limits what one client may do
/// sees many, and no address runs out of ports.
fn socket(to: SocketAddr, visitor: u64) -> io::Result<TcpSocket> {
    match to.ip() {
        IpAddr::V4(address) => {
            let socket = TcpSocket::new_v4()?;
            if address.is_loopback() {
                let from = u32::from(Ipv4Addr::new(127, 64, 0, 0)) + (visitor % SOURCES) as u32;
                socket.bind((Ipv4Addr::from(from), 0).into())?;
            }
            Ok(socket)
        }
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }
}

/// Whose fault it is that there is no connection: what we are out of is not the app's doing.
fn failure(error: &io::Error) -> Failure {
    let ours = [
        rustix::io::Errno::MFILE,
        rustix::io::Errno::NFILE,
        rustix::io::Errno::NOBUFS,
        rustix::io::Errno::NOMEM,
        rustix::io::Errno::ADDRNOTAVAIL,
        rustix::io::Errno::ADDRINUSE,
    ];
    match error.raw_os_error() {
        Some(code) if ours.iter().any(|errno| errno.raw_os_error() == code) => Failure::NotOffered,
        _ => Failure::Refused,
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Without TLS, by HTTP/1.
    pub fn plain(authority: &str, address: SocketAddr) -> Shared {
        let origin =
            Origin { authority: authority.to_owned(), address, protocol: Protocol::Http1, tls: None };
        Shared::new(origin, None, 10, 1 << 20)
    }

    #[test]
    fn what_we_are_out_of_is_not_the_apps_doing() {
        let of = |errno: rustix::io::Errno| failure(&io::Error::from_raw_os_error(errno.raw_os_error()));
        assert_eq!(of(rustix::io::Errno::MFILE), Failure::NotOffered);
        assert_eq!(of(rustix::io::Errno::ADDRNOTAVAIL), Failure::NotOffered);
        assert_eq!(of(rustix::io::Errno::CONNREFUSED), Failure::Refused);
        assert_eq!(of(rustix::io::Errno::CONNRESET), Failure::Refused);
    }

    #[test]
    fn each_visitor_to_this_machine_has_an_address_of_its_own() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _entered = runtime.enter();
        let to = "127.0.0.1:80".parse().unwrap();
        let from = |visitor| socket(to, visitor).unwrap().local_addr().unwrap().ip().to_string();
        assert_eq!([from(0), from(257), from(SOURCES - 1)], ["127.64.0.0", "127.64.1.1", "127.127.255.255"]);
    }
}

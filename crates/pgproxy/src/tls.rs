//! The client's side of a connection, encrypted or not.

use std::fs;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::Tls;
use crate::wire::Either;

/// Plain or TLS.
pub(crate) type ClientStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Reads the files. TLS 1.2 and 1.3.
///
/// # Errors
/// In words that name the file.
pub(crate) fn acceptor(tls: &Tls) -> Result<TlsAcceptor, String> {
    let read =
        |path: &std::path::Path| fs::read(path).map_err(|cause| format!("{}: {cause}", path.display()));
    let chain = CertificateDer::pem_slice_iter(&read(&tls.certificate_chain)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|cause| format!("{}: {cause}", tls.certificate_chain.display()))?;
    let key = PrivateKeyDer::from_pem_slice(&read(&tls.private_key)?)
        .map_err(|cause| format!("{}: {cause}", tls.private_key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|cause| format!("{}: {cause}", tls.certificate_chain.display()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

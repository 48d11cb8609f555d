//! Certificates that are renewed while the edge serves.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Client, Front, Instance, endpoint, soon, upstream};

/// Files of the same names, from one authority or another.
pub struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    pub fn new() -> Files {
        Files { directory: tempfile::tempdir().expect("a directory") }
    }

    pub fn tls(&self, revision: u64) -> edge::config::Tls {
        let path = |name| self.directory.path().join(name);
        edge::config::Tls { certificate_chain: path("chain.pem"), private_key: path("key.pem"), revision }
    }

    /// Puts a certificate of a new authority there, which is returned.
    pub fn renew(&self) -> CertificateDer<'static> {
        let made = tempfile::tempdir().expect("a directory");
        let issued = edge::local_ca::ensure(made.path(), &["localhost".to_owned()]).expect("certificates");
        let put = |from: &Path, name| {
            std::fs::copy(from, self.directory.path().join(name)).expect("a file");
        };
        put(&issued.certificate_chain, "chain.pem");
        put(&issued.private_key, "key.pem");
        CertificateDer::from_pem_file(&issued.authority).expect("the authority")
    }
}

/// An edge in front of an instance, with the first revision of files of this authority.
async fn behind_tls() -> (Front, Instance, Files, CertificateDer<'static>) {
    let files = Files::new();
    let authority = files.renew();
    let instance = Instance::mirror().await;
    let front = Front::with(upstream(vec![endpoint("one", &instance)]), |config| {
        config.listeners.get_mut("front").expect("front").tls = Some(files.tls(1));
    });
    (front, instance, files, authority)
}

pub async fn connect(
    front: &Front,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<Client<TlsStream<TcpStream>>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).expect("an authority");
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
    let stream = TcpStream::connect(front.address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = soon("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await?;
    Ok(Client::over(stream))
}

async fn is_answered(client: &mut Client<TlsStream<TcpStream>>) {
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 200);
}

#[tokio::test]
async fn a_new_revision_serves_new_connections_and_keeps_those_that_are_open() {
    let (mut front, _instance, files, old) = behind_tls().await;
    let mut open = connect(&front, &old).await.expect("a connection");
    is_answered(&mut open).await;

    let new = files.renew();
    front.reconfigure(|config| {
        config.listeners.get_mut("front").expect("front").tls = Some(files.tls(2));
    });
    is_answered(&mut connect(&front, &new).await.expect("a connection")).await;
    assert!(connect(&front, &old).await.is_err(), "the old certificate is still in use");
    is_answered(&mut open).await;
}

#[tokio::test]
async fn half_a_renewal_is_no_obstacle_to_other_changes() {
    let (mut front, _instance, files, trusted) = behind_tls().await;
    std::fs::write(files.tls(1).certificate_chain, "not there yet").expect("a file");
    let other = Instance::mirror().await;
    front.reconfigure(|config| {
        config.upstreams.insert("web".to_owned(), upstream(vec![endpoint("two", &other)]));
    });
    is_answered(&mut connect(&front, &trusted).await.expect("a connection")).await;
    assert!(front.handle.status().endpoints.contains_key("two"));
}

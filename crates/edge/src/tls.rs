//! Certificates from files to a rustls configuration, with errors that say which file, why, and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};

use crate::config;

/// Why the files of a listener make no TLS configuration. The message ends in what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(
        "cannot read {what} {}; hint: the path is relative to the working directory of the edge, and the file must be \
         readable by the user it runs as", path.display()
    )]
    Unreadable { what: What, path: PathBuf, source: io::Error },
    #[error("{what} {} is not valid PEM; hint: convert it with `openssl x509` or `openssl pkey`", path.display())]
    NotPem { what: What, path: PathBuf, source: pem::Error },
    #[error("there is no {what} in {}; hint: it must hold a `-----BEGIN {}-----` block", path.display(), what.block())]
    Missing { what: What, path: PathBuf },
    #[error(
        "the private key {} does not belong to the certificate {}; hint: compare `openssl x509 -noout -pubkey` of one \
         with `openssl pkey -pubout` of the other; the leaf certificate must stand first", key.display(), chain.display()
    )]
    KeyDoesNotFit { key: PathBuf, chain: PathBuf },
    #[error(
        "the certificate {} with the private key {} cannot be used; hint: RSA of 2048 bits and more, ECDSA P-256 and \
         P-384, and Ed25519 are", chain.display(), key.display()
    )]
    Unusable { key: PathBuf, chain: PathBuf, source: rustls::Error },
    /// Not the files' fault.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    CertificateChain,
    PrivateKey,
}

impl What {
    fn block(self) -> &'static str {
        match self {
            What::CertificateChain => "CERTIFICATE",
            What::PrivateKey => "PRIVATE KEY",
        }
    }
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            What::CertificateChain => "certificate",
            What::PrivateKey => "private key",
        })
    }
}

/// Reads the files of `tls`. ALPN offers h2 and then http/1.1; TLS 1.2 and 1.3; sessions resume by tickets. Blocks on
/// the files.
///
/// # Errors
/// When a file is missing, unreadable, holds no certificate or key, or the key does not fit the certificate.
pub fn server_config(tls: &config::Tls) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let chain = certificates(&tls.certificate_chain)?;
    let key = private_key(&tls.private_key)?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|source| unusable(tls, source))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    server.ticketer = rustls::crypto::ring::Ticketer::new().map_err(TlsError::Setup)?;
    Ok(Arc::new(server))
}

fn unusable(tls: &config::Tls, source: rustls::Error) -> TlsError {
    let (key, chain) = (tls.private_key.clone(), tls.certificate_chain.clone());
    match source {
        rustls::Error::InconsistentKeys(_) => TlsError::KeyDoesNotFit { key, chain },
        source => TlsError::Unusable { key, chain, source },
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let what = What::CertificateChain;
    let text = read(what, path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let path = path.to_owned();
    match chain {
        Ok(chain) if chain.is_empty() => Err(TlsError::Missing { what, path }),
        Ok(chain) => Ok(chain),
        Err(source) => Err(TlsError::NotPem { what, path, source }),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let what = What::PrivateKey;
    let text = read(what, path)?;
    let path = path.to_owned();
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsError::Missing { what, path },
        source => TlsError::NotPem { what, path, source },
    })
}

fn read(what: What, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { what, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_ca;

    struct Files {
        _directory: tempfile::TempDir,
        tls: config::Tls,
    }

    fn files() -> Files {
        let directory = tempfile::tempdir().unwrap();
        let issued = local_ca::ensure(directory.path(), &["localhost".to_owned()]).unwrap();
        Files {
            _directory: directory,
            tls: config::Tls {
                certificate_chain: issued.certificate_chain,
                private_key: issued.private_key,
                revision: 0,
            },
        }
    }

    #[test]
    fn good_files_offer_both_protocols_and_both_versions() {
        let server = server_config(&files().tls).unwrap();
        assert_eq!(server.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert!(server.ticketer.enabled());
    }

    #[test]
    fn a_missing_file_is_named() {
        let mut files = files();
        files.tls.certificate_chain = "/nowhere/chain.pem".into();
        let error = server_config(&files.tls).unwrap_err();
        assert!(matches!(error, TlsError::Unreadable { what: What::CertificateChain, .. }));
        assert!(error.to_string().contains("/nowhere/chain.pem"), "{error}");
    }

    #[test]
    fn exchanged_files_are_found_out() {
        let mut files = files();
        std::mem::swap(&mut files.tls.certificate_chain, &mut files.tls.private_key);
        let error = server_config(&files.tls).unwrap_err();
        assert!(matches!(error, TlsError::Missing { what: What::CertificateChain, .. }), "{error}");
    }

    #[test]
    fn a_file_without_a_key_is_found_out() {
        let mut files = files();
        files.tls.private_key = files.tls.certificate_chain.clone();
        let error = server_config(&files.tls).unwrap_err();
        assert!(matches!(error, TlsError::Missing { what: What::PrivateKey, .. }), "{error}");
    }

    #[test]
    fn garbage_between_the_markers_is_found_out() {
        let files = files();
        std::fs::write(
            &files.tls.certificate_chain,
            "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        let error = server_config(&files.tls).unwrap_err();
        assert!(matches!(error, TlsError::NotPem { .. }), "{error}");
    }

    #[test]
    fn a_key_of_another_certificate_is_found_out() {
        let (mut one, two) = (files(), files());
        one.tls.private_key = two.tls.private_key.clone();
        let error = server_config(&one.tls).unwrap_err();
        assert!(matches!(error, TlsError::KeyDoesNotFit { .. }), "{error}");
    }
}

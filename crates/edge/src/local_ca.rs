//! A certificate authority for development: made once, kept beside the app, trusted by hand.
//!
//! The directory holds `ca.pem` and `ca-key.pem`, and `leaf.pem` and `leaf-key.pem` for the front door. Keys are
//! readable by their owner only. The authority lasts ten years, so that trusting it is done once; in its last year it is
//! signed anew with the same key and name, so that whoever trusts the old one is served until that ends. The leaf lasts
//! 397 days, the most that browsers take, and is renewed within its last 30. What the leaf was made for stands in
//! `leaf.names`, how long the authority lasts in `ca.until`; both are written last: without them, or with something else
//! in them, what they tell of is made again.
//!
//! This is for one developer's machine. Nothing here revokes, and whoever reads `ca-key.pem` can pose as any site to
//! those who trust the authority.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

const AUTHORITY_DAYS: i64 = 3_650;
const RENEW_AUTHORITY_DAYS: i64 = 365;
const LEAF_DAYS: i64 = 397;
const RENEW_DAYS: i64 = 30;

/// Clocks that are behind shall accept a certificate made just now.
const BACKDATED_DAYS: i64 = 1;

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The leaf; the authority is not part of the chain.
    pub certificate_chain: PathBuf,
    pub private_key: PathBuf,
    /// What a client must trust: `curl --cacert`, or the system's or browser's store.
    pub authority: PathBuf,
}

/// Why there is no local certificate.
#[derive(Debug, thiserror::Error)]
pub enum LocalCaError {
    #[error("cannot {action} {}; hint: the directory must be writable by this user", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the local certificate authority in {} is damaged; hint: delete the directory, and trust the new authority \
         that the next start makes", directory.display()
    )]
    Damaged {
        directory: PathBuf,
        /// None: the certificate is not the key's.
        source: Option<rcgen::Error>,
    },
    #[error("cannot make a certificate for {names}; hint: host names and IP addresses are possible")]
    Names { names: String, source: rcgen::Error },
}

/// Makes the authority under `directory` if there is none, and a leaf for `names` (DNS names, `*.` allowed, and IP
/// addresses) unless the one there is for the same names and lasts 30 days more. Blocks on files and key generation.
///
/// Name hosts like `app.localhost` one by one: many clients take no wildcard with a single label behind it.
///
/// # Errors
/// When a file cannot be read, parsed or written.
pub fn ensure(directory: &Path, names: &[String]) -> Result<Issued, LocalCaError> {
    ensure_at(directory, names, Timestamp::now())
}

/// Where the authority of [`ensure`] is: what a client must trust.
pub fn authority(directory: &Path) -> PathBuf {
    directory.join("ca.pem")
}

fn ensure_at(directory: &Path, names: &[String], now: Timestamp) -> Result<Issued, LocalCaError> {
    std::fs::create_dir_all(directory).map_err(|source| file("create", directory, source))?;
    let issued = Issued {
        certificate_chain: directory.join("leaf.pem"),
        private_key: directory.join("leaf-key.pem"),
        authority: authority(directory),
    };
    let authority = Authority::load_or_make(directory, now)?;
    let notes = directory.join("leaf.names");
    let wanted = |until: Timestamp| format!("{}\n{until}\n", names.join("\n"));
    let fits = std::fs::read_to_string(&notes).is_ok_and(|noted| {
        let until = noted.lines().last().and_then(|line| line.parse::<Timestamp>().ok());
        until.is_some_and(|until| noted == wanted(until) && days(until, -RENEW_DAYS) > now)
    });
    let present = issued.certificate_chain.exists() && issued.private_key.exists();
    if fits && present && !authority.is_new {
        return Ok(issued);
    }

    // Taken away first: a crash between the two files must not leave a pair that does not fit and looks good.
    match std::fs::remove_file(&notes) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(file("remove", &notes, source));
        }
        _ => {}
    }
    let until = days(now, LEAF_DAYS);
    let (certificate, key) = authority
        .issue(names, now, until)
        .map_err(|source| LocalCaError::Names { names: names.join(", "), source })?;
    write(&issued.certificate_chain, &certificate, Readable::ByAll)?;
    write(&issued.private_key, &key, Readable::ByOwner)?;
    write(&notes, &wanted(until), Readable::ByAll)?;
    Ok(issued)
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    is_new: bool,
}

impl Authority {
    fn load_or_make(directory: &Path, now: Timestamp) -> Result<Authority, LocalCaError> {
        let (certificate, key) = (authority(directory), directory.join("ca-key.pem"));
        let note = directory.join("ca.until");
        let damaged =
            |source: Option<rcgen::Error>| LocalCaError::Damaged { directory: directory.to_owned(), source };
        let failed = |source| damaged(Some(source));
        let params = authority_params(now).map_err(failed)?;
        // The certificate is written last, so with it there is all.
        if certificate.exists() {
            let read =
                |path: &Path| std::fs::read_to_string(path).map_err(|source| file("read", path, source));
            let pair = KeyPair::from_pem(&read(&key)?).map_err(failed)?;
            if !is_for(&read(&certificate)?, &pair) {
                return Err(damaged(None));
            }
            let noted = std::fs::read_to_string(&note).ok();
            let until = noted.and_then(|until| until.trim().parse::<Timestamp>().ok());
            if until.is_none_or(|until| days(until, -RENEW_AUTHORITY_DAYS) <= now) {
                let signed = params.self_signed(&pair).map_err(failed)?;
                write(&certificate, &signed.pem(), Readable::ByAll)?;
                write(&note, &format!("{}\n", days(now, AUTHORITY_DAYS)), Readable::ByAll)?;
            }
            // An issuer is its name and its key; the rest of the certificate, its dates for one, is not needed.
            return Ok(Authority { issuer: Issuer::new(params, pair), is_new: false });
        }
        let pair = KeyPair::generate().map_err(failed)?;
        let signed = params.self_signed(&pair).map_err(failed)?;
        write(&key, &pair.serialize_pem(), Readable::ByOwner)?;
        write(&certificate, &signed.pem(), Readable::ByAll)?;
        write(&note, &format!("{}\n", days(now, AUTHORITY_DAYS)), Readable::ByAll)?;
        Ok(Authority { issuer: Issuer::new(params, pair), is_new: true })
    }

    /// The certificate and its key, as PEM.
    fn issue(
        &self,
        names: &[String],
        now: Timestamp,
        until: Timestamp,
    ) -> Result<(String, String), rcgen::Error> {
        let mut params = CertificateParams::new(names)?;
        let name = names.first().map_or("localhost", String::as_str);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        last(&mut params, now, until);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// Whether the certificate holds the public key of the pair.
fn is_for(certificate: &str, pair: &KeyPair) -> bool {
    let public = pair.subject_public_key_info();
    CertificateDer::from_pem_slice(certificate.as_bytes())
        .is_ok_and(|certificate| certificate.windows(public.len()).any(|window| window == public))
}

fn authority_params(now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, "Switchback local development");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // One signed anew with the same key is another certificate: browsers refuse two of one number.
    params.serial_number = Some(SerialNumber::from(now.as_second().unsigned_abs()));
    last(&mut params, now, days(now, AUTHORITY_DAYS));
    Ok(params)
}

fn last(params: &mut CertificateParams, now: Timestamp, until: Timestamp) {
    // Midnight of the day: certificates need no more.
    let midnight = |at: Timestamp| {
        let date = TimeZone::UTC.to_datetime(at).date();
        rcgen::date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8)
    };
    params.not_before = midnight(days(now, -BACKDATED_DAYS));
    params.not_after = midnight(until);
}

fn days(from: Timestamp, days: i64) -> Timestamp {
    // Hours, because a timestamp knows no calendar.
    from.saturating_add((days * 24).hours()).unwrap_or(from)
}

/// Who may read a file.
#[derive(Clone, Copy)]
enum Readable {
    ByOwner,
    ByAll,
}

/// Writes beside and renames, so that a reader never sees half a file.
fn write(path: &Path, text: &str, readable: Readable) -> Result<(), LocalCaError> {
    let mode = match readable {
        Readable::ByOwner => 0o600,
        Readable::ByAll => 0o644,
    };
    let beside = path.with_extension("new");
    let written = (|| {
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    written.map_err(|source| file("write", path, source))
}

fn file(action: &'static str, path: &Path, source: io::Error) -> LocalCaError {
    LocalCaError::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn leaf(issued: &Issued) -> String {
        std::fs::read_to_string(&issued.certificate_chain).unwrap()
    }

    #[test]
    fn keys_are_readable_by_their_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let issued =
            ensure(directory.path(), &names(&["localhost", "127.0.0.1", "::1", "*.localhost"])).unwrap();
        for key in [issued.private_key, directory.path().join("ca-key.pem")] {
            let mode = std::fs::metadata(&key).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", key.display());
        }
    }

    #[test]
    fn what_fits_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let first = ensure(directory.path(), &names(&["localhost"])).unwrap();
        let before = leaf(&first);
        assert_eq!(ensure(directory.path(), &names(&["localhost"])).unwrap(), first);
        assert_eq!(leaf(&first), before);
    }

    #[test]
    fn other_names_get_a_new_leaf_of_the_same_authority() {
        let directory = tempfile::tempdir().unwrap();
        let first = ensure(directory.path(), &names(&["localhost"])).unwrap();
        let (before, authority) = (leaf(&first), std::fs::read(&first.authority).unwrap());
        ensure(directory.path(), &names(&["localhost", "front.example"])).unwrap();
        assert_ne!(leaf(&first), before);
        assert_eq!(std::fs::read(&first.authority).unwrap(), authority);
    }

    #[test]
    fn a_leaf_is_renewed_within_its_last_thirty_days() {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let issued = ensure_at(directory.path(), &names(&["localhost"]), now).unwrap();
        let before = leaf(&issued);
        ensure_at(directory.path(), &names(&["localhost"]), days(now, LEAF_DAYS - RENEW_DAYS - 1)).unwrap();
        assert_eq!(leaf(&issued), before);
        ensure_at(directory.path(), &names(&["localhost"]), days(now, LEAF_DAYS - RENEW_DAYS)).unwrap();
        assert_ne!(leaf(&issued), before);
    }

    #[test]
    fn an_authority_in_its_last_year_is_renewed_and_whoever_trusts_the_old_one_is_served() {
        let directory = tempfile::tempdir().unwrap();
        let (now, wanted) = (Timestamp::now(), names(&["localhost"]));
        let issued = ensure_at(directory.path(), &wanted, days(now, 400 - AUTHORITY_DAYS)).unwrap();
        let before = directory.path().join("trusted-before.pem");
        std::fs::copy(&issued.authority, &before).unwrap();
        let is_renewed = || std::fs::read(&issued.authority).unwrap() != std::fs::read(&before).unwrap();

        ensure_at(directory.path(), &wanted, now).unwrap();
        assert!(!is_renewed());
        ensure_at(directory.path(), &wanted, days(now, 400 - RENEW_AUTHORITY_DAYS)).unwrap();
        assert!(is_renewed());
        let server = crate::tls::server_config(&crate::config::Tls {
            certificate_chain: issued.certificate_chain.clone(),
            private_key: issued.private_key.clone(),
            revision: 0,
        })
        .unwrap();
        handshake(&before, &server, "localhost");
        handshake(&issued.authority, &server, "localhost");
    }

    #[test]
    fn a_leaf_of_a_lost_authority_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let issued = ensure(directory.path(), &names(&["localhost"])).unwrap();
        let before = leaf(&issued);
        std::fs::remove_file(&issued.authority).unwrap();
        ensure(directory.path(), &names(&["localhost"])).unwrap();
        assert_ne!(leaf(&issued), before);
    }

    #[test]
    fn a_damaged_authority_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        ensure(directory.path(), &names(&["localhost"])).unwrap();
        std::fs::write(directory.path().join("ca-key.pem"), "scribble").unwrap();
        let error = ensure(directory.path(), &names(&["localhost"])).unwrap_err();
        assert!(error.to_string().contains("delete the directory"), "{error}");
    }

    #[test]
    fn a_client_that_trusts_the_authority_connects_by_every_name() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = names(&["localhost", "127.0.0.1", "::1", "app.localhost", "*.front.example"]);
        let issued = ensure(directory.path(), &wanted).unwrap();
        let server = crate::tls::server_config(&crate::config::Tls {
            certificate_chain: issued.certificate_chain,
            private_key: issued.private_key,
            revision: 0,
        })
        .unwrap();
        for name in ["localhost", "127.0.0.1", "::1", "app.localhost", "www.front.example"] {
            handshake(&issued.authority, &server, name);
        }
    }

    /// Both ends in memory.
    fn handshake(authority: &Path, server: &std::sync::Arc<rustls::ServerConfig>, name: &str) {
        use rustls::pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_file(authority).unwrap()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(std::sync::Arc::new(client), name).unwrap();
        let mut server = rustls::ServerConnection::new(std::sync::Arc::clone(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &wire[..]).unwrap();
            server.process_new_packets().unwrap();
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut &wire[..]).unwrap();
            client.process_new_packets().unwrap();
        }
    }
}

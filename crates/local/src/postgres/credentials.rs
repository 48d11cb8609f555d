//! Generated passwords, in one file per cluster that only the daemon's user can read.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// 6 bits each: 192 bits.
const PASSWORD_CHARS: usize = 32;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// PostgreSQL's own limit for the names of roles and databases.
const MAX_IDENTIFIER_BYTES: usize = 63;
/// Names that exist in every cluster.
const RESERVED: &[&str] = &["postgres", "template0", "template1", "public", "none"];

/// Who may enter a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// `postgres`, for the supervisor alone.
    pub superuser: Login,
    /// The app's role, which owns `database`.
    pub app: Login,
    pub database: String,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    pub role: String,
    pub password: String,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("`{name}` cannot be the name of a database: {reason}")]
    Name { name: String, reason: &'static str },
    #[error("{} does not read", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} could not be written", .path.display())]
    NotWritten { path: PathBuf, source: io::Error },
    #[error("the system gave no random numbers: {0}")]
    Random(getrandom::Error),
}

impl CredentialsError {
    /// What to do.
    pub fn hint(&self) -> String {
        match self {
            CredentialsError::Name { .. } => {
                "choose another name in the manifest, such as the app's".to_owned()
            }
            CredentialsError::Unreadable { path, .. } => {
                format!(
                    "restore {} from a backup; without it the data can only be entered by hand",
                    path.display()
                )
            }
            CredentialsError::NotWritten { .. } => {
                "see that the disk is not full and that the folder is yours to write".to_owned()
            }
            CredentialsError::Random(_) => {
                "the kernel's random numbers (getrandom) must be reachable".to_owned()
            }
        }
    }
}

/// Passwords stay out of logs.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("role", &self.role).finish_non_exhaustive()
    }
}

impl Credentials {
    /// New passwords for a database and the role of the same name that owns it.
    ///
    /// # Errors
    /// When PostgreSQL would not take the name, or there are no random numbers.
    pub fn generate(database: &str) -> Result<Credentials, CredentialsError> {
        let refuse = |reason| Err(CredentialsError::Name { name: database.to_owned(), reason });
        if database.is_empty() || database.len() > MAX_IDENTIFIER_BYTES {
            return refuse("it must have 1 to 63 bytes");
        }
        if database.contains('\0') {
            return refuse("it contains a NUL");
        }
        if RESERVED.contains(&database) || database.starts_with("pg_") {
            return refuse("PostgreSQL reserves it");
        }
        let login = |role: &str| {
            Ok(Login { role: role.to_owned(), password: password().map_err(CredentialsError::Random)? })
        };
        Ok(Credentials {
            superuser: login("postgres")?,
            app: login(database)?,
            database: database.to_owned(),
        })
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When it does not read, being absent included.
    pub fn load(path: &Path) -> Result<Credentials, CredentialsError> {
        let read = || serde_json::from_slice(&fs::read(path)?).map_err(io::Error::from);
        read().map_err(|source| CredentialsError::Unreadable { path: path.to_owned(), source })
    }

    /// Reads the file, or generates and writes it when there is none. What is returned is on disk.
    ///
    /// # Errors
    /// As [`Credentials::load`] and [`Credentials::generate`]. A file that does not read is never replaced: there may
    /// be data that only its passwords open.
    pub fn load_or_create(path: &Path, database: &str) -> Result<Credentials, CredentialsError> {
        match Credentials::load(path) {
            Err(CredentialsError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let credentials = Credentials::generate(database)?;
                credentials
                    .write(path)
                    .map_err(|source| CredentialsError::NotWritten { path: path.to_owned(), source })?;
                Ok(credentials)
            }
            loaded => loaded,
        }
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let partial = path.with_extension("partial");
        // One left by a crash may have any mode.
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&partial)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        match path.parent() {
            Some(folder) => fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn password() -> Result<String, getrandom::Error> {
    let mut bytes = [0; PASSWORD_CHARS];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 64)])).collect())
}

/// The app's `DATABASE_URL`, for the proxy on this port of the loopback address.
pub fn database_url(credentials: &Credentials, port: u16) -> String {
    // `postgresql`, not `postgres`: both are right, but some libraries know only the former.
    format!(
        "postgresql://{}:{}@127.0.0.1:{port}/{}",
        percent_encoded(&credentials.app.role),
        percent_encoded(&credentials.app.password),
        percent_encoded(&credentials.database)
    )
}

/// All but what RFC 3986 calls unreserved.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn credentials_are_made_once_and_kept_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.json");
        let made = Credentials::load_or_create(&path, "shop").unwrap();
        assert_eq!(Credentials::load_or_create(&path, "shop").unwrap(), made);
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(made.app.password.len(), 32);
        assert_ne!(made.app.password, made.superuser.password);
        assert!(!format!("{made:?}").contains(&made.app.password));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.json");
        fs::write(&path, "{").unwrap();
        assert!(Credentials::load_or_create(&path, "shop").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "{");
    }

    #[test]
    fn names_that_postgres_keeps_for_itself_are_refused() {
        for name in ["", "postgres", "template1", "pg_shop", &"x".repeat(64)] {
            assert!(Credentials::generate(name).is_err(), "{name:?} was accepted");
        }
    }

    #[test]
    fn the_url_survives_odd_names() {
        let mut credentials = Credentials::generate("my shop/ä").unwrap();
        credentials.app.password = "p@ss".to_owned();
        assert_eq!(
            database_url(&credentials, 5432),
            "postgresql://my%20shop%2F%C3%A4:p%40ss@127.0.0.1:5432/my%20shop%2F%C3%A4"
        );
    }
}

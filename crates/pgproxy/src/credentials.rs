//! Who may enter a database, read from a file.
//!
//! The file may hold more logins than the app's; they are not looked at. The password is kept, because PostgreSQL asks
//! us for it as it would ask the app, and beside it what a client's proof of knowing it is checked against.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::scram::Verifier;

pub(crate) struct Credentials {
    pub role: String,
    pub password: String,
    pub database: String,
    pub verifier: Verifier,
}

/// Who may look at the proxy itself.
pub(crate) struct AdminLogin {
    pub role: String,
    password: String,
    pub verifier: Verifier,
}

#[derive(Deserialize)]
struct File {
    app: Login,
    database: String,
}

#[derive(Deserialize)]
struct Login {
    role: String,
    password: String,
}

impl Credentials {
    /// Reads the file. The verifier is derived, which takes some milliseconds of computing, unless the file says what
    /// is `in_force` already: it is read again in the middle of a failover.
    ///
    /// # Errors
    /// In words that name the file and quote nothing of what stands in it.
    pub fn load(path: &Path, in_force: Option<&Arc<Credentials>>) -> Result<Arc<Credentials>, String> {
        let file: File = read(path)?;
        if let Some(same) = in_force.filter(|in_force| in_force.is_same(&file)) {
            return Ok(same.clone());
        }
        let verifier = Verifier::derive(&file.app.password).map_err(|cause| cause.to_string())?;
        Ok(Arc::new(Credentials {
            role: file.app.role,
            password: file.app.password,
            database: file.database,
            verifier,
        }))
    }

    fn is_same(&self, file: &File) -> bool {
        let login = &file.app;
        (&self.role, &self.password, &self.database) == (&login.role, &login.password, &file.database)
    }
}

impl AdminLogin {
    /// As [`Credentials::load`].
    ///
    /// # Errors
    /// As [`Credentials::load`].
    pub fn load(path: &Path, in_force: Option<&Arc<AdminLogin>>) -> Result<Arc<AdminLogin>, String> {
        let login: Login = read(path)?;
        let is_same = |in_force: &&Arc<AdminLogin>| {
            (&in_force.role, &in_force.password) == (&login.role, &login.password)
        };
        if let Some(same) = in_force.filter(is_same) {
            return Ok(same.clone());
        }
        let verifier = Verifier::derive(&login.password).map_err(|cause| cause.to_string())?;
        Ok(Arc::new(AdminLogin { role: login.role, password: login.password, verifier }))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = fs::read(path).map_err(|cause| format!("{}: {cause}", path.display()))?;
    serde_json::from_slice(&text)
        .map_err(|cause| format!("{}: line {} is not as expected", path.display(), cause.line()))
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("role", &self.role)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

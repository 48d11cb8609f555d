//! What the environment says, checked before anything starts.

use crate::error::StartError;

const EXAMPLE_URL: &str = "postgres://user:password@localhost:5432/frontpage";

/// What serving needs.
pub struct Serve {
    /// The TCP port to listen on; 0 lets the system choose one, which the first log line names.
    pub port: u16,
    pub database: tokio_postgres::Config,
}

impl Serve {
    /// Reads `PORT` and `DATABASE_URL`.
    ///
    /// # Errors
    /// Says which variable is missing or malformed, and what it should look like.
    pub fn from_environment() -> Result<Self, StartError> {
        Ok(Self {
            port: port(std::env::var("PORT").ok().as_deref())?,
            database: database_from_environment()?,
        })
    }
}

/// Reads `DATABASE_URL` alone, which is all a migration needs.
///
/// # Errors
/// Says that it is missing, or why it is not a PostgreSQL URL.
pub fn database_from_environment() -> Result<tokio_postgres::Config, StartError> {
    database(std::env::var("DATABASE_URL").ok().as_deref())
}

fn port(value: Option<&str>) -> Result<u16, StartError> {
    let value = value
        .ok_or_else(|| StartError::Configuration("PORT is not set\nhint: PORT=8080 frontpage".to_owned()))?;
    value.parse().map_err(|_| {
        StartError::Configuration(format!(
            "PORT is `{value}`, which is not a port\nhint: a number from 0 to 65535"
        ))
    })
}

fn database(value: Option<&str>) -> Result<tokio_postgres::Config, StartError> {
    let value = value.ok_or_else(|| {
        StartError::Configuration(format!("DATABASE_URL is not set\nhint: DATABASE_URL={EXAMPLE_URL}"))
    })?;
    // The value itself is not repeated in the message: it may hold a password.
    value.parse().map_err(|problem| {
        StartError::Configuration(format!(
            "DATABASE_URL is not understood: {problem}\nhint: it should look like {EXAMPLE_URL}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_variable_is_named_and_a_password_is_not_repeated() {
        assert!(port(None).unwrap_err().to_string().contains("PORT is not set"));
        assert!(port(Some("http")).unwrap_err().to_string().contains("`http`"));
        assert!(port(Some("70000")).is_err());
        assert_eq!(port(Some("8080")).unwrap(), 8080);

        let problem = database(Some("postgres://me:hunter2@host:notaport/db")).unwrap_err();
        assert!(!problem.to_string().contains("hunter2"));
    }
}

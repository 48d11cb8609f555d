//! Connections of the proxy's own, on which it asks nodes about themselves.

use std::sync::Arc;
use std::time::Duration;

use crate::credentials::Credentials;
use crate::pool::{Limits, Offer, Pool, Target, Turn};
use crate::server::{NotConnected, Server};
use crate::settings::Settings;

/// Whatever a role's settings say: what we ask is short, and nobody waits for its commit.
const PREPARE: &str = "SET statement_timeout TO 0; SET synchronous_commit TO local";

/// Makes them, one at a time.
pub(crate) struct Control(Arc<Pool>);

impl Control {
    pub fn new() -> Control {
        Control(Pool::new(Control::LIMITS))
    }

    const LIMITS: Limits =
        Limits { size: 1, queue: 0, idle_timeout: Duration::MAX, server_lifetime: Duration::MAX };

    /// # Errors
    /// In words for the log.
    pub async fn connect(&self, target: Target, login: &Credentials) -> Result<Server, String> {
        self.0.retarget(Some(target), Control::LIMITS);
        let Offer::Now(Turn::Connect(permit)) = self.0.offer(&Settings::default()) else {
            return Err("the connection before it is still there".to_owned());
        };
        let mut server = Server::connect(permit, login).await.map_err(|cause| match cause {
            NotConnected::NotNow(cause) => cause,
            NotConnected::Refused(refusal) => refusal.message,
        })?;
        text(&mut server, PREPARE).await?;
        Ok(server)
    }
}

/// The first column of the first row; nothing where there is none.
///
/// # Errors
/// In words for the log. The connection must not be used again.
pub(super) async fn text(server: &mut Server, sql: &str) -> Result<Option<Vec<u8>>, String> {
    Ok(row(server, sql).await?.into_iter().next().flatten())
}

/// The columns of the first row.
///
/// # Errors
/// As [`text`].
pub(super) async fn row(server: &mut Server, sql: &str) -> Result<Vec<Option<Vec<u8>>>, String> {
    match server.ask(sql).await {
        Ok(Ok(row)) => Ok(row),
        Ok(Err(error)) => {
            let message = crate::message::error_field(&error, b'M').unwrap_or_default();
            Err(String::from_utf8_lossy(message).into_owned())
        }
        Err(cause) => Err(cause.to_string()),
    }
}

//! Asking an app for one thing at a time, to learn what it has before the crowd comes.

use std::time::Duration;

use crate::client::answer::Failure;
use crate::client::connect::{Shared, TlsClient, TlsError};
use crate::client::{Connection, Request, Wants};
use crate::load::{Method, Origin};
use crate::site::{Answer, Ask, NoAnswer};

/// A page that takes longer is not visited.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Asks an app as a visitor would, a connection for each question.
pub struct Fetcher {
    shared: Shared,
}

impl Fetcher {
    /// # Errors
    /// When TLS is wished for and cannot be spoken.
    pub fn new(origin: &Origin) -> Result<Fetcher, TlsError> {
        let tls = origin.tls.as_ref().map(|tls| TlsClient::new(tls, origin.protocol)).transpose()?;
        // How much of a body is read says each question.
        Ok(Fetcher { shared: Shared::new(origin.clone(), tls, 1, u64::MAX) })
    }

    /// # Errors
    /// When there is no whole answer within ten seconds.
    pub async fn fetch(&self, ask: &Ask) -> Result<Answer, NoAnswer> {
        let request = Request {
            method: Method::Get,
            path: &ask.path,
            from: None,
            cookies: b"",
            body: None,
            wants: Wants::Beginning { bytes: ask.max_bytes },
        };
        let asking = async {
            let mut connection = Connection::open(&self.shared, 0).await?;
            connection.ask(&self.shared, &request, || ()).await
        };
        let answer = match tokio::time::timeout(ANSWER_LIMIT, asking).await {
            Ok(answer) => answer.map_err(|failure| NoAnswer(words(failure).to_owned()))?,
            Err(_) => return Err(NoAnswer(format!("no whole answer within {} s", ANSWER_LIMIT.as_secs()))),
        };
        Ok(Answer {
            status: answer.head.status,
            location: answer.head.location.map(String::from),
            content_type: answer.head.is_html.then(|| "text/html".to_owned()),
            body: answer.page,
            cut: answer.is_cut,
        })
    }
}

fn words(failure: Failure) -> &'static str {
    match failure {
        Failure::Refused => "it could not be connected to",
        Failure::Broken => "the connection ended within the answer, or the answer is no HTTP",
        Failure::TooMuch => "the answer does not end",
        Failure::NotOffered => "there was no connection left",
    }
}

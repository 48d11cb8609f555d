//! Who is asking, and whether a form is really theirs.
//!
//! Two cookies, each a random token. `session` belongs to someone who logged in, and is known to the database.
//! `guest` is given out with the log-in and sign-up forms, so that these are guarded as well; it is stored nowhere.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

use super::{FORM_LIMIT, Site};
use crate::error::Error;
use crate::model::people::{self, SESSION_DAYS, User};
use crate::secret::Token;
use crate::view::Viewer;

const SESSION: &str = "session";
const GUEST: &str = "guest";
/// How long the body of a form may take to arrive.
const FORM_PATIENCE: Duration = Duration::from_secs(10);
const SECONDS_PER_DAY: i32 = 24 * 60 * 60;

/// The person behind a request.
pub struct Visitor {
    pub viewer: Viewer,
    /// The session, if it is a valid one.
    pub session: Option<Token>,
    guest: Option<Token>,
    transport: Transport,
}

/// How the visitor's browser reached us, as far as we are told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Plain,
    Encrypted,
}

impl Visitor {
    /// The user, or a detour to the log-in page.
    ///
    /// # Errors
    /// [`Error::LogInFirst`] for a guest.
    pub fn user(&self) -> Result<&User, Error> {
        let log_in = || Error::LogInFirst { back: self.viewer.here.clone() };
        self.viewer.user.as_ref().ok_or_else(log_in)
    }

    /// Makes sure that a guest can be given a form; [`Visitor::keep`] the cookie with the answer.
    ///
    /// # Errors
    /// When no randomness is to be had.
    pub fn prepare_form(&mut self) -> Result<(), Error> {
        if self.viewer.form_token.is_none() {
            let token = Token::random()?;
            self.viewer.form_token = Some(token.form_token());
            self.guest = Some(token);
        }
        Ok(())
    }

    /// Lets the browser keep the guest's cookie.
    pub fn keep(&self, response: Response) -> Response {
        match &self.guest {
            Some(token) => self.with_cookie(response, GUEST, token.as_str(), SECONDS_PER_DAY),
            None => response,
        }
    }

    /// Lets the browser keep a new session.
    pub fn begin(&self, response: Response, session: &Token) -> Response {
        self.with_cookie(response, SESSION, session.as_str(), SESSION_DAYS * SECONDS_PER_DAY)
    }

    /// Lets the browser forget its session.
    pub fn end(&self, response: Response) -> Response {
        self.with_cookie(response, SESSION, "", 0)
    }

    fn with_cookie(&self, mut response: Response, name: &str, value: &str, seconds: i32) -> Response {
        let secure = match self.transport {
            Transport::Encrypted => "; Secure",
            Transport::Plain => "",
        };
        let cookie = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }
}

impl FromRequestParts<Site> for Visitor {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Error> {
        let guest = cookie(&parts.headers, GUEST);
        let session = cookie(&parts.headers, SESSION);
        // Most visitors have no session, and their pages cost no query for it.
        let user = match &session {
            Some(session) => people::of_session(&site.database, session).await?,
            None => None,
        };
        let session = session.filter(|_| user.is_some());
        let secret = session.as_ref().or(guest.as_ref());
        let forwarded = parts.headers.get("x-forwarded-proto");
        Ok(Self {
            viewer: Viewer {
                user,
                form_token: secret.map(Token::form_token),
                here: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            },
            transport: match forwarded {
                Some(proto) if proto == "https" => Transport::Encrypted,
                _ => Transport::Plain,
            },
            session,
            guest,
        })
    }
}

/// A form that was checked to come from one of our own pages, made for this visitor.
///
/// Handlers get their fields only through this type, so none can forget the check.
pub struct Sent<T> {
    pub visitor: Visitor,
    pub fields: T,
}

#[derive(Deserialize)]
struct Guard {
    #[serde(default)]
    form_token: String,
}

impl<T: DeserializeOwned> FromRequest<Site> for Sent<T> {
    type Rejection = Error;

    async fn from_request(request: Request, site: &Site) -> Result<Self, Error> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, site).await?;
        let bytes = body_of(body).await?;
        let unreadable = |_| Error::BadRequest("The form could not be read.");
        let guard: Guard = serde_urlencoded::from_bytes(&bytes).map_err(unreadable)?;
        let secret = visitor.session.as_ref().or(visitor.guest.as_ref());
        if !secret.is_some_and(|secret| secret.matches_form(&guard.form_token)) {
            return Err(Error::Forged);
        }
        let fields = serde_urlencoded::from_bytes(&bytes).map_err(unreadable)?;
        Ok(Self { visitor, fields })
    }
}

/// What the query of a URL asks for; one that makes no sense gets a page that says so.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Site> for Asked<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Site) -> Result<Self, Error> {
        let asked = serde_urlencoded::from_str(parts.uri.query().unwrap_or_default());
        asked.map(Self).map_err(|_| Error::BadRequest("The address of this page is not understood."))
    }
}

async fn body_of(body: Body) -> Result<axum::body::Bytes, Error> {
    tokio::time::timeout(FORM_PATIENCE, to_bytes(body, FORM_LIMIT))
        .await
        .map_err(|_| Error::BadRequest("The form took too long to arrive."))?
        .map_err(|_| Error::BadRequest("The form is too large, or was cut off."))
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<Token> {
    let values = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(key, value)| if key == name { Token::parse(value) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others_and_nonsense_is_none() {
        let token = Token::random().unwrap();
        let mut headers = HeaderMap::new();
        let value = format!("theme=dark; session={}; xsession=1", token.as_str());
        headers.insert(header::COOKIE, value.parse().unwrap());
        assert!(cookie(&headers, SESSION) == Some(token));
        assert!(cookie(&headers, GUEST).is_none());
        headers.insert(header::COOKIE, "session='; DROP TABLE users".parse().unwrap());
        assert!(cookie(&headers, SESSION).is_none());
    }
}

//! Signing up, logging in and out, and the page about a user.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use std::time::Duration;

use super::Site;
use super::visitor::{Asked, Sent, Visitor};
use crate::error::{Error, SecretError};
use crate::model::people::{self, SignUp};
use crate::model::{comments, stories};
use crate::secret::{self, Token};
use crate::text;
use crate::view::{self, account::Entry};

const PASSWORD_LEAST: usize = 8;
const PASSWORD_MOST: usize = 200;
/// How long someone waits for the hash of their password before being told to try again.
const HASH_PATIENCE: Duration = Duration::from_secs(5);
#[derive(Deserialize)]
pub struct Back {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
pub struct Credentials {
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
pub struct Before {
    pub before: Option<i64>,
}

/// `GET /signup`
pub async fn sign_up_form(visitor: Visitor, Asked(back): Asked<Back>) -> Result<Response, Error> {
    entry_form(visitor, Entry::SignUp, &back.next)
}

/// `GET /login`
pub async fn log_in_form(visitor: Visitor, Asked(back): Asked<Back>) -> Result<Response, Error> {
    entry_form(visitor, Entry::LogIn, &back.next)
}

fn entry_form(mut visitor: Visitor, entry: Entry, next: &str) -> Result<Response, Error> {
    visitor.prepare_form()?;
    let page = view::account::form(&visitor.viewer, entry, "", text::local_path(next), None);
    Ok(visitor.keep(page.into_response()))
}

/// `POST /signup`
pub async fn sign_up(
    State(site): State<Site>,
    Sent { visitor, fields }: Sent<Credentials>,
) -> Result<Response, Error> {
    let refuse = |why: &str| Ok(refused(&visitor, Entry::SignUp, &fields, why));
    let name = match text::user_name(&fields.name) {
        Ok(name) => name,
        Err(why) => return refuse(&why),
    };
    if !(PASSWORD_LEAST..=PASSWORD_MOST).contains(&fields.password.chars().count()) {
        return refuse("A password has 8 to 200 characters.");
    }
    let password = fields.password.clone();
    let hash = hashing(&site, move || secret::hash_password(&password)).await??;
    let session = Token::random()?;
    match people::sign_up(&site.database, &name, &hash, &session).await? {
        SignUp::NameTaken => refuse("This name is taken."),
        SignUp::Done => {
            let onward = Redirect::to(text::local_path(&fields.next)).into_response();
            Ok(visitor.begin(onward, &session))
        }
    }
}

/// `POST /login`
pub async fn log_in(
    State(site): State<Site>,
    Sent { visitor, fields }: Sent<Credentials>,
) -> Result<Response, Error> {
    // One answer for every mistake: it should not tell which names exist.
    let refuse = || Ok(refused(&visitor, Entry::LogIn, &fields, "Name or password is wrong."));
    if fields.password.chars().count() > PASSWORD_MOST {
        return refuse();
    }
    let known = match text::user_name(&fields.name) {
        Ok(name) => people::credentials(&site.database, &name).await?,
        Err(_) => None,
    };
    let (user, hash) = known.unzip();
    let password = fields.password.clone();
    let matches = hashing(&site, move || match hash {
        Some(hash) => secret::password_matches(&password, &hash),
        // Without such a user the same work is done for nothing, so that the time taken does not tell.
        None => secret::hash_password(&password).is_err(),
    })
    .await?;
    let Some(user) = user.filter(|_| matches) else {
        return refuse();
    };
    let session = Token::random()?;
    people::open_session(&site.database, &user, &session).await?;
    let onward = Redirect::to(text::local_path(&fields.next)).into_response();
    Ok(visitor.begin(onward, &session))
}

/// `POST /logout`
pub async fn log_out(State(site): State<Site>, Sent { visitor, .. }: Sent<Back>) -> Result<Response, Error> {
    if let Some(session) = &visitor.session {
        people::close_session(&site.database, session).await?;
    }
    Ok(visitor.end(Redirect::to("/").into_response()))
}

/// `GET /user/{name}`: who they are, and what they submitted.
pub async fn profile(
    State(site): State<Site>,
    visitor: Visitor,
    Path(name): Path<String>,
    Asked(Before { before }): Asked<Before>,
) -> Result<Response, Error> {
    let profile = find(&site, &name).await?;
    let viewer = visitor.viewer.user.as_ref();
    let list = stories::by_user(&site.database, viewer, &profile.user, before).await?;
    Ok(view::account::profile(&visitor.viewer, &profile, &list).into_response())
}

/// `GET /user/{name}/comments`: who they are, and what they said.
pub async fn remarks(
    State(site): State<Site>,
    visitor: Visitor,
    Path(name): Path<String>,
    Asked(Before { before }): Asked<Before>,
) -> Result<Response, Error> {
    let profile = find(&site, &name).await?;
    let list = comments::by_user(&site.database, &profile.user, before).await?;
    Ok(view::account::remarks(&visitor.viewer, &profile, &list).into_response())
}

async fn find(site: &Site, name: &str) -> Result<people::Profile, Error> {
    let name = text::user_name(name).map_err(|_| Error::NotFound)?;
    people::profile(&site.database, &name).await?.ok_or(Error::NotFound)
}

fn refused(visitor: &Visitor, entry: Entry, fields: &Credentials, why: &str) -> Response {
    let next = text::local_path(&fields.next);
    // Only a name that could be one is put back into the form.
    let name = text::user_name(&fields.name).unwrap_or_default();
    let page = view::account::form(&visitor.viewer, entry, &name, next, Some(why));
    (StatusCode::UNPROCESSABLE_ENTITY, page).into_response()
}

/// Runs the slow hash beside the request loop, when its turn comes.
async fn hashing<T: Send + 'static>(
    site: &Site,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let turn = tokio::time::timeout(HASH_PATIENCE, site.hashing.clone().acquire_owned());
    let busy = || Error::Unavailable("too many people are logging in".to_owned());
    let turn = turn.await.map_err(|_| busy())?.map_err(|_| busy())?;
    // The turn moves along: a visitor who leaves must not make room before the work is done.
    let hashed = tokio::task::spawn_blocking(move || {
        let result = work();
        drop(turn);
        result
    });
    hashed.await.map_err(|_| SecretError("hashing stopped").into())
}

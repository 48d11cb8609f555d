//! Lists of stories, a story with its comments, and what people do with them.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::Site;
use super::account::Before;
use super::visitor::{Asked, Sent, Visitor};
use crate::error::Error;
use crate::model::stories::LAST_PAGE;
use crate::model::{comments, stories};
use crate::text::{self, WebUrl};
use crate::view;
use crate::view::stories::Draft;

const TITLE_LEAST: usize = 3;
const TITLE_MOST: usize = 120;
const TEXT_MOST: usize = 8_000;
const WORDS_MOST: usize = 200;

#[derive(Deserialize)]
pub struct Numbered {
    #[serde(default = "first")]
    page: u32,
}

#[derive(Deserialize)]
pub struct Searched {
    #[serde(default)]
    q: String,
    #[serde(default = "first")]
    page: u32,
}

fn first() -> u32 {
    1
}

#[derive(Deserialize)]
pub struct Submission {
    #[serde(default)]
    title: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
pub struct Voted {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
pub struct Said {
    #[serde(default)]
    text: String,
    /// The comment that is answered; a field left empty means the story itself.
    #[serde(default)]
    parent: String,
}

/// `GET /`
pub async fn front(
    State(site): State<Site>,
    visitor: Visitor,
    Asked(Numbered { page }): Asked<Numbered>,
) -> Result<Response, Error> {
    let page = page.clamp(1, LAST_PAGE);
    let list = stories::hottest(&site.database, visitor.viewer.user.as_ref(), page).await?;
    Ok(view::stories::front(&visitor.viewer, &list, page).into_response())
}

/// `GET /new`
pub async fn newest(
    State(site): State<Site>,
    visitor: Visitor,
    Asked(Before { before }): Asked<Before>,
) -> Result<Response, Error> {
    let list = stories::newest(&site.database, visitor.viewer.user.as_ref(), before).await?;
    Ok(view::stories::newest(&visitor.viewer, &list).into_response())
}

/// `GET /search`
pub async fn search(
    State(site): State<Site>,
    visitor: Visitor,
    Asked(Searched { q, page }): Asked<Searched>,
) -> Result<Response, Error> {
    let page = page.clamp(1, LAST_PAGE);
    let viewer = &visitor.viewer;
    match text::line(&q, "The search", 0, WORDS_MOST) {
        Err(why) => {
            let page = view::stories::nothing_searched(viewer, Some(&why));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Ok(words) if words.is_empty() => Ok(view::stories::nothing_searched(viewer, None).into_response()),
        Ok(words) => {
            let user = viewer.user.as_ref();
            let list = stories::search(&site.database, user, &words, page).await?;
            Ok(view::stories::found(viewer, &words, &list, page).into_response())
        }
    }
}

/// `GET /submit`
pub async fn submit_form(visitor: Visitor) -> Result<Response, Error> {
    visitor.user()?;
    Ok(view::stories::submit(&visitor.viewer, &Draft::default(), None).into_response())
}

/// `POST /submit`
pub async fn submit(
    State(site): State<Site>,
    Sent { visitor, fields }: Sent<Submission>,
) -> Result<Response, Error> {
    let user = visitor.user()?;
    match checked(&fields) {
        Ok((title, link, body)) => {
            let story = stories::submit(&site.database, user, &title, link.as_ref(), &body).await?;
            Ok(Redirect::to(&format!("/item/{story}")).into_response())
        }
        Err(why) => {
            let draft = Draft { title: &fields.title, url: &fields.url, text: &fields.text };
            let page = view::stories::submit(&visitor.viewer, &draft, Some(&why));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
    }
}

fn checked(fields: &Submission) -> Result<(String, Option<WebUrl>, String), String> {
    let title = text::line(&fields.title, "The title", TITLE_LEAST, TITLE_MOST)?;
    let body = text::paragraphs(&fields.text, "The text", 0, TEXT_MOST)?;
    let link = match fields.url.trim() {
        "" => None,
        url => Some(WebUrl::parse(url)?),
    };
    if link.is_none() && body.is_empty() {
        return Err("A story needs a link or a text.".to_owned());
    }
    Ok((title, link, body))
}

/// `GET /item/{story}`
pub async fn item(
    State(site): State<Site>,
    visitor: Visitor,
    Path(story): Path<String>,
) -> Result<Response, Error> {
    let story = number(&story)?;
    show(&site, &visitor, story, None).await
}

async fn show(
    site: &Site,
    visitor: &Visitor,
    story: i64,
    problem: Option<(&str, &str)>,
) -> Result<Response, Error> {
    let viewer = &visitor.viewer;
    let found = stories::find(&site.database, viewer.user.as_ref(), story).await?;
    let (story, body) = found.ok_or(Error::NotFound)?;
    let thread = comments::on_story(&site.database, story.id).await?;
    Ok(view::stories::item(viewer, &story, &body, &thread, problem).into_response())
}

/// `POST /item/{story}/vote`
pub async fn vote(
    State(site): State<Site>,
    Path(story): Path<String>,
    Sent { visitor, fields }: Sent<Voted>,
) -> Result<Response, Error> {
    stories::vote(&site.database, visitor.user()?, number(&story)?).await?;
    Ok(Redirect::to(text::local_path(&fields.next)).into_response())
}

/// `POST /item/{story}/unvote`
pub async fn unvote(
    State(site): State<Site>,
    Path(story): Path<String>,
    Sent { visitor, fields }: Sent<Voted>,
) -> Result<Response, Error> {
    stories::unvote(&site.database, visitor.user()?, number(&story)?).await?;
    Ok(Redirect::to(text::local_path(&fields.next)).into_response())
}

/// `POST /item/{story}/comment`
pub async fn comment(
    State(site): State<Site>,
    Path(story): Path<String>,
    Sent { visitor, fields }: Sent<Said>,
) -> Result<Response, Error> {
    let user = visitor.user()?;
    let story = number(&story)?;
    let parent = match fields.parent.as_str() {
        "" => None,
        given => Some(number(given)?),
    };
    match text::paragraphs(&fields.text, "The comment", 1, TEXT_MOST) {
        Ok(body) => {
            let comment = comments::add(&site.database, user, story, parent, &body).await?;
            Ok(Redirect::to(&format!("/item/{story}#comment-{comment}")).into_response())
        }
        Err(why) => {
            let page = match parent {
                None => show(&site, &visitor, story, Some((&fields.text, &why))).await?,
                Some(parent) => answer(&site, &visitor, parent, Some((&fields.text, &why))).await?,
            };
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
    }
}

/// `GET /reply/{comment}`
pub async fn reply_form(
    State(site): State<Site>,
    visitor: Visitor,
    Path(comment): Path<String>,
) -> Result<Response, Error> {
    visitor.user()?;
    answer(&site, &visitor, number(&comment)?, None).await
}

async fn answer(
    site: &Site,
    visitor: &Visitor,
    comment: i64,
    problem: Option<(&str, &str)>,
) -> Result<Response, Error> {
    let remark = comments::find(&site.database, comment).await?.ok_or(Error::NotFound)?;
    Ok(view::stories::reply(&visitor.viewer, &remark, problem).into_response())
}

/// An id in a path; what is no number names nothing.
fn number(given: &str) -> Result<i64, Error> {
    given.parse().map_err(|_| Error::NotFound)
}

//! Stories, the lists they appear in, and the votes that order them.

use std::time::SystemTime;

use tokio_postgres::Row;

use super::Page;
use super::people::User;
use crate::db::Database;
use crate::error::Error;
use crate::text::WebUrl;

/// Stories on one page of a list.
pub const PAGE_SIZE: usize = 30;
/// The last page of lists that are reached by number. Skipping rows costs time, and nobody reads that far.
pub const LAST_PAGE: u32 = 30;

/// A story as lists show it.
pub struct Story {
    pub id: i64,
    pub title: String,
    /// `None` for a story that is text only.
    pub link: Option<WebUrl>,
    pub author: String,
    pub points: i32,
    pub comment_count: i32,
    pub created_at: SystemTime,
    pub vote: Vote,
}

/// Whether the person who looks has voted for the story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vote {
    Given,
    NotGiven,
}

/// What all lists select. `$1` is the person who looks, or null.
const COLUMNS: &str =
    "s.id, s.title, s.url, s.domain, s.points, s.comment_count, s.created_at, u.name AS author,
    EXISTS (SELECT FROM votes v WHERE v.user_id = $1 AND v.story_id = s.id) AS voted";

/// The front page: the hottest stories, `page` counted from 1. One query; the rows come sorted from an index.
///
/// # Errors
/// Those of the database.
pub async fn hottest(database: &Database, viewer: Option<&User>, page: u32) -> Result<Page<Story>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM (
            SELECT * FROM stories ORDER BY hotness DESC, id DESC LIMIT $2 OFFSET $3
        ) AS s JOIN users u ON u.id = s.user_id ORDER BY s.hotness DESC, s.id DESC"
    );
    let rows = database.query(&sql, &[&id(viewer), &one_more(), &offset(page)]).await?;
    Ok(listed(&rows))
}

/// The newest stories, or those older than the story `before`.
///
/// # Errors
/// Those of the database.
pub async fn newest(
    database: &Database,
    viewer: Option<&User>,
    before: Option<i64>,
) -> Result<Page<Story>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM stories s JOIN users u ON u.id = s.user_id
        WHERE s.id < $2 ORDER BY s.id DESC LIMIT $3"
    );
    let before = before.unwrap_or(i64::MAX);
    let rows = database.query(&sql, &[&id(viewer), &before, &one_more()]).await?;
    Ok(listed(&rows))
}

/// The stories of one user, newest first.
///
/// # Errors
/// Those of the database.
pub async fn by_user(
    database: &Database,
    viewer: Option<&User>,
    author: &User,
    before: Option<i64>,
) -> Result<Page<Story>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM stories s JOIN users u ON u.id = s.user_id
        WHERE s.user_id = $2 AND s.id < $3 ORDER BY s.id DESC LIMIT $4"
    );
    let before = before.unwrap_or(i64::MAX);
    let rows = database.query(&sql, &[&id(viewer), &author.id, &before, &one_more()]).await?;
    Ok(listed(&rows))
}

/// The stories that match the words best; quotes, `or` and `-` work as in web searches.
///
/// # Errors
/// Those of the database.
pub async fn search(
    database: &Database,
    viewer: Option<&User>,
    words: &str,
    page: u32,
) -> Result<Page<Story>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM (
            SELECT s.*, ts_rank_cd(s.search, q) AS rank
            FROM stories s, websearch_to_tsquery('english', $2) AS q
            WHERE s.search @@ q ORDER BY rank DESC, s.id DESC LIMIT $3 OFFSET $4
        ) AS s JOIN users u ON u.id = s.user_id ORDER BY s.rank DESC, s.id DESC"
    );
    let rows = database.query(&sql, &[&id(viewer), &words, &one_more(), &offset(page)]).await?;
    Ok(listed(&rows))
}

/// One story and its text.
///
/// # Errors
/// Those of the database.
pub async fn find(
    database: &Database,
    viewer: Option<&User>,
    story: i64,
) -> Result<Option<(Story, String)>, Error> {
    let sql =
        format!("SELECT {COLUMNS}, s.body FROM stories s JOIN users u ON u.id = s.user_id WHERE s.id = $2");
    let row = database.query_opt(&sql, &[&id(viewer), &story]).await?;
    Ok(row.map(|row| (read(&row), row.get("body"))))
}

/// Adds a story with its author's vote; gives its id.
///
/// # Errors
/// Those of the database.
pub async fn submit(
    database: &Database,
    author: &User,
    title: &str,
    link: Option<&WebUrl>,
    body: &str,
) -> Result<i64, Error> {
    let sql = "WITH story AS (
            INSERT INTO stories (user_id, title, url, domain, body, points)
            VALUES ($1, $2, $3, $4, $5, 1) RETURNING id, user_id
        ), vote AS (
            INSERT INTO votes (user_id, story_id) SELECT user_id, id FROM story
        )
        SELECT id FROM story";
    let url = link.map(|link| &link.url);
    let domain = link.map(|link| &link.domain);
    let row = database.query_opt(sql, &[&author.id, &title, &url, &domain, &body]).await?;
    row.map(|row| row.get(0)).ok_or_else(|| Error::Internal("a new story got no id".to_owned()))
}

/// Votes for a story. Doing it twice is doing it once.
///
/// # Errors
/// [`Error::NotFound`] without such a story, otherwise those of the database.
pub async fn vote(database: &Database, user: &User, story: i64) -> Result<(), Error> {
    let sql = "WITH wanted AS (SELECT id FROM stories WHERE id = $2), given AS (
            INSERT INTO votes (user_id, story_id) SELECT $1, id FROM wanted
            ON CONFLICT DO NOTHING RETURNING story_id
        ), counted AS (
            UPDATE stories SET points = points + 1 WHERE id IN (SELECT story_id FROM given)
        )
        SELECT id FROM wanted";
    let row = database.query_opt(sql, &[&user.id, &story]).await?;
    row.map(drop).ok_or(Error::NotFound)
}

/// Takes a vote back. Without a vote there is nothing to do.
///
/// # Errors
/// Those of the database.
pub async fn unvote(database: &Database, user: &User, story: i64) -> Result<(), Error> {
    let sql = "WITH taken AS (
            DELETE FROM votes WHERE user_id = $1 AND story_id = $2 RETURNING story_id
        )
        UPDATE stories SET points = points - 1 WHERE id IN (SELECT story_id FROM taken)";
    database.query(sql, &[&user.id, &story]).await?;
    Ok(())
}

fn id(viewer: Option<&User>) -> Option<i64> {
    viewer.map(|user| user.id)
}

fn one_more() -> i64 {
    PAGE_SIZE as i64 + 1
}

fn offset(page: u32) -> i64 {
    i64::from(page.clamp(1, LAST_PAGE) - 1) * PAGE_SIZE as i64
}

fn listed(rows: &[Row]) -> Page<Story> {
    Page::from_one_more(rows.iter().map(read).collect(), PAGE_SIZE)
}

fn read(row: &Row) -> Story {
    let url: Option<String> = row.get("url");
    let domain: Option<String> = row.get("domain");
    Story {
        id: row.get("id"),
        title: row.get("title"),
        link: url.zip(domain).map(|(url, domain)| WebUrl { url, domain }),
        author: row.get("author"),
        points: row.get("points"),
        comment_count: row.get("comment_count"),
        created_at: row.get("created_at"),
        vote: if row.get("voted") { Vote::Given } else { Vote::NotGiven },
    }
}

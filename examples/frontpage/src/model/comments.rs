//! Comments, and how they form threads.

use std::collections::HashMap;
use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::Page;
use super::people::User;
use crate::db::{self, Database};
use crate::error::Error;

/// Comments shown under one story, oldest first.
const STORY_LIMIT: i64 = 500;
/// Comments on one page of a user's.
const PAGE_SIZE: usize = 30;

/// A comment as people see it.
#[derive(Debug, Clone)]
pub struct Comment {
    pub id: i64,
    pub parent_id: Option<i64>,
    pub author: String,
    pub body: String,
    pub created_at: SystemTime,
}

/// A comment and the title of the story it is about.
pub struct Remark {
    pub comment: Comment,
    pub story_id: i64,
    pub story_title: String,
}

/// A comment in its place: how many comments it is an answer to, one above the other.
#[derive(Debug)]
pub struct Placed {
    pub comment: Comment,
    pub depth: usize,
}

/// Puts comments, given in the order of their ids, into reading order: each is followed by its answers.
///
/// An answer whose parent is not among them (it may be beyond the limit) stands at the top, so nothing gets lost.
pub fn threaded(comments: Vec<Comment>) -> Vec<Placed> {
    let places: HashMap<i64, usize> =
        comments.iter().enumerate().map(|(place, comment)| (comment.id, place)).collect();
    let mut answers: Vec<Vec<usize>> = vec![Vec::new(); comments.len()];
    // What is still to be placed, the next one last.
    let mut waiting = Vec::new();
    for (place, comment) in comments.iter().enumerate() {
        match comment.parent_id.and_then(|parent| places.get(&parent)) {
            // Parents are older than their answers, which is why this can never go round in circles.
            Some(&parent) if parent < place => answers[parent].push(place),
            _ => waiting.push((place, 0)),
        }
    }
    waiting.reverse();

    let mut comments: Vec<Option<Comment>> = comments.into_iter().map(Some).collect();
    let mut placed = Vec::with_capacity(comments.len());
    // A list instead of recursion: a long quarrel must not be able to exhaust the stack.
    while let Some((place, depth)) = waiting.pop() {
        waiting.extend(answers[place].iter().rev().map(|&answer| (answer, depth + 1)));
        if let Some(comment) = comments[place].take() {
            placed.push(Placed { comment, depth });
        }
    }
    placed
}

const COLUMNS: &str = "c.id, c.story_id, c.parent_id, c.body, c.created_at, u.name AS author";

/// The comments on a story, in reading order.
///
/// # Errors
/// Those of the database.
pub async fn on_story(database: &Database, story: i64) -> Result<Vec<Placed>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM comments c JOIN users u ON u.id = c.user_id
        WHERE c.story_id = $1 ORDER BY c.id LIMIT $2"
    );
    let rows = database.query(&sql, &[&story, &STORY_LIMIT]).await?;
    Ok(threaded(rows.iter().map(read).collect()))
}

/// One comment, to answer it.
///
/// # Errors
/// Those of the database.
pub async fn find(database: &Database, comment: i64) -> Result<Option<Remark>, Error> {
    let sql = format!(
        "SELECT {COLUMNS}, s.title FROM comments c JOIN users u ON u.id = c.user_id
            JOIN stories s ON s.id = c.story_id WHERE c.id = $1"
    );
    Ok(database.query_opt(&sql, &[&comment]).await?.as_ref().map(remark))
}

/// What a user said, newest first.
///
/// # Errors
/// Those of the database.
pub async fn by_user(database: &Database, author: &User, before: Option<i64>) -> Result<Page<Remark>, Error> {
    let sql = format!(
        "SELECT {COLUMNS}, s.title FROM comments c JOIN users u ON u.id = c.user_id
            JOIN stories s ON s.id = c.story_id
        WHERE c.user_id = $1 AND c.id < $2 ORDER BY c.id DESC LIMIT $3"
    );
    let one_more = PAGE_SIZE as i64 + 1;
    let before = before.unwrap_or(i64::MAX);
    let rows = database.query(&sql, &[&author.id, &before, &one_more]).await?;
    Ok(Page::from_one_more(rows.iter().map(remark).collect(), PAGE_SIZE))
}

/// Adds a comment to a story, as an answer to another one of that story if `parent` is given; gives its id.
///
/// # Errors
/// [`Error::NotFound`] when there is no such story, or no such comment on it; otherwise those of the database.
pub async fn add(
    database: &Database,
    author: &User,
    story: i64,
    parent: Option<i64>,
    body: &str,
) -> Result<i64, Error> {
    let mut client = database.client().await?;
    let answer = db::limited(async {
        let transaction = client.transaction().await?;
        let insert = transaction
            .prepare_cached(
                "INSERT INTO comments (story_id, parent_id, user_id, body)
                VALUES ($1, $2, $3, $4) RETURNING id",
            )
            .await?;
        let inserted = transaction.query_one(&insert, &[&story, &parent, &author.id, &body]).await;
        let id: i64 = match inserted {
            Ok(row) => row.get(0),
            Err(error) if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) => {
                transaction.rollback().await?;
                return Err(Error::NotFound);
            }
            Err(error) => return Err(error.into()),
        };
        let count = transaction
            .prepare_cached("UPDATE stories SET comment_count = comment_count + 1 WHERE id = $1")
            .await?;
        transaction.execute(&count, &[&story]).await?;
        transaction.commit().await?;
        Ok(id)
    })
    .await;
    db::settle(client, answer)
}

fn read(row: &Row) -> Comment {
    Comment {
        id: row.get("id"),
        parent_id: row.get("parent_id"),
        author: row.get("author"),
        body: row.get("body"),
        created_at: row.get("created_at"),
    }
}

fn remark(row: &Row) -> Remark {
    Remark { comment: read(row), story_id: row.get("story_id"), story_title: row.get("title") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &[(i64, Option<i64>)], expected: &[(i64, usize)]) {
        let comments = given.iter().map(|&(id, parent_id)| Comment {
            id,
            parent_id,
            author: String::new(),
            body: String::new(),
            created_at: SystemTime::UNIX_EPOCH,
        });
        let placed = threaded(comments.collect());
        let placed: Vec<_> = placed.iter().map(|placed| (placed.comment.id, placed.depth)).collect();
        assert_eq!(placed, expected);
    }

    #[test]
    fn answers_follow_what_they_answer_the_oldest_first() {
        check(
            &[(1, None), (2, None), (3, Some(1)), (4, Some(2)), (5, Some(3)), (6, Some(1))],
            &[(1, 0), (3, 1), (5, 2), (6, 1), (2, 0), (4, 1)],
        );
    }

    #[test]
    fn no_comment_gets_lost_whatever_it_claims_to_answer() {
        check(&[(5, Some(1)), (6, Some(5)), (7, Some(7))], &[(5, 0), (6, 1), (7, 0)]);
        check(&[(1, Some(2)), (2, Some(1))], &[(1, 0), (2, 1)]);
        check(&[], &[]);
    }

    #[test]
    fn a_very_long_quarrel_is_only_deep() {
        let chain: Vec<_> = (1..=100_000).map(|id| (id, Some(id - 1))).collect();
        let expected: Vec<_> = (1..=100_000).map(|id| (id, id as usize - 1)).collect();
        check(&chain, &expected);
    }
}

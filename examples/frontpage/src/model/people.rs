//! Users and their sessions.

use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use crate::db::{self, Database};
use crate::error::Error;
use crate::secret::Token;

/// Sessions a user may have at once; logging in once more ends the oldest.
const SESSIONS_PER_USER: i64 = 10;
/// How long a session lasts, in days.
pub const SESSION_DAYS: i32 = 30;

/// Someone who signed up.
#[derive(Debug, Clone)]
pub struct User {
    pub id: i64,
    pub name: String,
}

/// What a user's page says about them.
pub struct Profile {
    pub user: User,
    pub since: SystemTime,
    /// The points of all their stories together.
    pub points: i64,
    pub stories: i64,
    pub comments: i64,
}

/// How a sign-up ended.
pub enum SignUp {
    Done,
    NameTaken,
}

/// Creates a user and their first session together.
///
/// # Errors
/// Those of the database.
pub async fn sign_up(
    database: &Database,
    name: &str,
    password_hash: &str,
    session: &Token,
) -> Result<SignUp, Error> {
    let mut client = database.client().await?;
    let answer = db::limited(async {
        let transaction = client.transaction().await?;
        let insert = transaction
            .prepare_cached("INSERT INTO users (name, password_hash) VALUES ($1, $2) RETURNING id")
            .await?;
        let id: i64 = match transaction.query_one(&insert, &[&name, &password_hash]).await {
            Ok(row) => row.get(0),
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                transaction.rollback().await?;
                return Ok(SignUp::NameTaken);
            }
            Err(error) => return Err(error.into()),
        };
        let open = transaction.prepare_cached(OPEN_SESSION).await?;
        transaction.execute(&open, &[&session.stored(), &id, &SESSION_DAYS]).await?;
        transaction.commit().await?;
        Ok(SignUp::Done)
    })
    .await;
    db::settle(client, answer)
}

const OPEN_SESSION: &str = "INSERT INTO sessions (token_hash, user_id, expires_at) \
     VALUES ($1, $2, now() + make_interval(days => $3))";

/// A user and the hash of their password.
///
/// # Errors
/// Those of the database.
pub async fn credentials(database: &Database, name: &str) -> Result<Option<(User, String)>, Error> {
    let sql = "SELECT id, name, password_hash FROM users WHERE name = $1";
    let row = database.query_opt(sql, &[&name]).await?;
    Ok(row.map(|row| (user(&row), row.get("password_hash"))))
}

/// Opens a session, and ends those that are over or too many.
///
/// # Errors
/// Those of the database.
pub async fn open_session(database: &Database, user: &User, session: &Token) -> Result<(), Error> {
    let sql = "WITH ended AS (
            DELETE FROM sessions WHERE token_hash IN (
                SELECT token_hash FROM (
                    SELECT token_hash, expires_at, row_number() OVER (ORDER BY created_at DESC) AS place
                    FROM sessions WHERE user_id = $2
                ) AS mine WHERE expires_at < now() OR place >= $4)
        )
        INSERT INTO sessions (token_hash, user_id, expires_at)
        VALUES ($1, $2, now() + make_interval(days => $3))";
    let parameters: db::Parameters<'_> = &[&session.stored(), &user.id, &SESSION_DAYS, &SESSIONS_PER_USER];
    database.query(sql, parameters).await?;
    Ok(())
}

/// Whose session this is, if it still lasts. Only reads, so that looking at pages never writes.
///
/// # Errors
/// Those of the database.
pub async fn of_session(database: &Database, session: &Token) -> Result<Option<User>, Error> {
    let sql = "SELECT u.id, u.name FROM sessions s JOIN users u ON u.id = s.user_id
        WHERE s.token_hash = $1 AND s.expires_at > now()";
    let row = database.query_opt(sql, &[&session.stored()]).await?;
    Ok(row.as_ref().map(user))
}

/// Ends a session everywhere at once.
///
/// # Errors
/// Those of the database.
pub async fn close_session(database: &Database, session: &Token) -> Result<(), Error> {
    let sql = "DELETE FROM sessions WHERE token_hash = $1";
    database.query(sql, &[&session.stored()]).await?;
    Ok(())
}

/// A user's profile, by name.
///
/// # Errors
/// Those of the database.
pub async fn profile(database: &Database, name: &str) -> Result<Option<Profile>, Error> {
    let sql = "SELECT u.id, u.name, u.created_at,
            coalesce(s.points, 0)::bigint AS points, s.stories, c.comments
        FROM users u,
            LATERAL (SELECT sum(points) AS points, count(*) AS stories FROM stories WHERE user_id = u.id) AS s,
            LATERAL (SELECT count(*) AS comments FROM comments WHERE user_id = u.id) AS c
        WHERE u.name = $1";
    let row = database.query_opt(sql, &[&name]).await?;
    Ok(row.map(|row| Profile {
        user: user(&row),
        since: row.get("created_at"),
        points: row.get("points"),
        stories: row.get("stories"),
        comments: row.get("comments"),
    }))
}

fn user(row: &Row) -> User {
    User { id: row.get("id"), name: row.get("name") }
}

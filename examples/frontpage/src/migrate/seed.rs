//! Writing the sample data, fast enough that a new database is ready in a moment.

use std::pin::pin;

use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Transaction};

use super::sample::Sample;

/// Whether nobody has signed up yet, or nobody could for want of a table.
///
/// # Errors
/// Those of the database.
pub async fn is_wanted(transaction: &Transaction<'_>) -> Result<bool, Error> {
    let table = transaction.query_one("SELECT to_regclass('users') IS NULL", &[]).await?;
    if table.get(0) {
        return Ok(true);
    }
    let row = transaction.query_one("SELECT NOT EXISTS (SELECT FROM users)", &[]).await?;
    Ok(row.get(0))
}

/// Copies the sample into the empty tables.
///
/// # Errors
/// Those of the database.
pub async fn fill(transaction: &Transaction<'_>, sample: &Sample, password_hash: &str) -> Result<(), Error> {
    transaction.batch_execute(WITHOUT_KEYS).await?;

    let rows = sample
        .users
        .iter()
        .map(|user| -> [&(dyn ToSql + Sync); 4] { [&user.id, &user.name, &password_hash, &user.created_at] });
    let types = [Type::INT8, Type::TEXT, Type::TEXT, Type::TIMESTAMPTZ];
    copy(transaction, "users (id, name, password_hash, created_at)", &types, rows).await?;

    let rows = sample.stories.iter().map(|story| -> [&(dyn ToSql + Sync); 9] {
        [
            &story.id,
            &story.user_id,
            &story.title,
            &story.url,
            &story.domain,
            &story.body,
            &story.points,
            &story.comment_count,
            &story.created_at,
        ]
    });
    let columns = "stories (id, user_id, title, url, domain, body, points, comment_count, created_at)";
    let types = [
        Type::INT8,
        Type::INT8,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::INT4,
        Type::INT4,
        Type::TIMESTAMPTZ,
    ];
    copy(transaction, columns, &types, rows).await?;

    let rows = sample.comments.iter().map(|comment| -> [&(dyn ToSql + Sync); 6] {
        [
            &comment.id,
            &comment.story_id,
            &comment.parent_id,
            &comment.user_id,
            &comment.body,
            &comment.created_at,
        ]
    });
    let columns = "comments (id, story_id, parent_id, user_id, body, created_at)";
    let types = [Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::TEXT, Type::TIMESTAMPTZ];
    copy(transaction, columns, &types, rows).await?;

    let rows = sample
        .votes
        .iter()
        .map(|vote| -> [&(dyn ToSql + Sync); 3] { [&vote.user_id, &vote.story_id, &vote.created_at] });
    let types = [Type::INT8, Type::INT8, Type::TIMESTAMPTZ];
    copy(transaction, "votes (user_id, story_id, created_at)", &types, rows).await?;

    transaction.batch_execute(WITH_KEYS).await
}

/// Checking a foreign key row by row takes longer than everything else together; adding it afterwards checks all
/// rows in one pass.
const WITHOUT_KEYS: &str = "
    ALTER TABLE votes DROP CONSTRAINT votes_user_id_fkey, DROP CONSTRAINT votes_story_id_fkey;
    ALTER TABLE comments DROP CONSTRAINT comments_user_id_fkey, DROP CONSTRAINT comments_story_id_fkey,
        DROP CONSTRAINT comments_parent_fkey;";

/// Puts the keys back, lets new rows continue the numbers, and tells the planner roughly what is
/// there; autovacuum tells it more exactly later.
const WITH_KEYS: &str = "
    ALTER TABLE votes ADD CONSTRAINT votes_user_id_fkey FOREIGN KEY (user_id) REFERENCES users,
        ADD CONSTRAINT votes_story_id_fkey FOREIGN KEY (story_id) REFERENCES stories;
    ALTER TABLE comments ADD CONSTRAINT comments_user_id_fkey FOREIGN KEY (user_id) REFERENCES users,
        ADD CONSTRAINT comments_story_id_fkey FOREIGN KEY (story_id) REFERENCES stories,
        ADD CONSTRAINT comments_parent_fkey
            FOREIGN KEY (story_id, parent_id) REFERENCES comments (story_id, id);
    SELECT setval(pg_get_serial_sequence('users', 'id'), (SELECT max(id) FROM users)),
        setval(pg_get_serial_sequence('stories', 'id'), (SELECT max(id) FROM stories)),
        setval(pg_get_serial_sequence('comments', 'id'), (SELECT max(id) FROM comments));
    SET LOCAL default_statistics_target = 20;
    ANALYZE users, stories, votes, comments;";

async fn copy<'a, const WIDTH: usize>(
    transaction: &Transaction<'_>,
    columns: &str,
    types: &[Type; WIDTH],
    rows: impl Iterator<Item = [&'a (dyn ToSql + Sync); WIDTH]>,
) -> Result<(), Error> {
    let sink = transaction.copy_in(&format!("COPY {columns} FROM STDIN (FORMAT binary)")).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, types));
    for row in rows {
        writer.as_mut().write(&row).await?;
    }
    writer.finish().await?;
    Ok(())
}

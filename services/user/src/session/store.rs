//! The rows of `users.sessions` and `users.refresh_tokens`.

use service::auth::Role;
use sqlx::PgConnection;
use uuid::Uuid;

/// A session and whose it is.
pub(super) struct Family {
    pub session: Uuid,
    pub account: Uuid,
    pub role: Role,
}

pub(super) struct Token {
    pub spent: bool,
    /// Present while a retry may still have the successor.
    pub grace_salt: Option<Vec<u8>>,
}

pub(super) async fn insert(
    connection: &mut PgConnection,
    account: Uuid,
    token_hash: &[u8],
) -> sqlx::Result<Option<Uuid>> {
    let session = sqlx::query_scalar!(
        "WITH session AS (
             INSERT INTO users.sessions (id, account_id, expires_at)
             SELECT $1, id, now() + interval '30 days' FROM users.accounts WHERE id = $2 AND NOT disabled
             RETURNING id)
         INSERT INTO users.refresh_tokens (token_hash, session_id)
         SELECT $3, id FROM session RETURNING session_id",
        Uuid::now_v7(),
        account,
        token_hash,
    );
    session.fetch_optional(connection).await
}

/// Locks the session that a token belongs to, spent or not. `None` when there
/// is none, it has run out, or its account is disabled.
pub(super) async fn lock_family(
    connection: &mut PgConnection,
    token_hash: &[u8],
) -> sqlx::Result<Option<Family>> {
    let row = sqlx::query!(
        "SELECT s.id, s.account_id, a.role
         FROM users.sessions s JOIN users.accounts a ON a.id = s.account_id
         WHERE s.id = (SELECT session_id FROM users.refresh_tokens WHERE token_hash = $1)
           AND s.expires_at > now() AND NOT a.disabled
         FOR UPDATE OF s",
        token_hash,
    );
    let Some(row) = row.fetch_optional(connection).await? else {
        return Ok(None);
    };
    Ok(Some(Family {
        session: row.id,
        account: row.account_id,
        role: row.role.parse().map_err(|error: String| sqlx::Error::Decode(error.into()))?,
    }))
}

/// The token's state. Read it in a statement after the lock: the one that
/// waited for the lock still sees the rows as they were before.
pub(super) async fn token(connection: &mut PgConnection, token_hash: &[u8]) -> sqlx::Result<Option<Token>> {
    let row = sqlx::query_as!(
        Token,
        r#"SELECT spent_at IS NOT NULL AS "spent!",
                  CASE WHEN spent_at > now() - interval '10 seconds' THEN successor_salt END AS grace_salt
           FROM users.refresh_tokens WHERE token_hash = $1"#,
        token_hash,
    );
    row.fetch_optional(connection).await
}

/// Spends the token and stores its successor. The salt of the token before is
/// erased: its successor is this one, which has now been used.
pub(super) async fn rotate(
    connection: &mut PgConnection,
    session: Uuid,
    token_hash: &[u8],
    salt: &[u8],
    successor_hash: &[u8],
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE users.refresh_tokens
         SET spent_at = COALESCE(spent_at, now()),
             successor_salt = CASE WHEN token_hash = $2 THEN $3::bytea END
         WHERE session_id = $1 AND (token_hash = $2 OR successor_salt IS NOT NULL)",
        session,
        token_hash,
        salt,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "WITH used AS (
             UPDATE users.sessions SET last_used_at = now(), expires_at = now() + interval '30 days'
             WHERE id = $1)
         INSERT INTO users.refresh_tokens (token_hash, session_id) VALUES ($2, $1)",
        session,
        successor_hash,
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn revoke(connection: &mut PgConnection, session: Uuid) -> sqlx::Result<()> {
    let delete = sqlx::query!("DELETE FROM users.sessions WHERE id = $1", session);
    delete.execute(connection).await?;
    Ok(())
}

pub(super) async fn revoke_by_token(connection: &mut PgConnection, token_hash: &[u8]) -> sqlx::Result<()> {
    let delete = sqlx::query!(
        "DELETE FROM users.sessions
         WHERE id = (SELECT session_id FROM users.refresh_tokens WHERE token_hash = $1)",
        token_hash,
    );
    delete.execute(connection).await?;
    Ok(())
}

/// Removes sessions that have run out, and spent tokens too old to be worth
/// recognising.
pub(crate) async fn sweep(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM users.sessions WHERE id IN (
             SELECT id FROM users.sessions WHERE expires_at < now() LIMIT 1000)"
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "DELETE FROM users.refresh_tokens WHERE token_hash IN (
             SELECT token_hash FROM users.refresh_tokens
             WHERE spent_at IS NOT NULL AND created_at < now() - interval '30 days' LIMIT 10000)"
    )
    .execute(connection)
    .await?;
    Ok(())
}

//! The rows of `users.sessions` and `users.refresh_tokens`.

use identity::{Role, User};
use service::db::Connection;
use uuid::Uuid;

use super::Credentials;
use super::Session;

/// A session and its owner.
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

/// Share-locks the account, so that whoever changes its password or role sees
/// this session and ends it, or this sees the change and opens none.
pub(super) async fn insert(
    connection: &mut Connection,
    account: &Credentials,
    token_hash: &[u8],
    user_agent: Option<&str>,
) -> sqlx::Result<Option<Family>> {
    let row = sqlx::query!(
        "WITH account AS (
             SELECT id, role FROM users.accounts
             WHERE id = $2 AND password_hash = $3 AND NOT disabled FOR SHARE),
         session AS (
             INSERT INTO users.sessions (id, account_id, user_agent, expires_at)
             SELECT $1, id, $5, now() + interval '30 days' FROM account
             RETURNING id),
         token AS (
             INSERT INTO users.refresh_tokens (token_hash, session_id) SELECT $4, id FROM session)
         SELECT session.id, role FROM session, account",
        Uuid::now_v7(),
        account.id,
        account.password_hash,
        token_hash,
        user_agent,
    );
    let Some(row) = row.fetch_optional(connection).await? else {
        return Ok(None);
    };
    Ok(Some(Family { session: row.id, account: account.id, role: role(&row.role)? }))
}

fn role(text: &str) -> sqlx::Result<Role> {
    text.parse().map_err(|error: String| sqlx::Error::Decode(error.into()))
}

/// The caller's role as of now; `None` when the session has ended.
pub(crate) async fn current_role(connection: &mut Connection, user: &User) -> sqlx::Result<Option<Role>> {
    let row = sqlx::query_scalar!(
        "SELECT a.role FROM users.sessions s JOIN users.accounts a ON a.id = s.account_id
         WHERE s.id = $1 AND a.id = $2 AND s.expires_at > now() AND NOT a.disabled",
        user.session,
        user.id,
    );
    row.fetch_optional(connection).await?.map(|text| role(&text)).transpose()
}

/// Up to `limit` of the caller's sessions, newest first, from the one after `after` on.
pub(crate) async fn list(
    connection: &mut Connection,
    user: &User,
    after: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Session>> {
    let rows = sqlx::query_as!(
        Session,
        r#"SELECT id, id = $2 AS "current!", user_agent, created_at, last_used_at FROM users.sessions
           WHERE account_id = $1 AND id < $3 AND expires_at > now() ORDER BY id DESC LIMIT $4"#,
        user.id,
        user.session,
        after.unwrap_or(Uuid::max()),
        limit,
    );
    rows.fetch_all(connection).await
}

/// Ends one of the account's sessions; false when it has none such.
pub(crate) async fn revoke_own(
    connection: &mut Connection,
    account: Uuid,
    session: Uuid,
) -> sqlx::Result<bool> {
    let delete =
        sqlx::query!("DELETE FROM users.sessions WHERE id = $2 AND account_id = $1", account, session);
    Ok(delete.execute(connection).await?.rows_affected() == 1)
}

pub(crate) async fn revoke_all(connection: &mut Connection, account: Uuid) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM users.sessions WHERE account_id = $1", account).execute(connection).await?;
    Ok(())
}

/// Ends the caller's sessions but for the one that asks.
pub(crate) async fn revoke_others(connection: &mut Connection, user: &User) -> sqlx::Result<()> {
    let delete =
        sqlx::query!("DELETE FROM users.sessions WHERE account_id = $1 AND id <> $2", user.id, user.session,);
    delete.execute(connection).await?;
    Ok(())
}

/// Locks the session that a token belongs to, spent or not. `None` when there
/// is none, it has run out, or its account is disabled.
pub(super) async fn lock_family(
    connection: &mut Connection,
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
    Ok(Some(Family { session: row.id, account: row.account_id, role: role(&row.role)? }))
}

/// The token's state. Read it in a statement after the lock: the statement that waited for the lock still
/// sees the rows as they were before.
pub(super) async fn token(connection: &mut Connection, token_hash: &[u8]) -> sqlx::Result<Option<Token>> {
    let row = sqlx::query_as!(
        Token,
        r#"SELECT spent_at IS NOT NULL AS "spent!",
                  CASE WHEN spent_at > now() - interval '60 seconds' THEN successor_salt END AS grace_salt
           FROM users.refresh_tokens WHERE token_hash = $1"#,
        token_hash,
    );
    row.fetch_optional(connection).await
}

/// Spends the token and stores its successor. The salt of the token before is
/// erased: its successor is this one, which has now been used.
pub(super) async fn rotate(
    connection: &mut Connection,
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

pub(super) async fn revoke(connection: &mut Connection, session: Uuid) -> sqlx::Result<()> {
    let delete = sqlx::query!("DELETE FROM users.sessions WHERE id = $1", session);
    delete.execute(connection).await?;
    Ok(())
}

pub(super) async fn revoke_by_token(connection: &mut Connection, token_hash: &[u8]) -> sqlx::Result<()> {
    let delete = sqlx::query!(
        "DELETE FROM users.sessions
         WHERE id = (SELECT session_id FROM users.refresh_tokens WHERE token_hash = $1)",
        token_hash,
    );
    delete.execute(connection).await?;
    Ok(())
}

/// Removes sessions that have run out, and spent tokens too old to be worth
/// recognising; true when there may be more.
pub(crate) async fn sweep(connection: &mut Connection) -> sqlx::Result<bool> {
    let sessions = sqlx::query!(
        "DELETE FROM users.sessions WHERE id IN (
             SELECT id FROM users.sessions WHERE expires_at < now() LIMIT 1000)"
    );
    let sessions = sessions.execute(&mut *connection).await?.rows_affected();
    let tokens = sqlx::query!(
        "DELETE FROM users.refresh_tokens WHERE token_hash IN (
             SELECT token_hash FROM users.refresh_tokens
             WHERE spent_at IS NOT NULL AND created_at < now() - interval '30 days' LIMIT 10000)"
    );
    let tokens = tokens.execute(connection).await?.rows_affected();
    Ok(sessions == 1000 || tokens == 10_000)
}

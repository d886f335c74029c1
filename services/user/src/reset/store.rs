//! The rows of `users.password_resets`. Times are the clock's, since a transaction's
//! `now()` is from before it waited for a lock.

use service::db::Connection;
use uuid::Uuid;

/// Keeps an account as it is until the transaction ends; false when there is none that may sign in.
pub(super) async fn lock_account(connection: &mut Connection, account: Uuid) -> sqlx::Result<bool> {
    let locked = sqlx::query_scalar!(
        "SELECT id FROM users.accounts WHERE id = $1 AND NOT disabled FOR NO KEY UPDATE",
        account,
    );
    Ok(locked.fetch_optional(connection).await?.is_some())
}

/// How many tokens were made for the account within the last hour.
pub(super) async fn lately(connection: &mut Connection, account: Uuid) -> sqlx::Result<i64> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM users.password_resets
           WHERE account_id = $1 AND created_at > clock_timestamp() - interval '1 hour'"#,
        account,
    );
    count.fetch_one(connection).await
}

/// From here on no token of the account's is good.
pub(crate) async fn end_all(connection: &mut Connection, account: Uuid) -> sqlx::Result<()> {
    let update = sqlx::query!(
        "UPDATE users.password_resets SET ended_at = clock_timestamp() WHERE account_id = $1 AND ended_at IS NULL",
        account,
    );
    update.execute(connection).await?;
    Ok(())
}

pub(super) async fn insert(
    connection: &mut Connection,
    account: Uuid,
    token_hash: &[u8],
) -> sqlx::Result<()> {
    let insert = sqlx::query!(
        "INSERT INTO users.password_resets (token_hash, account_id) VALUES ($1, $2)",
        token_hash,
        account,
    );
    insert.execute(connection).await?;
    Ok(())
}

/// The owner of this token, while it is good.
pub(super) async fn account_of(connection: &mut Connection, token_hash: &[u8]) -> sqlx::Result<Option<Uuid>> {
    let account = sqlx::query_scalar!(
        "SELECT account_id FROM users.password_resets
         WHERE token_hash = $1 AND ended_at IS NULL AND created_at > clock_timestamp() - interval '1 hour'",
        token_hash,
    );
    account.fetch_optional(connection).await
}

/// Ends the token; false when it was not good any more. Lock the account in a statement before.
pub(super) async fn spend(connection: &mut Connection, token_hash: &[u8]) -> sqlx::Result<bool> {
    let update = sqlx::query!(
        "UPDATE users.password_resets SET ended_at = clock_timestamp()
         WHERE token_hash = $1 AND ended_at IS NULL AND created_at > clock_timestamp() - interval '1 hour'",
        token_hash,
    );
    Ok(update.execute(connection).await?.rows_affected() == 1)
}

/// Removes what is an hour old; true when there may be more.
pub(crate) async fn sweep(connection: &mut Connection) -> sqlx::Result<bool> {
    let tokens = sqlx::query!(
        "DELETE FROM users.password_resets WHERE token_hash IN (
             SELECT token_hash FROM users.password_resets
             WHERE created_at < now() - interval '1 hour' LIMIT 10000)"
    );
    Ok(tokens.execute(connection).await?.rows_affected() == 10_000)
}

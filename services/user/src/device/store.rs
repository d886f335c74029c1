//! The rows of `users.devices`.

use service::db::Connection;
use uuid::Uuid;

use super::Device;

/// Those that the tokens belong to, of whichever accounts.
pub(crate) async fn find(connection: &mut Connection, token_hashes: &[Vec<u8>]) -> sqlx::Result<Vec<Device>> {
    if token_hashes.is_empty() {
        return Ok(Vec::new());
    }
    let devices = sqlx::query_as!(
        Device,
        "SELECT id, account_id AS account FROM users.devices WHERE token_hash = ANY($1)",
        token_hashes,
    );
    devices.fetch_all(connection).await
}

pub(super) async fn used(connection: &mut Connection, id: Uuid) -> sqlx::Result<()> {
    let update = sqlx::query!("UPDATE users.devices SET last_used_at = now() WHERE id = $1", id);
    update.execute(connection).await?;
    Ok(())
}

/// Adds one; whether the account had others. Of an account's the newest 100 are kept.
pub(super) async fn insert(
    connection: &mut Connection,
    account: Uuid,
    token_hash: &[u8],
) -> sqlx::Result<bool> {
    let had_others = sqlx::query_scalar!(
        r#"WITH old AS (
               SELECT id FROM users.devices WHERE account_id = $2 ORDER BY last_used_at DESC OFFSET 99),
           gone AS (
               DELETE FROM users.devices WHERE id IN (
                   -- Of sign-ins at the same time none waits for another.
                   SELECT id FROM users.devices WHERE id IN (SELECT id FROM old) FOR UPDATE SKIP LOCKED)),
           new AS (
               INSERT INTO users.devices (id, account_id, token_hash) VALUES ($1, $2, $3))
           SELECT EXISTS (SELECT FROM users.devices WHERE account_id = $2) AS "had_others!""#,
        Uuid::now_v7(),
        account,
        token_hash,
    );
    had_others.fetch_one(connection).await
}

/// Removes the account's devices but for those with the tokens. Lock the account before.
pub(crate) async fn forget_others(
    connection: &mut Connection,
    account: Uuid,
    token_hashes: &[Vec<u8>],
) -> sqlx::Result<()> {
    let delete = sqlx::query!(
        "DELETE FROM users.devices WHERE id IN (
             SELECT id FROM users.devices WHERE account_id = $1 AND token_hash <> ALL($2)
             ORDER BY id FOR UPDATE)",
        account,
        token_hashes,
    );
    delete.execute(connection).await?;
    Ok(())
}

/// Removes what was not used for 180 days; true when there may be more.
pub(crate) async fn sweep(connection: &mut Connection) -> sqlx::Result<bool> {
    let old = sqlx::query!(
        "DELETE FROM users.devices WHERE id IN (
             SELECT id FROM users.devices WHERE last_used_at < now() - interval '180 days' LIMIT 10000
             FOR UPDATE SKIP LOCKED)"
    );
    Ok(old.execute(connection).await?.rows_affected() == 10_000)
}

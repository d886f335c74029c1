//! The rows of `users.signing_keys`. Times are the database's, the same for
//! all replicas, and the clock's, since a transaction's `now()` is from before
//! it waited for the lock.

use service::db::Connection;

pub(super) struct Row {
    pub kid: String,
    pub private_key: Vec<u8>,
    /// Its time to sign has come.
    pub active: bool,
}

/// Until the transaction ends.
pub(super) async fn lock(connection: &mut Connection) -> sqlx::Result<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtext('users.signing_keys'))")
        .fetch_one(connection)
        .await?;
    Ok(())
}

/// Whether there is no key yet, or the newest is a month old.
pub(super) async fn is_one_due(connection: &mut Connection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (
               SELECT FROM users.signing_keys WHERE created_at > clock_timestamp() - interval '30 days') AS "due!""#
    )
    .fetch_one(connection)
    .await
}

/// The first key signs at once. Another signs in a quarter of an hour:
/// verifiers refresh every five minutes, from caches that may be five minutes old.
pub(super) async fn add(connection: &mut Connection, kid: &str, private_key: &[u8]) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO users.signing_keys (kid, private_key, active_from)
         SELECT $1, $2, CASE WHEN EXISTS (SELECT FROM users.signing_keys)
                             THEN clock_timestamp() + interval '15 minutes' ELSE clock_timestamp() END",
        kid,
        private_key,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores the same key in another form.
pub(super) async fn replace(connection: &mut Connection, kid: &str, private_key: &[u8]) -> sqlx::Result<()> {
    sqlx::query!("UPDATE users.signing_keys SET private_key = $2 WHERE kid = $1", kid, private_key)
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes keys whose successor has signed for an hour: four times a token's life.
pub(super) async fn remove_superseded(connection: &mut Connection) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM users.signing_keys old WHERE EXISTS (
             SELECT FROM users.signing_keys new
             WHERE new.active_from > old.active_from AND new.active_from < clock_timestamp() - interval '1 hour')"
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn all(connection: &mut Connection) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        r#"SELECT kid, private_key, active_from <= clock_timestamp() AS "active!"
           FROM users.signing_keys ORDER BY active_from, kid"#
    )
    .fetch_all(connection)
    .await
}

//! The rows of `users.email_verifications`. Times are the clock's, since a transaction's `now()` is from before it waited
//! for a lock.

use service::db::Connection;
use uuid::Uuid;

use super::{Opening, Pending};
use crate::account::{Email, Language};
use crate::token::Token;

pub(super) async fn insert_opening(
    connection: &mut Connection,
    email: &Email,
    new: &Opening,
    token_hash: &[u8],
) -> sqlx::Result<()> {
    let insert = sqlx::query!(
        "INSERT INTO users.email_verifications (token_hash, email, email_key, name, language, password_hash)
         VALUES ($1, $2, $3, $4, $5, $6)",
        token_hash,
        email.as_str(),
        email.key(),
        new.name,
        new.language.as_str(),
        new.password_hash,
    );
    insert.execute(connection).await?;
    Ok(())
}

/// Nothing when the account has gone.
pub(super) async fn insert_change(
    connection: &mut Connection,
    account: Uuid,
    email: &Email,
    token_hash: &[u8],
) -> sqlx::Result<()> {
    // An account that is being erased is waited for: then there is none.
    let insert = sqlx::query!(
        "WITH known AS MATERIALIZED (SELECT id FROM users.accounts WHERE id = $2 FOR KEY SHARE)
         INSERT INTO users.email_verifications (token_hash, account_id, email, email_key)
         SELECT $1, id, $3, $4 FROM known",
        token_hash,
        account,
        email.as_str(),
        email.key(),
    );
    insert.execute(connection).await?;
    Ok(())
}

/// Copies the newest registration of the address under another token, for 24 hours from now; `None` when there is none.
pub(super) async fn repeat(
    connection: &mut Connection,
    email: &Email,
    token_hash: &[u8],
) -> sqlx::Result<Option<Language>> {
    let language = sqlx::query_scalar!(
        r#"INSERT INTO users.email_verifications (token_hash, email, email_key, name, language, password_hash)
           SELECT $1, email, email_key, name, language, password_hash FROM users.email_verifications
           WHERE email_key = $2 AND account_id IS NULL AND created_at > clock_timestamp() - interval '24 hours'
           ORDER BY created_at DESC LIMIT 1
           RETURNING language AS "language!""#,
        token_hash,
        email.key(),
    );
    Ok(language.fetch_optional(connection).await?.map(|language| Language::stored(&language)))
}

/// What this token verifies, while it is good.
pub(crate) async fn find(connection: &mut Connection, token: &Token) -> sqlx::Result<Option<Pending>> {
    let row = sqlx::query!(
        "SELECT account_id, email, name, language, password_hash FROM users.email_verifications
         WHERE token_hash = $1 AND created_at > clock_timestamp() - interval '24 hours'",
        token.hash(),
    );
    let Some(row) = row.fetch_optional(connection).await? else {
        return Ok(None);
    };
    let email = Email::stored(row.email);
    match (row.account_id, row.name, row.language, row.password_hash) {
        (Some(account), ..) => Ok(Some(Pending::Change { account, email })),
        (None, Some(name), Some(language), Some(password_hash)) => {
            let language = Language::stored(&language);
            Ok(Some(Pending::Opening(email, Opening { name, language, password_hash })))
        }
        _ => Err(sqlx::Error::Decode("a registration is not whole".into())),
    }
}

/// The newest registrations of the address, but for that of `token`: four, as each costs a hash. One that was sent another
/// token ([`repeat`]) is the same registration.
pub(crate) async fn others(
    connection: &mut Connection,
    email: &Email,
    token: &Token,
) -> sqlx::Result<Vec<Opening>> {
    let rows = sqlx::query!(
        r#"SELECT name AS "name!", language AS "language!", password_hash AS "password_hash!"
           FROM users.email_verifications
           WHERE email_key = $1 AND account_id IS NULL AND created_at > clock_timestamp() - interval '24 hours'
             AND password_hash <> (SELECT password_hash FROM users.email_verifications WHERE token_hash = $2)
           GROUP BY name, language, password_hash ORDER BY max(created_at) DESC LIMIT 4"#,
        email.key(),
        token.hash(),
    );
    let rows = rows.fetch_all(connection).await?.into_iter().map(|row| {
        let language = Language::stored(&row.language);
        Opening { name: row.name, language, password_hash: row.password_hash }
    });
    Ok(rows.collect())
}

/// The hash of the password that the newest registration of the address came with.
pub(crate) async fn newest_hash(connection: &mut Connection, email: &Email) -> sqlx::Result<Option<String>> {
    let hash = sqlx::query_scalar!(
        r#"SELECT password_hash AS "password_hash!" FROM users.email_verifications
           WHERE email_key = $1 AND account_id IS NULL AND created_at > clock_timestamp() - interval '24 hours'
           ORDER BY created_at DESC LIMIT 1"#,
        email.key(),
    );
    hash.fetch_optional(connection).await
}

/// Ends the token; false when it was not good any more.
pub(super) async fn spend(connection: &mut Connection, token_hash: &[u8]) -> sqlx::Result<bool> {
    let delete = sqlx::query!(
        "DELETE FROM users.email_verifications
         WHERE token_hash = $1 AND created_at > clock_timestamp() - interval '24 hours'",
        token_hash,
    );
    Ok(delete.execute(connection).await?.rows_affected() == 1)
}

/// Removes the registrations of an address.
pub(crate) async fn forget(connection: &mut Connection, email: &Email) -> sqlx::Result<()> {
    let delete = sqlx::query!(
        "DELETE FROM users.email_verifications WHERE token_hash IN (
             SELECT token_hash FROM users.email_verifications
             WHERE email_key = $1 AND account_id IS NULL ORDER BY token_hash FOR UPDATE)",
        email.key(),
    );
    delete.execute(connection).await?;
    Ok(())
}

/// Removes what is a day old; true when there may be more.
pub(crate) async fn sweep(connection: &mut Connection) -> sqlx::Result<bool> {
    let old = sqlx::query!(
        "DELETE FROM users.email_verifications WHERE token_hash IN (
             SELECT token_hash FROM users.email_verifications
             WHERE created_at < now() - interval '24 hours' LIMIT 10000)"
    );
    Ok(old.execute(connection).await?.rows_affected() == 10_000)
}

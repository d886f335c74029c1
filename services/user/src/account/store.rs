//! The rows of `users.accounts`.

use identity::Role;
use service::db::Connection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Account, Email, Language, Managed};
use crate::session::Credentials;

struct Row {
    id: Uuid,
    email: String,
    name: String,
    role: String,
    language: String,
    created_at: OffsetDateTime,
}

impl TryFrom<Row> for Account {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.id,
            email: row.email,
            name: row.name,
            role: role(&row.role)?,
            language: Language::stored(&row.language),
            created_at: row.created_at,
        })
    }
}

pub(crate) fn role(text: &str) -> sqlx::Result<Role> {
    text.parse().map_err(|error: String| sqlx::Error::Decode(error.into()))
}

/// The new account; `None` when one has the address in an older form of it.
pub(super) async fn insert(
    connection: &mut Connection,
    email: &Email,
    name: &str,
    role: Role,
    language: Language,
    password_hash: &str,
) -> sqlx::Result<Option<Account>> {
    let row = sqlx::query_as!(
        Row,
        "INSERT INTO users.accounts (id, email, email_key, name, role, password_hash, language)
         SELECT $1, $2, $3, $4, $5, $6, $8
         WHERE NOT EXISTS (SELECT FROM users.accounts WHERE email_key = $7 AND email_key <> $3)
         RETURNING id, email, name, role, language, created_at",
        Uuid::now_v7(),
        email.as_str(),
        email.key(),
        name,
        role.as_str(),
        password_hash,
        email.old_key(),
        language.as_str(),
    );
    row.fetch_optional(connection).await?.map(Account::try_from).transpose()
}

/// The account, unless it is disabled.
pub(crate) async fn find(connection: &mut Connection, id: Uuid) -> sqlx::Result<Option<Account>> {
    let row = sqlx::query_as!(
        Row,
        "SELECT id, email, name, role, language, created_at FROM users.accounts WHERE id = $1 AND NOT disabled",
        id,
    );
    row.fetch_optional(connection).await?.map(Account::try_from).transpose()
}

/// The account with its new name and language, unless it is disabled. None: as before.
pub(crate) async fn edit(
    connection: &mut Connection,
    id: Uuid,
    name: Option<&str>,
    language: Option<Language>,
) -> sqlx::Result<Option<Account>> {
    let row = sqlx::query_as!(
        Row,
        "UPDATE users.accounts
         SET name = COALESCE($2, name), language = COALESCE($3, language), version = version + 1, updated_at = now()
         WHERE id = $1 AND NOT disabled
         RETURNING id, email, name, role, language, created_at",
        id,
        name,
        language.map(Language::as_str),
    );
    row.fetch_optional(connection).await?.map(Account::try_from).transpose()
}

/// An account as admins see it.
pub(crate) async fn managed(connection: &mut Connection, id: Uuid) -> sqlx::Result<Option<Managed>> {
    let row = sqlx::query_as!(
        ManagedRow,
        "SELECT id, email, name, role, language, created_at, disabled FROM users.accounts WHERE id = $1",
        id,
    );
    row.fetch_optional(connection).await?.map(Managed::try_from).transpose()
}

/// Up to `limit` accounts, newest first, from the one after `after` on.
pub(crate) async fn list(
    connection: &mut Connection,
    after: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Managed>> {
    let rows = sqlx::query_as!(
        ManagedRow,
        "SELECT id, email, name, role, language, created_at, disabled FROM users.accounts
         WHERE id < $1 ORDER BY id DESC LIMIT $2",
        after.unwrap_or(Uuid::max()),
        limit,
    );
    rows.fetch_all(connection).await?.into_iter().map(Managed::try_from).collect()
}

/// The account with this address, as a list.
pub(crate) async fn with_email(
    connection: &mut Connection,
    email: &Email,
    after: Option<Uuid>,
) -> sqlx::Result<Vec<Managed>> {
    let rows = sqlx::query_as!(
        ManagedRow,
        "SELECT id, email, name, role, language, created_at, disabled FROM users.accounts
         WHERE email_key = ANY($1) AND id < $2 ORDER BY id DESC",
        &[email.key(), email.old_key()],
        after.unwrap_or(Uuid::max()),
    );
    rows.fetch_all(connection).await?.into_iter().map(Managed::try_from).collect()
}

/// The people behind some ids, for staff.
pub(crate) struct Customer {
    pub id: Uuid,
    pub email: String,
    pub name: String,
}

/// Those with one of the ids or the address. Customers who may not sign in are included.
pub(crate) async fn customers(
    connection: &mut Connection,
    ids: &[Uuid],
    email: Option<&Email>,
) -> sqlx::Result<Vec<Customer>> {
    let keys: Vec<String> = email.iter().flat_map(|email| [email.key(), email.old_key()]).collect();
    // Each by its index.
    let rows = sqlx::query_as!(
        Customer,
        r#"SELECT id AS "id!", email AS "email!", name AS "name!" FROM users.accounts WHERE id = ANY($1)
           UNION SELECT id, email, name FROM users.accounts WHERE email_key = ANY($2)"#,
        ids,
        &keys,
    );
    rows.fetch_all(connection).await
}

struct ManagedRow {
    id: Uuid,
    email: String,
    name: String,
    role: String,
    language: String,
    created_at: OffsetDateTime,
    disabled: bool,
}

impl TryFrom<ManagedRow> for Managed {
    type Error = sqlx::Error;

    fn try_from(row: ManagedRow) -> sqlx::Result<Self> {
        let ManagedRow { id, email, name, role, language, created_at, disabled } = row;
        Ok(Self { account: Row { id, email, name, role, language, created_at }.try_into()?, disabled })
    }
}

/// What decides whether an admin's change is allowed.
pub(super) struct Locked {
    pub id: Uuid,
    pub role: Role,
    pub disabled: bool,
    pub version: i64,
}

/// Locks the account and every admin's, in one order.
pub(super) async fn lock_with_admins(connection: &mut Connection, id: Uuid) -> sqlx::Result<Vec<Locked>> {
    let rows = sqlx::query!(
        "SELECT id, role, disabled, version FROM users.accounts
         WHERE id = ANY($1::uuid || ARRAY(SELECT id FROM users.accounts WHERE role = 'admin' AND NOT disabled))
         ORDER BY id FOR UPDATE",
        id,
    );
    let rows = rows.fetch_all(connection).await?.into_iter().map(|row| {
        Ok(Locked { id: row.id, role: role(&row.role)?, disabled: row.disabled, version: row.version })
    });
    rows.collect()
}

pub(super) async fn administer(
    connection: &mut Connection,
    id: Uuid,
    role: Role,
    disabled: bool,
) -> sqlx::Result<()> {
    let update = sqlx::query!(
        "UPDATE users.accounts SET role = $2, disabled = $3, version = version + 1, updated_at = now()
         WHERE id = $1",
        id,
        role.as_str(),
        disabled,
    );
    update.execute(connection).await?;
    Ok(())
}

/// Sessions, addresses and notifications go with it.
pub(super) async fn delete(connection: &mut Connection, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM users.accounts WHERE id = $1", id).execute(connection).await?;
    Ok(())
}

/// The failed sign-ins at the account's address.
pub(crate) async fn forget_failures(connection: &mut Connection, id: Uuid) -> sqlx::Result<()> {
    let stored = sqlx::query_scalar!("SELECT email FROM users.accounts WHERE id = $1", id);
    let Some(email) = stored.fetch_optional(&mut *connection).await?.map(Email::stored) else {
        return Ok(());
    };
    sqlx::query!(
        "DELETE FROM users.sign_in_failures WHERE email_key = ANY($1)",
        &[email.key(), email.old_key()],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The account's address and the hash of its password, unless it is disabled.
pub(crate) async fn own_password(
    connection: &mut Connection,
    id: Uuid,
) -> sqlx::Result<Option<(Email, String)>> {
    let row =
        sqlx::query!("SELECT email, password_hash FROM users.accounts WHERE id = $1 AND NOT disabled", id);
    Ok(row.fetch_optional(connection).await?.map(|row| (Email::stored(row.email), row.password_hash)))
}

/// Replaces the password's hash; false when it is no longer `current`.
pub(crate) async fn change_password(
    connection: &mut Connection,
    id: Uuid,
    current: &str,
    new: &str,
) -> sqlx::Result<bool> {
    let update = sqlx::query!(
        "UPDATE users.accounts SET password_hash = $3, version = version + 1, updated_at = now()
         WHERE id = $1 AND password_hash = $2 AND NOT disabled",
        id,
        current,
        new,
    );
    Ok(update.execute(connection).await?.rows_affected() == 1)
}

/// Stores another hash of the same password, unless it has been changed. The account stays as its owner sees it.
pub(crate) async fn renew_hash(
    connection: &mut Connection,
    id: Uuid,
    current: &str,
    new: &str,
) -> sqlx::Result<()> {
    let update = sqlx::query!(
        "UPDATE users.accounts SET password_hash = $3 WHERE id = $1 AND password_hash = $2",
        id,
        current,
        new,
    );
    update.execute(connection).await?;
    Ok(())
}

/// Replaces the password's hash, whatever it was. Lock the account first.
pub(crate) async fn set_password(connection: &mut Connection, id: Uuid, new: &str) -> sqlx::Result<()> {
    let update = sqlx::query!(
        "UPDATE users.accounts SET password_hash = $2, version = version + 1, updated_at = now() WHERE id = $1",
        id,
        new,
    );
    update.execute(connection).await?;
    Ok(())
}

/// Keeps an account as it is until the transaction ends, unless it is disabled; with the hash of its password.
pub(super) async fn lock(connection: &mut Connection, id: Uuid) -> sqlx::Result<Option<(Account, String)>> {
    let row = sqlx::query!(
        "SELECT id, email, name, role, language, created_at, password_hash FROM users.accounts
         WHERE id = $1 AND NOT disabled FOR UPDATE",
        id,
    );
    let Some(row) = row.fetch_optional(connection).await? else {
        return Ok(None);
    };
    let account = Account {
        id: row.id,
        email: row.email,
        name: row.name,
        role: role(&row.role)?,
        language: Language::stored(&row.language),
        created_at: row.created_at,
    };
    Ok(Some((account, row.password_hash)))
}

/// The account with its new address; `None` when another account has the address in an older form of it. Lock the
/// account before.
pub(super) async fn change_email(
    connection: &mut Connection,
    id: Uuid,
    email: &Email,
) -> sqlx::Result<Option<Account>> {
    let row = sqlx::query_as!(
        Row,
        "UPDATE users.accounts a SET email = $2, email_key = $3, version = version + 1, updated_at = now()
         WHERE id = $1
           AND NOT EXISTS (SELECT FROM users.accounts o WHERE o.email_key = $4 AND o.email_key <> $3 AND o.id <> a.id)
         RETURNING id, email, name, role, language, created_at",
        id,
        email.as_str(),
        email.key(),
        email.old_key(),
    );
    row.fetch_optional(connection).await?.map(Account::try_from).transpose()
}

pub(crate) async fn credentials(
    connection: &mut Connection,
    email: &Email,
) -> sqlx::Result<Option<Credentials>> {
    let row = sqlx::query_as!(
        Credentials,
        "SELECT id, password_hash, disabled FROM users.accounts
         WHERE email_key IN ($1, $2, $3) ORDER BY email_key = $3 DESC, email_key = $1 DESC LIMIT 1",
        email.key(),
        email.old_key(),
        // As it was compared before: with two such accounts, the one is meant whose address is typed exactly.
        email.as_str().to_lowercase(),
    );
    row.fetch_optional(connection).await
}

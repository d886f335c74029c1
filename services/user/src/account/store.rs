//! The rows of `users.accounts`.

use service::auth::Role;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Account, Email};

struct Row {
    id: Uuid,
    email: String,
    name: String,
    role: String,
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
            created_at: row.created_at,
        })
    }
}

pub(crate) fn role(text: &str) -> sqlx::Result<Role> {
    text.parse().map_err(|error: String| sqlx::Error::Decode(error.into()))
}

pub(super) async fn insert(
    connection: &mut PgConnection,
    email: &Email,
    name: &str,
    role: Role,
    password_hash: &str,
) -> sqlx::Result<Account> {
    let row = sqlx::query_as!(
        Row,
        "INSERT INTO users.accounts (id, email, email_key, name, role, password_hash)
         VALUES ($1, $2, $3, $4, $5, $6)
         RETURNING id, email, name, role, created_at",
        Uuid::now_v7(),
        email.as_str(),
        email.key(),
        name,
        role.as_str(),
        password_hash,
    );
    row.fetch_one(connection).await?.try_into()
}

/// The account, unless it is disabled.
pub(crate) async fn find(connection: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<Account>> {
    let row = sqlx::query_as!(
        Row,
        "SELECT id, email, name, role, created_at FROM users.accounts WHERE id = $1 AND NOT disabled",
        id,
    );
    row.fetch_optional(connection).await?.map(Account::try_from).transpose()
}

/// The account with its new name, unless it is disabled.
pub(crate) async fn rename(
    connection: &mut PgConnection,
    id: Uuid,
    name: &str,
) -> sqlx::Result<Option<Account>> {
    let row = sqlx::query_as!(
        Row,
        "UPDATE users.accounts SET name = $2, version = version + 1, updated_at = now()
         WHERE id = $1 AND NOT disabled
         RETURNING id, email, name, role, created_at",
        id,
        name,
    );
    row.fetch_optional(connection).await?.map(Account::try_from).transpose()
}

/// What a sign-in is checked against.
pub(crate) struct Credentials {
    pub id: Uuid,
    pub role: Role,
    pub password_hash: String,
    pub disabled: bool,
}

pub(crate) async fn credentials(
    connection: &mut PgConnection,
    email: &Email,
) -> sqlx::Result<Option<Credentials>> {
    let row = sqlx::query!(
        "SELECT id, role, password_hash, disabled FROM users.accounts WHERE email_key = $1",
        email.key(),
    );
    let Some(row) = row.fetch_optional(connection).await? else {
        return Ok(None);
    };
    Ok(Some(Credentials {
        id: row.id,
        role: role(&row.role)?,
        password_hash: row.password_hash,
        disabled: row.disabled,
    }))
}

//! The rows of `users.addresses`.

use service::db::Connection;
use uuid::Uuid;

use super::{Address, Place};

struct Row {
    id: Uuid,
    name: String,
    line1: String,
    line2: Option<String>,
    city: String,
    region: Option<String>,
    postal_code: String,
    country: String,
    phone: Option<String>,
}

impl From<Row> for Address {
    fn from(row: Row) -> Self {
        let Row { id, name, line1, line2, city, region, postal_code, country, phone } = row;
        // An address without one of these has an empty text.
        let [city, postal_code] = [city, postal_code].map(|text| Some(text).filter(|text| !text.is_empty()));
        Self { id, place: Place { name, line1, line2, city, region, postal_code, country, phone } }
    }
}

/// The number of addresses, which can't grow until the transaction ends;
/// `None` when there is no such account.
pub(super) async fn lock_and_count(connection: &mut Connection, account: Uuid) -> sqlx::Result<Option<i64>> {
    let lock = sqlx::query!("SELECT id FROM users.accounts WHERE id = $1 FOR NO KEY UPDATE", account);
    if lock.fetch_optional(&mut *connection).await?.is_none() {
        return Ok(None);
    }
    // A statement of its own sees what was committed while the lock was waited for.
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM users.addresses WHERE account_id = $1"#,
        account,
    );
    Ok(Some(count.fetch_one(connection).await?))
}

pub(super) async fn insert(
    connection: &mut Connection,
    account: Uuid,
    place: Place,
) -> sqlx::Result<Address> {
    let id = Uuid::now_v7();
    sqlx::query!(
        "INSERT INTO users.addresses
             (id, account_id, name, line1, line2, city, region, postal_code, country, phone)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        id,
        account,
        place.name,
        place.line1,
        place.line2,
        place.city.as_deref().unwrap_or_default(),
        place.region,
        place.postal_code.as_deref().unwrap_or_default(),
        place.country,
        place.phone,
    )
    .execute(connection)
    .await?;
    Ok(Address { id, place })
}

/// Up to `limit` of the account's addresses, newest first, from the one after `after` on.
pub(crate) async fn list(
    connection: &mut Connection,
    account: Uuid,
    after: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Address>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, name, line1, line2, city, region, postal_code, country, phone FROM users.addresses
         WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
        account,
        after.unwrap_or(Uuid::max()),
        limit,
    );
    Ok(rows.fetch_all(connection).await?.into_iter().map(Address::from).collect())
}

pub(crate) async fn find(
    connection: &mut Connection,
    account: Uuid,
    id: Uuid,
) -> sqlx::Result<Option<Address>> {
    let row = sqlx::query_as!(
        Row,
        "SELECT id, name, line1, line2, city, region, postal_code, country, phone FROM users.addresses
         WHERE id = $2 AND account_id = $1",
        account,
        id,
    );
    Ok(row.fetch_optional(connection).await?.map(Address::from))
}

/// The address as it is now; `None` when the account has none such.
pub(crate) async fn replace(
    connection: &mut Connection,
    account: Uuid,
    id: Uuid,
    place: Place,
) -> sqlx::Result<Option<Address>> {
    let update = sqlx::query!(
        "UPDATE users.addresses
         SET name = $3, line1 = $4, line2 = $5, city = $6, region = $7, postal_code = $8, country = $9,
             phone = $10, updated_at = now()
         WHERE id = $2 AND account_id = $1",
        account,
        id,
        place.name,
        place.line1,
        place.line2,
        place.city.as_deref().unwrap_or_default(),
        place.region,
        place.postal_code.as_deref().unwrap_or_default(),
        place.country,
        place.phone,
    );
    let updated = update.execute(connection).await?.rows_affected() == 1;
    Ok(updated.then_some(Address { id, place }))
}

/// False when the account has none such.
pub(crate) async fn remove(connection: &mut Connection, account: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let delete = sqlx::query!("DELETE FROM users.addresses WHERE id = $2 AND account_id = $1", account, id);
    Ok(delete.execute(connection).await?.rows_affected() == 1)
}

//! The SQL of how many orders an account leaves unpaid.

use std::time::Duration;

use order_core::ids::UserId;
use service::db::Connection;
use time::OffsetDateTime;

use crate::idempotency::{Key, Record};

/// Whether an account has left as many orders unpaid as it may.
pub struct Unpaid {
    /// When it placed the oldest of those that count, where it has so many.
    pub since: Option<OffsetDateTime>,
    /// It has so many together with the orders that it places at this moment.
    pub with_others: bool,
}

/// Looks whether an account has `most` orders that are unpaid and not older than `within`. An order that is being placed
/// counts with them, but for that of `key`: of many that are placed at once no more than `most` pass, as each record is
/// committed before it looks.
pub async fn unpaid(
    connection: &mut Connection,
    key: &Key,
    record: &Record,
    within: Duration,
    most: u32,
) -> sqlx::Result<Unpaid> {
    // Their ids tell when they were made, and are what the account's orders are listed by.
    let now = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    let since = u64::try_from(now).unwrap_or(0).saturating_sub(within.as_millis() as u64);
    let since = uuid::Builder::from_unix_timestamp_millis(since, &[0; 10]).into_uuid();
    sqlx::query_as!(
        Unpaid,
        r#"WITH others AS MATERIALIZED (
             SELECT count(*) AS n FROM orders.claims
             WHERE user_id = $1 AND operation = $4 AND order_id <> $5 AND answer_status IS NULL AND lease_until > now()
         )
         SELECT (SELECT placed_at FROM orders.orders
                 WHERE user_id = $1 AND id > $2 AND (status = 'pending' OR cancel_reason = 'payment_declined')
                 ORDER BY id DESC OFFSET $3::bigint - 1 LIMIT 1) AS since,
                CASE WHEN n = 0 THEN false WHEN n >= $3 THEN true
                     ELSE EXISTS (SELECT FROM orders.orders
                                  WHERE user_id = $1 AND id > $2
                                    AND (status = 'pending' OR cancel_reason = 'payment_declined')
                                  ORDER BY id DESC OFFSET $3 - 1 - n LIMIT 1) END AS "with_others!"
         FROM others"#,
        key.user_id as UserId,
        since,
        i64::from(most),
        key.operation,
        record.id,
    )
    .fetch_one(connection)
    .await
}

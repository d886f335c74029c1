//! All SQL of idempotency records. Leases are timed by the database's clock alone.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use order_core::ids::UserId;
use service::db::Connection;
use uuid::Uuid;

use super::{Fence, Key, Record, Stored, StoredAnswer};
use crate::address::Address;
use crate::times::Times;

/// Writes new records, and returns for each whether it was written: not when the key is taken, or its user
/// erased.
pub async fn insert(
    connection: &mut Connection,
    records: &[(Key, Record)],
    lease: Duration,
) -> sqlx::Result<Vec<bool>> {
    let column = |value: fn(&Key) -> String| records.iter().map(|(key, _)| value(key)).collect::<Vec<_>>();
    let users: Vec<UserId> = records.iter().map(|(key, _)| key.user_id).collect();
    let hashes: Vec<Vec<u8>> = records.iter().map(|(key, _)| key.body_hash.clone()).collect();
    let (orders, owners) = columns(records.iter().map(|(_, record)| record.fence()));
    let lines = records.iter().map(|(_, record)| serde_json::to_value(&record.lines));
    let lines: Vec<serde_json::Value> =
        lines.collect::<Result<_, _>>().map_err(|error| sqlx::Error::Encode(error.into()))?;
    let addresses = records.iter().map(|(_, record)| encode(record.address.as_ref()));
    let addresses: Vec<Option<serde_json::Value>> = addresses.collect::<sqlx::Result<_>>()?;
    // In the order of keys: otherwise two replicas with the same keys deadlock. A key that exists is not
    // waited for: its row may be in a transaction of another replica, and all new keys would wait with it.
    let made = sqlx::query_scalar!(
        "INSERT INTO orders.claims
             (user_id, operation, key, body_hash, order_id, lines, owner, lease_until, address)
         SELECT user_id, operation, key, body_hash, order_id, lines, owner, now() + make_interval(secs => $9), address
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::uuid[], $6::jsonb[], $7::uuid[], $8::jsonb[])
              AS c (user_id, operation, key, body_hash, order_id, lines, owner, address)
         WHERE NOT EXISTS (SELECT FROM orders.deleted_users d WHERE d.user_id = c.user_id)
           AND NOT EXISTS (SELECT FROM orders.claims o
                           WHERE o.user_id = c.user_id AND o.operation = c.operation AND o.key = c.key)
         ORDER BY user_id, operation, key
         ON CONFLICT DO NOTHING
         RETURNING order_id",
        &users as &[UserId],
        &column(|key| key.operation.to_owned()),
        &column(|key| key.key.clone()),
        &hashes,
        &orders,
        &lines,
        &owners,
        &addresses as &[Option<serde_json::Value>],
        lease.as_secs_f64(),
    );
    let made: HashSet<Uuid> = made.fetch_all(connection).await?.into_iter().collect();
    Ok(orders.iter().map(|order| made.contains(order)).collect())
}

/// Takes over a record whose lease ran out before it had an answer, with the
/// same lines. Its order id is a new one when the reservation was released.
pub async fn take_over(
    connection: &mut Connection,
    key: &Key,
    lease: Duration,
) -> sqlx::Result<Option<Record>> {
    let row = sqlx::query!(
        "UPDATE orders.claims
         SET owner = $5, lease_until = now() + make_interval(secs => $6),
             order_id = CASE WHEN swept THEN $7 ELSE order_id END, swept = false
         WHERE user_id = $1 AND operation = $2 AND key = $3 AND body_hash = $4
           AND answer_status IS NULL AND lease_until < now()
         RETURNING order_id, owner, lines, address, sweeping",
        key.user_id as UserId,
        key.operation,
        key.key,
        key.body_hash,
        Uuid::now_v7(),
        lease.as_secs_f64(),
        Uuid::now_v7(),
    )
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        let decode = |error: serde_json::Error| sqlx::Error::Decode(error.into());
        let lines = serde_json::from_value(row.lines).map_err(decode)?;
        let address = row.address.map(serde_json::from_value).transpose().map_err(decode)?;
        Ok(Record { id: row.order_id, owner: row.owner, lines, address, sweeping: row.sweeping })
    })
    .transpose()
}

/// What the key has. An answer may be visible and still be lost in a failover: its commit was cut off while
/// it waited for a standby. So this statement writes something itself and waits for its own commit. The
/// answer is given only once no failover can take it away.
pub async fn read(connection: &mut Connection, key: &Key) -> sqlx::Result<Option<Stored>> {
    let rows = sqlx::query!(
        r#"SELECT body_hash, order_id, answer_status, answer_body,
                  CASE WHEN answer_status IS NOT NULL THEN pg_logical_emit_message(true, 'dockside', '') END::text AS behind
         FROM orders.claims WHERE user_id = $1 AND operation = $2 AND key = $3"#,
        key.user_id as UserId,
        key.operation,
        key.key,
    )
    // Read to its end: the first row comes before the commit.
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().next().map(|row| Stored {
        body_hash: row.body_hash,
        answer: row.answer_status.zip(row.answer_body).map(|(status, body)| StoredAnswer {
            id: row.order_id,
            status: u16::try_from(status).unwrap_or(500),
            body,
        }),
    }))
}

/// Gives the record a new order id, as the old one's reservation has ended. False when the record was lost.
pub async fn renew(connection: &mut Connection, record: &Record, order_id: Uuid) -> sqlx::Result<bool> {
    let renewed = sqlx::query!(
        "UPDATE orders.claims SET order_id = $3, sweeping = false
         WHERE order_id = $1 AND owner = $2 AND answer_status IS NULL",
        record.id,
        record.owner,
        order_id,
    )
    .execute(connection)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

fn encode(address: Option<&Address>) -> sqlx::Result<Option<serde_json::Value>> {
    address.map(serde_json::to_value).transpose().map_err(|error| sqlx::Error::Encode(error.into()))
}

/// Order ids and owners, a column each.
fn columns(fences: impl Iterator<Item = Fence>) -> (Vec<Uuid>, Vec<Uuid>) {
    fences.map(|fence| (fence.id, fence.owner)).unzip()
}

/// Those of the records that still have these owners and no answer, and whose reservations nobody is about to
/// release, locked in the order of ids. True where the user is to be erased.
pub async fn lock_held(
    connection: &mut Connection,
    records: &[&Record],
) -> sqlx::Result<HashMap<Fence, bool>> {
    let (orders, owners) = columns(records.iter().map(|record| record.fence()));
    let rows = sqlx::query!(
        r#"SELECT c.order_id, c.owner,
                  EXISTS (SELECT FROM orders.deleted_users d WHERE d.user_id = c.user_id) AS "user_gone!"
         FROM orders.claims c
         JOIN UNNEST($1::uuid[], $2::uuid[]) AS h (order_id, owner)
           ON c.order_id = h.order_id AND c.owner = h.owner
         WHERE c.answer_status IS NULL AND NOT c.sweeping ORDER BY c.order_id FOR UPDATE OF c"#,
        &orders,
        &owners,
    )
    .fetch_all(connection)
    .await?;
    let held = rows.into_iter().map(|row| (Fence { id: row.order_id, owner: row.owner }, row.user_gone));
    Ok(held.collect())
}

/// Stores the answers of records that still have these owners, and returns those records. The key's life
/// begins now.
pub async fn answer(
    connection: &mut Connection,
    answers: &[(Record, StoredAnswer)],
) -> sqlx::Result<Vec<Fence>> {
    let (orders, owners) = columns(answers.iter().map(|(record, _)| record.fence()));
    let statuses: Vec<i16> =
        answers.iter().map(|(_, answer)| i16::try_from(answer.status).unwrap_or(500)).collect();
    let bodies: Vec<String> = answers.iter().map(|(_, answer)| answer.body.clone()).collect();
    let rows = sqlx::query!(
        "WITH held AS MATERIALIZED (
             SELECT c.order_id, a.status, a.body
             FROM orders.claims c
             JOIN UNNEST($1::uuid[], $2::uuid[], $3::smallint[], $4::text[]) AS a (order_id, owner, status, body)
               ON c.order_id = a.order_id AND c.owner = a.owner
             WHERE c.answer_status IS NULL
             ORDER BY c.order_id FOR UPDATE OF c
         )
         UPDATE orders.claims c SET answer_status = held.status, answer_body = held.body, answered_at = now()
         FROM held WHERE c.order_id = held.order_id
         RETURNING c.order_id, c.owner",
        &orders,
        &owners,
        &statuses,
        &bodies,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| Fence { id: row.order_id, owner: row.owner }).collect())
}

/// Marks that the reservations of these records are about to be released, and returns the marked ones: those
/// that still have these owners and no answer. From then on no order is placed on them.
pub async fn sweep_next(connection: &mut Connection, fences: &[Fence]) -> sqlx::Result<Vec<Fence>> {
    let (orders, owners) = columns(fences.iter().copied());
    let rows = sqlx::query!(
        "UPDATE orders.claims c SET sweeping = true
         FROM UNNEST($1::uuid[], $2::uuid[]) AS h (order_id, owner)
         WHERE c.order_id = h.order_id AND c.owner = h.owner AND c.answer_status IS NULL
         RETURNING c.order_id, c.owner",
        &orders,
        &owners,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| Fence { id: row.order_id, owner: row.owner }).collect())
}

/// Releases the record for a retry, whatever order id it has by now.
pub async fn let_go(connection: &mut Connection, key: &Key, record: &Record) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE orders.claims SET lease_until = now() - interval '1 millisecond'
         WHERE user_id = $1 AND operation = $2 AND key = $3 AND owner = $4 AND answer_status IS NULL",
        key.user_id as UserId,
        key.operation,
        key.key,
        record.owner,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes over up to 100 abandoned records of this operation, in the name of `owner`.
pub async fn take_lapsed(
    connection: &mut Connection,
    operation: &str,
    owner: Uuid,
    times: &Times,
) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "UPDATE orders.claims
         SET owner = $1, lease_until = now() + make_interval(secs => $2), sweeping = true
         WHERE order_id = ANY(ARRAY(
             SELECT order_id FROM orders.claims
             WHERE answer_status IS NULL AND NOT swept AND lease_until < now() - make_interval(secs => $4)
               AND operation = $3
             ORDER BY lease_until LIMIT 100 FOR UPDATE SKIP LOCKED))
         RETURNING order_id",
        owner,
        times.claim_lease.as_secs_f64(),
        operation,
        times.sweep_every().as_secs_f64(),
    )
    .fetch_all(connection)
    .await
}

/// Releases these records of `owner` for a retry, and marks whether their reservations are released. If not,
/// the call that was not answered may still release them.
pub async fn release(
    connection: &mut Connection,
    owner: Uuid,
    orders: &[Uuid],
    released: bool,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE orders.claims SET swept = $3, sweeping = NOT $3, lease_until = now() - interval '1 millisecond'
         WHERE order_id = ANY($1) AND owner = $2 AND answer_status IS NULL",
        orders,
        owner,
        released,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes up to 20,000 expired keys. A key's life counts from its answer, or from the record where there is
/// no answer, or an answer of a version before 0006. An unanswered key of this operation is kept until it is
/// swept.
pub async fn forget(connection: &mut Connection, operation: &str, life: Duration) -> sqlx::Result<()> {
    sqlx::query!(
        // Locked, as a record that is answered at this moment begins its life; an array, so that the index is
        // used.
        "WITH answered AS MATERIALIZED (
             SELECT order_id FROM orders.claims WHERE answered_at < now() - make_interval(secs => $1)
             ORDER BY answered_at LIMIT 10000 FOR UPDATE SKIP LOCKED
         ), unanswered AS MATERIALIZED (
             SELECT order_id FROM orders.claims
             WHERE created_at < now() - make_interval(secs => $1) AND answered_at IS NULL
               AND (answer_status IS NOT NULL OR lease_until < now() AND (swept OR operation <> $2))
             ORDER BY created_at LIMIT 10000 FOR UPDATE SKIP LOCKED
         )
         DELETE FROM orders.claims WHERE order_id = ANY(ARRAY(
             SELECT order_id FROM answered UNION ALL SELECT order_id FROM unanswered))",
        life.as_secs_f64(),
        operation,
    )
    .execute(connection)
    .await?;
    Ok(())
}

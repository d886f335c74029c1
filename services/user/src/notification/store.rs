//! The rows of `users.notifications`.

use std::time::Duration;

use serde::Serialize;
use service::db::Connection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Recipient, lifetime};

/// A notification of a customer.
pub(crate) struct NewNotification {
    pub event: Uuid,
    pub user: Uuid,
    pub order: Uuid,
    pub kind: String,
    pub payload: Vec<u8>,
}

/// Writes those whose account is still there, each once. With `mails` they
/// are to be sent; otherwise they are only recorded.
pub(crate) async fn insert(
    connection: &mut Connection,
    mut new: Vec<NewNotification>,
    mails: bool,
) -> sqlx::Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    new.sort_unstable_by_key(|one| one.event); // or two replicas deadlock
    let events: Vec<Uuid> = new.iter().map(|one| one.event).collect();
    let users: Vec<Uuid> = new.iter().map(|one| one.user).collect();
    let orders: Vec<Uuid> = new.iter().map(|one| one.order).collect();
    let (kinds, payloads): (Vec<String>, Vec<Vec<u8>>) =
        new.into_iter().map(|one| (one.kind, one.payload)).unzip();
    // An account that is being erased is waited for: then there is none.
    sqlx::query!(
        "WITH known AS MATERIALIZED (
             SELECT id FROM users.accounts WHERE id = ANY($2) ORDER BY id FOR KEY SHARE)
         INSERT INTO users.notifications (event_id, user_id, order_id, kind, payload, status)
         SELECT event_id, user_id, order_id, kind,
                CASE WHEN $6 THEN payload END, CASE WHEN $6 THEN 'pending' ELSE 'recorded' END
         FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::bytea[])
                AS new (event_id, user_id, order_id, kind, payload)
         JOIN known ON known.id = new.user_id
         ORDER BY event_id
         ON CONFLICT (event_id) DO NOTHING",
        &events,
        &users,
        &orders,
        &kinds,
        &payloads,
        mails,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes what is about an account and about no order. With `mails` it is to be sent; otherwise it is only recorded.
pub(super) async fn insert_of_account(
    connection: &mut Connection,
    account: Uuid,
    kind: &str,
    payload: &[u8],
    mails: bool,
) -> sqlx::Result<()> {
    let insert = sqlx::query!(
        "INSERT INTO users.notifications (event_id, user_id, kind, payload, status)
         SELECT $1, $2, $3, CASE WHEN $5 THEN $4::bytea END, CASE WHEN $5 THEN 'pending' ELSE 'recorded' END",
        Uuid::now_v7(),
        account,
        kind,
        payload,
        mails,
    );
    insert.execute(connection).await?;
    Ok(())
}

/// Writes a mail about an account that is to be sent, unless the account has gone.
pub(super) async fn insert_account_mail(
    connection: &mut Connection,
    recipient: &Recipient,
    kind: &str,
    payload: &[u8],
) -> sqlx::Result<()> {
    // An account that is being erased is waited for: then there is none.
    let insert = sqlx::query!(
        "WITH known AS MATERIALIZED (SELECT id FROM users.accounts WHERE id = $2 FOR KEY SHARE)
         INSERT INTO users.notifications
             (event_id, account_id, email, name, language, kind, payload, status)
         SELECT $1, $2::uuid, $3, $4, $5, $6, $7, 'pending'
         WHERE EXISTS (SELECT FROM known) OR $2::uuid IS NULL",
        Uuid::now_v7(),
        recipient.account,
        recipient.email,
        recipient.name,
        recipient.language.as_str(),
        kind,
        payload,
    );
    insert.execute(connection).await?;
    Ok(())
}

/// A mail to be sent now. A mail about an account goes to its own address, any other to the present address
/// of the account's owner.
pub(super) struct Due {
    pub event_id: Uuid,
    pub kind: String,
    pub payload: Vec<u8>,
    pub email: String,
    pub name: String,
    pub language: String,
    /// With this one.
    pub attempts: i32,
    pub refusals: i32,
    pub created_at: OffsetDateTime,
    pub age_seconds: f64,
}

impl Due {
    pub fn age(&self) -> Duration {
        Duration::from_secs_f64(self.age_seconds.max(0.0))
    }

    /// The token in it is no longer valid.
    pub fn has_run_out(&self) -> bool {
        lifetime(&self.kind).is_some_and(|lifetime| self.age() >= lifetime)
    }
}

/// Leases up to `limit` of the mails that are due.
pub(super) async fn claim(connection: &mut Connection, limit: i64) -> sqlx::Result<Vec<Due>> {
    let rows = sqlx::query_as!(
        Due,
        // An array, so that the index is used however many are due.
        r#"UPDATE users.notifications n
           SET due_at = now() + interval '60 seconds', attempts = n.attempts + 1
           FROM users.notifications d LEFT JOIN users.accounts a ON a.id = d.user_id
           WHERE n.event_id = d.event_id AND d.event_id = ANY(ARRAY(
               SELECT event_id FROM users.notifications
               WHERE status = 'pending' AND due_at <= now()
               ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED))
           RETURNING n.event_id, n.kind, COALESCE(n.payload, '') AS "payload!",
                     COALESCE(n.email, a.email) AS "email!", COALESCE(n.name, a.name) AS "name!",
                     COALESCE(n.language, a.language) AS "language!",
                     n.attempts, n.refusals, n.created_at,
                     EXTRACT(epoch FROM now() - n.created_at)::float8 AS "age_seconds!""#,
        limit,
    );
    rows.fetch_all(connection).await
}

/// The payload stays, in case staff send the mail again. That of a mail about the account is deleted, as it
/// may have a token.
pub(super) async fn sent(connection: &mut Connection, events: &[Uuid]) -> sqlx::Result<()> {
    let update = sqlx::query!(
        "UPDATE users.notifications SET status = 'sent', settled_at = now(), error = NULL,
             payload = CASE WHEN order_id IS NOT NULL THEN payload END
         WHERE event_id = ANY($1)",
        events,
    );
    update.execute(connection).await?;
    Ok(())
}

/// Due at once, as before they were claimed: the server was not offered them.
pub(super) async fn release(connection: &mut Connection, mails: &[Due]) -> sqlx::Result<()> {
    let (events, attempts): (Vec<Uuid>, Vec<i32>) =
        mails.iter().map(|mail| (mail.event_id, mail.attempts)).unzip();
    let update = sqlx::query!(
        "UPDATE users.notifications n SET due_at = now(), attempts = n.attempts - 1
         FROM UNNEST($1::uuid[], $2::int[]) AS mine (event_id, attempts)
         WHERE n.event_id = mine.event_id AND n.attempts = mine.attempts AND n.status = 'pending'",
        &events,
        &attempts,
    );
    update.execute(connection).await?;
    Ok(())
}

/// Due again after about `pause`, unless somebody else has claimed it since.
pub(super) async fn retry(
    connection: &mut Connection,
    mail: &Due,
    pause: Duration,
    refused: bool,
    error: &str,
) -> sqlx::Result<()> {
    // At random, so that mails that failed together do not come back together.
    let update = sqlx::query!(
        "UPDATE users.notifications
         SET due_at = now() + make_interval(secs => $3 * (0.9 + 0.2 * random())),
             refusals = refusals + $4, error = $5
         WHERE event_id = $1 AND attempts = $2 AND status = 'pending'",
        mail.event_id,
        mail.attempts,
        pause.as_secs_f64(),
        i32::from(refused),
        error,
    );
    update.execute(connection).await?;
    Ok(())
}

/// The payload stays, in case the row is set to `pending` again; that of a mail about the account is deleted.
pub(super) async fn mark_failed(connection: &mut Connection, mail: &Due, error: &str) -> sqlx::Result<()> {
    let update = sqlx::query!(
        "UPDATE users.notifications SET status = 'failed', settled_at = now(), error = $3,
             payload = CASE WHEN order_id IS NOT NULL THEN payload END
         WHERE event_id = $1 AND attempts = $2 AND status = 'pending'",
        mail.event_id,
        mail.attempts,
        error,
    );
    update.execute(connection).await?;
    Ok(())
}

/// Keeps an account as it is until the transaction ends; false when there is none.
pub(super) async fn lock_account(connection: &mut Connection, account: Uuid) -> sqlx::Result<bool> {
    let locked =
        sqlx::query_scalar!("SELECT id FROM users.accounts WHERE id = $1 FOR NO KEY UPDATE", account);
    Ok(locked.fetch_optional(connection).await?.is_some())
}

/// A notification about an order.
pub(super) struct Sent {
    pub id: Uuid,
    pub kind: String,
    /// Its mail has not left yet.
    pub waits: bool,
    /// The mail that it repeats, if it does.
    pub again_of: Option<Uuid>,
    pub created_at: OffsetDateTime,
    /// Seconds until it is an hour old; negative after that.
    pub left: f64,
}

/// A mail that is to leave, as staff see it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Mail {
    pub id: Uuid,
    pub order_id: Uuid,
    /// The type of what it tells of, such as `order.shipped.v1`.
    pub event: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

/// A customer's notifications about an order, newest first.
pub(super) async fn of_order(
    connection: &mut Connection,
    user: Uuid,
    order: Uuid,
) -> sqlx::Result<Vec<Sent>> {
    let rows = sqlx::query_as!(
        Sent,
        r#"SELECT event_id AS id, kind, status = 'pending' AS "waits!", again_of, created_at,
                  EXTRACT(epoch FROM created_at + interval '1 hour' - now())::float8 AS "left!"
           FROM users.notifications WHERE user_id = $1 AND order_id = $2 ORDER BY event_id DESC"#,
        user,
        order,
    );
    rows.fetch_all(connection).await
}

/// Queues a mail once more, under an id of its own; `None` when what it is made of is not kept.
pub(super) async fn queue_again(connection: &mut Connection, event: Uuid) -> sqlx::Result<Option<Mail>> {
    let queued = sqlx::query_as!(
        Mail,
        r#"INSERT INTO users.notifications (event_id, user_id, order_id, kind, payload, status, again_of)
           SELECT $2, user_id, order_id, kind, payload, 'pending', event_id
           FROM users.notifications WHERE event_id = $1 AND payload IS NOT NULL
           RETURNING event_id AS id, order_id AS "order_id!", kind AS event, created_at"#,
        event,
        Uuid::now_v7(),
    );
    queued.fetch_optional(connection).await
}

/// The mails that wait, and the age of the oldest in seconds.
pub(super) async fn backlog(connection: &mut Connection) -> sqlx::Result<(i64, f64)> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "count!",
                  COALESCE(EXTRACT(epoch FROM now() - min(created_at)), 0)::float8 AS "age!"
           FROM users.notifications WHERE status = 'pending'"#
    );
    let row = row.fetch_one(connection).await?;
    Ok((row.count, row.age))
}

/// Removes what was settled three months ago; true when there may be more.
pub(crate) async fn sweep(connection: &mut Connection) -> sqlx::Result<bool> {
    // A replica of the release before leaves them.
    let tokens = sqlx::query!(
        "UPDATE users.notifications SET payload = NULL
         WHERE order_id IS NULL AND payload IS NOT NULL AND status IN ('failed', 'sent')"
    );
    tokens.execute(&mut *connection).await?;
    // Whoever has no account is not kept.
    let strangers = sqlx::query!(
        "DELETE FROM users.notifications WHERE event_id IN (
             SELECT event_id FROM users.notifications
             WHERE user_id IS NULL AND account_id IS NULL AND created_at < now() - interval '1 day'
               AND status <> 'pending' LIMIT 10000)"
    );
    let strangers = strangers.execute(&mut *connection).await?.rows_affected();
    let old = sqlx::query!(
        "DELETE FROM users.notifications WHERE event_id IN (
             SELECT event_id FROM users.notifications
             WHERE created_at < now() - interval '90 days' AND status <> 'pending' LIMIT 10000)"
    );
    let old = old.execute(connection).await?.rows_affected();
    Ok(strangers == 10_000 || old == 10_000)
}

//! The SQL of the search.

use order_core::ids::{OrderId, UserId};
use service::db::Pool;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::search::Search;
use super::{OrderNumber, Status};

/// An order's id is as old as its key, which may be answered for this long.
const OLDEST_KEY: Duration = Duration::days(2);

/// The clocks of replicas differ by less.
const CLOCKS: Duration = Duration::minutes(5);

/// Plans for the actual values, as each filter may be absent: the filters that are set decide which index is
/// good.
const BEGIN: &str = "BEGIN READ ONLY;
    SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = off; SET LOCAL jit = off";

/// Ids of the orders that fit, newest first, older than `before`.
pub async fn run(
    pool: &Pool,
    search: &Search,
    before: Option<OrderId>,
    limit: i64,
) -> sqlx::Result<Vec<OrderId>> {
    let first = search.placed_from.and_then(|from| from.checked_sub(OLDEST_KEY));
    let last = search.placed_to.and_then(|to| to.checked_add(CLOCKS)).map_or(Uuid::max(), first_id);
    let last = before.map_or(last, |before| last.min(before.into()));
    let mut transaction = service::db::begin_with(pool, BEGIN).await?;
    // PostgreSQL can't know how many orders have a word. The sort is by an expression that no index has, so
    // that it finds them by their words and does not walk through all orders.
    let found = sqlx::query_scalar!(
        r#"SELECT o.id AS "id: OrderId"
           FROM orders.directory d JOIN orders.orders o ON o.id = d.order_id
           WHERE d.order_id < $1 AND o.id < $1 AND d.order_id >= $2 AND o.id >= $2
             AND ($3::uuid[] IS NULL OR o.user_id = ANY($3))
             AND ($4::text IS NULL OR o.status = $4)
             AND ($5::text IS NULL OR d.number = $5)
             AND ($6::text IS NULL OR d.words @@ orders.wanted($6))
             AND ($7::text IS NULL OR d.currency = $7)
             AND ($8::bigint IS NULL OR d.total >= $8)
             AND ($9::bigint IS NULL OR d.total <= $9)
             AND ($10::timestamptz IS NULL OR o.placed_at >= $10)
             AND ($11::timestamptz IS NULL OR o.placed_at < $11)
           ORDER BY CASE WHEN $6 IS NULL THEN d.order_id ELSE GREATEST(d.order_id, o.id) END DESC LIMIT $12"#,
        last,
        first.map_or(Uuid::nil(), first_id),
        search.users.as_deref() as Option<&[UserId]>,
        search.status.map(Status::as_str),
        search.number.as_ref().map(OrderNumber::as_str),
        search.q.as_deref(),
        search.currency.map(|currency| currency.code().to_owned()),
        search.min_total,
        search.max_total,
        search.placed_from,
        search.placed_to,
        limit,
    )
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(found)
}

/// The least UUIDv7 of a moment.
fn first_id(at: OffsetDateTime) -> Uuid {
    let millis = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0).min((1 << 48) - 1);
    Uuid::from_u128(u128::from(millis) << 80)
}

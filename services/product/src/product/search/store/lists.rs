//! The SQL of lists: the ids of one page, for each sort.
//!
//! Each sort has three statements, as the fastest one depends on the search:
//!
//! - `walk` follows the sort's index and drops what doesn't fit. It is fast when much fits.
//! - `shelf` does so on each category's own index and merges them: a category's products may all lie at one
//!   end of the shop's index.
//! - `gather` takes all that a search by words found, up to [`BROAD`], and sorts that. With more results
//!   `walk` is fast.

use service::db::Connection;
use time::OffsetDateTime;
use uuid::Uuid;
use words::Query;

use crate::product::search::Sort;
use crate::product::search::place::{Cursor, Place, Tier, from_micros};
use crate::product::search::scope::Scope;

/// Most results that are sorted; when there are more, walking finds some soon enough.
const BROAD: i64 = 2_000;

/// One statement: `$keyset` is what comes after the product `$6` with sort value `$8`.
macro_rules! ids {
    ($statement:tt, $scope:expr, $words:expr, $after:expr, $limit:expr, $key:expr, $matches:tt, $keyset:tt, $order:tt) => {
        ids!(@ $statement, $matches, $order,
            (" FROM products.products p LEFT JOIN products.sold_out o ON o.product_id = p.id
               WHERE p.archived_at IS NULL
                 AND ($3::bigint IS NULL OR p.price >= $3)
                 AND ($4::bigint IS NULL OR p.price <= $4)
                 AND ($10::text IS NULL OR p.currency = $10)
                 AND ($5::bool IS NULL OR (o.product_id IS NULL) = $5)
                 AND ($6::uuid IS NULL OR " $keyset ")
                 AND ($9::text IS NULL OR p.search @@ $9::text::tsquery)"),
            [
                $words,
                $scope.categories.as_deref() as _,
                $scope.filters.min_price,
                $scope.filters.max_price,
                $scope.filters.in_stock,
                $after,
                $limit,
                $key,
                $scope.also.as_deref(),
                $scope.prices.within.as_deref()
            ])
    };
    (@ walk, $matches:tt, $order:tt, ($($filtered:tt)+), [$($argument:expr),+]) => {
        sqlx::query_scalar!(
            "SELECT p.id" $(+ $filtered)+ + " AND ($1::text IS NULL OR " + $matches + ")
                 AND ($2::text[] IS NULL OR p.category = ANY($2))
             ORDER BY " + $order + " LIMIT $7",
            $($argument),+
        )
    };
    (@ shelf, $matches:tt, $order:tt, ($($filtered:tt)+), [$($argument:expr),+]) => {
        sqlx::query_scalar!(
            "SELECT p.id FROM UNNEST($2::text[]) AS c (slug) CROSS JOIN LATERAL (
                 SELECT p.id, p.currency, p.price, p.created_at, p.name" $(+ $filtered)+ + "
                     AND p.category = c.slug AND $1::text IS NULL
                 ORDER BY " + $order + " LIMIT $7) p
             ORDER BY " + $order + " LIMIT $7",
            $($argument),+
        )
    };
    (@ gather, $matches:tt, $order:tt, ($($filtered:tt)+), [$($argument:expr),+]) => {
        sqlx::query!(
            "WITH found AS MATERIALIZED (
                 SELECT p.id, p.currency, p.price, p.created_at, p.name" $(+ $filtered)+ + " AND " + $matches + "
                     AND ($2::text[] IS NULL OR p.category = ANY($2))
                 LIMIT $11)
             SELECT p.id, (SELECT count(*) FROM found) AS \"found!\" FROM found p
             ORDER BY " + $order + " LIMIT $7",
            $($argument),+,
            BROAD + 1
        )
    };
}

/// A page, by whichever statement is fast.
macro_rules! page {
    ($connection:expr, $scope:expr, $($part:tt),+) => {{
        let words = $scope.words.as_deref();
        if words.is_some() {
            let rows = ids!(gather, $scope, words, $($part),+).fetch_all(&mut *$connection).await?;
            if rows.first().is_none_or(|row| row.found <= BROAD) {
                return Ok(rows.into_iter().map(|row| row.id).collect());
            }
        } else if $scope.categories.is_some() {
            return ids!(shelf, $scope, words, $($part),+).fetch_all($connection).await;
        }
        ids!(walk, $scope, words, $($part),+).fetch_all($connection).await
    }};
}

/// As `page!` within a tier of relevance.
macro_rules! ranked {
    ($connection:expr, $scope:expr, $words:expr, $id:tt, $limit:tt, $time:tt, $matches:tt) => {{
        let rows = ids!(
            gather,
            $scope,
            $words,
            $id,
            $limit,
            $time,
            $matches,
            "(p.created_at, p.id) < ($8, $6)",
            "p.created_at DESC, p.id DESC"
        );
        let rows = rows.fetch_all(&mut *$connection).await?;
        if rows.first().is_none_or(|row| row.found <= BROAD) {
            return Ok(rows.into_iter().map(|row| row.id).collect());
        }
        let ids = ids!(
            walk,
            $scope,
            $words,
            $id,
            $limit,
            $time,
            $matches,
            "(p.created_at, p.id) < ($8, $6)",
            "p.created_at DESC, p.id DESC"
        );
        ids.fetch_all($connection).await
    }};
}

/// Up to `limit` ids in the sort's order, from after `after`. Not for relevance, unless all are equally good.
pub async fn page(
    connection: &mut Connection,
    scope: &Scope<'_>,
    after: Option<&Cursor>,
    limit: i64,
) -> sqlx::Result<Vec<Uuid>> {
    let id = after.map(|after| after.id);
    match scope.filters.sort {
        Sort::Newest | Sort::Relevance => {
            let time = after.and_then(|after| match after.place {
                Place::Newest(micros) | Place::Relevance(_, micros) => from_micros(micros),
                _ => None,
            });
            page!(
                connection,
                scope,
                id,
                limit,
                time,
                "p.search @@ $1::text::tsquery",
                "(p.created_at, p.id) < ($8, $6)",
                "p.created_at DESC, p.id DESC"
            )
        }
        Sort::Price => {
            let price = after.and_then(price);
            page!(
                connection,
                scope,
                id,
                limit,
                price,
                "p.search @@ $1::text::tsquery",
                "(p.price, p.id) > ($8, $6)",
                "p.price, p.id"
            )
        }
        Sort::PriceDown => {
            let price = after.and_then(price);
            page!(
                connection,
                scope,
                id,
                limit,
                price,
                "p.search @@ $1::text::tsquery",
                "(p.price, p.id) < ($8, $6)",
                "p.price DESC, p.id DESC"
            )
        }
        Sort::Name => {
            let name = after.and_then(|after| match &after.place {
                Place::Name(name) => Some(name.as_str()),
                _ => None,
            });
            page!(
                connection,
                scope,
                id,
                limit,
                name,
                "p.search @@ $1::text::tsquery",
                "(p.name COLLATE products.names, p.id) > ($8, $6)",
                "p.name COLLATE products.names, p.id"
            )
        }
    }
}

fn price(after: &Cursor) -> Option<i64> {
    match after.place {
        Place::Price(price) => Some(price),
        _ => None,
    }
}

/// Up to `limit` ids of one tier of relevance, newest first, from after `after`.
pub async fn tier(
    connection: &mut Connection,
    scope: &Scope<'_>,
    query: &Query,
    tier: Tier,
    after: Option<(OffsetDateTime, Uuid)>,
    limit: i64,
) -> sqlx::Result<Vec<Uuid>> {
    let (time, id) = after.unzip();
    let exact = &query.exact;
    let words = match (tier, &query.whole, &query.any) {
        (Tier::Exact, _, _) => exact.clone(),
        (Tier::Name, Some(whole), _) => format!("({whole}) & !{exact}"),
        (Tier::Beginning, Some(whole), Some(any)) if whole != any => {
            format!("({any}) & !({whole}) & !{exact}")
        }
        (Tier::Facts | Tier::Description, _, Some(any)) => format!("({any}) | {exact}"),
        _ => return Ok(Vec::new()),
    };
    let words = Some(words.as_str());
    match tier {
        Tier::Exact | Tier::Name | Tier::Beginning => ranked!(
            connection,
            scope,
            words,
            id,
            limit,
            time,
            "ts_filter(p.search, '{a}') @@ $1::text::tsquery"
        ),
        Tier::Facts => ranked!(
            connection,
            scope,
            words,
            id,
            limit,
            time,
            "ts_filter(p.search, '{a,b}') @@ $1::text::tsquery
             AND NOT ts_filter(p.search, '{a}') @@ $1::text::tsquery"
        ),
        Tier::Description => ranked!(
            connection,
            scope,
            words,
            id,
            limit,
            time,
            "p.search @@ $1::text::tsquery AND NOT ts_filter(p.search, '{a,b}') @@ $1::text::tsquery"
        ),
    }
}

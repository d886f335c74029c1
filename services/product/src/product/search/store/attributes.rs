//! The SQL of counts by attribute.

use service::db::Connection;

use crate::product::search::attributes::Counted;
use crate::product::search::facets::MOST_IN_ALL;
use crate::product::search::scope::{self, Scope};

/// How many of the products have each value, without the filter of the attribute `except`; true when not all
/// products were counted.
pub async fn count(
    connection: &mut Connection,
    scope: &Scope<'_>,
    except: Option<&str>,
) -> sqlx::Result<(Counted, bool)> {
    let words = scope.query.as_ref().and_then(scope::of_words);
    let rows = sqlx::query!(
        r#"WITH found AS MATERIALIZED (
               SELECT p.attributes
               FROM products.products p LEFT JOIN products.sold_out o ON o.product_id = p.id
               WHERE p.archived_at IS NULL
                 AND ($1::text IS NULL OR p.search @@ $1::text::tsquery)
                 AND ($2::text IS NULL OR p.search @@ $2::text::tsquery)
                 AND ($3::text[] IS NULL OR p.category = ANY($3))
                 AND ($4::bigint IS NULL OR p.price >= $4)
                 AND ($5::bigint IS NULL OR p.price <= $5)
                 AND ($6::text IS NULL OR p.currency = $6)
                 AND ($7::bool IS NULL OR (o.product_id IS NULL) = $7)
               LIMIT $8)
           SELECT a.key AS "name!", a.value AS "value!", count(*) AS "count!",
                  (SELECT count(*) FROM found) AS "found!"
           FROM found CROSS JOIN LATERAL jsonb_each_text(found.attributes) a
           WHERE $9::text IS NULL OR lower(a.key) = lower($9)
           GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 2000"#,
        words,
        scope::conditions(scope.filters, scope.query.as_ref(), except),
        scope.categories.as_deref() as _,
        scope.filters.min_price,
        scope.filters.max_price,
        scope.prices.within.as_deref(),
        scope.filters.in_stock,
        MOST_IN_ALL + 1,
        except,
    );
    let rows = rows.fetch_all(connection).await?;
    let capped = rows.first().is_some_and(|row| row.found > MOST_IN_ALL);
    let mut counted = Counted::new();
    for row in rows {
        counted.entry(row.name).or_default().push((row.value, row.count));
    }
    Ok((counted, capped))
}

//! Counts of attributes' values, which come with a search when they are asked for.

use std::collections::BTreeMap;

use serde::Serialize;
use service::db::Connection;
use utoipa::ToSchema;

use super::facets::{Count, MOST_IN_ALL};
use super::lists::{self, Scope};

/// Attributes, and values of each, that are told of at most.
const MOST_NAMES: usize = 20;
const MOST_VALUES: usize = 50;

#[derive(Debug, Serialize, ToSchema)]
pub struct AttributeFacet {
    name: String,
    #[serde(rename = "type")]
    kind: Kind,
    /// The most common first. Counted whatever this attribute's own filter says.
    values: Vec<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AttributeKind)]
enum Kind {
    /// All of its values are numbers.
    Number,
    Text,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AttributeValue)]
struct Value {
    value: String,
    #[serde(flatten)]
    count: Count,
}

/// The values of each attribute with how many of the products have it.
type Counted = BTreeMap<String, Vec<(String, i64)>>;

/// The most common attributes of up to 2,000 of the products found; an exact count, unless it is `capped`.
pub async fn count(connection: &mut Connection, scope: &Scope<'_>) -> sqlx::Result<Vec<AttributeFacet>> {
    let (mut counted, capped) = of(connection, scope, None).await?;
    let mut capped: BTreeMap<String, bool> = counted.keys().map(|name| (name.clone(), capped)).collect();
    for name in scope.filters.attributes.keys() {
        let (mut own, own_capped) = of(connection, scope, Some(name)).await?;
        if let Some(values) = own.remove(name) {
            counted.insert(name.clone(), values);
            capped.insert(name.clone(), own_capped);
        }
    }
    let mut facets: Vec<(i64, AttributeFacet)> = counted
        .into_iter()
        .map(|(name, values)| {
            let products = values.iter().map(|(_, count)| count).sum();
            let is_number = |value: &str| value.parse::<f64>().is_ok_and(f64::is_finite);
            let all_numbers = values.iter().all(|(value, _)| is_number(value));
            let kind = if all_numbers { Kind::Number } else { Kind::Text };
            let capped = capped.get(&name) == Some(&true);
            let values = values
                .into_iter()
                .take(MOST_VALUES)
                .map(|(value, count)| Value { value, count: Count { count, capped } });
            (products, AttributeFacet { kind, values: values.collect(), name })
        })
        .collect();
    facets.sort_by(|(one, a), (other, b)| other.cmp(one).then_with(|| a.name.cmp(&b.name)));
    facets.truncate(MOST_NAMES);
    Ok(facets.into_iter().map(|(_, facet)| facet).collect())
}

/// Whatever the filter of the attribute `except` says; true when not all products were counted.
async fn of(
    connection: &mut Connection,
    scope: &Scope<'_>,
    except: Option<&str>,
) -> sqlx::Result<(Counted, bool)> {
    let words = scope.query.as_ref().and_then(lists::of_words);
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
           WHERE $9::text IS NULL OR a.key = $9
           GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 2000"#,
        words,
        lists::conditions(scope.filters, scope.query.as_ref(), except),
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

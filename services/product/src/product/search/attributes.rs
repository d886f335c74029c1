//! Counts of attributes' values, which come with a search when they are asked for.

use std::collections::BTreeMap;

use serde::Serialize;
use service::db::Connection;
use utoipa::ToSchema;

use super::facets::Count;
use super::scope::Scope;
use super::store::attributes as store;

/// Most attributes, and most values of each, that an answer has.
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
pub type Counted = BTreeMap<String, Vec<(String, i64)>>;

/// The most common attributes of up to 2,000 of the products found; an exact count, unless it is `capped`.
pub async fn count(connection: &mut Connection, scope: &Scope<'_>) -> sqlx::Result<Vec<AttributeFacet>> {
    let (mut counted, capped) = store::count(connection, scope, None).await?;
    let mut capped: BTreeMap<String, bool> = counted.keys().map(|name| (name.clone(), capped)).collect();
    for name in scope.filters.attributes.keys() {
        // As products have it; the filter may have it in another case.
        let (own, own_capped) = store::count(connection, scope, Some(name)).await?;
        for (name, values) in own {
            capped.insert(name.clone(), own_capped);
            counted.insert(name, values);
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

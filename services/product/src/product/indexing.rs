//! The words that products are found by. They are made with every change of a product's texts. Products whose
//! words another release made, or nobody, get new ones.

mod store;

use std::collections::BTreeMap;
use std::time::Duration;

use service::Lifecycle;
use service::db::Pool;
use words::Texts;

use super::Form;

/// Products that one transaction reads again.
const BATCH: i64 = 200;
const EVERY: Duration = Duration::from_secs(10);

/// The product's `tsvector`, as text.
pub fn vector(form: &Form) -> String {
    vector_of(&form.name, &form.sku, &form.attributes, &form.description)
}

fn vector_of(name: &str, sku: &str, attributes: &BTreeMap<String, String>, description: &str) -> String {
    let attributes: Vec<(&str, &str)> =
        attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    words::vector(&Texts { name, sku, attributes: &attributes, description })
}

/// Replicas that do so at once take different products.
pub fn start(pool: Pool, lifecycle: &Lifecycle) {
    lifecycle.spawn_every("words", EVERY, move || {
        let pool = pool.clone();
        async move {
            make_anew(&pool).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "words.failed");
                false
            })
        }
    });
}

/// True when there may be more.
async fn make_anew(pool: &Pool) -> sqlx::Result<bool> {
    let mut transaction = service::db::begin(pool).await?;
    let rows = store::lock_old(&mut transaction).await?;
    if rows.is_empty() {
        return Ok(false);
    }
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let vectors: Vec<String> =
        rows.iter().map(|row| vector_of(&row.name, &row.sku, &row.attributes.0, &row.description)).collect();
    store::update(&mut transaction, &ids, &vectors).await?;
    transaction.commit().await?;
    Ok(rows.len() as i64 == BATCH)
}

#[cfg(test)]
mod tests {
    /// The statement in the store and the index `products_without_words` say `words_version < 1`.
    #[test]
    fn a_new_version_of_words_comes_with_an_index_that_finds_older_ones() {
        assert_eq!(words::VERSION, 1);
    }
}

//! The SQL of demo data.

use service::db::Connection;
use sqlx::types::Json;
use uuid::Uuid;

use super::Item;
use crate::product::{self, Form};

/// Records that the catalogue is loaded; false when it was loaded before.
pub(super) async fn mark_loaded(connection: &mut Connection) -> sqlx::Result<bool> {
    let marked = sqlx::query!("INSERT INTO products.loaded (name) VALUES ('demo') ON CONFLICT DO NOTHING");
    Ok(marked.execute(connection).await?.rows_affected() == 1)
}

/// Adds products, and returns the ids of those that are new: a shop that has the SKU or the slug already keeps its own.
pub(super) async fn insert_products(
    connection: &mut Connection,
    ids: &[Uuid],
    items: &[Item],
) -> sqlx::Result<Vec<Uuid>> {
    let column = |value: fn(&Form) -> &str| -> Vec<String> {
        items.iter().map(|item| value(&item.form).to_owned()).collect()
    };
    let slugs: Vec<String> = items.iter().map(|item| product::slug(&item.form.name)).collect();
    let prices: Vec<i64> = items.iter().map(|item| item.form.price.amount).collect();
    let attributes: Vec<Json<_>> = items.iter().map(|item| Json(&item.form.attributes)).collect();
    let searches: Vec<String> = items.iter().map(|item| product::indexing::vector(&item.form)).collect();
    sqlx::query_scalar!(
        "INSERT INTO products.products
             (id, sku, slug, name, description, price, currency, category, attributes, images,
              search, words_version)
         SELECT id, sku, slug, name, description, price, currency, category, attributes, '{}',
                search::tsvector, $11
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[],
                     $8::text[], $9::jsonb[], $10::text[])
              AS n (id, sku, slug, name, description, price, currency, category, attributes, search)
         ON CONFLICT DO NOTHING RETURNING id",
        ids,
        &column(|form| &form.sku),
        &slugs,
        &column(|form| &form.name),
        &column(|form| &form.description),
        &prices,
        &column(|form| form.price.currency.code()),
        &column(|form| &form.category),
        &attributes as _,
        &searches,
        words::VERSION,
    )
    .fetch_all(connection)
    .await
}

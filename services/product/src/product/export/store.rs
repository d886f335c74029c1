//! The SQL of exports.

use std::collections::BTreeMap;

use service::db::{self, Connection};
use sqlx::types::Json;
use uuid::Uuid;

use super::Row;

/// The next products of the shop after this one, by id: a hundred, as one may have 100 KB, or fewer at the
/// end.
pub async fn page(connection: &mut Connection, after: Uuid) -> sqlx::Result<Vec<Row>> {
    // Stock is looked up for each row: a join may read all of it.
    let rows = sqlx::query!(
        r#"SELECT p.id, p.sku, p.slug, p.name, p.description, p.price, p.currency, p.category,
                  c.name AS category_name, c.parent AS category_parent,
                  p.attributes AS "attributes: Json<BTreeMap<String, String>>", p.images,
                  (SELECT on_hand FROM products.stock WHERE product_id = p.id) AS "on_hand!",
                  (SELECT reserved FROM products.stock WHERE product_id = p.id) AS "reserved!",
                  COALESCE((SELECT max(seq) FROM products.stock_ledger WHERE product_id = p.id), 0) AS "version!"
           FROM products.products p JOIN products.categories c ON c.slug = p.category
           WHERE p.id > $1 AND p.archived_at IS NULL ORDER BY p.id LIMIT 100"#,
        after,
    );
    let rows = rows.fetch_all(connection).await?.into_iter().map(|row| {
        Ok(Row {
            id: row.id,
            sku: row.sku,
            slug: row.slug,
            name: row.name,
            description: row.description,
            price: db::money(row.price, &row.currency)?,
            category: row.category,
            category_name: row.category_name,
            category_parent: row.category_parent,
            attributes: row.attributes.0,
            images: row.images,
            on_hand: row.on_hand,
            reserved: row.reserved,
            stock_version: row.version,
        })
    });
    rows.collect()
}

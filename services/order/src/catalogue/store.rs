//! All SQL of the copied products.

use order_core::ids::ProductId;
use proto::product::v1 as api;
use service::Money;
use service::db::Connection;
use service::money::Currency;

use crate::clients::product::Product;

pub async fn read(connection: &mut Connection, ids: &[ProductId]) -> sqlx::Result<Vec<Product>> {
    let rows = sqlx::query!(
        "SELECT id, name, price, currency, available, archived FROM orders.products WHERE id = ANY($1)",
        ids as &[ProductId]
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let currency = Currency::from_code(&row.currency)
                .ok_or_else(|| sqlx::Error::Decode(format!("{} is no currency", row.currency).into()))?;
            Ok(Product {
                id: row.id.into(),
                name: row.name,
                price: Money::new(row.price, currency),
                available: u32::try_from(row.available).unwrap_or(0),
                archived: row.archived,
            })
        })
        .collect()
}

/// Replaces copies with newer versions; an event that came too late changes nothing.
pub async fn replace(
    connection: &mut Connection,
    products: &[(ProductId, api::Product)],
) -> sqlx::Result<()> {
    let price = |product: &api::Product| product.price.clone().unwrap_or_default();
    let ids: Vec<ProductId> = products.iter().map(|(id, _)| *id).collect();
    let skus: Vec<String> = products.iter().map(|(_, product)| product.sku.clone()).collect();
    let names: Vec<String> = products.iter().map(|(_, product)| product.name.clone()).collect();
    let prices: Vec<i64> = products.iter().map(|(_, product)| price(product).amount).collect();
    let currencies: Vec<String> = products.iter().map(|(_, product)| price(product).currency).collect();
    let stock: Vec<i32> =
        products.iter().map(|(_, product)| i32::try_from(product.available).unwrap_or(i32::MAX)).collect();
    let archived: Vec<bool> = products.iter().map(|(_, product)| product.archived).collect();
    let versions: Vec<i64> = products.iter().map(|(_, product)| product.version).collect();
    // The newest of each, in the order of ids, as replicas must lock alike.
    sqlx::query!(
        "INSERT INTO orders.products AS p (id, sku, name, price, currency, available, archived, version)
         SELECT DISTINCT ON (id) * FROM UNNEST
             ($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::int[], $7::bool[], $8::bigint[])
             AS n (id, sku, name, price, currency, available, archived, version)
         ORDER BY id, version DESC
         ON CONFLICT (id) DO UPDATE
         SET sku = EXCLUDED.sku, name = EXCLUDED.name, price = EXCLUDED.price, currency = EXCLUDED.currency,
             available = EXCLUDED.available, archived = EXCLUDED.archived, version = EXCLUDED.version
         WHERE p.version < EXCLUDED.version",
        &ids as &[ProductId],
        &skus,
        &names,
        &prices,
        &currencies,
        &stock,
        &archived,
        &versions,
    )
    .execute(connection)
    .await?;
    Ok(())
}

//! The SQL of words that are made anew.

use std::collections::BTreeMap;

use service::db::Connection;
use sqlx::types::Json;
use uuid::Uuid;

use super::BATCH;

/// The texts of a product.
pub struct Row {
    pub id: Uuid,
    pub name: String,
    pub sku: String,
    pub description: String,
    pub attributes: Json<BTreeMap<String, String>>,
}

/// Products without words of this version, locked; without those that another replica works on.
pub async fn lock_old(connection: &mut Connection) -> sqlx::Result<Vec<Row>> {
    // The index that finds them names the version, too: a new version comes with a new index.
    sqlx::query_as!(
        Row,
        r#"SELECT id, name, sku, description, attributes AS "attributes: Json<BTreeMap<String, String>>"
           FROM products.products WHERE words_version < 1
           ORDER BY id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED"#,
        BATCH
    )
    .fetch_all(connection)
    .await
}

pub async fn update(connection: &mut Connection, ids: &[Uuid], vectors: &[String]) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE products.products p SET search = n.search::tsvector, words_version = $3
         FROM UNNEST($1::uuid[], $2::text[]) AS n (id, search) WHERE p.id = n.id",
        ids,
        vectors,
        words::VERSION,
    )
    .execute(connection)
    .await?;
    Ok(())
}

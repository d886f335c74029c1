//! As little as answers with a product from PostgreSQL: axum, sqlx and one statement, without checks, limits, traces,
//! or deadlines. `cargo dockside bench reads` measures the product service beside it.

use std::collections::BTreeMap;

use anyhow::Context;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use sqlx::postgres::{PgPool, PgPoolOptions};
use time::OffsetDateTime;
use uuid::Uuid;

/// As many as the product service has.
const CONNECTIONS: u32 = 10;

#[derive(Serialize, sqlx::FromRow)]
struct Product {
    id: Uuid,
    sku: String,
    slug: String,
    name: String,
    description: String,
    price: i64,
    currency: String,
    category: String,
    attributes: sqlx::types::Json<BTreeMap<String, String>>,
    images: Vec<String>,
    available: i32,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

const ONE: &str =
    "SELECT p.id, p.sku, p.slug, p.name, p.description, p.price, p.currency, p.category, p.attributes, p.images,
            s.on_hand - s.reserved AS available, p.created_at, p.updated_at
     FROM products.products p JOIN products.stock s ON s.product_id = p.id
     WHERE p.id = $1 AND p.archived_at IS NULL";

const PAGE: &str =
    "SELECT p.id, p.sku, p.slug, p.name, p.description, p.price, p.currency, p.category, p.attributes, p.images,
            s.on_hand - s.reserved AS available, p.created_at, p.updated_at
     FROM products.products p JOIN products.stock s ON s.product_id = p.id
     WHERE p.archived_at IS NULL ORDER BY p.created_at DESC, p.id DESC LIMIT 20";

async fn one(State(pool): State<PgPool>, Path(id): Path<Uuid>) -> Result<Json<Product>, StatusCode> {
    let found = sqlx::query_as(ONE).bind(id).fetch_optional(&pool).await;
    found.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?.map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn page(State(pool): State<PgPool>) -> Result<Json<Vec<Product>>, StatusCode> {
    let found = sqlx::query_as(PAGE).fetch_all(&pool).await;
    found.map(Json).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: bare HTTP_ADDRESS DATABASE_URL";
    let (address, database) = (args.next().context(usage)?, args.next().context(usage)?);
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(&database).await?;
    let routes = Router::new().route("/api/v1/products", get(page)).route("/api/v1/products/{id}", get(one));
    let listener = tokio::net::TcpListener::bind(address).await?;
    Ok(axum::serve(listener, routes.with_state(pool)).await?)
}

//! `/audit/products`: what was done here, for admins.

use audit::list::ListQuery;
use audit::{Filters, Recorded};
use axum::extract::State;
use axum::response::Response;
use identity::Admin;
use serde_json::{Value, json};
use service::Problem;
use service::extract::{Json, Query};
use service::page::{Page, PageParams};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(export))
}

/// List what was done to products, stock, images, imports and categories
///
/// By staff, admins and others who are named. Newest first; of several filters all have to fit.
#[utoipa::path(
    get, path = "/api/v1/audit/products", operation_id = "list_product_audit", tag = "audit",
    params(PageParams, Filters),
    responses((status = 200, description = "A page of the record.", body = Page<Recorded>, example = json!({"items": [example()], "next_cursor": null}))),
    security(("token" = ["admin"])),
)]
async fn list(
    _: Admin,
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Recorded>>, Problem> {
    audit::list::page(&app.pool, query).await
}

/// Export the audit log of products
///
/// Each line is an entry as in the list, newest first (NDJSON).
#[utoipa::path(
    get, path = "/api/v1/audit/products/export", operation_id = "export_product_audit", tag = "audit",
    params(Filters),
    responses((status = 200, description = "The file.", content((String = "application/x-ndjson", example = json!(format!("{}\n", example())))))),
    security(("token" = ["admin"])),
)]
async fn export(
    _: Admin,
    State(app): State<App>,
    Query(filters): Query<Filters>,
) -> Result<Response, Problem> {
    audit::list::export(app.pool, filters, "audit-products")
}

/// An entry, in the OpenAPI document.
fn example() -> Value {
    json!({"id": "018f5c3e-7a00-7000-8000-000000000004", "at": "2026-11-23T09:00:00Z", "actor": "018f5c3e-7a00-7000-8000-000000000003", "role": "staff", "action": "product.changed", "object": {"kind": "product", "id": "018f5c3e-7a00-7000-8000-000000000001"}, "changes": [{"field": "price", "before": {"amount": 14900, "currency": "EUR"}, "after": {"amount": 12900, "currency": "EUR"}}], "request_id": "018f5c3e-7a00-7000-8000-000000000009"})
}

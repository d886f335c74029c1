//! `/products`.

use std::time::Duration;

use audit::Entry;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use identity::{Staff, User};
use serde_json::{Value, json};
use service::Problem;
use service::extract::{Body, Json, Path, Query};
use service::idempotency::{self, Answer, Request};
use service::page::PageParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, etag};
use crate::product::{self, Form, NewProduct, Patch, Product, Status, search, store};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, update, archive))
        .routes(routes!(restore))
}

/// Search the catalogue
///
/// A cursor belongs to the filters and the sort that it came from. Staff may ask for drafts and deleted products.
#[utoipa::path(
    get, path = "/api/v1/products", operation_id = "list_products", tag = "products",
    params(search::Params, PageParams),
    responses((status = 200, description = "A page of products, with counts if `facets` asks for them.", body = search::Answer, example = json!({"items": [example()], "next_cursor": null, "facets": {"categories": [{"slug": "jackets", "name": "Jackets", "count": 1, "capped": false, "children": []}], "price_bands": [{"min_price": 0, "max_price": 999, "count": 0, "capped": false}, {"min_price": 25000, "count": 0, "capped": false}]}}))),
    security(()),
    extensions(("x-problems" = json!({"401": ["missing_token", "invalid_token"], "403": ["forbidden"]}))),
)]
async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    Query(params): Query<search::Params>,
) -> Result<Json<search::Answer>, Problem> {
    if params.is_for_staff() {
        app.verifier.caller(&headers).await?.into_staff()?;
    }
    if let Some(drafts) = params.drafts_or_deleted()? {
        return Ok(Json(search::not_in_shop(&app.pool, params, drafts).await?));
    }
    let search = params.parse()?;
    Ok(Json(search::run(&app.pool, &search, app.default_currency).await?))
}

/// Get a product
#[utoipa::path(
    get, path = "/api/v1/products/{id}", operation_id = "get_product", tag = "products",
    params(("id" = String, Path, description = "The product's id or slug."), ("If-None-Match" = Option<String>, Header, description = "An `ETag` that is held already.", nullable = false)),
    responses(
        (status = 200, description = "The product.", body = Product, headers(("ETag" = String, description = "A strong entity tag.")), example = json!(example())),
        (status = 304, description = "It is the one that is held.", headers(("ETag" = String, description = "A strong entity tag."))),
    ),
    security(()),
)]
async fn read(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let product = match app.reads.get(name.clone()).await? {
        Some(product) => product,
        None => not_in_shop(&app, &name, &headers).await?,
    };
    if etag::is_held(&headers, &product) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag::of(&product))]).into_response());
    }
    Ok(tagged(product))
}

/// A draft or a deleted product, by its id, for staff.
pub(super) async fn not_in_shop(app: &App, name: &str, headers: &HeaderMap) -> Result<Product, Problem> {
    let id = name.parse().ok().filter(|_| headers.contains_key(header::AUTHORIZATION));
    let id = id.ok_or_else(product::not_found)?;
    let caller = app.verifier.caller(headers).await.ok().filter(User::is_staff);
    caller.ok_or_else(product::not_found)?;
    let found = store::by_ids(&mut *app.pool.acquire().await?, &[id]).await?.pop();
    found.ok_or_else(product::not_found)
}

/// Products that are added at once. Each waits until an import's batch is written, and holds a connection
/// that others need.
pub(super) const ADDERS: usize = 2;
const ADD_WITHIN: Duration = Duration::from_secs(5);

const CREATE: &str = "POST /api/v1/products";

/// The parts of a request that a key stands for; as before there were drafts.
fn idempotent(new: &NewProduct) -> Value {
    match new.status {
        Status::Draft => json!([new.form, new.stock, "draft"]),
        Status::Published | Status::Deleted => json!([new.form, new.stock]),
    }
}

/// Add a product
///
/// With an `Idempotency-Key` a repeated request gets the product that the first one made.
#[utoipa::path(
    post, path = "/api/v1/products", operation_id = "create_product", tag = "products",
    params(("Idempotency-Key" = Option<String>, Header, description = "Of the caller's choice, 1 to 255 visible ASCII characters; kept for a day.", min_length = 1, max_length = 255, pattern = "^[!-~]+$", nullable = false)),
    request_body(content = NewProduct, example = json!({"sku": "JACKET-M", "name": "Waxed Cotton Jacket", "description": "Keeps out wind and rain.", "price": {"amount": 14900, "currency": "EUR"}, "category": "jackets", "attributes": {"color": "navy"}, "images": ["https://images.example.com/jacket.jpg"], "stock": 7})),
    responses((status = 201, description = "The product.", body = Product, headers(("Location" = String, description = "Where the product is."), ("ETag" = String, description = "A strong entity tag.")), example = json!(example()))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"409": ["sku_taken", "slug_taken"]}))),
)]
async fn create(
    State(app): State<App>,
    Staff(user): Staff,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer, Problem> {
    let key = idempotency::key(&headers)?;
    let body: Value = body.json_with_texts(&["application/json"], &product::TEXTS)?;
    let new = NewProduct::parse(body)?;
    let request = Request::new(user.id, CREATE, key, &idempotent(&new))?;
    let turn = tokio::time::timeout(ADD_WITHIN, app.adders.acquire()).await;
    let _turn = turn.map_err(|_| Problem::unavailable("Too many products are being added."))?;
    let mut transaction = service::db::begin(&app.pool).await?;
    if let Some(answer) = request.earlier(&mut transaction).await? {
        transaction.commit().await?;
        return Ok(answer);
    }
    let (form, stock, status) = (new.form.clone(), new.stock, new.status);
    let product = product::create(&mut transaction, new).await?;
    let entry = Entry::new(user, "product.created", "product", product.id).fields(&(), &form);
    let entry = entry.field("stock", (), stock).field("status", (), status);
    audit::record(&mut transaction, entry).await?;
    let answer = Answer::created(&product)?
        .with_header(&header::LOCATION, &format!("/api/v1/products/{}", product.id))
        .with_header(&header::ETAG, etag::of(&product).to_str().unwrap_or_default());
    request.answered(&mut transaction, &answer).await?;
    transaction.commit().await?;
    app.outbox.wake();
    Ok(answer)
}

/// Change a product
///
/// A merge patch (RFC 7396). `status` puts it into the shop, or takes it out to be worked on. The slug stays, and so does the currency. An uploaded image that `images` leaves out
/// is deleted.
#[utoipa::path(
    patch, path = "/api/v1/products/{id}", operation_id = "update_product", tag = "products",
    params(("id" = String, Path, description = "The product's id or slug."), ("If-Match" = String, Header, description = "The `ETag` that GET gave; `*` for whatever it is now.", example = "\"3.7\"")),
    request_body(content((Patch = "application/merge-patch+json", example = json!({"price": {"amount": 12900}, "attributes": {"color": null}})), (Patch = "application/json", example = json!({"name": "Waxed Jacket"})))),
    responses((status = 200, description = "The product.", body = Product, headers(("ETag" = String, description = "A strong entity tag.")), example = json!(example()))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"409": ["sku_taken"], "412": ["precondition_failed"], "428": ["precondition_required"]}))),
)]
async fn update(
    State(app): State<App>,
    Staff(user): Staff,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let mut transaction = service::db::begin(&app.pool).await?;
    let product = store::find_locked(&mut transaction, &name).await?.ok_or_else(product::not_found)?;
    let accepted = ["application/merge-patch+json", "application/json"];
    let patch = body.json_with_texts(&accepted, &product::TEXTS)?;
    let (patch, status) = product::split_status(patch)?;
    let mut form = product::merge_patch(&product, patch)?;
    form.category = product::require_category(&mut transaction, &form.category).await?;
    etag::require_current(&headers, &product)?;
    let status = status.filter(|status| *status != product.status);
    let before = Form::from(&product);
    if form == before && status.is_none() {
        return Ok(tagged(product));
    }
    let entry = Entry::new(user, "product.changed", "product", product.id).fields(&before, &form);
    let entry = entry.field("status", product.status, status.unwrap_or(product.status));
    audit::record(&mut transaction, entry).await?;
    if let Some(status) = status {
        product::set_status(&mut transaction, product.id, status).await?;
    }
    let product = product::update(&mut transaction, product.id, &form).await?;
    transaction.commit().await?;
    app.outbox.wake();
    Ok(tagged(product))
}

/// Take a product out of the shop
///
/// It can be restored. Its SKU may be used by another product; its slug stays taken, and orders keep what they say of it.
#[utoipa::path(
    delete, path = "/api/v1/products/{id}", operation_id = "delete_product", tag = "products",
    params(("id" = String, Path, description = "The product's id or slug."), ("If-Match" = String, Header, description = "The `ETag` that GET gave; `*` for whatever it is now.", example = "\"3.7\"")),
    responses((status = 204, description = "It is not in the shop any more.")),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"412": ["precondition_failed"], "428": ["precondition_required"]}))),
)]
async fn archive(
    State(app): State<App>,
    Staff(user): Staff,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let mut transaction = service::db::begin(&app.pool).await?;
    let product = store::find_locked(&mut transaction, &name).await?.ok_or_else(product::not_found)?;
    etag::require_current(&headers, &product)?;
    product::set_status(&mut transaction, product.id, Status::Deleted).await?;
    let entry = Entry::new(user, "product.archived", "product", product.id);
    audit::record(&mut transaction, entry.field("status", product.status, Status::Deleted)).await?;
    transaction.commit().await?;
    app.outbox.wake();
    Ok(StatusCode::NO_CONTENT)
}

/// Restore a deleted product
///
/// It is what it was: in the shop, or a draft. One that is not deleted stays as it is.
#[utoipa::path(
    post, path = "/api/v1/products/{id}/restore", operation_id = "restore_product", tag = "products",
    params(("id" = String, Path, description = "The product's id or slug.")),
    responses((status = 200, description = "The product.", body = Product, headers(("ETag" = String, description = "A strong entity tag.")), example = json!(example()))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"409": ["sku_taken"]}))),
)]
async fn restore(
    State(app): State<App>,
    Staff(user): Staff,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let mut transaction = service::db::begin(&app.pool).await?;
    let product = store::find_any_locked(&mut transaction, &name).await?.ok_or_else(product::not_found)?;
    if product.status != Status::Deleted {
        return Ok(tagged(product));
    }
    let product = product::restore(&mut transaction, product.id).await?;
    let entry = Entry::new(user, "product.restored", "product", product.id);
    audit::record(&mut transaction, entry.field("status", Status::Deleted, product.status)).await?;
    transaction.commit().await?;
    app.outbox.wake();
    Ok(tagged(product))
}

/// A product, in the OpenAPI document.
fn example() -> Value {
    json!({
        "id": "018f5c3e-7a00-7000-8000-000000000001", "sku": "JACKET-M", "slug": "waxed-cotton-jacket",
        "name": "Waxed Cotton Jacket", "description": "Keeps out wind and rain.",
        "price": {"amount": 14900, "currency": "EUR"}, "category": "jackets", "attributes": {"color": "navy"},
        "images": ["https://images.example.com/jacket.jpg"], "stock": {"available": 7},
        "created_at": "2026-11-23T09:00:00Z", "updated_at": "2026-11-23T09:00:00Z",
    })
}

fn tagged(product: Product) -> Response {
    ([(header::ETAG, etag::of(&product))], Json(product)).into_response()
}

//! `/orders/{id}/notes` and `/orders/{id}/shipping-address`: notes of staff, and another address for an
//! order.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use identity::User;
use order_core::ids::{NoteId, OrderId};
use serde::Deserialize;
use service::Problem;
use service::db::Pool;
use service::extract::{Body, Json, Path, Query};
use service::page::{Page, PageParams, PageQuery};
use service::validate::Invalid;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::customers::Customers;
use super::examples;
use super::fulfilment::for_staff;
use crate::address::{self, Address};
use crate::changes::Changes;
use crate::notes::{self, Note};
use crate::order::View;
use crate::order::reads::Reads;
use crate::schema;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(readdress))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewNote {
    #[schema(schema_with = schema::lines_up_to_500)]
    text: String,
}

/// Note something of an order
///
/// For staff, who alone see it. It is forgotten with the order's address.
#[utoipa::path(
    post, path = "/api/v1/orders/{id}/notes", operation_id = "create_note", tag = "orders",
    params(("id" = inline(OrderId), Path, description = "The order."), ("Idempotency-Key" = Option<String>, Header, description = "Of the caller's choice, 1 to 255 visible ASCII characters; kept with the note.", min_length = 1, max_length = 255, pattern = "^[!-~]+$", nullable = false)),
    request_body(content = NewNote, example = json!({"text": "Wants it before Friday."})),
    responses((status = 201, description = "The note.", body = Note, example = json!(examples::note()))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"409": ["customer_forgotten"], "422": ["idempotency_key_reused"]}))),
)]
async fn add(
    user: User,
    State(pool): State<Pool>,
    State(reads): State<Reads>,
    Path(id): Path<OrderId>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Note>), Problem> {
    for_staff(&reads, user, id).await?;
    let key = service::idempotency::key(&headers)?;
    let NewNote { text } = body.json_with_texts(&["application/json"], &["text"])?;
    let mut invalid = Invalid::new();
    let text = invalid.text("/text", text, 1, 500);
    invalid.check()?;
    let text = text.ok_or_else(Problem::internal)?;
    let note = notes::add(&pool, id, user, &text, key.as_deref()).await?;
    Ok((StatusCode::CREATED, Json(note)))
}

/// List an order's notes
///
/// Newest first, for staff.
#[utoipa::path(
    get, path = "/api/v1/orders/{id}/notes", operation_id = "list_notes", tag = "orders",
    params(("id" = inline(OrderId), Path, description = "The order."), PageParams),
    responses((status = 200, description = "A page of notes.", body = Page<Note>, example = json!({"items": [examples::note()], "next_cursor": null}))),
    security(("token" = ["staff"])),
)]
async fn list(
    user: User,
    State(pool): State<Pool>,
    State(reads): State<Reads>,
    Path(id): Path<OrderId>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Note>>, Problem> {
    for_staff(&reads, user, id).await?;
    let (limit, before) = (page.limit()?, page.after::<NoteId>()?);
    let found = notes::store::page(&mut *pool.acquire().await?, id, before, limit + 1).await?;
    Ok(Json(Page::new(found, limit, |note| note.id)))
}

/// Send an order elsewhere
///
/// By staff, until a part of it has left.
#[utoipa::path(
    put, path = "/api/v1/orders/{id}/shipping-address", operation_id = "change_shipping_address", tag = "orders",
    params(("id" = inline(OrderId), Path, description = "The order.")),
    request_body(content = Address, example = json!(examples::address())),
    responses((status = 200, description = "The order as it is now.", body = View, example = json!(examples::order("confirmed")))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"409": ["address_not_changeable"]}))),
)]
async fn readdress(
    user: User,
    State(reads): State<Reads>,
    State(changes): State<Changes>,
    State(customers): State<Customers>,
    Path(id): Path<OrderId>,
    body: Body,
) -> Result<Json<View>, Problem> {
    for_staff(&reads, user, id).await?;
    let sent: Address = body.json(&["application/json"])?;
    let mut invalid = Invalid::new();
    let address = address::checked(sent, "", &mut invalid);
    invalid.check()?;
    let address = address.ok_or_else(Problem::internal)?;
    Ok(customers.one(user, changes.readdress(user, id, &address).await?).await)
}

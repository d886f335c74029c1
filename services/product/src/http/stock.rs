//! `/products/{id}/stock-adjustments`: the ledger.

use axum::extract::State;
use axum::http::HeaderMap;
use identity::Staff;
use serde::Deserialize;
use service::extract::{Body, Json, Path, Query};
use service::idempotency::{self, Answer, Request};
use service::page::{Page, PageParams, PageQuery, invalid_cursor};
use service::validate::Invalid;
use service::{FieldError, Problem};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::App;
use crate::product::{self, store};
use crate::schema;
use crate::stock::{self, AdjustError, Entry, MAX_DELTA};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create))
}

/// List the changes of a product's stock
///
/// Newest first; sales and restocks are among them.
#[utoipa::path(
    get, path = "/api/v1/products/{id}/stock-adjustments", operation_id = "list_stock_adjustments", tag = "stock",
    params(("id" = String, Path, description = "The product's id or slug."), PageParams),
    responses((status = 200, description = "A page of the ledger.", body = Page<Entry>, example = json!({"items": [{"id": "018f5c3e-7a00-7000-8000-000000000002", "product_id": "018f5c3e-7a00-7000-8000-000000000001", "version": 41, "delta": 5, "on_hand": 12, "kind": "adjustment", "reason": "A delivery", "order_id": null, "actor": "018f5c3e-7a00-7000-8000-000000000003", "created_at": "2026-11-23T09:00:00Z"}], "next_cursor": null}))),
    security(("token" = ["staff"])),
)]
async fn list(
    State(app): State<App>,
    _: Staff,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Entry>>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let product = store::find_for_staff(&mut connection, &name).await?.ok_or_else(product::not_found)?;
    let limit = query.limit()?;
    let before = match query.after::<(Uuid, i64)>()? {
        Some((of, seq)) if of == product.id => seq,
        Some(_) => return Err(invalid_cursor()),
        None => i64::MAX,
    };
    let entries = stock::ledger_page(&mut connection, product.id, before, limit + 1).await?;
    Ok(Json(Page::new(entries, limit, |entry| (entry.product_id, entry.seq))))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StockAdjustment)]
struct Adjustment {
    /// Units added, or taken when negative.
    #[schema(schema_with = schema::delta)]
    delta: i64,
    #[schema(schema_with = schema::lines_up_to_200)]
    reason: String,
}

const OPERATION: &str = "POST /api/v1/products/{id}/stock-adjustments";

/// Put units on the shelf, or take them off
///
/// Never below what is reserved for orders. With an `Idempotency-Key` it is safe to repeat.
#[utoipa::path(
    post, path = "/api/v1/products/{id}/stock-adjustments", operation_id = "create_stock_adjustment", tag = "stock",
    params(("id" = String, Path, description = "The product's id or slug."), ("Idempotency-Key" = Option<String>, Header, description = "Of the caller's choice, 1 to 255 visible ASCII characters; kept for a day.", min_length = 1, max_length = 255, pattern = "^[!-~]+$", nullable = false)),
    request_body(content = Adjustment, example = json!({"delta": 5, "reason": "A delivery"})),
    responses((status = 201, description = "The entry in the ledger.", body = Entry, example = json!({"id": "018f5c3e-7a00-7000-8000-000000000002", "product_id": "018f5c3e-7a00-7000-8000-000000000001", "version": 41, "delta": 5, "on_hand": 12, "kind": "adjustment", "reason": "A delivery", "order_id": null, "actor": "018f5c3e-7a00-7000-8000-000000000003", "created_at": "2026-11-23T09:00:00Z"}))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"409": ["insufficient_stock"]}))),
)]
async fn create(
    State(app): State<App>,
    Staff(user): Staff,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer, Problem> {
    let mut transaction = service::db::begin(&app.pool).await?;
    let product = store::find_locked(&mut transaction, &name).await?.ok_or_else(product::not_found)?;
    let key = idempotency::key(&headers)?;
    let (delta, reason) = parse(body.json_with_texts(&["application/json"], &["reason"])?)?;
    let request = Request::new(user.id, OPERATION, key, &(product.id, delta, &reason))?;
    if let Some(answer) = request.earlier(&mut transaction).await? {
        transaction.commit().await?;
        return Ok(answer);
    }
    let answer = match stock::adjust(&mut transaction, product.id, delta, &reason, user.id).await {
        Ok(entry) => {
            store::touch(&mut transaction, product.id).await?;
            product::announced(&mut transaction, product.id).await?;
            // The reason is in the ledger, under the same actor.
            let changed = audit::Entry::new(user, "stock.adjusted", "product", product.id);
            let changed = changed.field("on_hand", entry.on_hand - entry.delta, entry.on_hand);
            audit::record(&mut transaction, changed).await?;
            Answer::created(&entry)?
        }
        Err(AdjustError::Database(error)) => return Err(error.into()),
        Err(refusal) => Answer::refused(&refusal.into())?,
    };
    request.answered(&mut transaction, &answer).await?;
    transaction.commit().await?;
    app.outbox.wake();
    Ok(answer)
}

fn parse(adjustment: Adjustment) -> Result<(i32, String), Problem> {
    let mut invalid = Invalid::new();
    let delta = invalid.range("/delta", adjustment.delta, -MAX_DELTA, MAX_DELTA);
    if delta == Some(0) {
        invalid.push("/delta", "out_of_range", "Not 0.");
    }
    let reason = invalid.text("/reason", adjustment.reason, 1, 200);
    invalid.check()?;
    let delta = delta.and_then(|delta| i32::try_from(delta).ok());
    Ok((delta.unwrap_or_default(), reason.unwrap_or_default()))
}

impl From<AdjustError> for Problem {
    fn from(error: AdjustError) -> Self {
        match error {
            AdjustError::Insufficient => {
                Self::conflict("insufficient_stock", "Less would be left than is reserved for orders.")
            }
            AdjustError::TooMuch => {
                Self::invalid(vec![FieldError::new("/delta", "out_of_range", "Too many on hand.")])
            }
            AdjustError::Database(error) => error.into(),
        }
    }
}

//! `/orders/{id}/ship` and `/deliver`: what staff do with a paid order.

use axum::extract::State;
use axum::http::HeaderMap;
use identity::User;
use order_core::ids::{OrderId, ParcelId};
use serde::Deserialize;
use service::Problem;
use service::extract::{Body, Json, Path, not_null};
use service::validate::Invalid;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Object, OneOfBuilder, Schema};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::customers::Customers;
use super::{examples, lines};
use crate::fulfilment::{Fulfilment, Shipment};
use crate::order::reads::Reads;
use crate::order::{Line, LineBody, Order, Tracking, View};
use crate::schema::{up_to_100, words};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(ship)).routes(routes!(deliver))
}

/// The order, for staff: 403 for its owner, 404 for anybody else.
pub async fn for_staff(reads: &Reads, user: User, id: OrderId) -> Result<Order, Problem> {
    let order = reads.visible(user, id).await?;
    if user.is_staff() { Ok(order) } else { Err(Problem::forbidden("This is for staff.")) }
}

/// How goods leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Method {
    Carrier,
    /// The customer fetched them in the shop.
    Collected,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default, deserialize_with = "not_null")]
    method: Option<Method>,
    #[serde(default, deserialize_with = "not_null")]
    carrier: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    tracking_number: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    items: Option<Vec<LineBody>>,
    #[serde(default, deserialize_with = "not_null")]
    parcel_id: Option<ParcelId>,
}

/// A parcel that a carrier has, or the right number of one.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described")]
#[serde(deny_unknown_fields)]
struct ByCarrier {
    #[schema(schema_with = by_carrier)]
    method: Option<String>,
    #[schema(schema_with = up_to_100)]
    carrier: String,
    #[schema(schema_with = up_to_100)]
    tracking_number: String,
    /// What is in it, each product once. Without it all that has not left.
    #[schema(nullable = false, min_items = 1, max_items = 100)]
    items: Option<Vec<Line>>,
    /// The parcel that is corrected; then without `items`.
    #[schema(nullable = false, value_type = Option<uuid::Uuid>)]
    parcel_id: Option<ParcelId>,
}

/// What the customer fetched in the shop.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described")]
#[serde(deny_unknown_fields)]
struct Collected {
    #[schema(schema_with = collected)]
    method: String,
    /// What was fetched, each product once. Without it all that has not left.
    #[schema(nullable = false, min_items = 1, max_items = 100)]
    items: Option<Vec<Line>>,
}

fn by_carrier() -> Object {
    words(["carrier"])
}

fn collected() -> Object {
    words(["collected"])
}

/// [`Request`] in the OpenAPI document.
struct Described;

impl PartialSchema for Described {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new().item(ByCarrier::schema()).item(Collected::schema()).into()
    }
}

impl ToSchema for Described {
    fn name() -> std::borrow::Cow<'static, str> {
        "Shipment".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ByCarrier::schemas(schemas);
        Collected::schemas(schemas);
    }
}

/// Ship an order
///
/// Once it is paid: all that has not left, or `items`, with a carrier or fetched in the shop. The status is
/// `partially_shipped` until the last has left. With `parcel_id`, and without it where one parcel left with everything,
/// it corrects carrier and number, and the customer is told. What was reported before changes nothing: a parcel is known
/// by its number, and what was fetched in parts by an Idempotency-Key.
#[utoipa::path(
    post, path = "/api/v1/orders/{id}/ship", operation_id = "ship_order", tag = "orders",
    params(("id" = inline(OrderId), Path, description = "The order."), ("Idempotency-Key" = Option<String>, Header, description = "Of the caller's choice, 1 to 255 visible ASCII characters; kept with the parcel.", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    request_body(content = Described, example = json!({"carrier": "Royal Mail", "tracking_number": "RM123456785GB"})),
    responses((status = 200, description = "The order as it is now.", body = View, example = json!(examples::order("shipped")))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"409": ["not_shippable", "payment_disputed"], "422": ["idempotency_key_reused"]}))),
)]
async fn ship(
    user: User,
    State(reads): State<Reads>,
    State(fulfilment): State<Fulfilment>,
    State(customers): State<Customers>,
    Path(id): Path<OrderId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<View>, Problem> {
    let order = for_staff(&reads, user, id).await?;
    let key = service::idempotency::key(&headers)?;
    let shipment = checked(body.json(&["application/json"])?, &order, key)?;
    Ok(customers.one(user, fulfilment.ship(user, id, shipment).await?).await)
}

fn checked(request: Request, order: &Order, key: Option<String>) -> Result<Shipment, Problem> {
    let Request { method, carrier, tracking_number, items, parcel_id } = request;
    let mut invalid = Invalid::new();
    let mut text = |at: &str, text: Option<String>, wanted: bool| match text {
        Some(text) if wanted => invalid.text(at, text, 1, 100),
        Some(_) => {
            invalid.push(at, "not_allowed", "What was collected in the shop has no carrier.");
            None
        }
        None if wanted => {
            invalid.push(at, "missing_field", "This field is required.");
            None
        }
        None => None,
    };
    let by_carrier = method != Some(Method::Collected);
    let carrier = text("/carrier", carrier, by_carrier);
    let tracking_number = text("/tracking_number", tracking_number, by_carrier);
    let tracking = carrier.zip(tracking_number);
    let tracking = tracking.map(|(carrier, tracking_number)| Tracking { carrier, tracking_number });
    if parcel_id.is_some() && !by_carrier {
        invalid.push("/parcel_id", "not_allowed", "Only a carrier's number can be corrected.");
    }
    let mut lines = None;
    if let Some(items) = items {
        if parcel_id.is_some() {
            invalid.push("/items", "not_allowed", "What is in a parcel can't be changed.");
        }
        lines = lines::checked("/items", &items, 1, &mut invalid);
        for (index, line) in items.iter().enumerate() {
            if !order.items.iter().any(|item| item.product_id == line.product_id) {
                let at = format!("/items/{index}/product_id");
                invalid.push(at, "not_in_order", "The order has no such item.");
            }
        }
    }
    invalid.check()?;
    Ok(Shipment { tracking, lines, parcel: parcel_id, key })
}

/// Note that an order has arrived
///
/// Of one that left in part once the rest is in stock again, or was refunded with everything. Asked for again it changes
/// nothing.
#[utoipa::path(
    post, path = "/api/v1/orders/{id}/deliver", operation_id = "deliver_order", tag = "orders",
    params(("id" = inline(OrderId), Path, description = "The order.")),
    responses((status = 200, description = "The order as it is now.", body = View, example = json!(examples::order("delivered")))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"409": ["not_deliverable"]}))),
)]
async fn deliver(
    user: User,
    State(reads): State<Reads>,
    State(fulfilment): State<Fulfilment>,
    State(customers): State<Customers>,
    Path(id): Path<OrderId>,
) -> Result<Json<View>, Problem> {
    for_staff(&reads, user, id).await?;
    Ok(customers.one(user, fulfilment.deliver(user, id).await?).await)
}

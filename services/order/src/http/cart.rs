//! `/cart`: the signed-in user's.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use identity::User;
use order_core::ids::ProductId;
use serde::Deserialize;
use serde_json::json;
use service::Problem;
use service::extract::{Body, Json, Path};
use service::idempotency::{self, Request};
use service::validate::Invalid;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::examples;
use crate::cart::{Cart, Carts};
use crate::order::Quantity;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show, clear)).routes(routes!(set, remove))
}

/// Get the own cart
///
/// Names, prices and stock are those of now.
#[utoipa::path(
    get, path = "/api/v1/cart", operation_id = "get_cart", tag = "carts",
    responses((status = 200, description = "The cart.", body = Cart, example = json!(examples::cart()))),
    security(("token" = [])),
)]
async fn show(user: User, State(carts): State<Carts>) -> Answer {
    Ok(Json(carts.show(user.id.into()).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CartQuantity)]
struct QuantityBody {
    #[schema(inline, value_type = Quantity)]
    quantity: u32,
    /// How many the caller has seen in the cart: 409 `cart_changed` when there are more or fewer by now. Without it the
    /// last one to set a quantity wins.
    #[serde(default, deserialize_with = "service::extract::not_null")]
    #[schema(minimum = 0, maximum = 999, nullable = false)]
    expected_quantity: Option<u32>,
}

const SET: &str = "PUT /api/v1/cart/items";

/// Set how many of a product are in the cart
///
/// At most a hundred different products, all in one currency. A request that is repeated with its `Idempotency-Key`
/// changes nothing, and gets the cart as it is now.
#[utoipa::path(
    put, path = "/api/v1/cart/items/{product_id}", operation_id = "set_cart_item", tag = "carts",
    params(("product_id" = inline(ProductId), Path, description = "The product."), ("Idempotency-Key" = Option<String>, Header, description = "Of the caller's choice, 1 to 255 visible ASCII characters; kept for a day.", min_length = 1, max_length = 255, pattern = "^[!-~]+$", nullable = false)),
    request_body(content = QuantityBody, example = json!({"quantity": 2})),
    responses((status = 200, description = "The cart.", body = Cart, example = json!(examples::cart()))),
    security(("token" = [])),
    extensions(("x-problems" = json!({"409": ["mixed_currencies", "cart_full", "cart_changed"]}))),
)]
async fn set(
    user: User,
    State(carts): State<Carts>,
    Path(product): Path<ProductId>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let key = idempotency::key(&headers)?;
    let candidate = carts.find(user.id.into(), product).await?;
    let QuantityBody { quantity, expected_quantity } = body.json(&["application/json"])?;
    let mut invalid = Invalid::new();
    invalid.range("/quantity", quantity, 1, Quantity::MAX);
    if let Some(expected) = expected_quantity {
        invalid.range("/expected_quantity", expected, 0, Quantity::MAX);
    }
    invalid.check()?;
    let request = Request::new(user.id, SET, key, &json!([product, quantity, expected_quantity]))?;
    let quantity = quantity.try_into().map_err(|_| Problem::internal())?;
    Ok(Json(carts.put(candidate, quantity, expected_quantity, &request).await?))
}

/// Take a product out of the cart
///
/// Also 200 when it was not in there.
#[utoipa::path(
    delete, path = "/api/v1/cart/items/{product_id}", operation_id = "delete_cart_item", tag = "carts",
    params(("product_id" = inline(ProductId), Path, description = "The product.")),
    responses((status = 200, description = "The cart.", body = Cart, example = json!(examples::cart()))),
    security(("token" = [])),
)]
async fn remove(user: User, State(carts): State<Carts>, Path(product): Path<ProductId>) -> Answer {
    Ok(Json(carts.remove(user.id.into(), product).await?))
}

/// Empty the cart
#[utoipa::path(
    delete, path = "/api/v1/cart", operation_id = "clear_cart", tag = "carts",
    responses((status = 204, description = "It is empty.")),
    security(("token" = [])),
)]
async fn clear(user: User, State(carts): State<Carts>) -> Result<StatusCode, Problem> {
    carts.clear(user.id.into()).await?;
    Ok(StatusCode::NO_CONTENT)
}

type Answer = Result<Json<Cart>, Problem>;

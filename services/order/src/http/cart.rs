//! `/cart`: the signed-in user's.

use axum::extract::State;
use axum::http::StatusCode;
use order_core::ids::ProductId;
use serde::Deserialize;
use service::Problem;
use service::auth::User;
use service::db::Pool;
use service::extract::{Body, Json, Path};
use service::validate::Invalid;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::examples;
use crate::cart::{self, Cart, store};
use crate::catalogue::Catalogue;
use crate::order::{Line, MAX_LINES, MAX_QUANTITY};

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
async fn show(user: User, State(pool): State<Pool>, State(catalogue): State<Catalogue>) -> Answer {
    view(&pool, &catalogue, user).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CartQuantity)]
struct Quantity {
    #[schema(minimum = 1, maximum = 999)]
    quantity: u32,
}

/// Set how many of a product are in the cart
///
/// At most a hundred different products, all in one currency.
#[utoipa::path(
    put, path = "/api/v1/cart/items/{product_id}", operation_id = "set_cart_item", tag = "carts",
    params(("product_id" = inline(ProductId), Path, description = "The product.")),
    request_body(content = Quantity, example = json!({"quantity": 2})),
    responses((status = 200, description = "The cart.", body = Cart, example = json!(examples::cart()))),
    security(("token" = [])),
    extensions(("x-problems" = json!({"409": ["mixed_currencies", "cart_full"]}))),
)]
async fn set(
    user: User,
    State(pool): State<Pool>,
    State(catalogue): State<Catalogue>,
    Path(product_id): Path<ProductId>,
    body: Body,
) -> Answer {
    let mut wanted = store::lines(&mut *pool.acquire().await?, user.id.into()).await?;
    wanted.retain(|line| line.product_id != product_id);
    let ids: Vec<ProductId> = wanted.iter().map(|line| line.product_id).take(1).chain([product_id]).collect();
    let products = catalogue.look_up(&ids).await?;
    let absent = || Problem::not_found("There is no such product.");
    let product = products.get(&product_id).filter(|product| !product.archived).ok_or_else(absent)?;

    let Quantity { quantity } = body.json(&["application/json"])?;
    let mut invalid = Invalid::new();
    invalid.range("/quantity", quantity, 1, MAX_QUANTITY);
    invalid.check()?;
    let other = wanted.first().and_then(|line| products.get(&line.product_id));
    if other.is_some_and(|other| other.price.currency != product.price.currency) {
        return Err(Problem::conflict("mixed_currencies", "All items of a cart have one currency."));
    }
    if !store::put(&mut *pool.acquire().await?, user.id.into(), Line { product_id, quantity }).await? {
        let detail = format!("A cart holds at most {MAX_LINES} different products.");
        return Err(Problem::conflict("cart_full", detail));
    }
    view(&pool, &catalogue, user).await
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
async fn remove(
    user: User,
    State(pool): State<Pool>,
    State(catalogue): State<Catalogue>,
    Path(product_id): Path<ProductId>,
) -> Answer {
    store::remove(&mut *pool.acquire().await?, user.id.into(), product_id).await?;
    view(&pool, &catalogue, user).await
}

/// Empty the cart
#[utoipa::path(
    delete, path = "/api/v1/cart", operation_id = "clear_cart", tag = "carts",
    responses((status = 204, description = "It is empty.")),
    security(("token" = [])),
)]
async fn clear(user: User, State(pool): State<Pool>) -> Result<StatusCode, Problem> {
    store::clear(&mut *pool.acquire().await?, user.id.into()).await?;
    Ok(StatusCode::NO_CONTENT)
}

type Answer = Result<Json<Cart>, Problem>;

async fn view(pool: &Pool, catalogue: &Catalogue, user: User) -> Answer {
    let lines = store::lines(&mut *pool.acquire().await?, user.id.into()).await?;
    Ok(Json(cart::show(catalogue, &lines).await?))
}

//! `/cart`: the signed-in user's.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, put};
use serde::Deserialize;
use service::Problem;
use service::auth::User;
use service::extract::{Body, Json, Path};
use service::validate::Invalid;
use sqlx::PgPool;
use uuid::Uuid;

use crate::app::App;
use crate::cart::{self, Cart, store};
use crate::catalogue::Catalogue;
use crate::order::{Line, MAX_LINES, MAX_QUANTITY};

pub fn router() -> Router<App> {
    Router::new()
        .route("/api/v1/cart", get(show).delete(clear))
        .route("/api/v1/cart/items/{product_id}", put(set).delete(remove))
}

async fn show(user: User, State(pool): State<PgPool>, State(catalogue): State<Catalogue>) -> Answer {
    view(&pool, &catalogue, user).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quantity {
    quantity: u32,
}

async fn set(
    user: User,
    State(pool): State<PgPool>,
    State(catalogue): State<Catalogue>,
    Path(product_id): Path<Uuid>,
    body: Body,
) -> Answer {
    let mut wanted = store::lines(&mut *pool.acquire().await?, user.id).await?;
    wanted.retain(|line| line.product_id != product_id);
    let ids: Vec<Uuid> = wanted.iter().map(|line| line.product_id).take(1).chain([product_id]).collect();
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
    if !store::put(&mut *pool.acquire().await?, user.id, Line { product_id, quantity }).await? {
        let detail = format!("A cart holds at most {MAX_LINES} different products.");
        return Err(Problem::conflict("cart_full", detail));
    }
    view(&pool, &catalogue, user).await
}

async fn remove(
    user: User,
    State(pool): State<PgPool>,
    State(catalogue): State<Catalogue>,
    Path(product_id): Path<Uuid>,
) -> Answer {
    store::remove(&mut *pool.acquire().await?, user.id, product_id).await?;
    view(&pool, &catalogue, user).await
}

async fn clear(user: User, State(pool): State<PgPool>) -> Result<StatusCode, Problem> {
    store::clear(&mut *pool.acquire().await?, user.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

type Answer = Result<Json<Cart>, Problem>;

async fn view(pool: &PgPool, catalogue: &Catalogue, user: User) -> Answer {
    let lines = store::lines(&mut *pool.acquire().await?, user.id).await?;
    Ok(Json(cart::show(catalogue, &lines).await?))
}

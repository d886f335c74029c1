//! `/orders`: placing, reading and cancelling them.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use identity::User;
use order_core::ids::OrderId;
use serde::Deserialize;
use service::db::Pool;
use service::extract::{Body, Json, Path, Query};
use service::page::{Page, PageParams, PageQuery};
use service::validate::Invalid;
use service::{FieldError, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::customers::Customers;
use super::{examples, lines};
use crate::address;
use crate::changes::Changes;
use crate::checkout::Checkout;
use crate::checkout::request::{Described, Request, Wanted};
use crate::idempotency::StoredAnswer;
use crate::order::reads::Reads;
use crate::order::{Status, View, Viewer, store};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, place)).routes(routes!(show)).routes(routes!(cancel))
}

/// Place an order
///
/// Without `items` the cart is bought and emptied. A product is named once, and all are in one currency.
/// The stock is reserved at once; the payment follows, and ends in `confirmed` or `cancelled`.
#[utoipa::path(
    post, path = "/api/v1/orders", operation_id = "create_order", tag = "orders",
    params(("Idempotency-Key" = String, Header, description = "Of the caller's choice, 1 to 255 visible ASCII characters; kept for a day after its answer.", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    request_body(content = Described, example = json!(examples::request())),
    responses((status = 201, description = "The order.", body = View, headers(("Location" = String, description = "Where the order is.")), example = json!(examples::order("pending")))),
    security(("token" = [])),
    extensions(("x-problems" = json!({
        "409": ["out_of_stock", "cart_changed", "price_changed"],
        "422": ["unknown_product", "unknown_payment_method", "unknown_address", "cart_empty", "too_many_items"],
        "429": ["too_many_unpaid_orders"],
    }))),
)]
async fn place(
    user: User,
    State(checkout): State<Checkout>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    checkout.admit()?;
    let key = idempotency_key(&headers)?;
    let sent: Request = body.json(&["application/json"])?;
    let (answer, replayed) = match checked(sent.clone()) {
        Ok(wanted) => checkout.place_order(user.id.into(), key, &sent, wanted).await?,
        // It was valid when it was answered.
        Err(problem) => match checkout.earlier_answer(user.id.into(), key, &sent).await? {
            Some(answer) => (answer, true),
            None => return Err(problem),
        },
    };

    let (id, location) = (answer.id, format!("/api/v1/orders/{}", answer.id));
    let mut response = stored(answer, replayed)?;
    if response.status() == StatusCode::CREATED {
        super::log_order(id.into());
        let location = HeaderValue::from_str(&location).map_err(|_| Problem::internal())?;
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// An answer as it is stored with its key.
pub fn stored(answer: StoredAnswer, replayed: bool) -> Result<Response, Problem> {
    let status = StatusCode::from_u16(answer.status).map_err(|_| Problem::internal())?;
    let mut response = if status == StatusCode::CREATED {
        (status, [(header::CONTENT_TYPE, "application/json")], answer.body).into_response()
    } else {
        let problem: Problem = serde_json::from_str(&answer.body).map_err(|_| Problem::internal())?;
        problem.into_response()
    };
    if replayed {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

pub fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let missing =
        || Problem::bad_request("idempotency_key_missing", "Send an Idempotency-Key of your choice.");
    service::idempotency::key(headers)?.ok_or_else(missing)
}

fn checked(request: Request) -> Result<Wanted, Problem> {
    let Request { items, shipping_address, address_id, expected_total, expected_items, payment_method } =
        request;
    let mut invalid = Invalid::new();
    let shipping_address = match (shipping_address, address_id) {
        (Some(address), None) => address::checked(address, "/shipping_address", &mut invalid),
        (None, Some(_)) => None,
        (Some(_), Some(_)) => {
            invalid.push("/address_id", "ambiguous", "Send this or shipping_address, not both.");
            None
        }
        (None, None) => {
            invalid.push("/shipping_address", "missing_field", "Send this or address_id.");
            None
        }
    };
    let mut checked =
        |at, items: Option<Vec<_>>| items.and_then(|items| lines::checked(at, &items, 1, &mut invalid));
    let (lines, expected_items) = (checked("/items", items), checked("/expected_items", expected_items));
    invalid.check()?;
    let method = &payment_method;
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let known = method.strip_prefix("pm_").is_some_and(|name| !name.is_empty() && name.bytes().all(word));
    if !known || method.len() > 100 {
        let error = FieldError::new("/payment_method", "unknown_payment_method", "For example pm_card_visa.");
        let problem = Problem::unprocessable("unknown_payment_method", "No such payment method.");
        return Err(problem.with_errors(vec![error]));
    }
    Ok(Wanted { lines, shipping_address, address_id, expected_total, expected_items, payment_method })
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(flatten)]
    page: PageQuery,
    status: Option<String>,
}

/// List the own orders
///
/// Newest first.
#[utoipa::path(
    get, path = "/api/v1/orders", operation_id = "list_orders", tag = "orders",
    params(PageParams, ("status" = Option<Status>, Query, description = "Only orders that are in this status.")),
    responses((status = 200, description = "A page of orders.", body = Page<View>, example = json!({"items": [examples::order("confirmed")], "next_cursor": null}))),
    security(("token" = [])),
)]
async fn list(
    user: User,
    State(pool): State<Pool>,
    State(customers): State<Customers>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<View>>, Problem> {
    let (limit, before) = (query.page.limit()?, query.page.after()?);
    let status = query.status.map(|word| status(&word)).transpose();
    let status = status.map_err(|error| Problem::invalid(vec![error]))?;
    let ids =
        store::ids(&mut *pool.acquire().await?, Some(user.id.into()), status, before, limit + 1).await?;
    let orders = store::load(&mut *pool.acquire().await?, &ids).await?;
    Ok(Json(customers.show(user, Page::new(orders, limit, |order| order.id)).await))
}

pub fn status(word: &str) -> Result<Status, FieldError> {
    word.parse().map_err(|_| {
        let words: Vec<&str> = Status::ALL.iter().map(|status| status.as_str()).collect();
        FieldError::new("/status", "unknown_status", format!("One of {}.", words.join(", ")))
    })
}

/// Get an order
///
/// For its owner and for staff.
#[utoipa::path(
    get, path = "/api/v1/orders/{id}", operation_id = "get_order", tag = "orders",
    params(("id" = inline(OrderId), Path, description = "The order.")),
    responses((status = 200, description = "The order.", body = View, example = json!(examples::order("confirmed")))),
    security(("token" = [])),
)]
async fn show(
    user: User,
    State(reads): State<Reads>,
    State(customers): State<Customers>,
    Path(id): Path<OrderId>,
) -> Result<Json<View>, Problem> {
    Ok(customers.one(user, reads.visible(user, id).await?).await)
}

pub fn viewer(user: User) -> Viewer {
    if user.is_staff() { Viewer::Staff } else { Viewer::Owner }
}

/// Cancel an order
///
/// Until it is shipped, by its owner or staff. Stock and money go back. Asked for again it changes nothing.
/// While the money is being taken the answer waits up to three seconds, and may then still say `pending`.
#[utoipa::path(
    post, path = "/api/v1/orders/{id}/cancel", operation_id = "cancel_order", tag = "orders",
    params(("id" = inline(OrderId), Path, description = "The order.")),
    responses((status = 200, description = "The order as it is now.", body = View, example = json!(examples::order("cancelled")))),
    security(("token" = [])),
    extensions(("x-problems" = json!({"409": ["not_cancellable"]}))),
)]
async fn cancel(
    user: User,
    State(changes): State<Changes>,
    State(customers): State<Customers>,
    Path(id): Path<OrderId>,
) -> Result<Json<View>, Problem> {
    Ok(customers.one(user, changes.cancel(user, id).await?).await)
}

//! `/categories`.

use audit::Entry;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use identity::Staff;
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::{Body, Json, Path, Query};
use service::idempotency::{self, Answer, Request};
use service::validate::Invalid;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use crate::category::edit::{self, Place};
use crate::category::{self, Category};
use crate::product::{self, store};
use crate::schema;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(read, update, remove))
}

#[derive(Serialize, ToSchema)]
struct Categories {
    items: Vec<Category>,
}

/// Get the tree of categories
#[utoipa::path(
    get, path = "/api/v1/categories", operation_id = "list_categories", tag = "products",
    responses((status = 200, description = "The top categories with all below them.", body = Categories, example = json!({"items": [{"slug": "clothing", "name": "Clothing", "product_count": 41, "children": [{"slug": "jackets", "name": "Jackets", "product_count": 12, "children": []}]}]}))),
    security(()),
)]
async fn list(State(app): State<App>) -> Result<Json<Categories>, Problem> {
    let items = category::tree(&mut *app.pool.acquire().await?).await?;
    Ok(Json(Categories { items }))
}

/// Get a category
///
/// A slug that it had before leads to it.
#[utoipa::path(
    get, path = "/api/v1/categories/{slug}", operation_id = "get_category", tag = "products",
    params(("slug" = String, Path, description = "The category's slug.")),
    responses(
        (status = 200, description = "The category.", body = Place, example = json!({"slug": "jackets", "name": "Jackets", "parent": "clothing"})),
        (status = 308, description = "It has another slug now.", headers(("Location" = String, description = "Where it is."))),
    ),
    security(()),
)]
async fn read(State(app): State<App>, Path(slug): Path<String>) -> Result<Response, Problem> {
    let mut connection = app.pool.acquire().await?;
    if let Some(place) = category::store::find(&mut connection, &slug).await? {
        return Ok(Json(place).into_response());
    }
    let to = category::store::redirect(&mut connection, &slug).await?.ok_or_else(not_found)?;
    let to = HeaderValue::try_from(address(&to)).map_err(|_| Problem::internal())?;
    Ok((StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, to)]).into_response())
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewCategory {
    /// Made of the name without.
    #[serde(default, deserialize_with = "service::extract::not_null")]
    #[schema(schema_with = schema::category)]
    slug: Option<String>,
    #[schema(schema_with = schema::up_to_100)]
    name: String,
    /// The slug of the one it is in; at the top without.
    #[serde(default)]
    #[schema(schema_with = schema::parent)]
    parent: Option<String>,
}

const CREATE: &str = "POST /api/v1/categories";

/// Add a category
///
/// Behind its siblings. With an `Idempotency-Key` it is safe to repeat.
#[utoipa::path(
    post, path = "/api/v1/categories", operation_id = "create_category", tag = "products",
    params(("Idempotency-Key" = Option<String>, Header, description = "Of the caller's choice, 1 to 255 visible ASCII characters; kept for a day.", min_length = 1, max_length = 255, pattern = "^[!-~]+$", nullable = false)),
    request_body(content = NewCategory, example = json!({"name": "Jackets", "parent": "clothing"})),
    responses((status = 201, description = "The category.", body = Place, headers(("Location" = String, description = "Where it is.")), example = json!({"slug": "jackets", "name": "Jackets", "parent": "clothing"}))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"409": ["slug_taken"]}))),
)]
async fn create(
    State(app): State<App>,
    Staff(user): Staff,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer, Problem> {
    let key = idempotency::key(&headers)?;
    let new: NewCategory = body.json(&["application/json"])?;
    let slug = new.slug.unwrap_or_else(|| product::slug(&new.name));
    let place = checked(Place { slug, name: new.name, parent: new.parent })?;
    let request = Request::new(user.id, CREATE, key, &place)?;
    let mut transaction = service::db::begin(&app.pool).await?;
    if let Some(answer) = request.earlier(&mut transaction).await? {
        transaction.commit().await?;
        return Ok(answer);
    }
    edit::add(&mut transaction, &place).await?;
    let entry = Entry::new(user, "category.created", "category", &place.slug).fields(&(), &place);
    audit::record(&mut transaction, entry).await?;
    let answer = Answer::created(&place)?.with_header(&header::LOCATION, &address(&place.slug));
    request.answered(&mut transaction, &answer).await?;
    transaction.commit().await?;
    Ok(answer)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CategoryPatch {
    /// The old one leads to it from then on.
    #[serde(default, deserialize_with = "service::extract::not_null")]
    #[schema(schema_with = schema::category)]
    slug: Option<String>,
    #[serde(default, deserialize_with = "service::extract::not_null")]
    #[schema(schema_with = schema::up_to_100)]
    name: Option<String>,
    /// Null moves it to the top.
    #[serde(default, deserialize_with = "service::extract::not_null")]
    #[schema(schema_with = schema::parent)]
    parent: Option<Option<String>>,
}

/// Rename or move a category
///
/// A merge patch (RFC 7396). With another slug its products are moved, up to 100,000 by one request.
#[utoipa::path(
    patch, path = "/api/v1/categories/{slug}", operation_id = "update_category", tag = "products",
    params(("slug" = String, Path, description = "The category's slug, or one that it had before.")),
    request_body(content((CategoryPatch = "application/merge-patch+json", example = json!({"name": "Coats", "slug": "coats"})), (CategoryPatch = "application/json", example = json!({"parent": null})))),
    responses((status = 200, description = "The category.", body = Place, example = json!({"slug": "coats", "name": "Coats", "parent": "clothing"}))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"409": ["slug_taken", "not_yet_moved"]}))),
)]
async fn update(
    State(app): State<App>,
    Staff(user): Staff,
    Path(slug): Path<String>,
    body: Body,
) -> Result<Json<Place>, Problem> {
    let mut transaction = service::db::begin(&app.pool).await?;
    category::store::take_turn(&mut transaction).await?;
    let there = category::store::find(&mut transaction, &slug).await?;
    let leads_to = category::store::redirect(&mut transaction, &slug).await?;
    // A category that exists and has a redirect is being emptied into its successor.
    let now = leads_to.as_deref().unwrap_or(&slug);
    let before = category::store::find(&mut transaction, now).await?.ok_or_else(not_found)?;
    let patch: CategoryPatch = body.json(&["application/merge-patch+json", "application/json"])?;
    let after = checked(Place {
        slug: patch.slug.unwrap_or_else(|| before.slug.clone()),
        name: patch.name.unwrap_or_else(|| before.name.clone()),
        parent: patch.parent.unwrap_or_else(|| before.parent.clone()),
    })?;
    if after != before {
        let entry = Entry::new(user, "category.changed", "category", &before.slug).fields(&before, &after);
        audit::record(&mut transaction, entry).await?;
    }
    if after.slug == before.slug {
        if after != before {
            edit::place(&mut transaction, &before.slug, &after).await?;
        }
        transaction.commit().await?;
        if there.is_some() && leads_to.is_some() {
            empty(&app, &slug, &after.slug).await?;
        }
        return Ok(Json(after));
    }
    if after.parent != before.parent {
        edit::place(&mut transaction, &before.slug, &after).await?;
    }
    edit::add(&mut transaction, &after).await?;
    category::store::lead(&mut transaction, &before.slug, &after.slug).await?;
    transaction.commit().await?;
    empty(&app, &before.slug, &after.slug).await?;
    Ok(Json(after))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RemoveQuery {
    /// The slug of the category that its products and sub-categories go to, and that its own slug leads to.
    #[param(
        min_length = 1,
        max_length = 64,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$",
        nullable = false
    )]
    move_to: Option<String>,
}

/// Delete a category
///
/// An empty one, or with `move_to` any: it is merged into that one, up to 100,000 products by one request.
#[utoipa::path(
    delete, path = "/api/v1/categories/{slug}", operation_id = "delete_category", tag = "products",
    params(("slug" = String, Path, description = "The category's slug."), RemoveQuery),
    responses((status = 204, description = "There is no such category any more.")),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"409": ["category_not_empty", "not_yet_moved"]}))),
)]
async fn remove(
    State(app): State<App>,
    Staff(user): Staff,
    Path(slug): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, Problem> {
    let mut transaction = service::db::begin(&app.pool).await?;
    category::store::take_turn(&mut transaction).await?;
    let there = category::store::find(&mut transaction, &slug).await?;
    let Some(into) = query.move_to else {
        let there = there.ok_or_else(not_found)?;
        edit::remove(&mut transaction, &slug).await?;
        let entry = Entry::new(user, "category.deleted", "category", &slug).fields(&there, &());
        audit::record(&mut transaction, entry).await?;
        transaction.commit().await?;
        return Ok(StatusCode::NO_CONTENT);
    };
    if there.is_none() {
        // The first of several requests may have done it.
        let done = category::store::redirect(&mut transaction, &slug).await?.as_ref() == Some(&into);
        return if done { Ok(StatusCode::NO_CONTENT) } else { Err(not_found()) };
    }
    // The category that its products go to, if it is being emptied.
    let into = category::store::redirect(&mut transaction, &into).await?.unwrap_or(into);
    let mut invalid = Invalid::new();
    if category::store::find(&mut transaction, &into).await?.is_none() {
        invalid.push("/move_to", "unknown_category", "There is no such category.");
    } else if category::store::is_within(&mut transaction, &into, &slug).await? {
        invalid.push("/move_to", "invalid_value", "Not itself, nor one within it.");
    }
    invalid.check()?;
    edit::require_depth_to_merge(&mut transaction, &slug, &into).await?;
    category::store::lead(&mut transaction, &slug, &into).await?;
    let entry = Entry::new(user, "category.merged", "category", &slug).field("move_to", (), &into);
    audit::record(&mut transaction, entry).await?;
    transaction.commit().await?;
    empty(&app, &slug, &into).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Transactions of one request.
const MOST_BATCHES: usize = 500;

/// Moves all products of `from` to `into`, and deletes `from`.
async fn empty(app: &App, from: &str, into: &str) -> Result<(), Problem> {
    for _ in 0..MOST_BATCHES {
        let mut transaction = service::db::begin(&app.pool).await?;
        // Imports lock products in another order.
        store::take_turn_to_add_many(&mut transaction).await?;
        category::store::take_turn(&mut transaction).await?;
        // The category may have been emptied meanwhile, or another request may have done the rest.
        let now = category::store::redirect(&mut transaction, from).await?;
        if category::store::find(&mut transaction, from).await?.is_none() {
            return Ok(());
        }
        let more =
            category::store::move_products(&mut transaction, from, now.as_deref().unwrap_or(into)).await?;
        if more {
            transaction.commit().await?;
            continue;
        }
        match edit::remove(&mut transaction, from).await {
            Ok(()) => {
                transaction.commit().await?;
                return Ok(());
            }
            // Somebody has just put a product there.
            Err(problem) if problem.code == "category_not_empty" => {}
            Err(problem) => return Err(problem),
        }
    }
    let detail = "Not all of its products are moved yet; send the request again.";
    Err(Problem::conflict("not_yet_moved", detail).with_retry_after(1))
}

fn checked(place: Place) -> Result<Place, Problem> {
    let mut invalid = Invalid::new();
    invalid.text("/name", place.name.clone(), 1, 100);
    if !(1..=64).contains(&place.slug.len()) || product::slug(&place.slug) != place.slug {
        let detail = "1 to 64 of letters and digits in lower case, and '-' between them.";
        invalid.push("/slug", "invalid_value", detail);
    }
    invalid.check()?;
    Ok(place)
}

fn address(slug: &str) -> String {
    let mut url = url::Url::parse("http://shop/api/v1/categories").ok();
    if let Some(mut segments) = url.as_mut().and_then(|url| url.path_segments_mut().ok()) {
        segments.push(slug);
    }
    url.map_or_else(String::new, |url| url.path().to_owned())
}

fn not_found() -> Problem {
    Problem::not_found("There is no such category.")
}

//! `/admin/products/{id}/images`: pictures to add, to put in order and to delete.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use uuid::Uuid;

use super::product::{not_done, versioned};
use super::upload::Upload;
use crate::api::Refused;
use crate::app::App;
use crate::form::Form;
use crate::page::{Failed, Shown, went};
use crate::visitor::Visitor;

pub fn router() -> Router<App> {
    Router::new()
        .route("/admin/products/{id}/images", post(add))
        .route("/admin/products/{id}/images/move", post(put_in_order))
        .route("/admin/products/{id}/images/{n}", get(picture))
        .route("/admin/products/{id}/images/{n}/delete", post(delete))
}

/// Uploaded images of a product at most.
const MOST: usize = 10;
const DEADLINE: Duration = Duration::from_secs(60);

/// The number by which the API knows an uploaded image.
fn number(image: &str) -> Option<usize> {
    image.strip_prefix("/api/v1/products/")?.rsplit('/').next()?.parse().ok()
}

/// Each file gets a free number; one that somebody else has taken meanwhile is refused. The first refusal
/// ends it: the files before it are stored.
async fn add(visitor: Visitor, Path(id): Path<Uuid>, mut upload: Upload) -> Shown {
    let (product, _) = versioned(&visitor, id).await?;
    let taken: Vec<_> = product.product.images.iter().filter_map(|image| number(image)).collect();
    let mut free = (0..MOST).filter(|n| !taken.contains(n));
    let name = id.to_string();
    let mut added = 0;
    while let Some(file) = upload.file().await? {
        let Some(n) = free.next() else { return full(&visitor, id, "images_full").await };
        let call = visitor.signed(Method::PUT, &["products", &name, "images", &n.to_string()]);
        let call = call.header("if-none-match", "*");
        if let Err(refused) = call.stream_of("application/octet-stream", file, DEADLINE).done().await {
            return not_done(&visitor, id, refused).await;
        }
        added += 1;
    }
    if added == 0 {
        return full(&visitor, id, "no_file").await;
    }
    Ok(went(&format!("/admin/products/{id}"), "images-added"))
}

async fn full(visitor: &Visitor, id: Uuid, code: &str) -> Shown {
    let problem = crate::api::types::Problem {
        status: 422,
        code: code.to_owned(),
        detail: String::new(),
        errors: Vec::new(),
    };
    not_done(visitor, id, Refused::Problem(Box::new(problem))).await
}

/// Moves an image one to the front, or the other way, or takes away one that is on another site.
async fn put_in_order(visitor: Visitor, Path(id): Path<Uuid>, form: Form) -> Shown {
    let (product, etag) = versioned(&visitor, id).await?;
    let mut images = product.product.images;
    let at = images.iter().position(|image| image == form.get("image"));
    let here = format!("/admin/products/{id}");
    match (at, form.get("to")) {
        (Some(at), "front") if at > 0 => images.swap(at, at - 1),
        (Some(at), "back") if at + 1 < images.len() => images.swap(at, at + 1),
        (Some(at), "away") => drop(images.remove(at)),
        _ => return Ok(went(&here, "")),
    }
    let call = visitor.signed(Method::PATCH, &["products", &id.to_string()]).header("if-match", &etag);
    match call.json(&json!({"images": images})).done().await {
        Ok(_) => Ok(went(&here, "images-moved")),
        Err(refused) => not_done(&visitor, id, refused).await,
    }
}

async fn delete(visitor: Visitor, Path((id, n)): Path<(Uuid, u8)>, _: Form) -> Shown {
    let call = visitor.signed(Method::DELETE, &["products", &id.to_string(), "images", &n.to_string()]);
    match call.done().await {
        Err(refused) if !refused.is_not_found() => not_done(&visitor, id, refused).await,
        _ => Ok(went(&format!("/admin/products/{id}"), "image-deleted")),
    }
}

/// An image with the session of who looks at it.
async fn picture(visitor: Visitor, Path((id, n)): Path<(Uuid, u8)>) -> Result<Response, Failed> {
    let answer = visitor.stream(&["products", &id.to_string(), "images", &n.to_string()]).answer().await?;
    let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
    match kind {
        Some(kind) if answer.status().is_success() => {
            let headers = [(header::CONTENT_TYPE, kind)];
            Ok((headers, Body::from_stream(answer.bytes_stream())).into_response())
        }
        _ => Err(Failed::NotFound),
    }
}

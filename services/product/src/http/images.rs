//! `/products/{id}/images/{n}`.

use std::sync::Arc;
use std::time::Duration;

use audit::Entry;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use identity::Staff;
use object_store::PutPayload;
use serde::Serialize;
use service::Problem;
use service::extract::{Json, Path, media_type};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::products::not_in_shop;
use super::{App, etag};
use crate::image::{self, Image, Kind};
use crate::product::{self, store};

/// Longest image, in bytes: the edge's limit for this address.
const MAX_IMAGE: usize = 10 * 1024 * 1024;
/// Memory for images while they are uploaded, for each replica, in KiB.
pub const MEMORY: usize = 16 * 1024;
/// An upload that finds no free memory is refused after this.
const PATIENCE: Duration = Duration::from_secs(5);
/// An upload whose body does not end fails after this.
const TOO_SLOW: Duration = Duration::from_secs(60);
/// Browsers ask again after a minute, and get a 304 unless the image was replaced.
const CACHE_CONTROL: &str = "public, max-age=60, must-revalidate";

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(read, upload, remove))
}

/// The bytes of an image.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only described")]
struct ImageBytes(Vec<u8>);

/// An uploaded image, as staff are told of it.
#[derive(Serialize, ToSchema)]
#[schema(as = UploadedImage)]
struct Uploaded {
    /// As in the product's `images`.
    url: String,
    #[schema(pattern = "^image/(jpeg|png|webp)$")]
    content_type: String,
    /// In bytes.
    #[schema(minimum = 1, maximum = 10_485_760)]
    size: i64,
}

/// Get an image
#[utoipa::path(
    get, path = "/api/v1/products/{id}/images/{n}", operation_id = "get_product_image", tag = "images",
    params(("id" = String, Path, description = "The product's id or slug."), ("n" = u8, Path, description = "The image's place.", minimum = 0, maximum = 9), ("If-None-Match" = Option<String>, Header, description = "An `ETag` that is held already.", nullable = false)),
    responses(
        (status = 200, description = "The bytes.", headers(("ETag" = String, description = "A strong entity tag."), ("Cache-Control" = String, description = "`public`, for a minute.")), content((inline(ImageBytes) = "image/jpeg"), (inline(ImageBytes) = "image/png"), (inline(ImageBytes) = "image/webp"))),
        (status = 304, description = "It is the one that is held.", headers(("ETag" = String, description = "A strong entity tag."), ("Cache-Control" = String, description = "`public`, for a minute."))),
    ),
    security(()),
)]
async fn read(
    State(app): State<App>,
    Path((name, place)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = parse_place(&place)?;
    let mut connection = app.pool.acquire().await?;
    let product = match store::find(&mut connection, &name).await? {
        Some(product) => product,
        None => {
            drop(connection);
            let draft = not_in_shop(&app, &name, &headers).await?;
            connection = app.pool.acquire().await?;
            draft
        }
    };
    let image = image::find(&mut connection, product.id, place).await?.ok_or_else(absent)?;
    drop(connection);
    let tag = tag(&image)?;
    let held =
        [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, HeaderValue::from_static(CACHE_CONTROL))];
    if etag::holds(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, held).into_response());
    }
    let object = app.objects.get(&image.key).await.map_err(image::unavailable)?.ok_or_else(|| {
        tracing::error!(key = image.key, "image.lost");
        absent()
    })?;
    let bytes = object.into_stream().inspect_err(|error| tracing::error!(%error, "objects.failed"));
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // Nothing in it is run, whatever a browser takes it for.
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
        (header::CONTENT_LENGTH, HeaderValue::from(image.size)),
    ];
    let kind = [(header::CONTENT_TYPE, image.media_type)];
    Ok((held, fixed, kind, Body::from_stream(bytes)).into_response())
}

/// Put an image
///
/// What an image is, its bytes say: JPEG, PNG or WebP, up to 10 MiB. The product's `images` names it, at the end when it is new.
/// With `If-None-Match: *` it takes the place of no other image: 412 where there is one.
#[utoipa::path(
    put, path = "/api/v1/products/{id}/images/{n}", operation_id = "put_product_image", tag = "images",
    params(("id" = String, Path, description = "The product's id or slug."), ("n" = u8, Path, description = "The image's place.", minimum = 0, maximum = 9), ("If-None-Match" = Option<String>, Header, description = "`*`: only where there is no image yet.", nullable = false)),
    request_body(content((inline(ImageBytes) = "image/jpeg"), (inline(ImageBytes) = "image/png"), (inline(ImageBytes) = "image/webp"), (inline(ImageBytes) = "application/octet-stream"))),
    responses(
        (status = 200, description = "It is in place of another, or was there already.", body = Uploaded, headers(("Location" = String, description = "Where the image is."), ("ETag" = String, description = "A strong entity tag.")), example = json!({"url": "/api/v1/products/018f5c3e-7a00-7000-8000-000000000001/images/0", "content_type": "image/jpeg", "size": 48213})),
        (status = 201, description = "The product has one image more.", body = Uploaded, headers(("Location" = String, description = "Where the image is."), ("ETag" = String, description = "A strong entity tag.")), example = json!({"url": "/api/v1/products/018f5c3e-7a00-7000-8000-000000000001/images/0", "content_type": "image/jpeg", "size": 48213})),
    ),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"400": ["malformed_body"], "408": ["request_timeout"], "412": ["precondition_failed"], "422": ["validation_failed"]}))),
)]
async fn upload(
    State(app): State<App>,
    Staff(user): Staff,
    Path((name, place)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let place = parse_place(&place)?;
    let found = store::find_for_staff(&mut *app.pool.acquire().await?, &name).await?;
    let product = found.ok_or_else(product::not_found)?;
    let only_new = etag::only_new(request.headers());
    let body = receive(&app.image_memory, request).await?;

    let before = image::find(&mut *app.pool.acquire().await?, product.id, place).await?;
    let url = image::address(product.id, place);
    let answer = |status: StatusCode, image: Image, url: String| -> Result<Response, Problem> {
        let headers = [(header::ETAG, tag(&image)?), (header::LOCATION, location(&url)?)];
        let uploaded = Uploaded { url, content_type: image.media_type, size: image.size };
        Ok((status, headers, Json(uploaded)).into_response())
    };
    match before {
        Some(same) if same.hash == body.hash => return answer(StatusCode::OK, same, url),
        Some(_) if only_new => return Err(taken()),
        _ => {}
    }
    let image = Image {
        key: image::upload(&app.pool, &app.objects, product.id, body.payload).await?,
        media_type: body.kind.media_type().to_owned(),
        size: body.size,
        hash: body.hash,
        uploaded_at: OffsetDateTime::now_utc(),
    };
    let mut transaction = service::db::begin(&app.pool).await?;
    let id = product.id.to_string();
    let product = store::find_locked(&mut transaction, &id).await?.ok_or_else(product::not_found)?;
    let new = !product.images.contains(&url);
    if only_new && !new {
        // The same request, sent twice, may have been faster.
        return match image::find(&mut transaction, product.id, place).await? {
            Some(same) if same.hash == image.hash => answer(StatusCode::OK, same, url),
            _ => Err(taken()),
        };
    }
    let before = image::find(&mut transaction, product.id, place).await?;
    image::attach(&mut transaction, product.id, &product.images, place, &image).await?;
    let entry = Entry::new(user, "image.put", "product", product.id);
    let before = before.map(|before| hex::encode(before.hash));
    let entry = entry.field(&format!("images/{place}"), before, hex::encode(&image.hash));
    audit::record(&mut transaction, entry).await?;
    product::announced(&mut transaction, product.id).await?;
    transaction.commit().await?;
    app.outbox.wake();
    answer(if new { StatusCode::CREATED } else { StatusCode::OK }, image, url)
}

fn taken() -> Problem {
    let detail = "There is an image at this place.";
    Problem::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail)
}

/// Delete an image
#[utoipa::path(
    delete, path = "/api/v1/products/{id}/images/{n}", operation_id = "delete_product_image", tag = "images",
    params(("id" = String, Path, description = "The product's id or slug."), ("n" = u8, Path, description = "The image's place.", minimum = 0, maximum = 9)),
    responses((status = 204, description = "The product does not have it any more.")),
    security(("token" = ["staff"])),
)]
async fn remove(
    State(app): State<App>,
    Staff(user): Staff,
    Path((name, place)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let place = parse_place(&place)?;
    let mut transaction = service::db::begin(&app.pool).await?;
    let product = store::find_locked(&mut transaction, &name).await?.ok_or_else(product::not_found)?;
    let mut form = product::Form::from(&product);
    let address = image::address(product.id, place);
    form.images.retain(|image| *image != address);
    if form.images.len() == product.images.len() {
        return Err(absent());
    }
    product::update(&mut transaction, product.id, &form).await?;
    let entry = Entry::new(user, "image.deleted", "product", product.id);
    audit::record(&mut transaction, entry.field("images", &product.images, &form.images)).await?;
    transaction.commit().await?;
    app.outbox.wake();
    Ok(StatusCode::NO_CONTENT)
}

/// A body that is an image, with the permit for its memory.
struct Received {
    kind: Kind,
    payload: PutPayload,
    size: i64,
    hash: Vec<u8>,
    _memory: OwnedSemaphorePermit,
}

async fn receive(memory: &Arc<Semaphore>, request: Request) -> Result<Received, Problem> {
    let declared = media_type(request.headers());
    let declared = declared.as_deref().filter(|given| *given != "application/octet-stream");
    let refuse = |detail: &str| {
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
    };
    let known = [Kind::Jpeg, Kind::Png, Kind::WebP].map(Kind::media_type);
    if declared.is_some_and(|given| !known.contains(&given)) {
        return refuse("Send a JPEG, PNG or WebP image, as image/jpeg, image/png or image/webp.");
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length: Option<usize> = length.and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length| length > MAX_IMAGE) {
        return Err(too_large());
    }
    let kib = length.unwrap_or(MAX_IMAGE).div_ceil(1024);
    let wanted = memory.clone().acquire_many_owned(u32::try_from(kib).unwrap_or(u32::MAX));
    let _memory = match tokio::time::timeout(PATIENCE, wanted).await {
        Ok(Ok(permit)) => permit,
        _ => return Err(Problem::unavailable("Too many images are being uploaded; try again.")),
    };

    let (parts, size) = read_body(request.into_body().into_data_stream(), TOO_SLOW).await?;
    let start: Vec<u8> = parts.iter().flatten().copied().take(16).collect();
    let Some(kind) = Kind::sniff(&start) else {
        return refuse("These are not the bytes of a JPEG, PNG or WebP image.");
    };
    if declared.is_some_and(|given| given != kind.media_type()) {
        return refuse(&format!(
            "These are the bytes of {}, not of what Content-Type says.",
            kind.media_type()
        ));
    }
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let (hash, payload) = (hash.finalize().to_vec(), PutPayload::from_iter(parts));
    Ok(Received { kind, payload, size, hash, _memory })
}

/// All of the body in this time, or an error: a part of an image is not kept.
async fn read_body(mut body: BodyDataStream, time: Duration) -> Result<(Vec<Bytes>, i64), Problem> {
    let deadline = Instant::now() + time;
    let (mut parts, mut size) = (Vec::new(), 0);
    let late = |_| {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "The image took too long to arrive.")
    };
    while let Some(part) = timeout_at(deadline, body.next()).await.map_err(late)? {
        let part = part.map_err(|_| Problem::bad_request("malformed_body", "The body could not be read."))?;
        size += part.len();
        if size > MAX_IMAGE {
            return Err(too_large());
        }
        parts.push(part);
    }
    Ok((parts, i64::try_from(size).unwrap_or(i64::MAX)))
}

fn parse_place(place: &str) -> Result<i16, Problem> {
    let canonical = |place: &i16| (0..image::PLACES).contains(place);
    let parsed = place.parse().ok().filter(canonical).filter(|parsed: &i16| parsed.to_string() == place);
    parsed.ok_or_else(|| Problem::not_found("A product has images 0 to 9."))
}

fn absent() -> Problem {
    Problem::not_found("The product has no such image.")
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "The image is longer than 10 MiB.")
}

fn tag(image: &Image) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(&format!("\"{}\"", hex::encode(&image.hash))).map_err(|_| Problem::internal())
}

fn location(url: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(url).map_err(|_| Problem::internal())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn an_image_that_stops_coming_is_refused() {
        let start = stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"\x89PNG")) });
        let body = Body::from_stream(start.chain(stream::pending())).into_data_stream();
        let problem = read_body(body, Duration::from_millis(30)).await.expect_err("it never ends");
        assert_eq!((problem.status.as_u16(), problem.code.as_str()), (408, "request_timeout"));
    }
}

//! `/product-exports`: the catalogue as a file, streamed.

use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use identity::Staff;
use serde::Deserialize;
use service::Problem;
use service::db::Pool;
use service::extract::Query;
use service::validate::Invalid;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::App;
use crate::product::export::{self, Format};

/// Exports that a replica runs at once.
pub const AT_ONCE: usize = 2;
/// A part of the file ends after the product with which it reaches this length.
const PART_BYTES: usize = 1024 * 1024;
/// For the whole file.
const WHOLE: Duration = Duration::from_secs(3600);

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(read))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Parameters {
    /// `csv`, the default, and `ndjson` are as `POST /product-imports` takes them; `google` is a product feed (RSS 2.0).
    #[param(inline)]
    format: Option<Format>,
    /// What the addresses of products in a feed begin with, before their slugs.
    #[param(
        max_length = 200,
        pattern = "^https?://[^/\\s\\u0000-\\u001f\\u007f-\\u009f]+/[^\\s\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    link: Option<String>,
}

impl Parameters {
    /// 422 for a feed without addresses, and for addresses of anything else.
    fn link(&self) -> Result<&str, Problem> {
        let mut invalid = Invalid::new();
        let feed = self.format == Some(Format::Google);
        match &self.link {
            None if feed => invalid.push("/link", "missing_field", "A feed needs the addresses of products."),
            None => {}
            Some(_) if !feed => {
                invalid.push("/link", "invalid_value", "Only a feed has addresses of products.")
            }
            Some(link) => {
                let rest = link.strip_prefix("https://").or_else(|| link.strip_prefix("http://"));
                let host = rest.and_then(|rest| rest.split_once('/')).map(|(host, _)| host);
                let whole = host.is_some_and(|host| !host.is_empty()) && !link.contains(char::is_whitespace);
                if !whole || link.chars().count() > 200 {
                    let detail = "An http(s) address, up to where slugs follow, of 200 characters at most.";
                    invalid.push("/link", "invalid_value", detail);
                }
            }
        }
        invalid.check().map(|()| self.link.as_deref().unwrap_or_default())
    }
}

/// What is left of a file.
enum Rest {
    Head,
    After(Uuid),
    Nothing,
}

/// A file on its way.
struct Export {
    pool: Pool,
    format: Format,
    link: String,
    rest: Rest,
    /// A reader that takes too slowly is cut off after this: others wait for its place.
    deadline: Instant,
    stop: CancellationToken,
    _turn: OwnedSemaphorePermit,
}

/// Get all products as a file
///
/// What is in the shop, by age. An import of the file changes nothing, unless something was sold or changed meanwhile:
/// `stock_if_version` says so then.
#[utoipa::path(
    get, path = "/api/v1/product-exports", operation_id = "export_products", tag = "imports",
    params(Parameters),
    responses((status = 200, description = "The file.", content(
        (String = "text/csv", example = json!("sku,name,description,price,currency,category,category_name,category_parent,stock,stock_if_version,images,attributes\r\nJACKET-M,Waxed Cotton Jacket,Keeps out wind and rain.,149.00,EUR,jackets,Jackets,clothing,7,311,,\"{\"\"color\"\":\"\"navy\"\"}\"\r\n")),
        (String = "application/x-ndjson", example = json!("{\"sku\":\"LAMP-1\",\"name\":\"Storm Lamp\",\"description\":\"\",\"price\":{\"amount\":3900,\"currency\":\"EUR\"},\"category\":\"lamps\",\"category_name\":\"Lamps\",\"attributes\":{},\"images\":[],\"stock\":4,\"stock_if_version\":312}\n")),
        (String = "application/rss+xml", example = json!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<rss version=\"2.0\" xmlns:g=\"http://base.google.com/ns/1.0\">\n<channel>\n<title>Products</title>\n<description>The catalogue</description>\n</channel>\n</rss>\n")),
    ))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"422": ["validation_failed"], "503": ["service_unavailable"]}))),
)]
async fn read(
    State(app): State<App>,
    _: Staff,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Problem> {
    let (format, link) = (parameters.format.unwrap_or_default(), parameters.link()?.to_owned());
    let busy = |_| Problem::unavailable("Other exports are running; try again when they are done.");
    let turn = app.exports.clone().try_acquire_owned().map_err(busy)?;
    let disposition = format!("attachment; filename=\"{}\"", format.file_name());
    let headers = [(header::CONTENT_TYPE, format.media_type()), (header::CACHE_CONTROL, "no-store")];
    let export = Export {
        pool: app.pool,
        format,
        link,
        rest: Rest::Head,
        deadline: Instant::now() + WHOLE,
        stop: app.stopping,
        _turn: turn,
    };
    let body = Body::from_stream(stream::try_unfold(export, Export::part));
    Ok(([(header::CONTENT_DISPOSITION, disposition)], headers, body).into_response())
}

impl Export {
    /// The next part of the file. An error cuts the answer off, so that nobody takes it for complete.
    async fn part(mut self) -> Result<Option<(Bytes, Self)>, BoxError> {
        if self.stop.is_cancelled() {
            return Err("the service is stopping".into());
        }
        if Instant::now() >= self.deadline {
            tracing::warn!("export.too_slow");
            return Err("the file was read too slowly".into());
        }
        let after = match self.rest {
            Rest::Head => {
                self.rest = Rest::After(Uuid::nil());
                return Ok(Some((Bytes::from_static(self.format.head().as_bytes()), self)));
            }
            Rest::After(id) => id,
            Rest::Nothing => return Ok(None),
        };
        let rows =
            export::store::page(&mut *self.pool.acquire().await?, after).await.inspect_err(|error| {
                tracing::warn!(%error, "export.failed");
            })?;
        let mut text = String::new();
        self.rest = Rest::Nothing;
        for row in &rows {
            self.format.write(row, &self.link, &mut text);
            self.rest = Rest::After(row.id);
            if text.len() >= PART_BYTES {
                break;
            }
        }
        if rows.is_empty() {
            text.push_str(self.format.tail());
        }
        Ok(Some((Bytes::from(text), self)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_file_is_cut_off_when_it_takes_too_long_or_the_service_stops() {
        let late = Instant::now() + WHOLE;
        for (stopping, deadline, whole) in
            [(false, late, true), (true, late, false), (false, Instant::now(), false)]
        {
            let stop = CancellationToken::new();
            if stopping {
                stop.cancel();
            }
            let export = Export {
                pool: Pool::lazy("postgres://nobody@127.0.0.1:1/none", "products", 1).unwrap(),
                format: Format::Csv,
                link: String::new(),
                rest: Rest::Head,
                deadline,
                stop,
                _turn: Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap(),
            };
            assert_eq!(export.part().await.is_ok_and(|part| part.is_some()), whole, "{stopping}");
        }
    }
}

//! `/product-imports`: a catalogue as a stream, in batches.
//!
//! The body is read while the batch before is written, so that two batches are in memory, and never the whole
//! file. A batch is a transaction: committed batches stay when the rest of the file never comes.

mod follow;
mod reader;
mod rejected;
mod writer;

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use identity::Staff;
use serde::{Deserialize, Serialize};
use serde_json::json;
use service::Problem;
use service::extract::{Json, Path, Query, media_type};
use service::idempotency;
use service::money::Currency;
use service::validate::Invalid;
use tokio::sync::{mpsc, watch};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use self::follow::Followed;
use self::reader::{LIMITS, Reader, too_large};
use self::rejected::Rejected;
use self::writer::{Recorded, write};
use super::App;
use crate::product::import::progress::{self, Counts, Progress};
use crate::product::import::{
    self, Decimal, Encoding, File, Kind, LineError, Options, Profile, Sender, Unit,
};

/// Errors that an answer lists; all are counted.
const MAX_ERRORS: usize = 1000;
/// Imports that a replica runs at once, as each takes some megabytes.
pub const AT_ONCE: usize = 2;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(show))
}

#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = ImportReport)]
struct Report {
    created: u64,
    /// Lines whose product was there before.
    updated: u64,
    /// Those of `updated` that changed nothing.
    unchanged: u64,
    failed: u64,
    #[schema(inline)]
    price_unit: Unit,
    /// Whether nothing was changed, as was asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(inline, nullable = false)]
    profile: Option<Profile>,
    /// How many cells of it have no place here, by the names of their columns, and how many products were passed over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    left_out: Option<BTreeMap<String, u64>>,
    /// The lines of `errors`, as a file in the format of the one that was sent, up to 2 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    rejected: Option<Rejected>,
    /// The first thousand, by line.
    #[schema(max_items = 1000)]
    errors: Vec<LineError>,
    /// The last line that is dealt with.
    #[serde(skip)]
    last_line: u64,
}

impl Report {
    /// The problem, with what was done before it.
    fn cut_short(&self, problem: Problem) -> Problem {
        if self.last_line == 0 {
            return problem;
        }
        let Self { created, updated, unchanged, failed, last_line, .. } = self;
        let done = json!({"created": created, "updated": updated, "unchanged": unchanged, "failed": failed,
            "last_line": last_line});
        problem.with_extension("imported", done)
    }

    /// What was done so far, with `bytes` of the file.
    fn counts(&self, bytes: u64) -> Counts {
        let &Self { created, updated, unchanged, failed, last_line: lines, .. } = self;
        Counts { lines, bytes, created, updated, unchanged, failed }
    }
}

/// Add and change many products
///
/// A line, or a record of CSV, is what POST of a product takes, told apart by `sku`; `category_name` and
/// `category_parent` make a category that there is not yet, up to ten levels deep. A bad line changes nothing, and does nothing to others. An import that ends early has done
/// its first lines: send the file again. `GET /product-imports/{id}` says how far it is, of one with an `id`.
#[utoipa::path(
    post, path = "/api/v1/product-imports", operation_id = "import_products", tag = "imports",
    params(Parameters, ("Idempotency-Key" = Option<String>, Header, description = "Of the caller's choice, 1 to 255 visible ASCII characters; kept for a day. With it, what a line says of stock is done once, however often the file comes.", min_length = 1, max_length = 255, pattern = "^[!-~]+$", nullable = false)),
    request_body(
        description = "UTF-8, or UTF-16 with a byte order mark, up to 1 GiB; a line or record up to 256 KiB. CSV (RFC 4180, with \
                       `,`, `;` or tabs) begins with a header: `sku`, `name`, `description`, `price` in major units (or `price_minor`), \
                       `currency` and `category`, and as wanted `stock` or `stock_change`, `stock_if_version`, `category_name`, `category_parent`, `images` and \
                       `attributes.<name>`. XML is a product feed, RSS 2.0 or Atom.",
        content(
            (String = "application/x-ndjson", example = json!("{\"sku\":\"JACKET-M\",\"name\":\"Waxed Cotton Jacket\",\"description\":\"Keeps out wind and rain.\",\"price\":{\"amount\":14900,\"currency\":\"EUR\"},\"category\":\"jackets\",\"stock\":7}\n{\"sku\":\"LAMP-1\",\"name\":\"Storm Lamp\",\"description\":\"\",\"price\":{\"amount\":3900,\"currency\":\"EUR\"},\"category\":\"lamps\",\"category_name\":\"Lamps\"}\n")),
            (String = "text/csv", example = json!("sku,name,description,price,currency,category,category_name,stock,attributes.color\nJACKET-M,Waxed Cotton Jacket,Keeps out wind and rain.,149.00,EUR,jackets,Jackets,7,navy\n")),
            (String = "text/tab-separated-values", example = json!("id\ttitle\tdescription\tlink\tprice\nLAMP-1\tStorm Lamp\tFor rough nights.\thttps://shop.example.com/p/storm-lamp\t39.00 EUR\n")),
            (String = "application/xml", example = json!("<?xml version=\"1.0\"?>\n<rss version=\"2.0\" xmlns:g=\"http://base.google.com/ns/1.0\"><channel>\n<item><g:id>LAMP-1</g:id><title>Storm Lamp</title><g:price>39.00 EUR</g:price></item>\n</channel></rss>\n")),
            (String = "text/xml", example = json!("<?xml version=\"1.0\"?>\n<rss version=\"2.0\" xmlns:g=\"http://base.google.com/ns/1.0\"><channel>\n<item><g:id>LAMP-1</g:id><title>Storm Lamp</title><g:price>39.00 EUR</g:price></item>\n</channel></rss>\n")),
            (String = "application/rss+xml", example = json!("<?xml version=\"1.0\"?>\n<rss version=\"2.0\" xmlns:g=\"http://base.google.com/ns/1.0\"><channel>\n<item><g:id>LAMP-1</g:id><title>Storm Lamp</title><g:price>39.00 EUR</g:price></item>\n</channel></rss>\n")),
            (String = "application/atom+xml", example = json!("<?xml version=\"1.0\"?>\n<feed xmlns=\"http://www.w3.org/2005/Atom\" xmlns:g=\"http://base.google.com/ns/1.0\">\n<entry><g:id>LAMP-1</g:id><title>Storm Lamp</title><g:price>39.00 EUR</g:price></entry>\n</feed>\n")),
        ),
    ),
    responses((status = 200, description = "What came of the lines.", body = Report, example = json!({"created": 1, "updated": 1, "unchanged": 0, "failed": 1, "price_unit": "major", "errors": [{"line": 3, "column": "price", "code": "too_many_decimals", "detail": "/price/amount: EUR has 2 decimals."}]}))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"400": ["malformed_body"], "408": ["request_timeout"], "422": ["validation_failed"], "503": ["service_unavailable"]}))),
)]
async fn create(
    State(app): State<App>,
    Staff(user): Staff,
    parameters: Result<Query<Parameters>, Problem>,
    request: Request,
) -> Result<Json<Report>, Problem> {
    let key = idempotency::key(request.headers())?;
    let Query(parameters) = parameters?;
    let (mut kind, encoding) = parameters.kind(request.headers())?;
    let (dry_run, keep) = parameters.switches()?;
    if content_length(request.headers()).is_some_and(|length| length > LIMITS.bytes) {
        return Err(too_large());
    }
    let busy = |_| Problem::unavailable("Other imports are running; try again when they are done.");
    let _turn = app.imports.clone().try_acquire_owned().map_err(busy)?;

    if let Kind::Csv(options) | Kind::Feed(options) = &mut kind
        && options.currency.is_none()
    {
        options.usual = import::usual_currency(&mut *app.pool.acquire().await?).await?;
    }
    let file = File::new(kind, encoding);
    let sender = Sender { id: user.id, key: key.as_deref() };
    let (counts, counted) = watch::channel(Counts::default());
    let followed = match parameters.id {
        Some(id) => Some(Followed::begin(app.pool.clone(), id, counted).await?),
        None => None,
    };
    let (batches, queue) = mpsc::channel(1);
    let body = request.into_body().into_data_stream();
    let (stop, came) = (app.stopping.clone(), counts.clone());
    let reader = Reader { body, limits: LIMITS, stop, batches, keep, counts: came };
    let mut report = Report { dry_run, rejected: keep.then(Rejected::default), ..Report::default() };
    let work = async {
        let recorded = Recorded::new(user, parameters.id);
        let writer = write(&app, sender, queue, &mut report, &counts, recorded);
        let (read, written) = tokio::join!(reader.run(file), writer);
        written.and(read)
    };
    let outcome = match followed {
        Some(followed) => followed.through(work).await,
        None => work.await,
    };
    match outcome {
        Ok(()) => Ok(Json(report)),
        Err(problem) => Err(report.cut_short(problem)),
    }
}

/// Ask how far an import is
///
/// Of an import that was sent with `?id=`, while it runs and until a day after it began. `lines` and the counts are of
/// what is committed, or with `dry_run` of what would be. An import with `status` `lost` was not heard of for a minute.
/// It may be done all the same: send the file again, with the same `Idempotency-Key` if it has `stock_change`.
#[utoipa::path(
    get, path = "/api/v1/product-imports/{id}", operation_id = "get_import", tag = "imports",
    params(("id" = Uuid, Path, description = "The `id` that the file was sent with.")),
    responses((status = 200, description = "How far it is.", body = Progress, example = json!({"id": "018f5c3e-7a00-7000-8000-000000000001", "status": "running", "lines": 12000, "bytes": 9000000, "created": 11500, "updated": 499, "unchanged": 20, "failed": 1, "started_at": "2026-11-23T09:00:00Z", "updated_at": "2026-11-23T09:00:04Z"}))),
    security(("token" = ["staff"])),
)]
async fn show(State(app): State<App>, _: Staff, Path(id): Path<Uuid>) -> Result<Json<Progress>, Problem> {
    let found = progress::store::find(&mut *app.pool.acquire().await?, id).await?;
    let absent = || Problem::not_found("There is no such import, or it began more than a day ago.");
    found.map(Json).ok_or_else(absent)
}

/// How a file is to be read.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Parameters {
    /// What a number in CSV's column `price` counts: `major` units (`34` is 34.00, the default) or `minor` ones. JSON
    /// has minor units in any case.
    #[param(inline)]
    price_unit: Option<Unit>,
    /// What is before the decimals of CSV's prices: a `point`, the default, or a `comma`.
    #[param(inline)]
    decimal: Option<Decimal>,
    /// Whose export the file is; without it that is told by the header.
    #[param(inline)]
    profile: Option<Profile>,
    /// Give the lines that were passed over as well: `rejected` is a file to mend and send again.
    #[param(value_type = Option<bool>, default = false)]
    rejected: Option<String>,
    /// Only tell what would come of the lines, and change nothing.
    #[param(value_type = Option<bool>, default = false)]
    dry_run: Option<String>,
    /// Of CSV's prices that name none (ISO 4217).
    #[param(value_type = Option<String>, pattern = "^[A-Z]{3}$")]
    currency: Option<Currency>,
    /// A new UUID of the caller's choice: `GET /product-imports/{id}` says then how far the import is.
    id: Option<Uuid>,
}

impl Parameters {
    /// `dry_run` and `rejected`; 422 for what is neither `true` nor `false`.
    fn switches(&self) -> Result<(bool, bool), Problem> {
        let mut invalid = Invalid::new();
        let mut switch = |pointer: &str, value: Option<&str>| match value {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                invalid.push(pointer, "invalid_value", "true or false.");
                false
            }
        };
        let switches =
            (switch("/dry_run", self.dry_run.as_deref()), switch("/rejected", self.rejected.as_deref()));
        invalid.check().map(|()| switches)
    }

    fn options(&self) -> Options {
        Options {
            unit: self.price_unit.unwrap_or_default(),
            decimal: self.decimal.unwrap_or_default(),
            currency: self.currency,
            profile: self.profile,
            usual: None,
        }
    }

    /// 415 for a type that is no file of products, 422 for parameters that don't go with it.
    fn kind(&self, headers: &HeaderMap) -> Result<(Kind, Encoding), Problem> {
        let encoding = encoding(headers)?;
        let kind = match media_type(headers).as_deref() {
            Some("application/x-ndjson") => {
                let mut invalid = Invalid::new();
                for (name, given) in [
                    ("/price_unit", self.price_unit == Some(Unit::Major)),
                    ("/decimal", self.decimal.is_some()),
                    ("/currency", self.currency.is_some()),
                    ("/profile", self.profile.is_some()),
                ] {
                    if given {
                        invalid.push(name, "invalid_value", "Only for CSV.");
                    }
                }
                invalid.check()?;
                Kind::Json
            }
            Some("text/csv" | "text/tab-separated-values") => Kind::Csv(self.options()),
            Some("application/xml" | "text/xml" | "application/rss+xml" | "application/atom+xml") => {
                Kind::Feed(self.options())
            }
            _ => {
                return Err(unsupported(
                    "Send Content-Type: application/x-ndjson, text/csv or application/xml.",
                ));
            }
        };
        Ok((kind, encoding))
    }
}

/// Of a file without a byte order mark. 415 for one that is neither UTF-8 nor UTF-16.
fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let plain = |value: &header::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        return Err(unsupported("Send the file as it is, without Content-Encoding."));
    }
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parameters = given.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let charset = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    let charset = charset.map(|(_, set)| set.trim().trim_matches('"').to_ascii_lowercase());
    match charset.as_deref() {
        None | Some("utf-8" | "utf8" | "us-ascii") => Ok(Encoding::Utf8),
        Some("utf-16le") => Ok(Encoding::Utf16Le),
        // RFC 2781, section 4.3.
        Some("utf-16" | "utf-16be") => Ok(Encoding::Utf16Be),
        Some(_) => Err(unsupported("Send the file as UTF-8 or UTF-16.")),
    }
}

fn unsupported(detail: &str) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

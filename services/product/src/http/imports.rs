//! `/product-imports`: a catalogue as a stream, in batches.
//!
//! The body is read while the batch before is written, so that two batches are
//! in memory, and the file never is. A batch is a transaction: what was
//! committed stays when the rest of the file never comes.

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::json;
use service::Problem;
use service::auth::Staff;
use service::extract::{Json, media_type};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::App;
use crate::product::import::{self, Applied, ApplyError, Columns, Line, LineError, Lines, MAX_LINE, TooLong};

const LIMITS: Limits =
    Limits { bytes: 1024 * 1024 * 1024, stalled: Duration::from_secs(30), whole: Duration::from_secs(3600) };
/// A batch is written once it has as many lines, or is this long in bytes.
const BATCH_LINES: usize = 500;
const BATCH_BYTES: usize = 1024 * 1024;
/// Errors that are told; all are counted.
const MAX_ERRORS: usize = 1000;
/// Imports that a replica runs at once, as each takes some megabytes.
pub const AT_ONCE: usize = 2;
const TRIES: u32 = 5;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create))
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
    /// The first thousand, by line.
    #[schema(max_items = 1000)]
    errors: Vec<LineError>,
    /// The last line that is dealt with.
    #[serde(skip)]
    last_line: u64,
}

impl Report {
    /// The problem, with what was done before it came up.
    fn cut_short(&self, problem: Problem) -> Problem {
        if self.last_line == 0 {
            return problem;
        }
        let Self { created, updated, unchanged, failed, last_line, .. } = self;
        let done = json!({"created": created, "updated": updated, "unchanged": unchanged, "failed": failed,
            "last_line": last_line});
        problem.with_extension("imported", done)
    }
}

/// Lines in a row, with what was wrong among them.
#[derive(Default)]
struct Batch {
    lines: Vec<Line>,
    errors: Vec<LineError>,
    bytes: usize,
    /// The line that was read last.
    last: u64,
}

/// Add and change many products
///
/// A line is what POST of a product takes, told apart by `sku`; `category_name` and `category_parent` make a category
/// that there is not yet, up to ten levels deep. A bad line changes nothing, and does nothing to others. An import that ends early has done
/// its first lines: send the file again.
#[utoipa::path(
    post, path = "/api/v1/product-imports", operation_id = "import_products", tag = "imports",
    request_body(
        description = "UTF-8, up to 1 GiB; a line up to 256 KiB. CSV begins with a header: `sku`, `name`, `description`, `price`, \
                       `currency` and `category`, and as wanted `stock`, `category_name`, `category_parent`, `images` and \
                       `attributes.<name>`.",
        content(
            (String = "application/x-ndjson", example = json!("{\"sku\":\"JACKET-M\",\"name\":\"Waxed Cotton Jacket\",\"description\":\"Keeps out wind and rain.\",\"price\":{\"amount\":14900,\"currency\":\"EUR\"},\"category\":\"jackets\",\"stock\":7}\n{\"sku\":\"LAMP-1\",\"name\":\"Storm Lamp\",\"description\":\"\",\"price\":{\"amount\":3900,\"currency\":\"EUR\"},\"category\":\"lamps\",\"category_name\":\"Lamps\"}\n")),
            (String = "text/csv", example = json!("sku,name,description,price,currency,category,category_name,stock,attributes.color\nJACKET-M,Waxed Cotton Jacket,Keeps out wind and rain.,14900,EUR,jackets,Jackets,7,navy\n")),
        ),
    ),
    responses((status = 200, description = "What came of the lines.", body = Report, example = json!({"created": 1, "updated": 1, "unchanged": 0, "failed": 1, "errors": [{"line": 3, "code": "malformed_json", "detail": "The line is not JSON: see column 12."}]}))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"400": ["malformed_body"], "408": ["request_timeout"], "422": ["validation_failed"], "503": ["service_unavailable"]}))),
)]
async fn create(
    State(app): State<App>,
    Staff(user): Staff,
    request: Request,
) -> Result<Json<Report>, Problem> {
    let format = Format::of(request.headers())?;
    if content_length(request.headers()).is_some_and(|length| length > LIMITS.bytes) {
        return Err(too_large());
    }
    let busy = |_| Problem::unavailable("Other imports are running; try again when they are done.");
    let _turn = app.imports.clone().try_acquire_owned().map_err(busy)?;

    let (batches, queue) = mpsc::channel(1);
    let body = request.into_body().into_data_stream();
    let reader = Reader { body, limits: LIMITS, stop: app.stopping.clone(), batches };
    let mut report = Report::default();
    let (read, written) = tokio::join!(reader.run(format), write(&app, user.id, queue, &mut report));
    match written.and(read) {
        Ok(()) => Ok(Json(report)),
        Err(problem) => Err(report.cut_short(problem)),
    }
}

enum Format {
    Json,
    /// With its header, once that was read.
    Csv(Option<Columns>),
}

impl Format {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let refuse =
            |detail: &str| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail);
        let plain = |value: &header::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
        if !headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
            return Err(refuse("Send the file as it is, without Content-Encoding."));
        }
        let given =
            headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut parameters = given.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
        let charset = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
        let utf8 = |set: &str| {
            let set = set.trim().trim_matches('"').to_ascii_lowercase();
            matches!(set.as_str(), "utf-8" | "utf8" | "us-ascii")
        };
        if charset.is_some_and(|(_, set)| !utf8(set)) {
            return Err(refuse("Send the file as UTF-8."));
        }
        match media_type(headers).as_deref() {
            Some("application/x-ndjson") => Ok(Self::Json),
            Some("text/csv") => Ok(Self::Csv(None)),
            _ => Err(refuse("Send Content-Type: application/x-ndjson or text/csv.")),
        }
    }

    /// The line read; nothing of one that is blank, or the header.
    fn parse(&mut self, number: u64, line: &[u8]) -> Result<Option<Result<Line, LineError>>, Problem> {
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let body = match self {
            Self::Csv(columns @ None) => {
                *columns = Some(Columns::parse(line)?);
                return Ok(None);
            }
            _ if std::str::from_utf8(line).is_err() => {
                Err(LineError::new(number, "invalid_utf8", "The line is not UTF-8."))
            }
            Self::Json => serde_json::from_slice(line).map_err(|error| {
                let detail = format!("The line is not JSON: see column {}.", error.column());
                LineError::new(number, "malformed_json", detail)
            }),
            Self::Csv(Some(columns)) => {
                columns.record(line).map_err(|detail| LineError::new(number, "malformed_csv", detail))
            }
        };
        Ok(Some(body.and_then(|body| Line::parse(number, body))))
    }

    /// 422 for CSV without even a header.
    fn end(&self) -> Result<(), Problem> {
        match self {
            Self::Csv(None) => Columns::parse(b"").map(drop),
            _ => Ok(()),
        }
    }
}

struct Limits {
    /// Longest file: the edge's limit for this address.
    bytes: u64,
    /// Until a body that has stopped coming is given up.
    stalled: Duration,
    /// Until a body that comes too slowly is given up.
    whole: Duration,
}

struct Reader {
    body: BodyDataStream,
    limits: Limits,
    stop: CancellationToken,
    batches: mpsc::Sender<Batch>,
}

impl Reader {
    /// Reads to the body's end. When that does not come, the lines since the
    /// last full batch are dropped, and the last line, which may be half a one.
    async fn run(mut self, mut format: Format) -> Result<(), Problem> {
        let (mut lines, mut batch) = (Lines::default(), Batch::default());
        let (mut length, deadline) = (0, Instant::now() + self.limits.whole);
        while let Some(chunk) = self.chunk(deadline).await? {
            length += chunk.len() as u64;
            if length > self.limits.bytes {
                return Err(too_large());
            }
            lines.feed(chunk);
            while let Some((number, line)) = lines.next() {
                batch.add(&mut format, number, line)?;
                if batch.is_full() {
                    self.send(&mut batch).await?;
                }
            }
        }
        if let Some((number, line)) = lines.last() {
            batch.add(&mut format, number, line)?;
        }
        format.end()?;
        self.send(&mut batch).await
    }

    async fn chunk(&mut self, deadline: Instant) -> Result<Option<bytes::Bytes>, Problem> {
        let late = |_| {
            let detail = "The file stopped coming; what was imported stays. Send it again.";
            Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail)
        };
        let wait = self.limits.stalled.min(deadline.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = self.stop.cancelled() => {
                let detail = "The service is stopping; what was imported stays. Send the file again.";
                Err(Problem::unavailable(detail))
            }
            chunk = timeout(wait, self.body.next()) => chunk.map_err(late)?.transpose().map_err(|_| {
                Problem::bad_request("malformed_body", "The body ended early; what was imported stays.")
            }),
        }
    }

    async fn send(&mut self, batch: &mut Batch) -> Result<(), Problem> {
        // The writer ends early with a problem of its own, which is told instead.
        self.batches.send(std::mem::take(batch)).await.map_err(|_| Problem::internal())
    }
}

impl Batch {
    fn add(
        &mut self,
        format: &mut Format,
        number: u64,
        line: Result<bytes::Bytes, TooLong>,
    ) -> Result<(), Problem> {
        self.last = number;
        let parsed = match line {
            Ok(line) => {
                self.bytes += line.len();
                format.parse(number, &line)?
            }
            // A header is never that long.
            Err(TooLong) if matches!(format, Format::Csv(None)) => return Columns::parse(b"").map(drop),
            Err(TooLong) => {
                let detail = format!("The line is longer than {} KiB.", MAX_LINE / 1024);
                Some(Err(LineError::new(number, "line_too_long", detail)))
            }
        };
        match parsed {
            Some(Ok(line)) => self.lines.push(line),
            Some(Err(error)) => self.errors.push(error),
            None => {}
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.lines.len() + self.errors.len() >= BATCH_LINES || self.bytes >= BATCH_BYTES
    }
}

async fn write(
    app: &App,
    actor: Uuid,
    mut queue: mpsc::Receiver<Batch>,
    report: &mut Report,
) -> Result<(), Problem> {
    while let Some(mut batch) = queue.recv().await {
        let applied = write_batch(app, actor, &batch.lines).await?;
        report.created += applied.created;
        report.updated += applied.updated;
        report.unchanged += applied.unchanged;
        batch.errors.extend(applied.errors);
        batch.errors.sort_by_key(|error| error.line);
        report.failed += batch.errors.len() as u64;
        let room = MAX_ERRORS - report.errors.len();
        report.errors.extend(batch.errors.into_iter().take(room));
        report.last_line = report.last_line.max(batch.last);
    }
    Ok(())
}

/// Tries again what somebody else came in between of, or what failed for
/// reasons that pass.
async fn write_batch(app: &App, actor: Uuid, lines: &[Line]) -> Result<Applied, Problem> {
    let mut tries = 0;
    loop {
        tries += 1;
        match try_batch(app, actor, lines).await {
            Ok(applied) => return Ok(applied),
            Err(ApplyError::Raced) if tries < TRIES => {}
            Err(ApplyError::Database(error)) if tries < TRIES && service::db::is_transient(&error) => {
                tracing::warn!(%error, "import.batch_failed");
                tokio::time::sleep(Duration::from_millis(100) * tries).await;
            }
            Err(ApplyError::Raced) => return Err(Problem::unavailable("The products are being changed.")),
            Err(ApplyError::Database(error)) => return Err(error.into()),
            Err(error @ ApplyError::Unsure(_)) => {
                tracing::error!(%error, "import.unsure");
                let detail =
                    "Whether the last lines were written is not known; look, and send the rest again.";
                return Err(Problem::unavailable(detail));
            }
        }
    }
}

async fn try_batch(app: &App, actor: Uuid, lines: &[Line]) -> Result<Applied, ApplyError> {
    if lines.is_empty() {
        return Ok(Applied::default());
    }
    let mut transaction = service::db::begin(&app.pool).await?;
    let applied = import::apply(&mut transaction, lines, actor).await?;
    transaction.commit().await.map_err(ApplyError::at_commit)?;
    if applied.changed > 0 {
        app.outbox.wake();
    }
    Ok(applied)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large() -> Problem {
    let detail = "The file is longer than 1 GiB; send it in parts.";
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, Bytes};
    use futures_util::stream;

    use super::*;

    /// What comes of a body of these chunks, so far apart; `more` follow that never come.
    async fn read(limits: Limits, chunks: &[&'static str], apart: Duration, more: bool) -> Problem {
        let body = stream::iter(chunks.to_vec()).then(move |chunk| async move {
            tokio::time::sleep(apart).await;
            Ok::<_, std::io::Error>(Bytes::from_static(chunk.as_bytes()))
        });
        let rest = stream::once(async move {
            if more {
                std::future::pending::<()>().await;
            }
            Ok(Bytes::new())
        });
        let (batches, mut queue) = mpsc::channel(1);
        let body = Body::from_stream(body.chain(rest)).into_data_stream();
        let reader = Reader { body, limits, stop: CancellationToken::new(), batches };
        let problem = reader.run(Format::Json).await.expect_err("the body is given up");
        assert!(queue.recv().await.is_none(), "nothing of it is kept");
        problem
    }

    #[tokio::test]
    async fn a_body_that_stops_crawls_or_does_not_end_is_given_up() {
        let (soon, late) = (Duration::from_millis(30), Duration::from_secs(600));
        let limits = |bytes, stalled, whole| Limits { bytes, stalled, whole };
        let said = |problem: &Problem| (problem.status.as_u16(), problem.code.clone());
        let stopped = read(limits(100, soon, late), &["{}\n", "{"], Duration::ZERO, true).await;
        assert_eq!(said(&stopped), (408, "request_timeout".to_owned()));
        // Each chunk is in time, and all of them together are not.
        let crawling = read(limits(100, late, soon), &["\n"; 90], soon / 5, false).await;
        assert_eq!(said(&crawling), (408, "request_timeout".to_owned()));
        let endless = read(limits(100, late, late), &["0123456789\n"; 10], Duration::ZERO, true).await;
        assert_eq!(said(&endless), (413, "payload_too_large".to_owned()));
        let one_line = read(limits(100, late, late), &["0123456789"; 11], Duration::ZERO, true).await;
        assert_eq!(said(&one_line), (413, "payload_too_large".to_owned()));
    }
}

//! The record as admins read it: in pages, and as a file.

use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use service::db::Pool;
use service::extract::Json;
use service::page::{Page, PageQuery};
use service::validate::Invalid;
use service::{FieldError, Problem};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::store::{self, Found};

/// Files that a process writes at once.
static EXPORTS: Semaphore = Semaphore::const_new(2);
/// Entries of a part of the file.
const PART: i64 = 500;
/// For the whole file: others wait for its place.
const WHOLE: Duration = Duration::from_secs(600);

/// Which entries are wanted. Of several filters all have to fit.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Filters {
    /// Only what this account did.
    #[param(value_type = Option<Uuid>)]
    actor: Option<String>,
    /// Only what is called so, such as `order.shipped`.
    #[param(min_length = 1, max_length = 100, pattern = r"^[a-z_]+\.[a-z_]+$")]
    action: Option<String>,
    /// Only what was done to the thing with this id.
    #[param(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
    )]
    object: Option<String>,
    /// Only from then on: RFC 3339, or a date in UTC.
    #[param(
        pattern = r"^[0-9]{4}-[01][0-9]-[0-3][0-9](T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?Z)?$"
    )]
    from: Option<String>,
    /// Only before that; of a date, on that day too.
    #[param(
        pattern = r"^[0-9]{4}-[01][0-9]-[0-3][0-9](T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?Z)?$"
    )]
    to: Option<String>,
}

/// [`Filters`] with a page's limit and cursor.
#[derive(Debug, Deserialize)]
pub struct ListQuery {
    #[serde(flatten)]
    page: PageQuery,
    #[serde(flatten)]
    filters: Filters,
}

/// [`Filters`] that were understood.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub actor: Option<Uuid>,
    pub action: Option<String>,
    pub object: Option<String>,
    pub from: Option<OffsetDateTime>,
    pub to: Option<OffsetDateTime>,
}

/// Something that was done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct Recorded {
    pub id: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
    /// The account of who did it; null when that is not known.
    #[schema(required)]
    pub actor: Option<Uuid>,
    /// Their role then.
    #[schema(required)]
    pub role: Option<String>,
    /// Such as `order.shipped`.
    pub action: String,
    /// What it was done to.
    pub object: Subject,
    pub changes: Vec<Change>,
    /// Of the request that did it, as in logs and answers.
    #[schema(required)]
    pub request_id: Option<String>,
}

/// What something was done to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditObject)]
pub struct Subject {
    pub kind: String,
    /// Null when there is none.
    #[schema(required)]
    pub id: Option<String>,
}

/// A field that was changed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = AuditChange)]
pub struct Change {
    pub field: String,
    /// What it was. A long text is cut. Left out, with `after`, of a personal value that was erased.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>, required = false)]
    pub before: Option<Value>,
    /// What it is since.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>, required = false)]
    pub after: Option<Value>,
}

/// A value that is there, be it null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl From<Found> for Recorded {
    fn from(found: Found) -> Self {
        let read = |value: Value| -> Vec<Change> { serde_json::from_value(value).unwrap_or_default() };
        let mut changes = read(found.changes);
        for personal in found.personal.map(read).into_iter().flatten() {
            if let Some(named) = changes.iter_mut().find(|change| change.field == personal.field) {
                *named = personal;
            }
        }
        Self {
            id: found.id,
            at: found.at,
            actor: found.actor,
            role: found.role,
            action: found.action,
            object: Subject { kind: found.object_kind, id: found.object_id },
            changes,
            request_id: found.request_id,
        }
    }
}

/// A page of entries, newest first.
pub async fn page(pool: &Pool, query: ListQuery) -> Result<Json<Page<Recorded>>, Problem> {
    let (limit, before) = (query.page.limit()?, query.page.after::<Uuid>()?);
    let found = store::page(pool, &query.filters.parsed()?, before, limit + 1).await?;
    Ok(Json(Page::new(found, limit, |entry| entry.id).map(Recorded::from)))
}

/// All entries as a file, one a line (NDJSON), newest first. 503 while two others are being written.
pub fn export(pool: Pool, filters: Filters, name: &str) -> Result<Response, Problem> {
    let wanted = filters.parsed()?;
    let busy = |_| Problem::unavailable("Other exports are running; try again when they are done.");
    let turn = EXPORTS.try_acquire().map_err(busy)?;
    let export =
        Export { pool, wanted, rest: Some(Uuid::max()), deadline: Instant::now() + WHOLE, _turn: turn };
    let body = Body::from_stream(stream::try_unfold(export, Export::part));
    let disposition = format!("attachment; filename=\"{name}.ndjson\"");
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok(([(header::CONTENT_DISPOSITION, disposition)], headers, body).into_response())
}

/// A file on its way.
struct Export {
    pool: Pool,
    wanted: Wanted,
    /// Before which entry it goes on.
    rest: Option<Uuid>,
    deadline: Instant,
    _turn: SemaphorePermit<'static>,
}

impl Export {
    /// The next part of the file. An error cuts the answer off, so that nobody takes it for whole.
    async fn part(mut self) -> Result<Option<(Bytes, Self)>, BoxError> {
        let Some(before) = self.rest else { return Ok(None) };
        if Instant::now() >= self.deadline {
            tracing::warn!("export.too_slow");
            return Err("the file was read too slowly".into());
        }
        let found = store::page(&self.pool, &self.wanted, Some(before), PART).await;
        let found = found.inspect_err(|error| tracing::warn!(%error, "export.failed"))?;
        self.rest = found.last().map(|entry| entry.id);
        let mut text = Vec::new();
        for entry in found {
            serde_json::to_writer(&mut text, &Recorded::from(entry))?;
            text.push(b'\n');
        }
        Ok(Some((Bytes::from(text), self)))
    }
}

impl Filters {
    /// 422 with all that can't be.
    fn parsed(self) -> Result<Wanted, Problem> {
        let mut errors = Vec::new();
        let actor = self.actor.and_then(|id| match id.parse() {
            Ok(id) => Some(id),
            Err(_) => {
                errors.push(FieldError::new("/actor", "invalid_value", "This is not a UUID."));
                None
            }
        });
        let mut moment = |at: &str, text: Option<String>, day_after: bool| {
            let read = text.as_deref().map(|text| moment(text, day_after));
            if read == Some(None) {
                let detail = "A time as in 2026-11-29T12:00:00Z, or a date as in 2026-11-29.";
                errors.push(FieldError::new(at, "invalid_value", detail));
            }
            read.flatten()
        };
        let (from, to) = (moment("/from", self.from, false), moment("/to", self.to, true));
        let mut invalid = Invalid::new();
        let action = self.action.and_then(|action| invalid.text("/action", action, 1, 100));
        let object = self.object.and_then(|object| invalid.text("/object", object, 1, 100));
        for FieldError { pointer, code, detail } in errors {
            invalid.push(pointer, &code, detail);
        }
        invalid.check()?;
        Ok(Wanted { actor, action, object, from, to })
    }
}

/// A time, or the beginning of a day; or of the day after.
fn moment(text: &str, day_after: bool) -> Option<OffsetDateTime> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(time);
    }
    let day = Date::parse(text, format_description!("[year]-[month]-[day]")).ok()?;
    let day = if day_after { day.next_day()? } else { day };
    Some(day.midnight().assume_utc())
}

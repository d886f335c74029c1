//! The log level, which can be changed at run time.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, RawQuery};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::{FieldError, Problem};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Characters of directives.
const LONGEST: usize = 1000;

/// Seconds that a level may be set for.
const LONGEST_STAY: u64 = 24 * 3600;

static LEVEL: OnceLock<Level> = OnceLock::new();

/// Has `handle` be what changes.
pub(super) fn start(handle: reload::Handle<EnvFilter, Registry>, directives: &str) {
    let _ = LEVEL.set(Level::new(handle, directives));
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is logged.
struct Level {
    handle: reload::Handle<EnvFilter, Registry>,
    set: Mutex<Set>,
}

struct Set {
    now: String,
    /// What it goes back to.
    lasting: String,
    until: Option<Instant>,
    /// Counts the changes.
    turn: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    directives: String,
    /// Then it is as it was before; without, it stays.
    seconds: Option<u64>,
}

impl Level {
    fn new(handle: reload::Handle<EnvFilter, Registry>, directives: &str) -> Self {
        let (now, lasting) = (directives.to_owned(), directives.to_owned());
        Self { handle, set: Mutex::new(Set { now, lasting, until: None, turn: 0 }) }
    }

    fn shown(&self) -> Value {
        let set = locked(&self.set);
        let left = set.until.map(|until| until.saturating_duration_since(Instant::now()).as_secs());
        json!({"directives": set.now, "seconds_left": left})
    }

    /// The number of this change.
    fn change(&self, wanted: &Wanted, filter: EnvFilter) -> Result<u64, Problem> {
        let mut set = locked(&self.set);
        self.handle.reload(filter).map_err(|_| Problem::internal())?;
        set.now.clone_from(&wanted.directives);
        set.until = wanted.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        if set.until.is_none() {
            set.lasting.clone_from(&wanted.directives);
        }
        set.turn += 1;
        tracing::info!(directives = set.now, seconds = wanted.seconds, "log_level.changed");
        Ok(set.turn)
    }

    /// Undoes a change, unless another came after it.
    fn back(&self, turn: u64) {
        let mut set = locked(&self.set);
        let Ok(filter) = EnvFilter::try_new(&set.lasting) else { return };
        if set.turn == turn && self.handle.reload(filter).is_ok() {
            set.now = set.lasting.clone();
            set.until = None;
            tracing::info!(directives = set.now, "log_level.back");
        }
    }
}

/// `/log-level`: `GET` shows what is logged, `PUT` changes it.
pub(crate) fn router() -> Router {
    let show = || async { level().map(|level| axum::Json(level.shown())) };
    Router::new().route("/log-level", get(show).put(put)).layer(DefaultBodyLimit::max(4 * LONGEST))
}

fn level() -> Result<&'static Level, Problem> {
    LEVEL.get().ok_or_else(|| Problem::unavailable("Logs are not written yet."))
}

/// Takes `info,order=debug` as it is, with `?seconds=60`, or `{"directives": "info,order=debug", "seconds": 60}`.
async fn put(RawQuery(query): RawQuery, body: String) -> Result<axum::Json<Value>, Problem> {
    let wanted = read(query.as_deref(), &body)?;
    let filter = filter(&wanted.directives)?;
    let level = level()?;
    let turn = level.change(&wanted, filter)?;
    if let Some(seconds) = wanted.seconds {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            level.back(turn);
        });
    }
    Ok(axum::Json(level.shown()))
}

fn read(query: Option<&str>, body: &str) -> Result<Wanted, Problem> {
    let body = body.trim();
    let wanted: Wanted = if body.starts_with('{') {
        let wrong = |error: serde_json::Error| {
            Problem::bad_request("malformed_body", format!("Not the expected JSON: {error}."))
        };
        serde_json::from_str(body).map_err(wrong)?
    } else {
        let seconds = match query {
            None | Some("") => None,
            Some(query) => {
                let number = query.strip_prefix("seconds=").and_then(|number| number.parse().ok());
                Some(
                    number
                        .ok_or_else(|| Problem::bad_request("malformed_query", "Only seconds=N is known."))?,
                )
            }
        };
        Wanted { directives: body.to_owned(), seconds }
    };
    if wanted.seconds.is_some_and(|seconds| !(1..=LONGEST_STAY).contains(&seconds)) {
        let error = FieldError::new("/seconds", "out_of_range", format!("From 1 to {LONGEST_STAY}."));
        return Err(Problem::invalid(vec![error]));
    }
    Ok(wanted)
}

/// Levels, alone or of a target. All else that a directive may be is a target to `EnvFilter`, a mistyped level too.
fn filter(directives: &str) -> Result<EnvFilter, Problem> {
    let unknown = || {
        let levels = LEVELS.join(", ");
        let detail =
            format!("One of {levels}; or target=level, as order=debug; several with commas between.");
        Problem::unprocessable("unknown_log_level", "There is no such log level.")
            .with_errors(vec![FieldError::new("/directives", "unknown_log_level", detail)])
            .with_extension("allowed", json!(LEVELS))
    };
    let known = |directive: &str| {
        let (target, level) =
            directive.trim().rsplit_once('=').map_or((None, directive), |(t, l)| (Some(t), l));
        let path = |target: &str| {
            !target.is_empty() && target.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b))
        };
        target.is_none_or(path) && LEVELS.contains(&level.trim().to_ascii_lowercase().as_str())
    };
    if directives.len() > LONGEST || !directives.split(',').all(known) {
        return Err(unknown());
    }
    EnvFilter::try_new(directives).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_levels_that_exist_are_taken() {
        for good in ["info", "WARN", "info,lapin=warn,lapin::returned_messages=off", "off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["", "verbose", "info,", "order=loud", "=info", "info,order", "[span]=info", "a=b=info "] {
            let problem = filter(bad).expect_err(bad);
            assert_eq!((problem.status.as_u16(), problem.code.as_str()), (422, "unknown_log_level"), "{bad}");
        }
        assert!(filter(&"info,".repeat(300)).is_err());
    }

    #[test]
    fn a_level_may_be_sent_as_text_or_as_json() {
        let text = read(Some("seconds=60"), "debug\n").unwrap();
        assert_eq!((text.directives.as_str(), text.seconds), ("debug", Some(60)));
        let json = read(None, r#"{"directives": "info"}"#).unwrap();
        assert_eq!((json.directives.as_str(), json.seconds), ("info", None));
        assert!(read(Some("secnods=60"), "debug").is_err());
        assert!(read(Some("seconds=0"), "debug").is_err());
        assert!(read(None, r#"{"directives": "info", "second": 1}"#).is_err());
    }
}

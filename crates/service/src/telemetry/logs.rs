//! Logs: a line of JSON for each event, with the names of the Elastic Common Schema
//! (<https://www.elastic.co/docs/reference/ecs>).

use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::TraceContextExt;
use serde::Serialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::layer::Filter;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry, layer, reload};

use super::level::{self, locked};
use crate::config::{LogFormat, Process};

const ECS_VERSION: &str = "8.11.0";

/// Between two lines about a collector that does not answer.
const COLLECTOR_EVERY: Duration = Duration::from_secs(60);

/// What writes the logs, at the level that `config` begins with.
pub(super) fn writer(
    name: &'static str,
    config: &Process,
) -> anyhow::Result<impl Layer<Registry> + Send + Sync + use<>> {
    let filter = EnvFilter::try_new(&config.rust_log).context("RUST_LOG is not understood")?;
    let (filter, handle) = reload::Layer::new(filter);
    level::start(handle, &config.rust_log);
    let format: Box<dyn Layer<Registry> + Send + Sync> = match config.log_format {
        LogFormat::Json => {
            tracing_subscriber::fmt::layer().json().event_format(Ecs { service: name }).boxed()
        }
        LogFormat::Pretty => tracing_subscriber::fmt::layer().boxed(),
    };
    Ok(format.with_filter(with_spans(filter).and(Seldom::default())))
}

/// Lets spans through whatever is logged: a line of any level has what they say, such as the order's id.
fn with_spans<S: Subscriber>(filter: impl Filter<S>) -> impl Filter<S> {
    let spans = |metadata: &Metadata<'_>| {
        metadata.is_span()
            && *metadata.level() <= LevelFilter::INFO
            && !metadata.target().starts_with("lapin")
    };
    filter.or(filter_fn(spans).with_max_level_hint(LevelFilter::INFO))
}

/// Writes an event as one line.
struct Ecs {
    service: &'static str,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: String,
    #[serde(rename = "log.level")]
    level: String,
    message: String,
    #[serde(rename = "ecs.version")]
    version: &'a str,
    #[serde(rename = "service.name")]
    service: &'a str,
    #[serde(rename = "log.logger")]
    logger: &'a str,
    #[serde(rename = "trace.id", skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    #[serde(rename = "span.id", skip_serializing_if = "Option::is_none")]
    span: Option<String>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl<S> FormatEvent<S, JsonFields> for Ecs
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut fields = Fields::default();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let stored = extensions.get::<FormattedFields<JsonFields>>();
            let stored =
                stored.and_then(|stored| serde_json::from_str::<Map<String, Value>>(&stored.fields).ok());
            stored.into_iter().flatten().for_each(|(name, value)| fields.add(&name, value));
        }
        event.record(&mut fields);
        let mut fields = fields.0;
        let metadata = event.metadata();
        // OpenTelemetry's own events have a name and no message.
        let message = match fields.remove("message").or_else(|| fields.remove("name")) {
            Some(Value::String(message)) => message,
            Some(message) => message.to_string(),
            None => metadata.name().to_owned(),
        };
        let active = opentelemetry::Context::current();
        let active = active.span().span_context().clone();
        let line = Line {
            timestamp: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            level: metadata.level().as_str().to_ascii_lowercase(),
            message,
            version: ECS_VERSION,
            service: self.service,
            logger: metadata.target(),
            trace: active.is_valid().then(|| active.trace_id().to_string()),
            span: active.is_valid().then(|| active.span_id().to_string()),
            fields,
        };
        let line = serde_json::to_string(&line).map_err(|_| std::fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

/// Of an event and the spans around it, the innermost last.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn add(&mut self, name: &str, value: Value) {
        match name {
            // An object in the schema.
            "error" => self.0.insert("error.message".to_owned(), value),
            // For the tracer.
            _ if name.starts_with("otel.") => None,
            _ => self.0.insert(name.to_owned(), value),
        };
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field.name(), format!("{value:?}").into());
    }
}

/// Lets a line about the collector through once a minute: it may be away for long.
///
/// Not by `event_enabled`: what that refuses for the only layer stays refused in the thread's state, and the next span
/// is not seen.
#[derive(Default)]
struct Seldom(Mutex<Option<Instant>>);

impl<S> Filter<S> for Seldom {
    fn enabled(&self, metadata: &Metadata<'_>, _: &layer::Context<'_, S>) -> bool {
        if !of_the_exporter(metadata) {
            return true;
        }
        let mut last = locked(&self.0);
        let due = last.is_none_or(|at| at.elapsed() >= COLLECTOR_EVERY);
        if due {
            *last = Some(Instant::now());
        }
        due
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if of_the_exporter(metadata) { Interest::sometimes() } else { Interest::always() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }
}

fn of_the_exporter(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("opentelemetry")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            locked(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn lines(&self) -> Vec<Value> {
            let text = String::from_utf8(locked(&self.0).clone()).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    fn logged(what: impl FnOnce()) -> Vec<Value> {
        logged_at("trace", what)
    }

    fn logged_at(level: &str, what: impl FnOnce()) -> Vec<Value> {
        let written = Written::default();
        let writer = written.clone();
        let format = tracing_subscriber::fmt::layer().json().event_format(Ecs { service: "shop" });
        let filter = with_spans(EnvFilter::new(level)).and(Seldom::default());
        let format = format.with_writer(move || writer.clone()).with_filter(filter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(format), what);
        written.lines()
    }

    #[test]
    fn a_line_has_the_names_of_the_schema_and_what_its_spans_know() {
        let lines = logged(|| {
            let span =
                tracing::info_span!("saga", otel.kind = "client", order.id = "o1", n = tracing::field::Empty);
            span.record("n", 7);
            span.in_scope(|| tracing::warn!(error = %"it broke", "order.failed"));
        });
        let line = &lines[0];
        assert_eq!(line["message"], "order.failed");
        assert_eq!(line["log.level"], "warn");
        assert_eq!(line["service.name"], "shop");
        assert_eq!(line["order.id"], "o1");
        assert_eq!(line["n"], 7);
        assert_eq!(line["error.message"], "it broke");
        assert!(line["@timestamp"].as_str().is_some_and(|at| OffsetDateTime::parse(at, &Rfc3339).is_ok()));
        assert!(line.get("error").is_none() && line.get("otel.kind").is_none());
    }

    #[test]
    fn a_line_knows_what_its_spans_know_whatever_is_logged() {
        for (level, expected) in [("off", 0), ("warn", 1), ("info", 2)] {
            let lines = logged_at(level, || {
                tracing::info_span!("saga", order.id = "o2").in_scope(|| {
                    tracing::info!("order.fine");
                    tracing::warn!("order.failed_again");
                });
            });
            assert_eq!(lines.len(), expected, "{level}");
            assert!(lines.iter().all(|line| line["order.id"] == "o2"), "{level}: {lines:?}");
        }
    }

    #[test]
    fn a_collector_that_is_away_is_logged_once_a_minute() {
        let lines = logged(|| {
            for _ in 0..100 {
                tracing::error!(target: "opentelemetry_sdk", name = "BatchSpanProcessor.ExportError");
                tracing::info_span!("order").in_scope(|| tracing::info!("served"));
            }
        });
        let about = lines.iter().filter(|line| line["message"] == "BatchSpanProcessor.ExportError");
        assert_eq!((about.count(), lines.len()), (1, 101));
    }
}

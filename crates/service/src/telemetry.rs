//! Logs, traces and metrics.
//!
//! Every process keeps W3C trace context (<https://www.w3.org/TR/trace-context/>)
//! whether or not it exports: ids show up in logs and problem documents. Spans and metrics
//! are sent only when `OTEL_EXPORTER_OTLP_ENDPOINT` is set; `/metrics` has the metrics always.

mod level;
mod logs;
mod metrics;
mod openmetrics;
mod process;
mod sampler;

use std::sync::mpsc;
use std::time::Duration;

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Process;

pub(crate) use level::router as log_level;
pub(crate) use metrics::{Call, answer as metrics_answer};
pub use metrics::{Gauge, Timer, counter, duration_histogram, gauge, label, observed, seconds_histogram};

/// The release of OpenTelemetry's semantic conventions whose names our telemetry has.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.42.0";

/// For the last metrics.
const FLUSH_METRICS: Duration = Duration::from_secs(2);

/// Keeps the exporters; flush before the process ends.
pub struct Telemetry {
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
}

impl Telemetry {
    pub fn flush(&self) {
        if let Err(error) = self.traces.shutdown() {
            tracing::warn!(%error, "telemetry.flush_failed");
        }
        // It would wait for a collector that does not answer.
        let (metrics, (ended, end)) = (self.metrics.clone(), mpsc::channel());
        std::thread::spawn(move || ended.send(metrics.shutdown()));
        if !matches!(end.recv_timeout(FLUSH_METRICS), Ok(Ok(()))) {
            tracing::warn!("telemetry.metrics_not_flushed");
        }
    }
}

/// Sets the process's global subscriber and providers.
pub fn start(name: &'static str, config: &Process) -> anyhow::Result<Telemetry> {
    let resource = Resource::builder().with_schema_url([], SCHEMA_URL).with_service_name(name).build();
    let mut traces = SdkTracerProvider::builder().with_resource(resource.clone());
    traces = traces.with_sampler(sampler::from_environment());
    if let Some(endpoint) = &config.otel_exporter_otlp_endpoint {
        let exporter =
            opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
        traces = traces.with_batch_exporter(exporter);
    }
    let traces = traces.build();
    let metrics = metrics::start(resource, config.otel_exporter_otlp_endpoint.as_deref())?;
    process::observe();

    let tracer = tracing_opentelemetry::layer().with_tracer(traces.tracer_with_scope(scope()));
    tracing_subscriber::registry()
        .with(logs::writer(name, config)?)
        .with(tracer.with_filter(filter_fn(is_traced).with_max_level_hint(LevelFilter::INFO)))
        .try_init()?;
    Ok(Telemetry { traces, metrics })
}

/// What all spans and metrics are from.
fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("dockside").with_schema_url(SCHEMA_URL).build()
}

/// Spans, and what went wrong in them, whatever is logged at the moment.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    let least = if metadata.is_span() { LevelFilter::INFO } else { LevelFilter::WARN };
    *metadata.level() <= least && !metadata.target().starts_with("lapin")
}

/// Makes `span` a child of the trace that an outside client names. Its trace state and baggage are not taken:
/// what an outsider wrote is not passed on. Whether the trace is kept is decided here ([`sampler`]).
pub fn continue_from_outside(span: &Span, carrier: &dyn Extractor) {
    continue_traceparent(span, carrier.get("traceparent"));
}

/// Makes `span` a child of the trace context that came in with a message.
pub fn continue_trace(span: &Span, carrier: &dyn Extractor) {
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), carrier);
    if parent.span().span_context().is_valid() {
        // Fails only for a span that no OpenTelemetry layer sees, as in tests.
        let _ = span.set_parent(parent);
    }
}

/// The same for a `traceparent` that was stored with a row or a message.
pub fn continue_traceparent(span: &Span, traceparent: Option<&str>) {
    struct Stored<'a>(&'a str);
    impl Extractor for Stored<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            (key == "traceparent").then_some(self.0)
        }

        fn keys(&self) -> Vec<&str> {
            vec!["traceparent"]
        }
    }
    if let Some(traceparent) = traceparent {
        continue_trace(span, &Stored(traceparent));
    }
}

/// Writes the current trace context into an outgoing message.
pub fn inject_trace(carrier: &mut dyn Injector) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), carrier);
}

/// The current trace context as a `traceparent` value, to be stored with an event.
pub fn traceparent() -> Option<String> {
    struct Only(Option<String>);
    impl Injector for Only {
        fn set(&mut self, key: &str, value: String) {
            if key == "traceparent" {
                self.0 = Some(value);
            }
        }
    }
    let mut only = Only(None);
    inject_trace(&mut only);
    only.0
}

/// The trace id that logs and traces of `span` carry.
pub fn trace_id(span: &Span) -> Option<String> {
    trace_id_of(&span.context())
}

/// The trace id that came in with a message, which gets no span here.
pub fn callers_trace_id(carrier: &dyn Extractor) -> Option<String> {
    trace_id_of(&TraceContextPropagator::new().extract_with_context(&Context::new(), carrier))
}

fn trace_id_of(context: &Context) -> Option<String> {
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| context.trace_id().to_string())
}

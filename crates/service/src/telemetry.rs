//! Logs, traces and metrics.
//!
//! Every process keeps W3C trace context (<https://www.w3.org/TR/trace-context/>)
//! whether or not it exports: ids show up in logs and problem documents. Spans
//! are sent only when `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

use std::sync::OnceLock;

use anyhow::Context as _;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Aggregation, Instrument, InstrumentKind, SdkMeterProvider, Stream};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus::{Registry, TextEncoder};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{LogFormat, Process};

static REGISTRY: OnceLock<Registry> = OnceLock::new();

/// Upper bounds of the duration histograms, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Keeps the exporters; flush before the process ends.
pub struct Telemetry {
    traces: SdkTracerProvider,
    _metrics: SdkMeterProvider,
}

impl Telemetry {
    pub fn flush(&self) {
        if let Err(error) = self.traces.shutdown() {
            tracing::warn!(%error, "telemetry.flush_failed");
        }
    }
}

/// Sets the process's global subscriber and providers.
pub fn start(name: &'static str, config: &Process) -> anyhow::Result<Telemetry> {
    let resource = Resource::builder().with_service_name(name).build();
    let mut traces = SdkTracerProvider::builder().with_resource(resource.clone());
    if let Some(endpoint) = &config.otel_exporter_otlp_endpoint {
        let exporter =
            opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
        traces = traces.with_batch_exporter(exporter);
    }
    let traces = traces.build();

    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()?;
    let metrics = SdkMeterProvider::builder()
        .with_resource(resource)
        .with_reader(exporter)
        .with_view(|instrument: &Instrument| {
            (instrument.kind() == InstrumentKind::Histogram).then(|| {
                let buckets = Aggregation::ExplicitBucketHistogram {
                    boundaries: SECONDS.to_vec(),
                    record_min_max: false,
                };
                Stream::builder().with_aggregation(buckets).build().ok()
            })?
        })
        .build();
    opentelemetry::global::set_meter_provider(metrics.clone());
    let _ = REGISTRY.set(registry);

    let filter = EnvFilter::try_new(&config.rust_log).context("RUST_LOG is not understood")?;
    let format = match config.log_format {
        LogFormat::Json => tracing_subscriber::fmt::layer().json().flatten_event(true).boxed(),
        LogFormat::Pretty => tracing_subscriber::fmt::layer().boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(tracing_opentelemetry::layer().with_tracer(traces.tracer("dockside")))
        .with(format)
        .try_init()?;
    Ok(Telemetry { traces, _metrics: metrics })
}

/// All metrics in Prometheus's text format.
pub(crate) fn metrics_text() -> String {
    let families = REGISTRY.get().map(Registry::gather).unwrap_or_default();
    TextEncoder::new().encode_to_string(&families).unwrap_or_default()
}

/// A duration histogram in seconds, named as OpenTelemetry names them (`a.b.duration`).
pub fn duration_histogram(name: &'static str) -> opentelemetry::metrics::Histogram<f64> {
    opentelemetry::global::meter("dockside").f64_histogram(name).with_unit("s").build()
}

/// A counter, named as OpenTelemetry names them (`a.b.count`).
pub fn counter(name: &'static str) -> opentelemetry::metrics::Counter<u64> {
    opentelemetry::global::meter("dockside").u64_counter(name).build()
}

/// A value that goes up and down.
pub fn gauge(name: &'static str) -> opentelemetry::metrics::Gauge<f64> {
    opentelemetry::global::meter("dockside").f64_gauge(name).build()
}

pub fn label(key: &'static str, value: impl Into<opentelemetry::Value>) -> KeyValue {
    KeyValue::new(key, value)
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

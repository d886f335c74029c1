//! Instruments, and `/metrics`. What each means: `telemetry/registry.yaml`.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Counter, Histogram, Meter};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};

use super::level::locked;
use super::openmetrics;

static REGISTRY: OnceLock<Registry> = OnceLock::new();

/// Upper bounds of the duration histograms, in seconds. Each costs a line for each route and status.
const SECONDS: [f64; 9] = [0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Sets the process's meter provider, which `/metrics` reads. With an `endpoint` it sends by OTLP too.
pub(super) fn start(resource: Resource, endpoint: Option<&str>) -> anyhow::Result<SdkMeterProvider> {
    let registry = Registry::new();
    let reader = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()?;
    let mut metrics = SdkMeterProvider::builder().with_resource(resource).with_reader(reader);
    if let Some(endpoint) = endpoint {
        let exporter =
            opentelemetry_otlp::MetricExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
        metrics = metrics.with_periodic_exporter(exporter);
    }
    let metrics = metrics.build();
    opentelemetry::global::set_meter_provider(metrics.clone());
    let _ = REGISTRY.set(registry);
    Ok(metrics)
}

/// All metrics: as OpenMetrics where it is asked for, else in Prometheus's text format.
pub(crate) fn answer(headers: &HeaderMap) -> Response {
    let families = REGISTRY.get().map(Registry::gather).unwrap_or_default();
    let text = TextEncoder::new().encode_to_string(&families).unwrap_or_default();
    let accepted = headers.get_all(header::ACCEPT);
    if accepted.iter().any(|value| value.to_str().is_ok_and(openmetrics::is_wanted)) {
        ([(header::CONTENT_TYPE, openmetrics::CONTENT_TYPE)], openmetrics::from_text(&text)).into_response()
    } else {
        ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response()
    }
}

pub(super) fn meter() -> Meter {
    opentelemetry::global::meter_with_scope(super::scope())
}

/// A duration in seconds, named as OpenTelemetry names them (`a.b.duration`).
pub fn duration_histogram(name: &'static str, description: &'static str) -> Histogram<f64> {
    seconds_histogram(name, description, &SECONDS)
}

/// The same with upper bounds of its own.
pub fn seconds_histogram(name: &'static str, description: &'static str, bounds: &[f64]) -> Histogram<f64> {
    let meter = meter();
    let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
    histogram.with_boundaries(bounds.to_vec()).build()
}

/// A counter. No name ends in `total`: Prometheus's text adds that. What is counted is the unit, as `{order}`.
pub fn counter(name: &'static str, unit: &'static str, description: &'static str) -> Counter<u64> {
    meter().u64_counter(name).with_unit(unit).with_description(description).build()
}

/// A value that goes up and down, recorded now and then. It is shown for a minute after it was recorded: a value that could
/// not be measured again is missing, rather than wrong.
pub fn gauge(name: &'static str, unit: &'static str, description: &'static str) -> Gauge {
    let recorded = Gauge::default();
    let shown = recorded.clone();
    let meter = meter();
    let gauge = meter.f64_observable_gauge(name).with_unit(unit).with_description(description);
    let observe = move |observer: &dyn AsyncInstrument<f64>| {
        shown.show(Instant::now(), |value, labels| observer.observe(value, labels));
    };
    gauge.with_callback(observe).build();
    recorded
}

/// How long a recorded value is shown: more than the longest pause between two measurements, which mails have.
const SHOWN: Duration = Duration::from_secs(60);

/// The values of a gauge, one for each set of labels.
#[derive(Clone, Default)]
pub struct Gauge(Arc<Mutex<Vec<Recorded>>>);

struct Recorded {
    at: Instant,
    value: f64,
    labels: Vec<KeyValue>,
}

impl Gauge {
    pub fn record(&self, value: f64, labels: &[KeyValue]) {
        let (at, mut all) = (Instant::now(), locked(&self.0));
        match all.iter_mut().find(|one| one.labels == labels) {
            Some(one) => (one.at, one.value) = (at, value),
            None => all.push(Recorded { at, value, labels: labels.to_vec() }),
        }
    }

    fn show(&self, now: Instant, mut observe: impl FnMut(f64, &[KeyValue])) {
        let all = locked(&self.0);
        let fresh = all.iter().filter(|one| now.saturating_duration_since(one.at) < SHOWN);
        fresh.for_each(|one| observe(one.value, &one.labels));
    }
}

/// A value that is read when metrics are; `read` must be quick. `None` once there is nothing to read.
/// One name can be given for several sets of `labels`.
pub fn observed(
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    labels: &[KeyValue],
    read: impl Fn() -> Option<usize> + Send + Sync + 'static,
) {
    let (meter, labels) = (meter(), labels.to_vec());
    let gauge = meter.u64_observable_gauge(name).with_unit(unit).with_description(description);
    gauge
        .with_callback(move |observer| {
            if let Some(value) = read() {
                observer.observe(value as u64, &labels);
            }
        })
        .build();
}

/// Values of labels are of sets known beforehand: never what a client sent.
pub fn label(key: &'static str, value: impl Into<opentelemetry::Value>) -> KeyValue {
    KeyValue::new(key, value)
}

/// Measures something that may be cancelled in the middle: then `unfinished` is its outcome.
pub struct Timer {
    histogram: Histogram<f64>,
    begun: Instant,
    labels: Vec<KeyValue>,
    end: Option<KeyValue>,
}

impl Timer {
    pub fn start(histogram: &Histogram<f64>, labels: Vec<KeyValue>, unfinished: KeyValue) -> Self {
        Self { histogram: histogram.clone(), begun: Instant::now(), labels, end: Some(unfinished) }
    }

    pub fn stop(mut self, end: KeyValue) {
        self.end = Some(end);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.labels.extend(self.end.take());
        self.histogram.record(self.begun.elapsed().as_secs_f64(), &self.labels);
    }
}

/// Durations of gRPC calls, here or at another service.
#[derive(Clone)]
pub(crate) struct Call(Histogram<f64>);

impl Call {
    pub fn served() -> Self {
        Self(duration_histogram("rpc.server.call.duration", "Calls served."))
    }

    pub fn made() -> Self {
        Self(duration_histogram(
            "rpc.client.call.duration",
            "Calls made to another service, each try by itself.",
        ))
    }

    /// `method` with its service, as `dockside.product.v1.ProductService/Reserve`.
    pub fn record(&self, method: &str, code: &'static str, seconds: f64) {
        let labels = [
            label("rpc.system.name", "grpc"),
            label("rpc.method", method.to_owned()),
            label("rpc.response.status_code", code),
        ];
        self.0.record(seconds, &labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_not_measured_any_more_is_not_shown() {
        let (gauge, labels) = (Gauge::default(), [label("phase", "creating")]);
        let shown = |now: Instant| {
            let mut values = Vec::new();
            gauge.show(now, |value, labels| values.push((value, labels.len())));
            values
        };
        let now = Instant::now();
        assert!(shown(now).is_empty());
        gauge.record(1.0, &[]);
        gauge.record(2.0, &labels);
        gauge.record(3.0, &labels);
        assert_eq!(shown(now), [(1.0, 0), (3.0, 1)]);
        assert!(shown(now + SHOWN * 2).is_empty());
        gauge.record(4.0, &[]);
        assert_eq!(shown(now), [(4.0, 0), (3.0, 1)]);
    }
}

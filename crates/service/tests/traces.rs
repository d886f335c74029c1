//! Spans reach an OTLP receiver, as parts of the trace that came in.

mod receiver;

use clap::Parser;
use opentelemetry::propagation::Extractor;
use service::telemetry;
use tokio::net::TcpListener;

use receiver::Config;

/// What a client outside sends.
struct Headers;

impl Extractor for Headers {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some("00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            "tracestate" => Some("vendor=secret"),
            "baggage" => Some("role=admin"),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate", "baggage"]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_is_exported_into_the_trace_it_continues() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("--otel-exporter-otlp-endpoint=http://{}", listener.local_addr().unwrap());
    let mut exports = receiver::start(listener);

    let telemetry = telemetry::start("shop", &Config::parse_from(["shop", &endpoint]).process).unwrap();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let span = tracing::info_span!("checkout");
    telemetry::continue_traceparent(&span, Some(&format!("00-{trace}-b7ad6b7169203331-01")));
    assert_eq!(telemetry::trace_id(&span).as_deref(), Some(trace));
    let stored = span.in_scope(telemetry::traceparent).unwrap();
    assert!(stored.contains(trace), "{stored}");
    drop(span);

    // From outside, what names the trace is taken, and what else a client wrote goes no further.
    let outside = tracing::info_span!("request");
    telemetry::continue_from_outside(&outside, &Headers);
    assert_eq!(telemetry::trace_id(&outside).as_deref(), Some("1af7651916cd43dd8448eb211c80319c"));
    let mut sent = std::collections::HashMap::new();
    outside.in_scope(|| telemetry::inject_trace(&mut sent));
    assert!(sent.remove("traceparent").is_some());
    assert!(sent.values().all(String::is_empty), "{sent:?}");
    drop(outside);
    tokio::task::spawn_blocking(move || telemetry.flush()).await.unwrap();

    let export = exports.recv().await.unwrap();
    let resource = &export.resource_spans[0];
    let name = format!("{:?}", resource.resource.as_ref().unwrap().attributes);
    assert!(name.contains("service.name") && name.contains("shop"), "{name}");
    let schema = "https://opentelemetry.io/schemas/";
    assert!(resource.schema_url.starts_with(schema), "{resource:?}");
    assert!(resource.scope_spans[0].schema_url.starts_with(schema), "{resource:?}");
    let span = receiver::spans(&export).find(|span| span.name == "checkout").unwrap();
    assert_eq!(span.trace_id, u128::from_str_radix(trace, 16).unwrap().to_be_bytes());
}

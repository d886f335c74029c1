//! Spans reach an OTLP receiver, as parts of the trace that came in.

use clap::Parser;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use service::config::Process;
use service::telemetry;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

struct Receiver(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[derive(Parser)]
struct Config {
    #[command(flatten)]
    process: Process,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_is_exported_into_the_trace_it_continues() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("--otel-exporter-otlp-endpoint=http://{}", listener.local_addr().unwrap());
    let (received, mut exports) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Receiver(received)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let telemetry = telemetry::start("shop", &Config::parse_from(["shop", &endpoint]).process).unwrap();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let span = tracing::info_span!("checkout");
    telemetry::continue_traceparent(&span, Some(&format!("00-{trace}-b7ad6b7169203331-01")));
    assert_eq!(telemetry::trace_id(&span).as_deref(), Some(trace));
    let stored = span.in_scope(telemetry::traceparent).unwrap();
    assert!(stored.contains(trace), "{stored}");
    drop(span);
    tokio::task::spawn_blocking(move || telemetry.flush()).await.unwrap();

    let export = exports.recv().await.unwrap();
    let resource = &export.resource_spans[0];
    let name = format!("{:?}", resource.resource.as_ref().unwrap().attributes);
    assert!(name.contains("service.name") && name.contains("shop"), "{name}");
    let span = &resource.scope_spans[0].spans[0];
    assert_eq!(span.name, "checkout");
    assert_eq!(span.trace_id, u128::from_str_radix(trace, 16).unwrap().to_be_bytes());
}

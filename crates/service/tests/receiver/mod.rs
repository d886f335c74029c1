//! Takes spans as an OTLP collector does.

use clap::Parser;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use service::config::Process;
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
pub struct Config {
    #[command(flatten)]
    pub process: Process,
}

/// What arrives at `listener` from now on.
pub fn start(listener: TcpListener) -> mpsc::UnboundedReceiver<ExportTraceServiceRequest> {
    let (received, exports) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Receiver(received)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    exports
}

pub fn spans(export: &ExportTraceServiceRequest) -> impl Iterator<Item = &Span> {
    let scopes = export.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans)
}

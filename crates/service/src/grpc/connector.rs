//! A gRPC client's connections, by TLS where the address says so.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use axum::http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::Endpoint;
use tower::ServiceExt;

use crate::socket::{CONNECT_DEADLINE, connector};
use crate::tls::{self, Identity};

/// Opens connections to one server, or to the replicas that share its name.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    /// What is shown, and the name that the server has to show.
    tls: Option<(Identity, ServerName<'static>)>,
}

/// The way to an address, which an `https` one is by both sides' certificates. tonic's own TLS reads them once.
pub(super) fn endpoint(address: &str, identity: Option<&Identity>) -> anyhow::Result<(Endpoint, Connector)> {
    let none = || format!("{address} is not the address of a gRPC server");
    let uri: Uri = address.parse().with_context(none)?;
    let tcp = connector();
    if uri.scheme_str() != Some("https") {
        return Ok((
            Endpoint::from_shared(address.to_owned()).with_context(none)?,
            Connector { tcp, tls: None },
        ));
    }
    let identity =
        identity.with_context(|| format!("{address} is called by TLS, for which TLS_DIR is needed"))?;
    let host = uri.host().with_context(none)?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).with_context(none)?;
    // What tonic knows of it: with `https` it would want to speak TLS itself.
    let plain = format!("http://{host}:{}", uri.port_u16().unwrap_or(443));
    let endpoint = Endpoint::from_shared(plain).with_context(none)?;
    Ok((endpoint, Connector { tcp, tls: Some((identity.clone(), name)) }))
}

/// What calls are made over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Pin<Box<dyn Stream>>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { tcp, tls } = self.clone();
        Box::pin(async move {
            let stream = tcp.oneshot(uri).await?.into_inner();
            let stream: Pin<Box<dyn Stream>> = match tls {
                None => Box::pin(stream),
                Some((identity, name)) => {
                    let tls = TlsConnector::from(Arc::new(identity.client(tls::HTTP_2)));
                    let shown = timeout(CONNECT_DEADLINE, tls.connect(name, stream)).await;
                    let shown = shown.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                    Box::pin(shown.inspect_err(|error| tracing::debug!(%error, "grpc.tls_refused"))?)
                }
            };
            Ok(TokioIo::new(stream))
        })
    }
}

//! Binding the three ports and serving them until shutdown.

use std::net::SocketAddr;

use anyhow::Context;
use axum::Router;
use axum::serve::ListenerExt;
use sqlx::PgPool;
use tokio::net::{TcpListener, TcpStream};
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use crate::config::Listen;
use crate::{Lifecycle, grpc, health, http};

/// Bound ports, before anything is served on them: a start that fails on a
/// taken port fails at once.
pub struct Ports {
    http: TcpListener,
    grpc: TcpListener,
    admin: TcpListener,
    pub addresses: Addresses,
}

/// Where a service listens, with port 0 resolved.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
}

impl Ports {
    pub async fn bind(config: &Listen) -> anyhow::Result<Self> {
        let (http, grpc, admin) =
            (bind(config.http_addr).await?, bind(config.grpc_addr).await?, bind(config.admin_addr).await?);
        let addresses =
            Addresses { http: http.local_addr()?, grpc: grpc.local_addr()?, admin: admin.local_addr()? };
        Ok(Self { http, grpc, admin, addresses })
    }

    /// Serves all three until `lifecycle` stops, and marks the service ready.
    pub fn serve(self, lifecycle: &Lifecycle, pool: PgPool, api: Router, calls: Routes) -> Addresses {
        let stop = lifecycle.stopping();
        let api = http::finish(api);
        lifecycle.spawn("http", async move {
            axum::serve(self.http.tap_io(no_delay), api)
                .with_graceful_shutdown(stop.cancelled_owned())
                .await?;
            Ok(())
        });

        let stop = lifecycle.stopping();
        lifecycle.spawn("grpc", async move {
            let incoming = TcpIncoming::from(self.grpc).with_nodelay(Some(true)); // as no_delay
            grpc::server(calls).await.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await?;
            Ok(())
        });

        // Not stopped with the rest: it answers "stopping" until the process ends.
        let admin = health::router(lifecycle.health(), pool);
        tokio::spawn(async move { axum::serve(self.admin, admin).await });

        lifecycle.health().ready();
        let Addresses { http, grpc, admin } = self.addresses;
        tracing::info!(%http, %grpc, %admin, "service.ready");
        self.addresses
    }
}

/// Nagle's algorithm would hold an answer's last part back for a delayed
/// acknowledgement: 40 ms a call.
fn no_delay(stream: &mut TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "http.nodelay_failed");
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))
}

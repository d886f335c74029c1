//! Binding the three ports and serving them until shutdown.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::serve::ListenerExt;
use futures_util::{Stream, StreamExt};
use socket2::{SockRef, Socket};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::TcpIncoming;

use crate::admission::Admission;
use crate::config::Listen;
use crate::db::Pool;
use crate::socket::{ASK_AFTER, ASK_EVERY, ASKED, notice_loss};
use crate::tls::Identity;
use crate::{Lifecycle, grpc, health, http};

/// For a handshake of TLS, and how many of them there may be at the same time.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);
const HANDSHAKES_AT_ONCE: usize = 64;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Bound ports, before the service is ready: a start that fails on a taken port fails at once. The admin port
/// answers already; the other two refuse connections, so that a client that finds this replica too early goes
/// to another.
pub struct Ports {
    http: TcpSocket,
    grpc: TcpSocket,
    at_once: NonZeroU16,
    /// What is in `TLS_DIR`.
    pub identity: Option<Identity>,
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
    pub fn bind(config: &Listen, lifecycle: &Lifecycle) -> anyhow::Result<Self> {
        let identity = config.identity()?;
        let [http, grpc, admin] =
            [bind(config.http_addr)?, bind(config.grpc_addr)?, bind(config.admin_addr)?];
        let addresses =
            Addresses { http: http.local_addr()?, grpc: grpc.local_addr()?, admin: admin.local_addr()? };
        // Not stopped with the rest: it answers "stopping" until the process ends.
        let (admin, probes) = (listen(admin)?, health::router(lifecycle.health()));
        tokio::spawn(async move { axum::serve(admin.tap_io(tune), probes).await });
        let at = addresses;
        tracing::debug!(listen.http = %at.http, listen.grpc = %at.grpc, listen.admin = %at.admin, "service.bound");
        Ok(Self { http, grpc, at_once: config.requests_at_once, identity, addresses })
    }

    /// Serves all three until `lifecycle` stops, and marks the service ready.
    pub fn serve(
        self,
        lifecycle: &Lifecycle,
        pool: &Pool,
        api: Router,
        calls: grpc::Api,
    ) -> anyhow::Result<Addresses> {
        let api = http::finish(api, lifecycle.health(), Admission::new("http", self.at_once));
        let http = listen(self.http)?;
        let stop = last_served(&http, lifecycle);
        // A bare router would be copied, with all its routes, for each connection: 150 KiB.
        let api = api.into_make_service();
        lifecycle.spawn("http", async move {
            axum::serve(http.tap_io(tune), api).with_graceful_shutdown(stop).await?;
            Ok(())
        });

        let grpc = listen(self.grpc)?;
        let stop = last_served(&grpc, lifecycle);
        let (admission, identity) = (Admission::new("grpc", self.at_once), self.identity);
        lifecycle.spawn("grpc", async move {
            // As `tune`, but for the limit on what was sent, which pings make up for.
            let incoming = TcpIncoming::from(grpc)
                .with_nodelay(Some(true))
                .with_keepalive(Some(ASK_AFTER))
                .with_keepalive_interval(Some(ASK_EVERY))
                .with_keepalive_retries(Some(ASKED));
            let server = grpc::server(calls, admission).await?;
            match identity {
                None => server.serve_with_incoming_shutdown(incoming, stop).await?,
                Some(identity) => {
                    server.serve_with_incoming_shutdown(encrypted(incoming, identity), stop).await?;
                }
            }
            Ok(())
        });

        lifecycle.health().ready(pool);
        let Addresses { http, grpc, admin } = self.addresses;
        tracing::info!(listen.http = %http, listen.grpc = %grpc, listen.admin = %admin, "service.ready");
        Ok(self.addresses)
    }
}

/// The connections of those who show a certificate of the authority. Others end before they have asked anything.
fn encrypted(
    incoming: TcpIncoming,
    identity: Identity,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    let shaken = incoming.map(move |stream| {
        let acceptor = TlsAcceptor::from(identity.server());
        async move {
            let shaken = timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream?)).await;
            shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }
    });
    shaken.buffer_unordered(HANDSHAKES_AT_ONCE).filter_map(|shaken| {
        let shaken = shaken.inspect_err(|error| tracing::debug!(%error, "grpc.tls_refused"));
        std::future::ready(shaken.ok().map(Ok))
    })
}

/// Serves a site, which has no database and no gRPC, until `lifecycle` stops, and marks it ready. Its errors are pages of
/// its own, and so is its limit of requests in work.
pub fn site(
    http_addr: SocketAddr,
    admin_addr: SocketAddr,
    lifecycle: &Lifecycle,
    site: Router,
) -> anyhow::Result<SocketAddr> {
    let (http, admin) = (listen(bind(http_addr)?)?, listen(bind(admin_addr)?)?);
    let (address, admin_address) = (http.local_addr()?, admin.local_addr()?);
    let probes = health::router(lifecycle.health());
    tokio::spawn(async move { axum::serve(admin.tap_io(tune), probes).await });
    let site = http::finish_site(site, lifecycle.health()).into_make_service();
    let stop = last_served(&http, lifecycle);
    lifecycle.spawn("http", async move {
        axum::serve(http.tap_io(tune), site).with_graceful_shutdown(stop).await?;
        Ok(())
    });
    lifecycle.health().ready_alone();
    tracing::info!(listen.http = %address, listen.admin = %admin_address, "service.ready");
    Ok(address)
}

/// Ends when a port's server has to stop, once the last clients are served: closing a port resets connections
/// that wait to be accepted, whatever they have sent, and hyper cuts those that have not sent anything yet.
fn last_served(port: &TcpListener, lifecycle: &Lifecycle) -> impl Future<Output = ()> + use<> {
    let port = SockRef::from(port).try_clone();
    let (closing, stopping) = (lifecycle.closing(), lifecycle.stopping());
    async move {
        closing.cancelled().await;
        // The clone goes here: it would keep the port open.
        if let Err(error) = port.and_then(|port| let_nobody_in(&port)) {
            tracing::warn!(%error, "port.filter_failed");
        }
        stopping.cancelled().await;
    }
}

/// Makes a port ignore new connections, while handshakes under way go on. To be ignored is better than to be
/// reset: the client knows that it has sent nothing, and comes to a closed port, or another replica, a second
/// later.
#[cfg(target_os = "linux")]
fn let_nobody_in(port: &Socket) -> io::Result<()> {
    use socket2::SockFilter;
    // Classic BPF on the TCP header, <https://docs.kernel.org/networking/filter.html>.
    port.attach_filter(&[
        SockFilter::new(0x30, 0, 0, 13),       // load the byte with the flags
        SockFilter::new(0x45, 0, 1, 0x02),     // SYN?
        SockFilter::new(0x06, 0, 0, 0),        // then drop the packet
        SockFilter::new(0x06, 0, 0, u32::MAX), // else let it through
    ])
}

#[cfg(not(target_os = "linux"))]
fn let_nobody_in(_: &Socket) -> io::Result<()> {
    Ok(())
}

/// Nagle's algorithm would hold an answer's last part back for a delayed
/// acknowledgement: 40 ms a call.
///
/// It also notices a client that has vanished: otherwise its connection, and perhaps its stream of events,
/// would stay for ever.
fn tune(stream: &mut TcpStream) {
    if let Err(error) = stream.set_nodelay(true).and_then(|()| notice_loss(&*stream)) {
        tracing::debug!(%error, "http.socket_not_tuned");
    }
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a process that has just ended may still hold the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("can't listen on {address}"))?;
    Ok(socket)
}

fn listen(socket: TcpSocket) -> anyhow::Result<TcpListener> {
    let address = socket.local_addr()?;
    socket.listen(BACKLOG).with_context(|| format!("can't listen on {address}"))
}

//! TCP sockets that notice when their peer has vanished.

use std::io;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use socket2::{SockRef, TcpKeepalive};

/// How long an idle connection is not probed, and how long a probe or anything else that was sent may be
/// without an acknowledgement. Linux alone would probe after two hours, and send again for a quarter of an
/// hour.
pub(crate) const ASK_AFTER: Duration = Duration::from_secs(3);
pub(crate) const ASK_EVERY: Duration = Duration::from_secs(2);
const GIVE_UP_AFTER: Duration = Duration::from_secs(6);

/// Has the kernel end the connection within [`LOST_WITHIN`] of the peer's last sign of life, whether it is used or not.
/// A peer whose process is frozen still has a kernel that answers: that takes the protocol's own pings.
pub fn notice_loss<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    let socket = socket.into();
    let asked = TcpKeepalive::new().with_time(ASK_AFTER).with_interval(ASK_EVERY).with_retries(ASKED);
    socket.set_tcp_keepalive(&asked)?;
    // Counts for what was sent, and in place of the retries for an idle connection: tcp(7).
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(GIVE_UP_AFTER))?;
    Ok(())
}

/// Where there is no limit for what was sent.
pub(crate) const ASKED: u32 = 3;

/// The longest until a connection whose peer is gone has ended.
pub const LOST_WITHIN: Duration = ASK_AFTER.saturating_add(GIVE_UP_AFTER);

/// A builder of HTTP clients whose calls, connections and sockets all have limits. `deadline` is for a whole call.
pub fn http_client(deadline: Duration) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder()
        .timeout(deadline)
        .connect_timeout(CONNECT_DEADLINE.min(deadline))
        .redirect(reqwest::redirect::Policy::none())
        .tcp_keepalive(ASK_AFTER)
        .tcp_keepalive_interval(ASK_EVERY)
        .tcp_keepalive_retries(ASKED)
        // A server may have been replaced meanwhile; what is in use is not idle.
        .pool_idle_timeout(LOST_WITHIN);
    #[cfg(target_os = "linux")]
    let builder = builder.tcp_user_timeout(GIVE_UP_AFTER);
    builder
}

/// Opens a gRPC client's connections. tonic's own connector has no TCP user timeout.
pub(crate) fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_DEADLINE));
    connector.set_keepalive(Some(ASK_AFTER));
    connector.set_keepalive_interval(Some(ASK_EVERY));
    connector.set_keepalive_retries(Some(ASKED));
    #[cfg(target_os = "linux")]
    connector.set_tcp_user_timeout(Some(GIVE_UP_AFTER));
    connector
}

pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tower::ServiceExt;

    use super::*;

    #[test]
    fn the_kernel_probes_an_idle_peer_and_drops_what_nobody_acknowledges() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(port.local_addr().unwrap()).unwrap();
        notice_loss(&stream).unwrap();
        notices_loss(&SockRef::from(&stream));
    }

    #[tokio::test]
    async fn a_grpc_client_s_sockets_notice_loss_too() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("http://{}", port.local_addr().unwrap());
        let stream = connector().oneshot(uri.parse().unwrap()).await.unwrap().into_inner();
        let socket = SockRef::from(&stream);
        notices_loss(&socket);
        assert!(socket.tcp_nodelay().unwrap());
    }

    fn notices_loss(socket: &SockRef) {
        let options =
            (socket.keepalive().ok(), socket.tcp_keepalive_time().ok(), socket.tcp_keepalive_interval().ok());
        assert_eq!(options, (Some(true), Some(ASK_AFTER), Some(ASK_EVERY)));
        assert_eq!(socket.tcp_user_timeout().ok(), Some(Some(GIVE_UP_AFTER)));
    }
}

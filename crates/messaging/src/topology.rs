//! Who subscribes to what, and the queues that carry it.

mod declare;

use std::collections::HashSet;
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use lapin::options::ConfirmSelectOptions;
use lapin::tcp::RustlsConnector;
use lapin::types::ShortString;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, ErrorKind};
use service::socket::notice_loss;
use service::{back_off, tls};
use socket2::{SockRef, Socket};
use url::Url;

/// Consuming services, each with the event types that it gets.
pub type Subscriptions = &'static [(&'static str, &'static [&'static str])];

/// Seconds that a failed event waits before its next try; after the last it is
/// a dead letter. A queue each, as a quorum queue expires messages at its head
/// only, and made when it is first needed: most never are.
pub(crate) const RETRY_AFTER_SECONDS: [u32; 4] = [1, 5, 30, 120];

/// Bytes of one AMQP frame.
const FRAME_MAX: u32 = 16 * 1024;

/// Seconds. lapin closes a connection on which nothing came for twice as long, as RabbitMQ does. With less
/// than this a busy broker counts as dead (<https://www.rabbitmq.com/docs/heartbeats#false-positives>).
const HEARTBEAT: u16 = 5;

/// For opening a connection, which takes milliseconds. lapin 4.12 may never notice that one was cut in the
/// middle of its handshake (about 1 in 100 that are), so this is also how long such a connection delays
/// events.
const OPEN_DEADLINE: Duration = Duration::from_secs(4);

/// A broker that is too busy to open a connection in time gets longer each time, up to this.
const LONGEST_OPEN_DEADLINE: Duration = Duration::from_secs(16);

/// For everything else that a broker is asked.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Waits for the broker, but not forever.
pub(crate) async fn answered<T>(answer: impl Future<Output = lapin::Result<T>>) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(ANSWER_DEADLINE, answer).await;
    Ok(answer.context("the broker did not answer in time")??)
}

/// A connection and a channel on it with confirms. It is cut when dropped: lapin would wait on, with a thread
/// and a socket, for a broker that does not answer.
pub(crate) struct Link {
    /// Tasks beside may still hold it; once cut, it ends all the same.
    pub(crate) connection: Arc<Connection>,
    pub(crate) channel: Channel,
    #[expect(dead_code, reason = "it is there to be dropped")]
    wire: Wire,
}

impl Link {
    /// Closes the connection in order. A broker logs a warning about one that is cut.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        answered(self.connection.close(200, "done".into())).await
    }
}

/// The socket under a connection, which ends with this.
#[derive(Default)]
struct Wire(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    socket: Option<Socket>,
    cut: bool,
}

impl Wire {
    fn hold(held: &Mutex<Held>, socket: SockRef<'_>) -> std::io::Result<()> {
        let socket = socket.try_clone()?;
        held.lock().unwrap_or_else(PoisonError::into_inner).socket = Some(socket);
        Ok(())
    }

    fn is_cut(held: &Mutex<Held>) -> bool {
        held.lock().unwrap_or_else(PoisonError::into_inner).cut
    }

    fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).socket = None;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.cut = true;
        if let Some(socket) = held.socket.take() {
            // Fails when it has ended already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// The broker's address and the names on it. With the scheme `amqps` it is spoken to by TLS alone, and its certificate
/// has to name the host; its authorities are in the file that the address names as `cacertfile`, as in RabbitMQ's own
/// (<https://www.rabbitmq.com/docs/uri-query-parameters>), else those that the system trusts.
#[derive(Debug)]
pub struct Topology {
    url: String,
    /// That of the address: RabbitMQ takes no message that names another one as its publisher.
    account: String,
    namespace: String,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) require_publisher: bool,
    /// Openings in a row that timed out.
    timed_out: AtomicU32,
    /// Retry queues that were declared on the present connections, and have settled.
    retry_queues: Mutex<HashSet<String>>,
}

impl Topology {
    pub fn new(url: &str, namespace: &str, subscriptions: Subscriptions) -> Self {
        // lapin keeps buffers of 32 frames each way: 8 MiB a connection at the
        // broker's 128 KiB. Longer messages go in several frames.
        let url = with_default(url, "frame_max", FRAME_MAX);
        let account = url.parse().map(|uri: AMQPUri| uri.authority.userinfo.username);
        Self {
            // An address that is none is refused when it is used.
            account: account.unwrap_or_default(),
            url: with_default(&url, "heartbeat", u32::from(HEARTBEAT)),
            namespace: namespace.to_owned(),
            subscriptions,
            require_publisher: false,
            timed_out: AtomicU32::new(0),
            retry_queues: Mutex::default(),
        }
    }

    /// Whether a consumer refuses events that don't name their publisher, as those of earlier releases don't.
    #[must_use]
    pub fn require_publisher(self, require_publisher: bool) -> Self {
        Self { require_publisher, ..self }
    }

    /// The account that everything is sent as.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Who gets events of this type.
    pub(crate) fn subscribers(&self, kind: &str) -> impl Iterator<Item = &'static str> {
        let of =
            move |(consumer, kinds): &(&'static str, &[&str])| kinds.contains(&kind).then_some(*consumer);
        self.subscriptions.iter().filter_map(of)
    }

    pub fn exchange(&self) -> String {
        format!("{}.events", self.namespace)
    }

    pub fn queue(&self, consumer: &str) -> String {
        format!("{}.{consumer}", self.namespace)
    }

    /// Where failed events of `consumer` end.
    pub fn dead_letters(&self, consumer: &str) -> String {
        format!("{}.{consumer}.dead", self.namespace)
    }

    /// The exchange to the retry queues and the dead letters of `consumer`. Nobody else sends anything there.
    pub fn dead_letter_exchange(&self, consumer: &str) -> String {
        format!("{}.{consumer}.aside", self.namespace)
    }

    /// A new connection and a channel with confirms on, with everything declared.
    /// The channel ends with the connection, so keep both.
    pub async fn connect(&self) -> anyhow::Result<(Connection, Channel)> {
        let (connection, channel) = self.open().await?;
        self.declare_exchange(&connection).await?;
        let declared = self.subscriptions.iter().map(|(consumer, _)| self.declare(&connection, consumer));
        for declared in join_all(declared).await {
            declared?;
        }
        Ok((connection, channel))
    }

    /// As [`Topology::connect`], but declares nothing.
    pub async fn open(&self) -> anyhow::Result<(Connection, Channel)> {
        let (connection, channel, wire) = self.opened().await?;
        // Both end by themselves.
        wire.release();
        Ok((connection, channel))
    }

    /// A new connection, on which nothing is declared.
    pub(crate) async fn link(&self) -> anyhow::Result<Link> {
        let (connection, channel, wire) = self.opened().await?;
        Ok(Link { connection: Arc::new(connection), channel, wire })
    }

    async fn opened(&self) -> anyhow::Result<(Connection, Channel, Wire)> {
        let wire = Wire::default();
        let before = self.timed_out.load(Ordering::Relaxed);
        match tokio::time::timeout(self.open_deadline(), self.connected(&wire)).await {
            Ok(opened) => {
                self.timed_out.store(0, Ordering::Relaxed);
                let (connection, channel) = opened?;
                // The broker may have forgotten what was declared before.
                self.retry_queues.lock().unwrap_or_else(PoisonError::into_inner).clear();
                Ok((connection, channel, wire))
            }
            Err(_) => {
                // Two that timed out at the same time count as one.
                let more = before.saturating_add(1);
                let _ = self.timed_out.compare_exchange(before, more, Ordering::Relaxed, Ordering::Relaxed);
                anyhow::bail!("the broker does not answer")
            }
        }
    }

    /// On a socket that notices when the broker's host is gone; heartbeats notice when the broker is.
    async fn connected(&self, wire: &Wire) -> anyhow::Result<(Connection, Channel)> {
        let uri: AMQPUri =
            self.url.parse().map_err(|error| anyhow::anyhow!("AMQP_URL is not an address: {error}"))?;
        let tls = match uri.scheme {
            AMQPScheme::AMQP => None,
            // Read each time: the file may have another authority by now.
            AMQPScheme::AMQPS => Some(RustlsConnector::from(tls::client(authorities(&self.url).as_deref())?)),
        };
        let held = wire.0.clone();
        let runtime = lapin::runtime::default_runtime()?;
        let connection = Connection::connector(
            uri,
            runtime,
            // lapin's own thread calls this again, with pauses, whoever still waits for it.
            async move |uri, runtime| {
                if Wire::is_cut(&held) {
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into());
                }
                let opened = async {
                    let host = uri.authority.host.as_str();
                    let addresses = runtime.to_socket_addrs((host.to_owned(), uri.authority.port));
                    let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                    if let AsyncTcpStream::Plain(stream) = &stream {
                        notice_loss(stream.get_ref())?;
                        Wire::hold(&held, SockRef::from(stream.get_ref()))?;
                    }
                    match &tls {
                        None => Ok(stream),
                        Some(tls) => stream.into_rustls(tls, host).await,
                    }
                };
                let opened = tokio::time::timeout(OPEN_DEADLINE, opened).await;
                Ok(opened.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?)
            },
            ConnectionProperties::default(),
        );
        let connection = connection.await.map_err(|error| match error.kind() {
            ErrorKind::IOError(io) => match tls::refusal(io, "the broker") {
                Some(refusal) => anyhow::anyhow!(refusal),
                None => error.into(),
            },
            _ => error.into(),
        })?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok((connection, channel))
    }

    fn open_deadline(&self) -> Duration {
        let tries = self.timed_out.load(Ordering::Relaxed).saturating_add(1);
        back_off(OPEN_DEADLINE, tries, LONGEST_OPEN_DEADLINE)
    }
}

/// The file with the certificates of the authorities that may vouch for the broker.
fn authorities(url: &str) -> Option<PathBuf> {
    let url = Url::parse(url).ok()?;
    url.query_pairs().find(|(name, _)| name == "cacertfile").map(|(_, file)| PathBuf::from(&*file))
}

/// The address with `setting`, unless it has one already.
fn with_default(url: &str, setting: &str, value: u32) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    if url.contains(&format!("{setting}=")) {
        url.to_owned()
    } else {
        format!("{url}{separator}{setting}={value}")
    }
}

/// Our names are far below AMQP's 255 bytes; a namespace that breaks this
/// fails at the first declaration.
pub(crate) fn name(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_nobody_subscribed_to_is_known_as_such() {
        let topology = Topology::new("amqp://localhost", "x", &[("a", &["one", "two"]), ("b", &["two"])]);
        assert_eq!(topology.subscribers("two").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(topology.subscribers("three").count(), 0);
    }

    #[tokio::test]
    async fn opening_a_silent_broker_times_out_later_each_time() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let topology = Topology::new(&format!("amqp://{}/%2f", silent.local_addr().unwrap()), "silent", &[]);
        let asked = std::time::Instant::now();
        let error = topology.open().await.unwrap_err();
        assert!(error.to_string().contains("does not answer"), "{error:#}");
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert_eq!(topology.open_deadline(), Duration::from_secs(8));
        topology.timed_out.fetch_add(30, Ordering::Relaxed);
        assert_eq!(topology.open_deadline(), LONGEST_OPEN_DEADLINE);
        // One that refuses says something.
        drop(silent);
        assert!(topology.open().await.is_err());
        assert_eq!(topology.open_deadline(), OPEN_DEADLINE);
    }
}

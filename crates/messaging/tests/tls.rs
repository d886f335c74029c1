//! A broker that speaks nothing but TLS: who gets through to it, and who is told why not.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use machine::layout::Layout;
use machine::servers::{start, tls};
use machine::state::Secrets;
use machine::supervisor::Supervisor;
use messaging::Topology;
use proto::events::{PRODUCT_UPDATED, SUBSCRIPTIONS};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use testing::proxy::Proxy;
use testing::within;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::common::Rig;

const PATIENCE: Duration = Duration::from_secs(60);

/// One at a time: a broker that starts takes a core for a while.
static TURN: Mutex<()> = Mutex::const_new(());

/// A broker with a certificate for `localhost`, and not for 127.0.0.1, of an authority of its own.
struct Broker {
    #[expect(dead_code, reason = "it is there to be dropped")]
    turn: MutexGuard<'static, ()>,
    layout: Layout,
    supervisor: Arc<Supervisor>,
    url: String,
    /// Another authority's certificate.
    stranger: PathBuf,
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Broker {
    async fn start() -> Self {
        let turn = TURN.lock().await;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let dir = std::env::temp_dir().join(format!("broker-tls-{}", Uuid::now_v7().simple()));
        let layout = Layout { root, dir, passing: true, measured: false, observed: false, tls: true };
        layout.prepare().unwrap();
        let servers = tls::of(&layout, tls::SERVERS);
        std::fs::create_dir_all(&servers).unwrap();
        let write = |name: &str, text: String| {
            let path = servers.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (trusted, key) = (authority("ours"), KeyPair::generate().unwrap());
        let names = CertificateParams::new([tls::HOST.to_owned()]).unwrap();
        write("tls.crt", names.signed_by(&key, &trusted).unwrap().pem());
        write("tls.key", key.serialize_pem());
        write("ca.crt", trusted.pem());
        std::fs::write(tls::authority(&layout), trusted.pem()).unwrap();
        let stranger = write("stranger.crt", authority("another").pem());
        let secrets = Secrets::load_or_create(&layout).unwrap();
        let supervisor = Supervisor::new(&layout).unwrap();
        let started = start::rabbitmq(&layout, &supervisor, &secrets, None, false).unwrap();
        let broker = Self { turn, layout, supervisor, url: started.admin_url(), stranger };
        start::rabbitmq_ready(&broker.supervisor, &started).unwrap();
        broker
    }

    /// Its host and port.
    fn host(&self) -> &str {
        let (_, after) = self.url.split_once('@').unwrap();
        after.split('/').next().unwrap()
    }

    async fn refused(&self, url: &str) -> String {
        assert_ne!(url, self.url);
        let topology = Topology::new(url, &testing::namespace(), SUBSCRIPTIONS);
        format!("{:#}", topology.open().await.unwrap_err())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.supervisor.stop();
        std::fs::remove_dir_all(&self.layout.dir).ok();
    }
}

async fn published(rig: &Rig) {
    let all = || async { (messaging::backlog(&rig.pool).await.unwrap().waiting == 0).then_some(()) };
    within(PATIENCE, "the outbox to be empty", all).await;
}

#[tokio::test]
async fn events_go_by_tls_to_the_broker_that_the_authority_names_and_to_no_other() {
    let broker = Broker::start().await;
    let rig = Rig::start_as("order", &broker.url, &broker.url, &testing::namespace()).await;
    rig.write(PRODUCT_UPDATED, 1..=100).await;
    rig.applied(100).await;
    published(&rig).await;

    let ours = tls::authority(&broker.layout).display().to_string();
    let another = broker.url.replace(&ours, &broker.stranger.display().to_string());
    let unknown = "the certificate of the broker is not of an authority that is trusted here";
    assert_eq!(broker.refused(&another).await, unknown);
    // The system's authorities don't know it either.
    let (system, _) = broker.url.split_once('?').unwrap();
    assert_eq!(broker.refused(system).await, unknown);
    let unnamed = broker.url.replace("@localhost:", "@127.0.0.1:");
    let name = "the certificate that the broker shows is for another name";
    assert_eq!(broker.refused(&unnamed).await, name);
    let missing = broker.url.replace(&ours, "/nonexistent/ca.crt");
    let said = broker.refused(&missing).await;
    assert!(said.starts_with("the certificates in /nonexistent/ca.crt can't be read"), "{said}");
    // Nor does it speak plain.
    broker.refused(&broker.url.replace("amqps:", "amqp:")).await;
}

#[tokio::test]
async fn a_broker_that_says_nothing_more_by_tls_is_left_and_reached_anew() {
    let broker = Broker::start().await;
    let proxy = Proxy::to(broker.host()).await;
    let through = broker.url.replace(broker.host(), &format!("{}:{}", tls::HOST, proxy.address.port()));
    let rig = Rig::start_as("order", &through, &broker.url, &testing::namespace()).await;
    rig.write(PRODUCT_UPDATED, 1..=1).await;
    rig.applied(1).await;
    published(&rig).await;
    let before = proxy.accepted();
    proxy.silence();
    // Heartbeats are all that idle ones have.
    let again = || async { (proxy.accepted() >= before + 2).then_some(()) };
    within(PATIENCE, "relay and consumer to connect again", again).await;
    let left = || async { (proxy.left() >= 2).then_some(()) };
    within(PATIENCE, "their old sockets to be closed", left).await;
    // One in the middle of its work too.
    rig.write(PRODUCT_UPDATED, 2..=500).await;
    proxy.silence();
    let all = || async { (rig.count("SELECT count(*) FROM effects").await == 500).then_some(()) };
    within(PATIENCE, "all to be applied", all).await;
    published(&rig).await;
}

#[tokio::test]
async fn to_an_address_with_tls_nothing_is_said_without() {
    let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = broker.local_addr().unwrap();
    let heard = tokio::spawn(async move {
        let (mut socket, _) = broker.accept().await.unwrap();
        let mut heard = Vec::new();
        // It answers nothing, and is given up.
        socket.read_to_end(&mut heard).await.ok();
        heard
    });
    let topology = Topology::new(&format!("amqps://order:secret@{address}/%2f"), "plain", SUBSCRIPTIONS);
    let error = topology.open().await.unwrap_err().to_string();
    assert_eq!(error, "the broker does not answer");
    let heard = tokio::time::timeout(PATIENCE, heard).await.expect("the socket is closed").unwrap();
    // A handshake record of TLS (RFC 8446, section 5.1).
    assert_eq!(heard[0], 22, "{heard:?}");
    let said = String::from_utf8_lossy(&heard);
    assert!(!said.contains("AMQP") && !said.contains("secret"), "{said}");
}

//! Many clients that listen to a replica of its own, whose memory is measured. The changes are made at
//! another replica. For figures: `cargo dockside bench listeners`.

#[path = "it/common/mod.rs"]
mod common;

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::Shop;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Fewer where nothing is optimised.
const LISTENERS: usize = if cfg!(debug_assertions) { 200 } else { 1000 };
/// Held by the bench alone.
const MEDIAN: Duration = Duration::from_millis(100);
const GROWTH_MIB: f64 = 64.0;

/// Reads until the text has come.
async fn until(stream: &mut TcpStream, text: &[u8]) {
    let (mut tail, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        let read = stream.read(&mut buffer).await.expect("the stream stays");
        assert!(read > 0, "the stream has ended");
        tail.extend_from_slice(&buffer[..read]);
        if tail.windows(text.len()).any(|window| window == text) {
            return;
        }
        tail.drain(..tail.len().saturating_sub(text.len()));
    }
}

/// The service as a process.
struct Replica {
    process: Child,
    address: String,
}

impl Replica {
    async fn start(shop: &Shop) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a bound port has an address").to_string();
        drop(listener);
        let process = Command::new(env!("CARGO_BIN_EXE_order"))
            .args(shop.args[1..].iter().filter(|arg| !arg.starts_with("--http-addr")))
            .arg(format!("--http-addr={address}"))
            .env("RUST_LOG", "error")
            .spawn()
            .expect("the service starts");
        let up = || async { TcpStream::connect(&address).await.ok().map(drop) };
        testing::eventually("the replica to listen", up).await;
        Self { process, address }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn resident_mib(process: &Child) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a size");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib / 1024.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_listeners_get_a_change_at_once_and_cost_little() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 1).await;
    let replica = Replica::start(&shop).await;
    // Warm: keys fetched, connections made.
    for _ in 0..2 {
        let url = format!("http://{}/api/v1/orders/{id}", replica.address);
        assert_eq!(common::send(shop.client.get(url).bearer_auth(&buyer.token)).await.status, 200);
    }
    let request = format!(
        "GET /api/v1/orders/{id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        buyer.token
    );
    let before = resident_mib(&replica.process);
    let (received, mut times) = mpsc::unbounded_channel();
    let (ready, mut listening) = mpsc::unbounded_channel();
    for _ in 0..LISTENERS / 50 {
        let mut opened = Vec::new();
        for _ in 0..50 {
            let mut stream = TcpStream::connect(&replica.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            opened.push(stream);
        }
        for mut stream in opened {
            let (received, ready) = (received.clone(), ready.clone());
            tokio::spawn(async move {
                until(&mut stream, b"\"status\":\"confirmed\",\"cancel_reason\"").await;
                ready.send(()).unwrap();
                until(&mut stream, b"\"status\":\"shipped\",\"cancel_reason\"").await;
                received.send(Instant::now()).unwrap();
                tokio::time::sleep(Duration::from_secs(60)).await; // stays connected
            });
        }
        for _ in 0..50 {
            listening.recv().await.unwrap();
        }
    }
    let growth = resident_mib(&replica.process) - before;

    let sent = Instant::now();
    let parcel = json!({"carrier": "Tern", "tracking_number": "T-1"});
    assert_eq!(staff.post_json(&format!("/orders/{id}/ship"), parcel).await.status, 200);
    let mut waits = Vec::with_capacity(LISTENERS);
    for _ in 0..LISTENERS {
        let at = tokio::time::timeout(Duration::from_secs(10), times.recv()).await.unwrap().unwrap();
        waits.push(at - sent);
    }
    waits.sort_unstable();
    let median = waits[LISTENERS / 2];
    println!("{growth:.1} MiB, median {median:?}, last {:?}", waits[LISTENERS - 1]);
    assert!(growth < GROWTH_MIB, "{growth:.1} MiB");
    // From the request on, so the writing of the change is in it.
    assert!(cfg!(debug_assertions) || median < MEDIAN, "{median:?}");
}

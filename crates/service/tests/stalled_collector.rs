//! A collector that hangs, dies and comes back: nobody waits for it, and what is traced meanwhile takes bounded memory.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

mod receiver;

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use service::telemetry;
use tokio::net::{TcpListener, TcpStream};

use receiver::Config;

/// Of what is traced while nobody takes it, 160 MiB in all.
const SPANS: usize = 40_000;
const TEXT: usize = 4 << 10;

/// The queue has 8 MiB of them; the rest is for what is being sent.
const MOST_GROWTH: usize = 48 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_or_is_gone_holds_up_nobody_and_costs_bounded_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = format!("--otel-exporter-otlp-endpoint=http://{address}");
    let telemetry = telemetry::start("shop", &Config::parse_from(["shop", &endpoint]).process).unwrap();
    let hangs = tokio::spawn(async move {
        let mut taken: Vec<TcpStream> = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            taken.push(stream);
        }
    });

    trace("warm up", 1);
    let before = resident();
    traced("hangs").await;
    let grown = resident().saturating_sub(before);
    assert!(grown < MOST_GROWTH, "{} MiB more", grown >> 20);

    hangs.abort();
    assert!(hangs.await.unwrap_err().is_cancelled());
    traced("gone").await;
    let grown = resident().saturating_sub(before);
    assert!(grown < MOST_GROWTH, "{} MiB more", grown >> 20);

    // It gets what is traced once it is back.
    let mut exports = receiver::start(again(address).await);
    let arrives = async {
        loop {
            trace("back", 1);
            match tokio::time::timeout(Duration::from_millis(200), exports.recv()).await {
                Ok(Some(export)) if receiver::spans(&export).any(|span| span.name == "back") => return,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(90), arrives).await.expect("spans to reach the collector again");
    tokio::task::spawn_blocking(move || telemetry.flush()).await.unwrap();
}

/// Traces it all, which would take minutes if anybody waited for an export.
async fn traced(name: &'static str) {
    let tracing = tokio::task::spawn_blocking(move || trace(name, SPANS));
    tokio::time::timeout(Duration::from_secs(60), tracing).await.expect("tracing to end").unwrap();
}

/// A killed collector's address may be held by the kernel for a moment.
async fn again(address: SocketAddr) -> TcpListener {
    testing::eventually("the collector's address to be free", || async {
        TcpListener::bind(address).await.ok()
    })
    .await
}

fn trace(name: &str, spans: usize) {
    let text = "x".repeat(TEXT);
    for _ in 0..spans {
        tracing::info_span!("work", otel.name = name, text);
    }
}

/// Bytes of memory that this process holds.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
}

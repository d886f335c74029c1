//! A long file: how many lines of it a second, and that the service never holds it. The only test of its
//! process, whose memory it measures. For figures: `cargo dockside bench import`.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

#[path = "it/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::{Shop, answer, shop};
use identity::Role;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Fewer where nothing is optimised, and a line takes several times as long.
const LINES: u64 = if cfg!(debug_assertions) { 20_000 } else { 100_000 };

/// Fewest lines a second, whatever becomes of them. Held by the bench alone.
const FEWEST: f64 = 5000.0;

/// Most that the service may grow by, in KiB.
const MOST: u64 = 64 * 1024;

#[derive(Clone, Copy)]
enum Pass {
    Create,
    Reprice,
    Reword,
    Restock,
    Again,
}

/// Some 600 bytes: a name, fifty words of a description, and two attributes.
fn line(n: u64, pass: Pass) -> String {
    const WORDS: [&str; 16] = [
        "harbour",
        "coastal",
        "northern",
        "tidal",
        "granite",
        "amber",
        "quiet",
        "brass",
        "alpine",
        "woven",
        "jacket",
        "sweater",
        "lantern",
        "compass",
        "telescope",
        "blanket",
    ];
    let word = |seed: u64| WORDS[(seed % 16) as usize];
    let (new_price, new_words) =
        (!matches!(pass, Pass::Create), matches!(pass, Pass::Reword | Pass::Restock | Pass::Again));
    let description: String = (0..50).map(|m| format!("{} ", word(n / 3 + m * (1 + n % 7)))).collect();
    let line = json!({
        "sku": format!("S-{n:06}"),
        "name": format!("{} {} {} {n}", word(n), word(n / 16), word(n / 256)),
        "description": format!("{description}{}", if new_words { "anew" } else { "" }),
        "price": {"amount": 1000 + n % 5000 + u64::from(new_price), "currency": "EUR"},
        "category": if n.is_multiple_of(3) { "t-sea" } else { "t-rope" },
        "attributes": {"color": word(n / 5), "line": format!("l{}", n % 2000)},
        "stock": if matches!(pass, Pass::Restock | Pass::Again) { 8 } else { 7 },
    });
    format!("{line}\n")
}

/// Imports all lines, made as they are sent.
async fn import(shop: &Shop, pass: Pass) -> Value {
    let address = shop.base.strip_prefix("http://").unwrap().strip_suffix("/api/v1").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /api/v1/product-imports HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
         content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n",
        shop.token(Role::Staff),
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for hundred in 0..LINES / 100 {
        let chunk: String = (0..100).map(|n| line(hundred * 100 + n, pass)).collect();
        stream.write_all(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes()).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(body).unwrap()
}

/// What the process has in memory, in KiB: now, and at most so far.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// An export of the shop contains nothing new for it.
async fn round_trip(shop: &Shop, products: u64) {
    let long = Duration::from_secs(600);
    let begun = Instant::now();
    let export = shop.staff(Method::GET, "/product-exports").timeout(long).send().await.unwrap();
    let file = export.bytes().await.unwrap();
    println!("{:>7.0} lines/s: exported", products as f64 / begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let import = shop.staff(Method::POST, "/product-imports").header("content-type", "text/csv");
    let report = answer(import.timeout(long).body(file).send().await.unwrap()).await;
    println!("{:>7.0} lines/s: as exported", products as f64 / begun.elapsed().as_secs_f64());
    let expected = json!({"created": 0, "updated": products, "unchanged": products, "failed": 0,
        "price_unit": "major", "errors": []});
    assert_eq!(report, (200, expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_file_is_imported_in_little_memory() {
    let shop = shop().await;
    // Whatever a first import sets up is not the file's.
    shop.product(json!({})).await;
    for (pass, what, [created, updated, unchanged]) in [
        (Pass::Create, "created", [LINES, 0, 0]),
        (Pass::Reprice, "given another price", [0, LINES, 0]),
        (Pass::Reword, "given another description", [0, LINES, 0]),
        (Pass::Restock, "given another stock", [0, LINES, 0]),
        (Pass::Again, "unchanged", [0, LINES, LINES]),
    ] {
        let (before, _) = memory();
        let begun = Instant::now();
        let report = import(&shop, pass).await;
        let seconds = begun.elapsed().as_secs_f64();
        let grown = memory().1.saturating_sub(before);
        let rate = LINES as f64 / seconds;
        println!("{rate:>7.0} lines/s, {:>3} MiB more: {what}", grown / 1024);
        let expected = json!({"created": created, "updated": updated, "unchanged": unchanged, "failed": 0,
            "price_unit": "minor", "errors": []});
        assert_eq!(report, expected);
        assert!(grown < MOST, "{grown} KiB more while lines are {what}");
        assert!(cfg!(debug_assertions) || rate >= FEWEST, "{rate:.0} lines a second are {what}");
    }
    round_trip(&shop, LINES + 1).await;
    shop.assert_books_balance().await;
}

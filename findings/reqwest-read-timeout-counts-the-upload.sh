#!/usr/bin/env bash
# reqwest: `read_timeout` also ends a request that is still being sent.
#
# Its page says that the time-out is for each read and starts anew after one that succeeds. So one expects that a client
# may upload for as long as it likes while bytes flow, and that the time-out counts from when it waits for an answer.
# Seen, reqwest 0.13.5: the time starts when the request does, and nothing but the answer's head stops it. An upload that
# takes longer is cut in the middle, though it never stood still for half of that time. The answer's body is read as the
# page says. A client for uploads needs a client of its own, without `read_timeout`, and `timeout` for the whole.
#
# Exits 0 when this is still so, 1 when not, 2 when it could not be tried. Needs cargo, and a minute.
set -uo pipefail
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "uploads"
version = "0.0.0"
edition = "2024"

[dependencies]
futures-util = "0.3"
reqwest = { version = "=0.13.5", default-features = false, features = ["stream"] }
tokio = { version = "1", features = ["rt-multi-thread", "macros", "time"] }
TOML
cat >"$work/src/main.rs" <<'RUST'
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Reads a body in chunks to its end, and answers at once.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
            while !seen.ends_with(b"0\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(n) if n > 0 => seen.extend_from_slice(&buffer[..n]),
                    _ => break,
                }
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    url
}

/// Sends ten bytes every 300 ms, ten times.
async fn upload(url: &str, client: reqwest::Client) -> String {
    let chunks = futures_util::stream::unfold(0, |n| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        (n < 10).then_some((Ok::<_, std::io::Error>("0123456789"), n + 1))
    });
    let begun = Instant::now();
    let answer = client.post(url).body(reqwest::Body::wrap_stream(chunks)).send().await;
    let seconds = begun.elapsed().as_secs();
    match answer {
        Ok(answer) => format!("{} after {seconds} s", answer.status().as_u16()),
        Err(error) if error.is_timeout() => format!("timed out after {seconds} s"),
        Err(error) => format!("{error:?}"),
    }
}

#[tokio::main]
async fn main() {
    let url = server();
    let client = || reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20));
    println!("without read_timeout: {}", upload(&url, client().build().unwrap()).await);
    let limited = client().read_timeout(Duration::from_secs(1)).build().unwrap();
    println!("read_timeout of 1 s: {}", upload(&url, limited).await);
}
RUST
cargo run --quiet --manifest-path "$work/Cargo.toml" --target-dir "$work/target" >"$work/seen" || exit 2
cat "$work/seen"
if grep -q '^without read_timeout: 200 after 3 s' "$work/seen" && grep -q '^read_timeout of 1 s: timed out after 1 s' "$work/seen"; then
  echo 'as described'
else
  echo 'not as described'
  exit 1
fi

#!/usr/bin/env bash
# sqlx: a server that hangs up before it has answered the request for TLS is reported as a fault of the protocol.
#
# A balancer that has no server to pass a connection to accepts it and closes it again. That is what a client sees for a
# second or two when HAProxy is started anew or a primary fails over.
# Expected: an error of input and output (`Error::Io`), as for a connection that ends at any other moment, so that a client
# which tries again after these tries again here.
# Seen, sqlx 0.9.0 with its default `sslmode=prefer`: `Error::Protocol`, "unexpected response from SSLRequest: 0x00". The
# zero is no byte of the server's: nothing was read. With `sslmode=disable` the same hang-up is an `Error::Io`.
#
# Exits 0 when this is still so, 1 when not, 2 when it could not be tried. Needs cargo, and two minutes.
set -uo pipefail
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "hang-up"
version = "0.0.0"
edition = "2024"

[dependencies]
sqlx = { version = "=0.9.0", default-features = false, features = ["runtime-tokio", "postgres", "tls-rustls-ring-webpki"] }
tokio = { version = "1", features = ["io-util", "macros", "net", "rt"] }
TOML
cat >"$work/src/main.rs" <<'RUST'
use sqlx::{Connection, Error, PgConnection};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            // The client's first eight bytes, and then the end.
            client.read_exact(&mut [0; 8]).await.ok();
        }
    });
    for mode in ["prefer", "disable"] {
        let url = format!("postgres://shop@127.0.0.1:{port}/shop?sslmode={mode}");
        match PgConnection::connect(&url).await {
            Err(Error::Protocol(text)) => println!("{mode}: Protocol: {text}"),
            Err(Error::Io(error)) => println!("{mode}: Io: {:?}", error.kind()),
            Err(other) => println!("{mode}: {other:?}"),
            Ok(_) => println!("{mode}: connected"),
        }
    }
}
RUST
cargo run --quiet --manifest-path "$work/Cargo.toml" --target-dir "$work/target" >"$work/seen" || exit 2
cat "$work/seen"
if grep -q '^prefer: Protocol: unexpected response from SSLRequest: 0x00' "$work/seen" &&
  grep -q '^disable: Io: ' "$work/seen"; then
  echo 'as described'
else
  echo 'not as described'
  exit 1
fi

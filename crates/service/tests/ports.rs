//! A service that starts or stops loses no request: every client that gets a connection gets an answer.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use service::Lifecycle;
use service::config::Listen;
use service::grpc::Retries;
use service::serve::{Addresses, Ports};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const GRACE: Duration = Duration::from_secs(10);

fn listen() -> Listen {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let requests_at_once = NonZeroU16::new(128).unwrap();
    Listen { http_addr: any, grpc_addr: any, admin_addr: any, requests_at_once, tls_dir: None }
}

/// A service whose POST /work takes a moment.
async fn start() -> (Lifecycle, Addresses) {
    let Listen { http_addr, grpc_addr, .. } = listen();
    start_at(http_addr, grpc_addr).await
}

async fn start_at(http_addr: SocketAddr, grpc_addr: SocketAddr) -> (Lifecycle, Addresses) {
    let lifecycle = Lifecycle::new();
    let ports = Ports::bind(&Listen { http_addr, grpc_addr, ..listen() }, &lifecycle).unwrap();
    let work = post(async || {
        tokio::time::sleep(Duration::from_millis(2)).await;
        "done"
    });
    let pool = service::db::Pool::lazy("postgres://nobody@localhost/none", "none", 10).unwrap();
    let addresses = ports
        .serve(&lifecycle, &pool, Router::new().route("/work", work), service::grpc::Api::default())
        .unwrap();
    (lifecycle, addresses)
}

async fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"POST /work HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await
}

/// One answer's head and body. Fails when the connection ends before it is there.
async fn answer(stream: &mut TcpStream) -> io::Result<String> {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\ndone") {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8_lossy(&read).into_owned())
}

#[tokio::test]
async fn until_it_is_ready_a_service_answers_its_probes_and_refuses_connections() {
    let lifecycle = Lifecycle::new();
    let ports = Ports::bind(&listen(), &lifecycle).unwrap();
    let Addresses { http, grpc, admin } = ports.addresses;
    let startup = async || reqwest::get(format!("http://{admin}/startupz")).await.unwrap().status();
    assert_eq!(startup().await, 503);
    for refused in [TcpStream::connect(http).await, TcpStream::connect(grpc).await] {
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    let pool = service::db::Pool::lazy("postgres://nobody@localhost/none", "none", 10).unwrap();
    ports.serve(&lifecycle, &pool, Router::new(), service::grpc::Api::default()).unwrap();
    assert_eq!(startup().await, 200);
    TcpStream::connect(http).await.unwrap();
    assert!(lifecycle.shutdown(GRACE).await);
}

#[tokio::test]
async fn while_a_service_stops_each_answer_is_its_connections_last() {
    let (lifecycle, addresses) = start().await;
    let mut kept = TcpStream::connect(addresses.http).await.unwrap();
    ask(&mut kept).await.unwrap();
    assert!(!answer(&mut kept).await.unwrap().contains("connection:"));

    lifecycle.health().stopping();
    for mut stream in [kept, TcpStream::connect(addresses.http).await.unwrap()] {
        ask(&mut stream).await.unwrap();
        let last = answer(&mut stream).await.unwrap();
        assert!(
            last.starts_with("HTTP/1.1 200 OK\r\n") && last.contains("\r\nconnection: close\r\n"),
            "{last}"
        );
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the end, and no reset");
    }
    assert!(lifecycle.shutdown(GRACE).await);
}

// On other systems a port can't ignore new connections.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn who_gets_a_connection_while_the_port_closes_gets_an_answer() {
    for _ in 0..10 {
        let (lifecycle, addresses) = start().await;
        let mut clients = JoinSet::new();
        let all_at_it = Arc::new(Barrier::new(17));
        for _ in 0..16 {
            let all_at_it = all_at_it.clone();
            clients.spawn(async move {
                let mut answered = 0;
                // Not let in any more: neither lost nor in doubt, as nothing was sent.
                while let Ok(Ok(mut stream)) =
                    tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(addresses.http)).await
                {
                    ask(&mut stream).await.expect("a connection that takes a request");
                    answer(&mut stream).await.expect("an answer");
                    answered += 1;
                    if answered == 1 {
                        all_at_it.wait().await;
                    }
                }
            });
        }
        all_at_it.wait().await;
        assert!(lifecycle.shutdown(GRACE).await);
        clients.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_while_one_of_the_named_replicas_after_the_other_is_replaced() {
    let (mut first, one) = start().await;
    let (mut second, other) = start().await;
    let addresses = format!("http://{},http://{}", one.grpc, other.grpc);
    let client = HealthClient::new(service::grpc::Replicas::new(&addresses, None).unwrap());
    let stopped = CancellationToken::new();
    let retries = Retries::default();
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (client, stopped, retries) = (client.clone(), stopped.clone(), retries.clone());
        clients.spawn(async move {
            let mut calls = 0;
            while !stopped.is_cancelled() {
                let check = |request| {
                    let mut client = client.clone();
                    async move { client.check(request).await }
                };
                let message = HealthCheckRequest::default();
                service::grpc::call(&retries, message, GRACE, "", check).await.expect("an answer");
                calls += 1;
            }
            calls
        });
    }
    for _ in 0..2 {
        for (lifecycle, addresses) in [(&mut first, one), (&mut second, other)] {
            assert!(lifecycle.shutdown(GRACE).await);
            *lifecycle = start_at(addresses.http, addresses.grpc).await.0;
            // Until the others have surely come back to it: it was passed over for a second at most.
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
    }
    stopped.cancel();
    let calls = clients.join_all().await;
    assert!(calls.iter().all(|calls| *calls > 100), "{calls:?}");
    assert!(first.shutdown(GRACE).await && second.shutdown(GRACE).await);
}

/// An address behind which there are two replicas: connections go to the first while it takes them.
async fn either(first: SocketAddr, second: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let patience = Duration::from_millis(100);
            let replica = match tokio::time::timeout(patience, TcpStream::connect(first)).await {
                Ok(Ok(replica)) => Ok(replica),
                _ => TcpStream::connect(second).await,
            };
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut client, &mut replica.unwrap()).await },
            );
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_on_a_kept_channel_go_on_at_another_replica() {
    let (survivor, other) = start().await;
    for _ in 0..10 {
        let (lifecycle, addresses) = start().await;
        let channel =
            service::grpc::channel(&format!("http://{}", either(addresses.grpc, other.grpc).await)).unwrap();
        let mut clients = JoinSet::new();
        let (all_at_it, stopped) = (Arc::new(Barrier::new(9)), CancellationToken::new());
        let retries = Retries::default();
        for _ in 0..8 {
            let retries = retries.clone();
            let client = HealthClient::new(channel.clone());
            let (all_at_it, stopped) = (all_at_it.clone(), stopped.clone());
            clients.spawn(async move {
                let call = async || {
                    let message = HealthCheckRequest::default();
                    let check = |request| {
                        let mut client = client.clone();
                        async move { client.check(request).await }
                    };
                    service::grpc::call(&retries, message, GRACE, "", check).await.expect("an answer");
                };
                call().await;
                all_at_it.wait().await;
                while !stopped.is_cancelled() {
                    call().await;
                }
                call().await;
            });
        }
        all_at_it.wait().await;
        assert!(lifecycle.shutdown(GRACE).await);
        stopped.cancel();
        clients.join_all().await;
    }
    assert!(survivor.shutdown(GRACE).await);
}

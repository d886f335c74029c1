//! A peer that is gone without a packet holds nobody for long.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use axum::Router;
use service::Lifecycle;
use service::config::Listen;
use service::grpc::{Replicas, request};
use service::serve::Ports;
use testing::proxy::Proxy;
use testing::{eventually, within};
use tokio::net::TcpListener;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

fn serve(lifecycle: &Lifecycle) -> SocketAddr {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let requests_at_once = NonZeroU16::new(128).unwrap();
    let listen = Listen { http_addr: any, grpc_addr: any, admin_addr: any, requests_at_once, tls_dir: None };
    let ports = Ports::bind(&listen, lifecycle).unwrap();
    let pool = service::db::Pool::lazy("postgres://nobody@localhost/none", "none", 10).unwrap();
    ports.serve(lifecycle, &pool, Router::new(), service::grpc::Api::default()).unwrap().grpc
}

#[tokio::test]
async fn calls_go_through_a_new_connection_soon_after_the_old_one_fell_silent() {
    let lifecycle = Lifecycle::new();
    let proxy = Proxy::to(serve(&lifecycle).to_string()).await;
    let client = HealthClient::new(Replicas::new(&format!("http://{}", proxy.address), None).unwrap());
    let call = || async {
        let ask = request(HealthCheckRequest::default(), Duration::from_secs(1), "token").unwrap();
        client.clone().check(ask).await.ok()
    };
    eventually("an answer", call).await;
    proxy.silence();
    assert!(call().await.is_none());
    eventually("an answer on a new connection", call).await;
    assert_eq!(proxy.accepted(), 2);
    let left = || async { (proxy.left() == 2).then_some(()) };
    within(Duration::from_secs(30), "client and server to have left the old one", left).await;
}

#[tokio::test]
async fn an_http_call_to_a_server_that_says_nothing_ends_at_its_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = service::socket::http_client(Duration::from_millis(300)).build().unwrap();
    let asked = client.get(format!("http://{}/", silent.local_addr().unwrap())).send().await;
    assert!(asked.unwrap_err().is_timeout());
}

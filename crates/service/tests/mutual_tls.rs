//! gRPC by TLS with both sides' certificates: who gets through, who does not, and files that change meanwhile.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use service::Lifecycle;
use service::config::Listen;
use service::grpc::{Api, Replicas, request};
use service::serve::Ports;
use service::tls::{self, Identity};
use testing::eventually;
use tonic::Status;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use uuid::Uuid;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes what a service of this name shows, and whom it believes.
    fn write(&self, folder: &Path, name: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("ca.crt"), self.0.pem()).unwrap();
    }

    fn identity(&self, name: &str) -> (Folder, Identity) {
        let folder = Folder::new();
        self.write(&folder.0, name);
        let identity = Identity::open(&folder.0).unwrap();
        (folder, identity)
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("mutual-tls-{}", Uuid::now_v7().simple()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn serve(folder: &Path, lifecycle: &Lifecycle) -> SocketAddr {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let requests_at_once = NonZeroU16::new(128).unwrap();
    let tls_dir = Some(folder.to_owned());
    let listen = Listen { http_addr: any, grpc_addr: any, admin_addr: any, requests_at_once, tls_dir };
    let ports = Ports::bind(&listen, lifecycle).unwrap();
    let pool = service::db::Pool::lazy("postgres://nobody@localhost/none", "none", 10).unwrap();
    let pages = Router::new().route("/keys", get(async || "keys"));
    ports.serve(lifecycle, &pool, Router::new(), Api { pages, ..Api::default() }).unwrap().grpc
}

/// One call on a connection of its own.
async fn call(address: &str, identity: Option<&Identity>) -> Result<(), Status> {
    let mut client = HealthClient::new(Replicas::new(address, identity).unwrap());
    let ask = request(HealthCheckRequest::default(), Duration::from_secs(10), "token").unwrap();
    client.check(ask).await.map(drop)
}

#[tokio::test]
async fn only_services_of_the_same_authority_talk_and_only_to_the_one_that_they_name() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (server, _) = ours.identity("localhost");
    let (_client, client) = ours.identity("order");
    let (_stranger, stranger) = theirs.identity("order");
    let lifecycle = Lifecycle::new();
    let port = serve(&server.0, &lifecycle).port();
    let address = format!("https://localhost:{port}");
    let up = || async { call(&address, Some(&client)).await.ok() };
    eventually("an answer", up).await;

    call(&address, Some(&stranger)).await.unwrap_err();
    call(&format!("https://127.0.0.1:{port}"), Some(&client)).await.unwrap_err();
    call(&format!("http://localhost:{port}"), Some(&client)).await.unwrap_err();
    // Who believes the server and shows nothing.
    let trusting = service::tls::client(Some(&server.0.join("ca.crt"))).unwrap();
    let web = |tls| reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
    let page = format!("https://localhost:{port}/keys");
    web(trusting).get(&page).send().await.unwrap_err();
    let got = web(client.client(tls::HTTP_1)).get(&page).send().await.unwrap();
    assert_eq!(got.text().await.unwrap(), "keys");
    // None of them kept it from anybody else.
    call(&address, Some(&client)).await.unwrap();
}

#[tokio::test]
async fn files_that_change_count_for_new_connections_and_bad_ones_for_none() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let (server, _) = before.identity("localhost");
    let (folder, client) = before.identity("order");
    let (_old, old) = before.identity("order");
    let lifecycle = Lifecycle::new();
    let address = format!("https://localhost:{}", serve(&server.0, &lifecycle).port());
    let up = || async { call(&address, Some(&client)).await.ok() };
    eventually("an answer", up).await;

    // A certificate whose key has not come yet.
    let key = std::fs::read(server.0.join("tls.key")).unwrap();
    std::fs::write(server.0.join("tls.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    call(&address, Some(&client)).await.unwrap();
    std::fs::write(server.0.join("tls.key"), key).unwrap();
    call(&address, Some(&client)).await.unwrap();

    after.write(&server.0, "localhost");
    call(&address, Some(&client)).await.unwrap_err();
    after.write(&folder.0, "order");
    call(&address, Some(&client)).await.unwrap();
    call(&address, Some(&old)).await.unwrap_err();
}

#[test]
fn a_folder_that_lacks_a_file_is_refused_by_its_name() {
    let (folder, _) = Authority::new("ours").identity("order");
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        let file = folder.0.join(name);
        let text = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let error = Identity::open(&folder.0).err().unwrap();
        assert!(error.to_string().contains(&file.display().to_string()), "{error:#}");
        std::fs::write(&file, text).unwrap();
    }
    Identity::open(&folder.0).unwrap();
}

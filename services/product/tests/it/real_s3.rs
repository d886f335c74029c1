//! Images in a bucket of a real S3 server, which dies, hangs and comes back: `cargo dockside matrix`.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{Shop, answer, shop_with};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// What the service waits for the store at most, and a little: `product::objects`.
const BOUND: Duration = Duration::from_secs(40);

/// SeaweedFS in a process of its own, with its data in a folder.
struct Seaweed {
    program: PathBuf,
    folder: PathBuf,
    ports: Vec<u16>,
    process: Option<Child>,
}

impl Seaweed {
    /// One with the bucket `shop-bucket`; `None`, and a line on standard error, where there is no such program.
    async fn start() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "tests have no settings of their own")]
        let Ok(program) = std::env::var("TEST_WEED") else {
            // Not by a macro, whose output a test that passes keeps to itself.
            let text = b"\nSKIPPED, no S3 server: TEST_WEED is not set. `cargo dockside matrix` gets one.\n";
            std::io::stderr().write_all(text).ok();
            return None;
        };
        let folder = std::env::temp_dir().join(testing::namespace());
        std::fs::create_dir(&folder).unwrap();
        let account = json!({"name": "shop", "actions": ["Admin", "Read", "Write", "List"],
            "credentials": [{"accessKey": "the-key", "secretKey": "the-secret"}]});
        std::fs::write(folder.join("s3.json"), json!({ "identities": [account] }).to_string()).unwrap();
        // Held until all are chosen, so that they differ.
        let free: Vec<_> = (0..8).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        let ports = free.iter().map(|port| port.local_addr().unwrap().port()).collect();
        drop(free);
        let mut seaweed = Self { program: program.into(), folder, ports, process: None };
        seaweed.run().await;
        let bucket = format!("http://127.0.0.1:{}/buckets/shop-bucket/", seaweed.ports[4]);
        let client = client();
        testing::within(Duration::from_secs(60), "a bucket to be made", async || {
            client.post(&bucket).send().await.ok()?.status().is_success().then_some(())
        })
        .await;
        Some(seaweed)
    }

    /// Until its S3 answers.
    async fn run(&mut self) {
        let mut command = Command::new(&self.program);
        command.arg("server").arg(format!("-dir={}", self.folder.display()));
        command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-volume.max=8"]);
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        let names = ["master", "volume", "filer", "s3"]
            .map(|name| [format!("{name}.port"), format!("{name}.port.grpc")]);
        command.args(names.iter().flatten().zip(&self.ports).map(|(name, port)| format!("-{name}={port}")));
        command.arg(format!("-s3.config={}", self.folder.join("s3.json").display()));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.process = Some(child);
        let (client, endpoint) = (client(), self.endpoint());
        testing::within(Duration::from_secs(60), "S3 to answer", async || {
            (client.get(&endpoint).send().await.ok()?.status() == StatusCode::FORBIDDEN).then_some(())
        })
        .await;
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[6])
    }

    fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }
}

impl Drop for Seaweed {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn client() -> Client {
    Client::builder().timeout(BOUND).no_proxy().build().unwrap()
}

/// An image of 2 MiB that differs by `number`.
fn image(number: u64) -> Vec<u8> {
    let mut image = b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR".to_vec();
    while image.len() < 2 << 20 {
        image.extend(number.to_le_bytes());
    }
    image
}

fn path(product: &str, place: u64) -> String {
    format!("/products/{product}/images/{place}")
}

/// Returns the outcome: stored, or refused for now.
async fn put(shop: &Shop, path: &str, image: Vec<u8>) -> bool {
    let request =
        shop.staff(Method::PUT, path).timeout(BOUND).header("content-type", "image/png").body(image);
    let response = request.send().await.expect("an answer within the service's deadlines");
    let again = response.headers().get("retry-after").cloned();
    let (status, body) = answer(response).await;
    if status < 300 {
        return true;
    }
    assert_eq!((status, &body["code"]), (503, &json!("service_unavailable")), "{body}");
    assert_eq!(again.expect("a refusal says when to come again"), "1");
    false
}

/// What is shown; `None` while the store is away.
async fn get(shop: &Shop, path: &str) -> Option<(StatusCode, Vec<u8>)> {
    let response = shop.anyone(Method::GET, path).timeout(BOUND).send().await.expect("an answer in time");
    let status = response.status();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        assert_eq!(response.headers()["retry-after"], "1");
        return None;
    }
    Some((status, response.bytes().await.unwrap().to_vec()))
}

async fn shown(shop: &Shop, product: &str) -> Vec<Value> {
    shop.get(&format!("/products/{product}")).await.1["images"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn images_outlive_an_s3_server_that_dies_hangs_and_is_away() {
    let Some(mut seaweed) = Seaweed::start().await else { return };
    let shop = shop_with(&[
        "--object-store-url=s3://shop-bucket/a/prefix",
        &format!("--aws-endpoint-url={}", seaweed.endpoint()),
        "--aws-region=us-east-1",
        "--aws-access-key-id=the-key",
        "--aws-secret-access-key=the-secret",
    ])
    .await;
    let shop = Arc::new(shop);
    let kept = shop.stocked(1).await;
    testing::within(Duration::from_secs(60), "the first image to be stored", async || {
        put(&shop, &path(&kept, 0), image(0)).await.then_some(())
    })
    .await;
    assert!(get(&shop, &path(&kept, 0)).await == Some((StatusCode::OK, image(0))));

    // It dies in the middle of uploads, as many as a replica takes at once.
    let stored = Arc::new(AtomicUsize::new(0));
    let mut uploads = JoinSet::new();
    for worker in 0..2_u64 {
        let (shop, stored, product) = (shop.clone(), stored.clone(), shop.stocked(1).await);
        uploads.spawn(async move {
            let mut images = Vec::new();
            for place in 0..10 {
                let number = 100 * worker + place;
                if put(&shop, &path(&product, place), image(number)).await {
                    images.push((place, number));
                    stored.fetch_add(1, Ordering::Relaxed);
                }
            }
            (product, images)
        });
    }
    let some = async || (stored.load(Ordering::Relaxed) > 0).then_some(());
    testing::within(BOUND, "an upload to be stored", some).await;
    seaweed.kill();
    let uploads = uploads.join_all().await;
    assert!(stored.load(Ordering::Relaxed) < 20, "it died when all was over");

    // While it is away uploads are refused, and all else works.
    let other = shop.stocked(1).await;
    assert!(!put(&shop, &path(&other, 0), image(7)).await);
    assert_eq!(get(&shop, &path(&kept, 0)).await, None);
    assert_eq!(shown(&shop, &other).await, Vec::<Value>::new());

    // It comes back, and hangs: waits end.
    seaweed.run().await;
    let back = async || put(&shop, &path(&other, 0), image(7)).await.then_some(());
    testing::within(Duration::from_secs(90), "uploads to work again", back).await;
    seaweed.signal("-STOP");
    let (upload, kept_image) = (path(&other, 1), path(&kept, 0));
    let (stored, seen) = tokio::join!(put(&shop, &upload, image(8)), get(&shop, &kept_image));
    seaweed.signal("-CONT");
    assert!(!stored && seen.is_none(), "an answer from a server that hangs");

    let back = async || put(&shop, &path(&other, 1), image(9)).await.then_some(());
    testing::within(Duration::from_secs(90), "uploads to work again", back).await;
    assert!(get(&shop, &path(&other, 1)).await == Some((StatusCode::OK, image(9))));
    assert!(get(&shop, &path(&kept, 0)).await == Some((StatusCode::OK, image(0))));
    // Whatever was answered is there, whole; nothing else is shown.
    for (product, images) in uploads {
        assert_eq!(shown(&shop, &product).await.len(), images.len(), "{product}");
        for (place, number) in images {
            let whole = Some((StatusCode::OK, image(number)));
            assert!(get(&shop, &path(&product, place)).await == whole, "{product} {place}");
        }
    }
}

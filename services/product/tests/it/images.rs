//! Uploaded images, in a folder and in a bucket.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{Shop, answer, form, id, shop, shop_with};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method as Verb, StatusCode, Uri};
use identity::Role;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PNG: &[u8] = b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR and what follows";
const JPEG: &[u8] = b"\xFF\xD8\xFF\xE0\0\x10JFIF and what follows";
const WEBP: &[u8] = b"RIFF\x24\0\0\0WEBPVP8 and what follows";
const LIMIT: usize = 10 * 1024 * 1024;

impl Shop {
    async fn put_image(&self, path: &str, kind: &str, bytes: &[u8]) -> (u16, Value) {
        let request = self.staff(Method::PUT, path).header("content-type", kind).body(bytes.to_vec());
        answer(request.send().await.unwrap()).await
    }

    /// Sends `length` (or chunks of any) and what comes of the body, no more, and returns the answer.
    async fn begin_image(&self, path: &str, length: Option<usize>, body: &[u8]) -> String {
        let address = self.base.strip_prefix("http://").unwrap().strip_suffix("/api/v1").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let length = match length {
            Some(length) => format!("content-length: {length}"),
            None => "transfer-encoding: chunked".to_owned(),
        };
        let head = format!(
            "PUT /api/v1{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
             content-type: image/png\r\n{length}\r\n\r\n",
            self.token(Role::Staff),
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn images(&self, product: &str) -> Value {
        self.get(&format!("/products/{product}")).await.1["images"].clone()
    }

    async fn patch_images(&self, product: &str, images: Value) -> (u16, Value) {
        let patch = self.staff(Method::PATCH, &format!("/products/{product}")).header("if-match", "*");
        answer(patch.json(&json!({ "images": images })).send().await.unwrap()).await
    }

    /// Makes everything that is to be deleted due at once, and waits for the sweep of a new replica.
    async fn sweep(&self) {
        let due = "UPDATE products.discarded_objects SET delete_at = now() - interval '1 s'";
        sqlx::query(due).execute(&self.pool).await.unwrap();
        self.replica().await;
        testing::eventually("all that is to be deleted is", async || {
            let query = "SELECT count(*) FROM products.discarded_objects";
            let left: i64 = sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap();
            (left == 0).then_some(())
        })
        .await;
    }
}

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![std::fs::read(path).unwrap()] })
        .collect()
}

#[tokio::test]
async fn an_image_comes_back_as_it_was_sent() {
    let shop = shop().await;
    let product = shop.product(json!({"images": ["https://a.example/1.jpg"]})).await;
    let (product, slug) = (id(&product), product["slug"].as_str().unwrap().to_owned());
    for (place, kind, bytes) in [(0, "image/png", PNG), (9, "image/jpeg", JPEG), (3, "image/webp", WEBP)] {
        let path = format!("/products/{product}/images/{place}");
        let (status, uploaded) = shop.put_image(&path, kind, bytes).await;
        let url = format!("/api/v1{path}");
        let wanted = json!({"url": url, "content_type": kind, "size": bytes.len()});
        assert_eq!((status, uploaded), (201, wanted));
        for path in [&path, &format!("/products/{slug}/images/{place}")] {
            let response = shop.anyone(Method::GET, path).send().await.unwrap();
            assert_eq!(response.status(), 200);
            let headers = response.headers().clone();
            assert_eq!(headers["content-type"], kind);
            assert_eq!(headers["x-content-type-options"], "nosniff");
            assert_eq!(headers["content-length"], bytes.len().to_string());
            assert!(headers["cache-control"].to_str().unwrap().starts_with("public"));
            assert_eq!(response.bytes().await.unwrap(), bytes);
            let again = shop.anyone(Method::GET, path).header("if-none-match", &headers["etag"]).send().await;
            assert_eq!(again.unwrap().status(), 304);
        }
    }
    let own = |place: u8| format!("/api/v1/products/{product}/images/{place}");
    assert_eq!(shop.images(&product).await, json!(["https://a.example/1.jpg", own(0), own(9), own(3)]));
    assert_eq!(files(&shop.objects).len(), 3);
}

#[tokio::test]
async fn a_replaced_image_is_deleted_and_the_same_one_again_changes_nothing() {
    let shop = shop().await;
    let product = shop.stocked(1).await;
    let path = format!("/products/{product}/images/0");
    assert_eq!(shop.put_image(&path, "image/png", PNG).await.0, 201);
    let (_, before) = shop.get(&format!("/products/{product}")).await;
    assert_eq!(shop.put_image(&path, "image/png", PNG).await.0, 200);
    assert_eq!(shop.get(&format!("/products/{product}")).await.1, before);

    assert_eq!(shop.put_image(&path, "image/jpeg", JPEG).await.0, 200);
    let (_, after) = shop.get(&format!("/products/{product}")).await;
    assert_eq!(after["images"], before["images"]);
    assert_ne!(after["updated_at"], before["updated_at"]);
    shop.sweep().await;
    assert_eq!(files(&shop.objects), [JPEG]);
    let events = "SELECT count(*) FROM outbox WHERE aggregate_id = $1::uuid";
    let events: i64 = sqlx::query_scalar(events).bind(&product).fetch_one(&shop.pool).await.unwrap();
    assert_eq!(events, 3, "created, uploaded, replaced");
}

#[tokio::test]
async fn of_two_new_images_for_one_place_one_gets_it() {
    let shop = shop().await;
    let product = shop.stocked(1).await;
    let path = format!("/products/{product}/images/0");
    let add = async |bytes: &'static [u8]| {
        let request = shop.staff(Method::PUT, &path).header("if-none-match", "*");
        answer(request.header("content-type", "application/octet-stream").body(bytes).send().await.unwrap())
            .await
    };
    let (one, other) = tokio::join!(add(PNG), add(JPEG));
    let mut statuses = [one.0, other.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 412], "{one:?} {other:?}");
    let refused = if one.0 == 412 { &one.1 } else { &other.1 };
    assert_eq!(refused["code"], "precondition_failed");
    // What is there already is no other image.
    let kept = if one.0 == 201 { PNG } else { JPEG };
    assert_eq!(add(kept).await.0, 200);
    assert_eq!(add(WEBP).await.0, 412);
    assert_eq!(shop.put_image(&path, "image/webp", WEBP).await.0, 200);
    shop.sweep().await;
    assert_eq!(shop.images(&product).await, json!([format!("/api/v1{path}")]));
}

#[tokio::test]
async fn an_image_is_gone_once_the_product_does_not_name_it() {
    let shop = shop().await;
    let product = shop.stocked(1).await;
    let path = |place: u8| format!("/products/{product}/images/{place}");
    let own = |place: u8| format!("/api/v1{}", path(place));
    for place in 0..3 {
        assert_eq!(shop.put_image(&path(place), "image/png", PNG).await.0, 201);
    }
    // In another order, with one from elsewhere, and without one.
    let images = json!([own(2), "https://a.example/1.jpg", own(0)]);
    let (status, patched) = shop.patch_images(&product, images.clone()).await;
    assert_eq!((status, &patched["images"]), (200, &images));
    assert_eq!(shop.get(&path(1)).await.0, 404);
    assert_eq!(shop.get(&path(2)).await.0, 200);

    for unknown in [own(1), own(7), "/etc/passwd".to_owned()] {
        let (status, problem) = shop.patch_images(&product, json!([own(0), unknown])).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/images/1")), "{unknown}");
    }
    let delete = async || shop.staff(Method::DELETE, &path(2)).send().await.unwrap().status();
    assert_eq!(delete().await, 204);
    assert_eq!(delete().await, 404);
    assert_eq!(shop.images(&product).await, json!(["https://a.example/1.jpg", own(0)]));
    shop.sweep().await;
    assert_eq!(files(&shop.objects).len(), 1);

    // An import replaces addresses from elsewhere alone.
    let (_, whole) = shop.get(&format!("/products/{product}")).await;
    let mut line = form();
    for field in ["sku", "name", "description", "price", "category"] {
        line[field] = whole[field].clone();
    }
    line["images"] = json!(["https://a.example/2.jpg"]);
    let import = shop.staff(Method::POST, "/product-imports").header("content-type", "application/x-ndjson");
    assert_eq!(answer(import.body(line.to_string()).send().await.unwrap()).await.1["updated"], 1);
    assert_eq!(shop.images(&product).await, json!([own(0), "https://a.example/2.jpg"]));
    assert_eq!(shop.get(&path(0)).await.0, 200);
}

#[tokio::test]
async fn what_is_no_image_is_refused_and_nothing_is_kept() {
    let shop = shop().await;
    let product = shop.stocked(1).await;
    let path = format!("/products/{product}/images/0");
    let long = [PNG, &vec![0; LIMIT]].concat();
    for (kind, bytes, status, code) in [
        ("image/gif", PNG, 415, "unsupported_media_type"),
        ("application/json", PNG, 415, "unsupported_media_type"),
        ("image/png", b"GIF89a".as_slice(), 415, "unsupported_media_type"),
        ("image/png", b"<svg/>", 415, "unsupported_media_type"),
        ("image/png", JPEG, 415, "unsupported_media_type"),
        ("image/png", b"", 415, "unsupported_media_type"),
    ] {
        let (given, problem) = shop.put_image(&path, kind, bytes).await;
        assert_eq!((given, &problem["code"]), (status, &json!(code)), "{kind}");
    }
    let answer = shop.begin_image(&path, Some(LIMIT + 1), b"").await;
    assert!(answer.contains("HTTP/1.1 413") && answer.contains("\"payload_too_large\""), "{answer}");
    // Without a length: read until it is too long.
    let chunked = [format!("{:x}\r\n", long.len()).as_bytes(), &long, b"\r\n"].concat();
    let answer = shop.begin_image(&path, None, &chunked).await;
    assert!(answer.contains("HTTP/1.1 413"), "{answer}");
    for place in ["10", "-1", "00", "x", "1000000"] {
        let path = format!("/products/{product}/images/{place}");
        assert_eq!(shop.put_image(&path, "image/png", PNG).await.0, 404, "{place}");
        assert_eq!(shop.get(&path).await.0, 404, "{place}");
    }
    let elsewhere = "/products/01890000-0000-7000-8000-000000000000/images/0";
    assert_eq!(shop.put_image(elsewhere, "text/plain", b"").await.0, 404);
    assert_eq!(shop.get(&path).await.0, 404);
    assert_eq!(files(&shop.objects).len(), 0);

    // One of exactly the limit, as any bytes.
    assert_eq!(shop.put_image(&path, "application/octet-stream", &long[..LIMIT]).await.0, 201);
    let response = shop.anyone(Method::GET, &path).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "image/png");
    assert_eq!(response.bytes().await.unwrap(), long[..LIMIT]);

    let full: Vec<String> = (0..20).map(|n| format!("https://a.example/{n}.jpg")).collect();
    let full = id(&shop.product(json!({ "images": full })).await);
    let (status, problem) = shop.put_image(&format!("/products/{full}/images/0"), "image/png", PNG).await;
    let error = &problem["errors"][0];
    assert_eq!((status, &error["pointer"], &error["code"]), (422, &json!("/images"), &json!("too_many")));
    shop.sweep().await;
    assert_eq!(files(&shop.objects).len(), 1);
}

#[tokio::test]
async fn an_image_belongs_to_one_product_and_goes_with_it() {
    let shop = shop().await;
    let lamp = shop.product(json!({"name": "Storm Lamp"})).await;
    let other = shop.stocked(1).await;
    // By the slug, and told of by the id.
    let by_slug = shop.staff(Method::PUT, "/products/storm-lamp/images/4").body(PNG).send().await.unwrap();
    let own = format!("/api/v1/products/{}/images/4", id(&lamp));
    assert_eq!((by_slug.status().as_u16(), &by_slug.headers()["location"]), (201, &own.parse().unwrap()));
    let etag = by_slug.headers()["etag"].clone();
    let path = own.strip_prefix("/api/v1").unwrap();
    let shown = shop.anyone(Method::GET, path).send().await.unwrap();
    assert_eq!((shown.status().as_u16(), &shown.headers()["etag"]), (200, &etag));

    let elsewhere = format!("/products/{other}/images/4");
    assert_eq!(shop.get(&elsewhere).await.0, 404);
    assert_eq!(shop.staff(Method::DELETE, &elsewhere).send().await.unwrap().status(), 404);
    let (status, problem) = shop.patch_images(&other, json!([own])).await;
    assert_eq!((status, &problem["errors"][0]["code"]), (422, &json!("unknown_image")));
    assert_eq!(shop.images(&other).await, json!([]));
    assert_eq!(shop.images(&id(&lamp)).await, json!([own]));

    let archive = shop.staff(Method::DELETE, "/products/storm-lamp").header("if-match", "*");
    assert_eq!(archive.send().await.unwrap().status(), 204);
    assert_eq!(shop.get(path).await.0, 404);
    assert_eq!(shop.put_image(path, "image/png", PNG).await.0, 404);
}

#[tokio::test]
async fn only_staff_upload_and_anyone_reads() {
    let shop = shop().await;
    let path = format!("/products/{}/images/0", shop.stocked(1).await);
    for method in [Method::PUT, Method::DELETE] {
        let (status, problem) = answer(shop.anyone(method.clone(), &path).send().await.unwrap()).await;
        assert_eq!((status, &problem["code"]), (401, &json!("missing_token")));
        let customer = shop.as_role(Role::Customer, method, &path).send().await.unwrap();
        assert_eq!(answer(customer).await.0, 403);
    }
    let admin = shop.as_role(Role::Admin, Method::PUT, &path).body(PNG).send().await.unwrap();
    assert_eq!(admin.status(), 201);
    assert_eq!(shop.anyone(Method::GET, &path).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_upload_cut_short_leaves_nothing() {
    let shop = shop().await;
    let product = shop.stocked(1).await;
    let path = format!("/products/{product}/images/0");
    let answer = shop.begin_image(&path, Some(PNG.len() + 1), PNG).await;
    assert!(answer.contains("HTTP/1.1 400") && answer.contains("\"malformed_body\""), "{answer}");
    assert_eq!(shop.images(&product).await, json!([]));
    assert_eq!(files(&shop.objects).len(), 0);
    let listed = "SELECT count(*) FROM products.discarded_objects";
    let listed: i64 = sqlx::query_scalar(listed).fetch_one(&shop.pool).await.unwrap();
    assert_eq!(listed, 0);
}

#[tokio::test]
async fn an_image_that_nothing_shows_is_swept() {
    let shop = shop().await;
    // As after a crash between the object and its row.
    let key = "images/orphan/1";
    std::fs::create_dir_all(shop.objects.join("images/orphan")).unwrap();
    std::fs::write(shop.objects.join(key), PNG).unwrap();
    // And before the object had its name.
    std::fs::write(shop.objects.join("images/orphan/1#1"), &PNG[..4]).unwrap();
    let listed =
        "INSERT INTO products.discarded_objects (key, delete_at) VALUES ($1, now()), ('images/never', now())";
    sqlx::query(listed).bind(key).execute(&shop.pool).await.unwrap();
    shop.sweep().await;
    assert_eq!(files(&shop.objects).len(), 0);
}

type Bucket = Arc<Mutex<HashMap<String, Bytes>>>;

/// As much of S3 as is used: put, get and delete with the bucket in the path.
async fn s3(
    State(bucket): State<Bucket>,
    verb: Verb,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Bytes) {
    let signed = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !signed.starts_with("AWS4-HMAC-SHA256 Credential=the-key/") || !signed.contains("/eu-test-1/s3/") {
        return (StatusCode::FORBIDDEN, Bytes::new());
    }
    let (mut objects, key) = (bucket.lock().unwrap(), uri.path().to_owned());
    match verb {
        Verb::PUT => drop(objects.insert(key, body)),
        Verb::DELETE => drop(objects.remove(&key)),
        _ => {
            let object = objects.get(&key).cloned();
            return object.map_or((StatusCode::NOT_FOUND, Bytes::new()), |object| (StatusCode::OK, object));
        }
    }
    (StatusCode::OK, Bytes::new())
}

#[tokio::test]
async fn images_are_kept_in_a_bucket_just_as_well() {
    let bucket = Bucket::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let etag = axum::middleware::map_response(|mut response: axum::response::Response| async {
        let headers = response.headers_mut();
        headers.insert("etag", "\"x\"".parse().unwrap());
        headers.insert("last-modified", "Mon, 23 Nov 2026 10:00:00 GMT".parse().unwrap());
        response
    });
    let fake =
        Router::new().fallback(s3).layer(etag).layer(DefaultBodyLimit::disable()).with_state(bucket.clone());
    tokio::spawn(async move { axum::serve(listener, fake).await });
    let shop = shop_with(&[
        "--object-store-url=s3://shop-bucket/a/prefix",
        &format!("--aws-endpoint-url={endpoint}"),
        "--aws-region=eu-test-1",
        "--aws-access-key-id=the-key",
        "--aws-secret-access-key=the-secret",
    ])
    .await;
    let product = shop.stocked(1).await;
    let path = format!("/products/{product}/images/0");
    let large = [PNG, &vec![7; LIMIT - PNG.len()]].concat();
    for (kind, bytes) in [("image/png", large.as_slice()), ("image/jpeg", JPEG)] {
        assert!(shop.put_image(&path, kind, bytes).await.0 < 300);
        let response = shop.anyone(Method::GET, &path).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], kind);
        assert_eq!(response.bytes().await.unwrap(), bytes);
    }
    shop.sweep().await;
    let keys: Vec<String> = bucket.lock().unwrap().keys().cloned().collect();
    let prefix = format!("/shop-bucket/a/prefix/images/{product}/");
    assert_eq!(keys.len(), 1);
    assert!(keys[0].starts_with(&prefix), "{keys:?}");

    // Lost by the store: said to be absent, and logged.
    bucket.lock().unwrap().clear();
    assert_eq!(shop.get(&path).await.0, 404);
}

#[tokio::test]
async fn a_store_that_is_away_is_said_to_be_and_the_rest_works() {
    let file = std::env::temp_dir().join(testing::namespace());
    std::fs::write(&file, "no folder").unwrap();
    let shop = shop_with(&[&format!("--object-store-url=file://{}", file.display())]).await;
    let product = shop.stocked(1).await;
    let put = shop.staff(Method::PUT, &format!("/products/{product}/images/0")).body(PNG);
    let refused = put.send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    let (status, problem) = answer(refused).await;
    assert_eq!((status, &problem["code"]), (503, &json!("service_unavailable")));
    assert_eq!(shop.images(&product).await, json!([]));
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn objects_whose_deletion_hangs_do_not_keep_the_others() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let fake = Router::new().fallback(async |uri: Uri| {
        if uri.path().contains("stuck") {
            std::future::pending::<()>().await;
        }
        StatusCode::NO_CONTENT
    });
    tokio::spawn(async move { axum::serve(listener, fake).await });
    let shop = shop_with(&[
        "--object-store-url=s3://shop-bucket",
        &format!("--aws-endpoint-url={endpoint}"),
        "--aws-access-key-id=the-key",
        "--aws-secret-access-key=the-secret",
    ])
    .await;
    let due = "INSERT INTO products.discarded_objects (key, delete_at)
               SELECT format('images/stuck-%s', n), now() - interval '1 hour' FROM generate_series(1, 12) n
               UNION ALL
               SELECT format('images/other-%s', n), now() - interval '1 minute' FROM generate_series(1, 50) n";
    sqlx::query(due).execute(&shop.pool).await.unwrap();
    shop.replica().await;
    testing::within(Duration::from_secs(60), "the others are deleted", async || {
        let query = "SELECT count(*) FROM products.discarded_objects WHERE key LIKE '%other%'";
        let left: i64 = sqlx::query_scalar(query).fetch_one(&shop.pool).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
    let query = "SELECT count(*) FROM products.discarded_objects WHERE claimed";
    let stuck: i64 = sqlx::query_scalar(query).fetch_one(&shop.pool).await.unwrap();
    assert_eq!(stuck, 12, "they are tried again later");
}

//! Addresses: the owner's over HTTP, and the order service's view over gRPC.

use std::sync::Arc;

use crate::app::{Answer, App};
use proto::user::v1::user_service_client::UserServiceClient;
use proto::user::v1::{Address, GetAddressRequest};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use service::peer::{self, ServiceKey};
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_types::StatusExt;

const ADDRESSES: &str = "/api/v1/me/addresses";

fn place() -> Value {
    json!({"name": "Zoë 🚢", "line1": "1 Quay", "city": "Hull", "postal_code": "HU1 1AA", "country": "GB"})
}

async fn add(app: &App, token: &str, body: Value) -> Answer {
    app.call(Method::POST, ADDRESSES, token, body).await
}

#[tokio::test]
async fn an_address_is_kept_read_replaced_and_removed() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await.access;
    let added = add(&app, &ada, place()).await;
    assert_eq!(added.status, StatusCode::CREATED);
    let path = added.header("location").to_owned();
    assert_eq!(path, format!("{ADDRESSES}/{}", added.body["id"].as_str().unwrap()));
    let mut expected = place();
    expected["id"] = added.body["id"].clone();
    assert_eq!(added.body, expected);
    let shown = app.get(&path, &ada).await;
    assert_eq!((shown.status, shown.body), (StatusCode::OK, expected.clone()));

    let mut other = place();
    other["line2"] = json!("Flat 2");
    other["region"] = json!("Yorkshire");
    other["country"] = json!("IE");
    other["postal_code"] = json!("A65 F4E2");
    let replaced = app.call(Method::PUT, &path, &ada, other.clone()).await;
    other["id"] = expected["id"].clone();
    assert_eq!((replaced.status, &replaced.body), (StatusCode::OK, &other));
    assert_eq!(app.get(&path, &ada).await.body, other);
    // A replacement leaves nothing of what was.
    assert_eq!(app.call(Method::PUT, &path, &ada, place()).await.body, expected);

    let removed = app.delete(&path, &ada).await;
    assert_eq!((removed.status, removed.body), (StatusCode::NO_CONTENT, Value::Null));
    app.delete(&path, &ada).await.is_problem(404, "not_found");
    app.get(&path, &ada).await.is_problem(404, "not_found");
    app.call(Method::PUT, &path, &ada, place()).await.is_problem(404, "not_found");
}

#[tokio::test]
async fn an_address_may_be_as_long_as_the_limits_and_lack_what_is_optional() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await.access;
    let wide = |n: usize| "Ü".repeat(n);
    let full = json!({"name": wide(100), "line1": wide(200), "line2": wide(200), "city": wide(100),
        "region": wide(200), "postal_code": wide(20), "country": "HK", "phone": "+85221234567"});
    let kept = add(&app, &ada, full.clone()).await;
    assert_eq!(kept.status, StatusCode::CREATED, "{:?}", kept.body);
    for (field, value) in full.as_object().unwrap() {
        assert_eq!(&kept.body[field], value, "{field}");
    }
    for (field, max) in [("name", 100), ("line1", 200), ("city", 100)] {
        let mut body = place();
        body[field] = json!(wide(max + 1));
        add(&app, &ada, body).await.is_invalid(&[(&format!("/{field}"), "too_long")]);
    }
    let mut body = place();
    body["line2"] = Value::Null;
    body["region"] = Value::Null;
    let mut expected = place();
    let bare = add(&app, &ada, body).await;
    expected["id"] = bare.body["id"].clone();
    assert_eq!((bare.status, bare.body), (StatusCode::CREATED, expected));
}

#[tokio::test]
async fn what_is_no_address_is_refused_with_every_fault_named() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await.access;
    let long = "x".repeat(201);
    let bad = json!({"name": " ", "line1": "", "line2": long, "city": "", "region": long,
        "postal_code": "x".repeat(21), "country": "UK"});
    let expected = [
        ("/name", "too_short"),
        ("/line1", "too_short"),
        ("/line2", "too_long"),
        ("/city", "too_short"),
        ("/region", "too_long"),
        ("/postal_code", "too_long"),
        ("/country", "invalid_country"),
    ];
    add(&app, &ada, bad.clone()).await.is_invalid(&expected);
    let kept = add(&app, &ada, place()).await;
    let path = kept.header("location");
    app.call(Method::PUT, path, &ada, bad).await.is_invalid(&expected);
    for (field, value, code) in [
        ("user_id", json!("x"), "unknown_field"),
        ("id", kept.body["id"].clone(), "unknown_field"),
        ("name", json!("a\u{0}b"), "control_character"),
        ("city", json!(7), "invalid_value"),
        ("country", json!(null), "invalid_value"),
    ] {
        let mut body = place();
        body[field] = value;
        add(&app, &ada, body).await.is_invalid(&[(&format!("/{field}"), code)]);
    }
    let mut body = place();
    body.as_object_mut().unwrap().remove("postal_code");
    add(&app, &ada, body).await.is_invalid(&[("/postal_code", "missing_field")]);
    for (country, postal_code, phone, at, code) in [
        ("DE", json!("2045"), Value::Null, "/postal_code", "invalid_postal_code"),
        ("US", json!("SW1Y 4JH"), Value::Null, "/postal_code", "invalid_postal_code"),
        ("JP", Value::Null, Value::Null, "/postal_code", "missing_field"),
        ("HK", Value::Null, json!("12"), "/phone", "invalid_phone"),
    ] {
        let mut body = place();
        (body["country"], body["postal_code"], body["phone"]) = (json!(country), postal_code, phone);
        add(&app, &ada, body).await.is_invalid(&[(at, code)]);
    }
    // Nothing changed.
    assert_eq!(app.get(path, &ada).await.body, kept.body);
    assert_eq!(app.count("SELECT count(*) FROM users.addresses").await, 1);
}

#[tokio::test]
async fn an_address_has_the_parts_of_its_country() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await.access;
    for body in [
        json!({"name": "Ada", "line1": "1 Harbour Road", "city": "Wan Chai", "country": "HK"}),
        json!({"name": "Ada", "line1": "1 Marina Boulevard", "postal_code": "018989", "country": "SG"}),
        json!({"name": "Ada", "line1": "Rr. Luan Haradinaj", "city": "Prishtina", "country": "XK"}),
        json!({"name": "Ada", "line1": "4-31-9 Wakabayashi", "city": "Setagaya", "region": "Tokyo",
            "postal_code": "154-0023", "country": "JP", "phone": "+81364388201"}),
    ] {
        let kept = add(&app, &ada, body.clone()).await;
        assert_eq!(kept.status, StatusCode::CREATED, "{:?}", kept.body);
        let mut shown = app.get(kept.header("location"), &ada).await.body;
        shown.as_object_mut().unwrap().remove("id");
        assert_eq!(shown, body);
    }
    let typed = json!({"name": " Ada ", "line1": "1 Quay ", "city": "Hull", "postal_code": " hu1 1aa", "country": "GB",
        "phone": "020 7946 0958"});
    let kept = add(&app, &ada, typed).await.body;
    assert_eq!((&kept["name"], &kept["postal_code"]), (&json!(" Ada "), &json!(" hu1 1aa")));
    assert_eq!(kept["phone"], "+442079460958");
}

#[tokio::test]
async fn another_ones_address_is_not_there_even_for_admins() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await.access;
    let (customer, admin) = (app.signed_in("bob@example.com").await, app.admin("eve@example.com").await);
    let added = add(&app, &ada, place()).await;
    let absent = format!("{ADDRESSES}/018f0000-0000-7000-8000-000000000000");
    for other in [customer.access, admin.access] {
        for path in [added.header("location"), absent.as_str(), "/api/v1/me/addresses/nonsense"] {
            app.get(path, &other).await.is_problem(404, "not_found");
            app.delete(path, &other).await.is_problem(404, "not_found");
            // Before a look at the body.
            app.call(Method::PUT, path, &other, json!({"x": 1})).await.is_problem(404, "not_found");
            app.call(Method::PUT, path, &other, place()).await.is_problem(404, "not_found");
        }
        assert_eq!(app.get(ADDRESSES, &other).await.body, json!({"items": [], "next_cursor": null}));
    }
    assert_eq!(app.get(added.header("location"), &ada).await.body, added.body);
    app.needs_a_token(&[
        (Method::GET, ADDRESSES),
        (Method::POST, ADDRESSES),
        (Method::GET, added.header("location")),
        (Method::PUT, added.header("location")),
        (Method::DELETE, added.header("location")),
    ])
    .await;
}

#[tokio::test]
async fn addresses_come_in_pages_newest_first_and_are_fifty_at_most() {
    let app = Arc::new(App::start().await);
    let ada = app.signed_in("ada@example.com").await.access;
    for _ in 0..3 {
        assert_eq!(add(&app, &ada, place()).await.status, StatusCode::CREATED);
    }
    let first = app.get(&format!("{ADDRESSES}?limit=2"), &ada).await.body;
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = app.get(&format!("{ADDRESSES}?limit=2&cursor={cursor}"), &ada).await.body;
    assert_eq!(second["next_cursor"], Value::Null);
    let ids = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().into()).collect()
    };
    let all = [ids(&first), ids(&second)].concat();
    assert_eq!(all.len(), 3);
    assert!(all.is_sorted_by(|a, b| a > b), "{all:?}");
    app.get(&format!("{ADDRESSES}?limit=0"), &ada).await.is_invalid(&[("/limit", "out_of_range")]);
    app.get(&format!("{ADDRESSES}?cursor=x"), &ada).await.is_problem(400, "invalid_cursor");

    app.sql(
        "INSERT INTO users.addresses (id, account_id, name, line1, city, postal_code, country)
         SELECT gen_random_uuid(), account_id, name, line1, city, postal_code, country
         FROM users.addresses, generate_series(1, 15)",
    )
    .await;
    // 48 there are, and five more at once.
    let more = || {
        let (app, ada) = (app.clone(), ada.clone());
        async move { add(&app, &ada, place()).await }
    };
    let held = app.hold("SELECT FROM users.accounts FOR UPDATE").await;
    let (answers, ()) = tokio::join!(crate::app::at_once(5, more), app.release(held, 5));
    assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count(), 2);
    for answer in answers.iter().filter(|answer| answer.status != StatusCode::CREATED) {
        answer.is_problem(409, "too_many_addresses");
    }
    assert_eq!(app.count("SELECT count(*) FROM users.addresses").await, 50);
    // Replacing one needs no room.
    let newest = format!("{ADDRESSES}/{}", all[0]);
    assert_eq!(app.call(Method::PUT, &newest, &ada, place()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_address_that_is_added_again_with_its_key_is_kept_once() {
    let app = Arc::new(App::start().await);
    let (ada, ben) =
        (app.signed_in("ada@example.com").await.access, app.signed_in("ben@example.com").await.access);
    let add = |token: &str, key: &str, body: Value| {
        let request = app
            .request(Method::POST, ADDRESSES)
            .bearer_auth(token)
            .header("idempotency-key", key)
            .json(&body);
        async move { Answer::of(request.send().await.unwrap()).await }
    };
    let first = add(&ada, "k", place()).await;
    let again = add(&ada, "k", place()).await;
    assert_eq!((first.status, again.status), (StatusCode::CREATED, StatusCode::CREATED));
    assert_eq!((&first.body, first.header("location")), (&again.body, again.header("location")));
    assert_eq!(again.header("idempotency-replayed"), "true");
    let mut other = place();
    other["city"] = json!("Leith");
    add(&ada, "k", other.clone()).await.is_problem(422, "idempotency_key_reused");
    add(&ada, "a key", place()).await.is_problem(400, "idempotency_key_invalid");
    assert_eq!(add(&ben, "k", other.clone()).await.status, StatusCode::CREATED);
    assert_eq!(app.count("SELECT count(*) FROM users.addresses").await, 2);

    let answers = crate::app::at_once(16, || add(&ben, "k-2", place())).await;
    for answer in &answers {
        let body = &answer.body;
        assert!(answer.status == StatusCode::CREATED || body["code"] == "idempotency_in_progress", "{body}");
    }
    assert_eq!(app.count("SELECT count(*) FROM users.addresses").await, 3);

    // The answers are personal data.
    let erased = app.delete("/api/v1/me", &ben).await;
    assert_eq!(erased.status, StatusCode::NO_CONTENT);
    assert_eq!(app.count("SELECT count(*) FROM users.idempotency_keys").await, 1);
}

async fn asked(
    client: &UserServiceClient<Channel>,
    token: &str,
    user: &str,
    address: &str,
) -> Result<Address, (Code, String)> {
    let mut request =
        Request::new(GetAddressRequest { user_id: user.to_owned(), address_id: address.to_owned() });
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    let answer = client.clone().get_address(request).await;
    answer.map(|answer| answer.into_inner().address.expect("an address")).map_err(|status| {
        let details = status.get_error_details();
        (status.code(), details.error_info().expect("each error has one").reason.clone())
    })
}

#[tokio::test]
async fn the_order_service_reads_a_users_own_address_and_nobody_else_reads_any() {
    let keys = [peer::generate().unwrap(), peer::generate().unwrap()];
    let trusted = format!("--trusted-callers=order={},product={}", keys[0].public_key, keys[1].public_key);
    let database = testing::database("users").await;
    let app = App::start_with(&database, crate::app::NO_BROKER, "dockside", &[&trusted]).await;
    let ada = app.signed_in("ada@example.com").await.access;
    let eve = app.signed_in("eve@example.com").await.access;
    let mut body = place();
    body["region"] = json!("Yorkshire");
    let address = add(&app, &ada, body).await.body["id"].as_str().unwrap().to_owned();
    let id = |me: Answer| me.body["id"].as_str().unwrap().to_owned();
    let (ada, eve) = (id(app.get("/api/v1/me", &ada).await), id(app.get("/api/v1/me", &eve).await));

    let channel = service::grpc::channel(&format!("http://{}", app.addresses.grpc)).unwrap();
    let client = UserServiceClient::new(channel);
    let key =
        |name: &'static str, index: usize| ServiceKey::from_pem(name, &keys[index].private_key_pem).unwrap();
    let order = key("order", 0).token("user").unwrap();
    let expected = Address {
        name: "Zoë 🚢".into(),
        line1: "1 Quay".into(),
        line2: None,
        city: "Hull".into(),
        region: Some("Yorkshire".into()),
        postal_code: "HU1 1AA".into(),
        country: "GB".into(),
        phone: None,
    };
    assert_eq!(asked(&client, &order, &ada, &address).await, Ok(expected));
    let refused = |status, code: &str| Err((status, code.to_owned()));
    let unknown = refused(Code::NotFound, "unknown_address");
    assert_eq!(asked(&client, &order, &eve, &address).await, unknown);
    assert_eq!(asked(&client, &order, &ada, &ada).await, unknown);
    let invalid = refused(Code::InvalidArgument, "invalid_value");
    assert_eq!(asked(&client, &order, &ada, "nonsense").await, invalid);
    assert_eq!(asked(&client, &order, "", &address).await, invalid);

    let product = key("product", 1).token("user").unwrap();
    assert_eq!(asked(&client, &product, &ada, &address).await, refused(Code::PermissionDenied, "forbidden"));
    let for_another = key("order", 0).token("product").unwrap();
    let forged = key("order", 1).token("user").unwrap();
    for bad in [&for_another, &forged, "", "x"] {
        let stranger = refused(Code::Unauthenticated, "invalid_token");
        assert_eq!(asked(&client, bad, &ada, &address).await, stranger, "{bad}");
    }
}

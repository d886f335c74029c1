//! Who may call each path, and what is checked first.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::collections::BTreeSet;

use crate::common::{Buyer, Shop, order_of, send};
use identity::{AUDIENCE, Claims, ISSUER, Role, TOKEN_TYPE};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

const NOBODYS: &str = "01890000-0000-7000-8000-000000000000";

/// Method and path of every documented operation, without the base.
fn operations() -> Vec<(Method, String)> {
    let document = order::openapi();
    let paths = document["paths"].as_object().unwrap();
    let operation = |(path, item): (&String, &Value)| -> Vec<(Method, String)> {
        let methods =
            item.as_object().unwrap().keys().filter_map(|method| method.to_uppercase().parse().ok());
        let known = [Method::GET, Method::PUT, Method::POST, Method::DELETE];
        let methods = methods.filter(|method| known.contains(method));
        methods.map(|method| (method, path.trim_start_matches("/api/v1").to_owned())).collect()
    };
    let all: Vec<_> = paths.iter().flat_map(operation).collect();
    assert_eq!(all.len(), 22, "{all:?}");
    all
}

/// The path with this in the place of its ids.
fn with_id(path: &str, id: &str) -> String {
    path.replace("{id}", id).replace("{product_id}", id)
}

/// With a body that no operation takes, and every header that one may want.
fn nonsense(request: RequestBuilder) -> RequestBuilder {
    request.header("Idempotency-Key", "k").body("{")
}

#[tokio::test]
async fn all_but_the_webhook_is_for_those_with_a_good_token() {
    let shop = Shop::open().await;
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let claims = |iss: &str, aud: &str, exp: i64| Claims {
        iss: iss.to_owned(),
        aud: aud.to_owned(),
        sub: Uuid::now_v7(),
        sid: Uuid::now_v7(),
        role: Role::Admin,
        iat: now - 1000,
        exp,
        jti: Uuid::now_v7(),
    };
    let good = shop.issuer.sign(TOKEN_TYPE, &claims(ISSUER, AUDIENCE, now + 60));
    let (rest, signature) = good.rsplit_once('.').unwrap();
    let forged = testing::Issuer::start().await.token(Uuid::now_v7(), Role::Admin);
    let refused = [
        "x.y.z".to_owned(),
        forged,
        format!("{rest}.{}", signature.chars().rev().collect::<String>()),
        shop.issuer.sign(TOKEN_TYPE, &claims(ISSUER, AUDIENCE, now - 60)),
        shop.issuer.sign(TOKEN_TYPE, &claims("somebody", AUDIENCE, now + 60)),
        shop.issuer.sign(TOKEN_TYPE, &claims(ISSUER, "somebody", now + 60)),
        shop.issuer.sign("JWT", &claims(ISSUER, AUDIENCE, now + 60)),
    ];
    for (method, path) in operations() {
        if path == "/payments/webhook" {
            continue;
        }
        let request = || {
            nonsense(shop.client.request(method.clone(), format!("{}{}", shop.base, with_id(&path, NOBODYS))))
        };
        let basic = request().basic_auth("ada", Some("secret"));
        let empty = request().bearer_auth("");
        for (request, code) in
            [(request(), "missing_token"), (basic, "missing_token"), (empty, "missing_token")]
                .into_iter()
                .chain(refused.iter().map(|token| (request().bearer_auth(token), "invalid_token")))
        {
            let answer = send(request).await;
            assert_eq!(answer.problem(), (401, code), "{method} {path}");
            assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        }
        let answer = send(request().bearer_auth(&good)).await;
        assert_ne!(answer.status, 401, "{method} {path}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_missed_before_its_body_is_looked_at() {
    let shop = Shop::open().await;
    for (method, path) in operations().into_iter().filter(|(_, path)| path.contains('{')) {
        for role in [Role::Customer, Role::Staff, Role::Admin] {
            let caller = shop.signed_in(role);
            for id in [NOBODYS, "x", "%00", "1", "01890000-0000-7000-8000-00000000000g"] {
                let path = with_id(&path, id);
                let answer = send(nonsense(caller.request(method.clone(), &path))).await;
                if method == Method::DELETE && id == NOBODYS {
                    assert_eq!(answer.status, 200, "{path} is not in the cart, as was asked for");
                    continue;
                }
                // Who may not see what is for staff does not learn what is there.
                let hidden = path.starts_with("/admin") && matches!(role, Role::Customer);
                let expected = if hidden { (403, "forbidden") } else { (404, "not_found") };
                assert_eq!(answer.problem(), expected, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn another_method_is_refused_and_told_which_there_are() {
    let shop = Shop::open().await;
    let caller = shop.signed_in(Role::Admin);
    let all = operations();
    for path in all.iter().map(|(_, path)| path).collect::<BTreeSet<_>>() {
        let there: BTreeSet<&str> =
            all.iter().filter(|(_, other)| other == path).map(|(method, _)| method.as_str()).collect();
        for method in ["GET", "PUT", "POST", "PATCH", "DELETE"] {
            if there.contains(method) {
                continue;
            }
            let request = caller.request(method.parse().unwrap(), &with_id(path, NOBODYS));
            let answer = send(nonsense(request)).await;
            assert_eq!(answer.problem(), (405, "method_not_allowed"), "{method} {path}");
            let allowed: BTreeSet<&str> = answer.headers["allow"].to_str().unwrap().split(',').collect();
            let allowed: BTreeSet<&str> = allowed.into_iter().filter(|method| *method != "HEAD").collect();
            assert_eq!(allowed, there, "{method} {path}");
        }
    }
}

/// Status of what this caller gets; a stream is not read to its end.
async fn status(caller: &Buyer<'_>, path: &str) -> u16 {
    caller.request(Method::GET, path).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn an_order_is_seen_by_its_owner_staff_and_admins() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.buy(thing, 1).await;
    for path in [format!("/orders/{id}"), format!("/orders/{id}/events"), format!("/orders/{id}/refunds")] {
        for caller in [&buyer, &shop.staff(), &shop.signed_in(Role::Admin)] {
            assert_eq!(status(caller, &path).await, 200, "{path}");
        }
        assert_eq!(shop.customer().get(&path).await.problem(), (404, "not_found"), "{path}");
    }
    let lists = |path: &'static str| {
        let shop = &shop;
        async move { [status(&shop.customer(), path).await, status(&shop.staff(), path).await] }
    };
    assert_eq!(lists("/orders").await, [200, 200]);
    assert_eq!(lists("/cart").await, [200, 200]);
    assert_eq!(lists("/admin/orders").await, [403, 200]);
    // Staff who shop see their own in the plain list.
    assert_eq!(shop.staff().get("/orders").await.body["items"], json!([]));
}

#[tokio::test]
async fn an_order_is_changed_by_admins_as_by_staff_and_never_by_another_customer() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, other, admin) = (shop.customer(), shop.customer(), shop.signed_in(Role::Admin));
    let id = buyer.buy(thing, 1).await;
    let path = format!("/orders/{id}");
    let before = buyer.get(&path).await.body;
    let parcel = json!({"carrier": "Tern", "tracking_number": "T-1"});
    let refund = json!({"reason": "r", "amount": {"amount": 1, "currency": "EUR"}});
    let change = async |caller: &Buyer<'_>, verb: &str| {
        let body = if verb == "refunds" { &refund } else { &parcel };
        let request = caller.request(Method::POST, &format!("{path}/{verb}"));
        send(request.header("Idempotency-Key", "k").json(body)).await
    };
    for verb in ["cancel", "ship", "deliver", "refunds"] {
        assert_eq!(change(&other, verb).await.problem(), (404, "not_found"), "{verb}");
        if verb != "cancel" {
            assert_eq!(change(&buyer, verb).await.problem(), (403, "forbidden"), "{verb}");
        }
        let anonymous = shop.anonymous(Method::POST, &format!("{path}/{verb}")).await;
        assert_eq!(anonymous, (401, "missing_token".to_owned()), "{verb}");
    }
    assert_eq!(buyer.get(&path).await.body, before);
    for (verb, status) in [("refunds", 201), ("ship", 200), ("deliver", 200)] {
        assert_eq!(change(&admin, verb).await.status, status, "{verb}");
    }
    admin.until_refunded(&id, 1).await;

    for (caller, reason) in [(&admin, "staff"), (&shop.staff(), "staff"), (&buyer, "customer")] {
        let id = buyer.buy(thing, 1).await;
        let cancelled = caller.post(&format!("/orders/{id}/cancel")).await;
        assert_eq!((cancelled.status.as_u16(), &cancelled.body["cancel_reason"]), (200, &json!(reason)));
        caller.until(&id, "cancelled", "refunded").await;
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_and_changes_nothing() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 1).await;
    let order = buyer.get(&format!("/orders/{id}")).await.body;
    let cart = format!("/cart/items/{thing}");
    let (ship, refunds) = (format!("/orders/{id}/ship"), format!("/orders/{id}/refunds"));
    let good = order_of(thing, 1, "pm_card_visa");
    let parcel = json!({"carrier": "Tern", "tracking_number": "T-1"});
    for (caller, method, path, body) in [
        (&buyer, Method::PUT, cart.as_str(), json!({"quantity": 1})),
        (&buyer, Method::POST, "/orders", good),
        (&staff, Method::POST, ship.as_str(), parcel),
        (&staff, Method::POST, refunds.as_str(), json!({"reason": "r"})),
    ] {
        let request = || caller.request(method.clone(), path).header("Idempotency-Key", "k");
        let typed = |kind: &str, bytes: Vec<u8>| send(request().header("Content-Type", kind).body(bytes));
        let body = body.to_string().into_bytes();
        assert_eq!(
            send(request().body(body.clone())).await.problem(),
            (415, "unsupported_media_type"),
            "{path}"
        );
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/merge-patch+json", ""] {
            let answer = typed(kind, body.clone()).await;
            assert_eq!(answer.problem(), (415, "unsupported_media_type"), "{path} {kind}");
        }
        let json = "Application/JSON; charset=utf-8";
        let cut = body[..body.len() - 1].to_vec();
        let deep = [b"[".repeat(1000), b"]".repeat(1000)].concat();
        for bytes in [vec![], cut, b"\xff".to_vec(), br#"{"a": "\ud800"}"#.to_vec(), deep, b"{}{}".to_vec()] {
            assert_eq!(
                typed(json, bytes.clone()).await.problem(),
                (400, "malformed_json"),
                "{path} {bytes:?}"
            );
        }
        let long = [body.clone(), b" ".repeat(1024 * 1024)].concat();
        assert_eq!(typed(json, long).await.problem(), (413, "payload_too_large"), "{path}");
        for (value, pointer) in
            [(json!([]), ""), (json!(null), ""), (json!("x"), ""), (json!({"a\u{7f}": 1}), "/a\u{7f}")]
        {
            let answer = typed(json, value.to_string().into_bytes()).await;
            assert_eq!(answer.problem(), (422, "validation_failed"), "{path} {value}");
            assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{path} {value}");
        }
        for field in ["role", "price", "status", "user_id", "id"] {
            let mut value: Value = serde_json::from_slice(&body).unwrap();
            value[field] = json!("x");
            let answer = typed(json, value.to_string().into_bytes()).await;
            assert_eq!(answer.problem(), (422, "validation_failed"), "{path} {field}");
            let error = &answer.body["errors"][0];
            assert_eq!(
                (&error["pointer"], &error["code"]),
                (&json!(format!("/{field}")), &json!("unknown_field"))
            );
        }
    }
    assert_eq!(buyer.get("/cart").await.body["items"], json!([]));
    assert_eq!(staff.get(&refunds).await.body["items"], json!([]));
    assert_eq!(buyer.get("/orders").await.body["items"], json!([order]));
    // The key of what was refused is as good as new.
    assert_eq!(buyer.order("k", &order_of(thing, 2, "pm_card_visa")).await.status, 201);
}

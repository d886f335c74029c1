//! The public API.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

mod common;

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use common::{Shop, answer, form, id, shop};
use reqwest::Method;
use serde_json::{Value, json};
use service::auth::Role;
use uuid::Uuid;

async fn names(shop: &Shop, query: &str) -> Vec<String> {
    let (status, page) = shop.get(&format!("/products{query}")).await;
    assert_eq!(status, 200, "{query}: {page}");
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

fn pointers(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_new_product_is_as_it_was_sent() {
    let shop = shop().await;
    let body = json!({"sku": "LAMP-7.a_B", "name": "Größe 7 Lamp", "description": "Zoë's 🏮", "category": "t-rope",
        "price": {"amount": 0, "currency": "JPY"}, "attributes": {"color": "red"},
        "images": ["https://example.org/1.jpg"], "stock": 7});
    let response = shop.staff(Method::POST, "/products").json(&body).send().await.unwrap();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let etag = response.headers()["etag"].clone();
    let (status, product) = answer(response).await;
    assert_eq!(status, 201);
    assert_eq!(location, format!("/api/v1/products/{}", id(&product)));
    for field in ["sku", "name", "description", "price", "category", "attributes", "images"] {
        assert_eq!(product[field], body[field], "{field}");
    }
    assert_eq!(product["stock"], json!({"available": 7}));
    assert!(product["created_at"].as_str().unwrap().ends_with('Z'));
    let fields: Vec<&String> = product.as_object().unwrap().keys().collect();
    assert_eq!(fields.len(), 12, "{fields:?}");
    assert_eq!(product["id"].as_str().unwrap().parse::<Uuid>().unwrap().get_version_num(), 7);

    let slug = product["slug"].as_str().unwrap();
    assert_eq!(slug, "größe-7-lamp");
    for name in [&id(&product), slug] {
        let response = shop.anyone(Method::GET, &format!("/products/{name}")).send().await.unwrap();
        assert_eq!(response.headers()["etag"], etag);
        assert_eq!(answer(response).await, (200, product.clone()));
    }
    let twin = shop.product(json!({"name": "Größe 7 lamp!"})).await;
    assert!(twin["slug"].as_str().unwrap().starts_with("größe-7-lamp-"), "{twin}");
}

#[tokio::test]
async fn a_product_that_can_not_be_is_refused_and_nothing_changes() {
    let shop = shop().await;
    shop.product(json!({"sku": "TAKEN"})).await;
    let refused = |fields: Value| {
        let mut body = form();
        for (name, value) in fields.as_object().unwrap() {
            match value {
                Value::Null => drop(body.as_object_mut().unwrap().remove(name)),
                value => body[name] = value.clone(),
            }
        }
        let shop = &shop;
        async move { shop.post("/products", &body).await }
    };
    for (fields, pointer, code) in [
        (json!({"sku": "a b"}), "/sku", "invalid_sku"),
        (json!({"sku": "a".repeat(65)}), "/sku", "invalid_sku"),
        (json!({"name": ""}), "/name", "too_short"),
        (json!({"name": "x".repeat(201)}), "/name", "too_long"),
        (json!({"name": "a\u{0}b"}), "/name", "control_character"),
        (json!({"description": "x".repeat(5001)}), "/description", "too_long"),
        (json!({"price": {"amount": -1, "currency": "EUR"}}), "/price/amount", "out_of_range"),
        (json!({"price": {"amount": 100_000_000, "currency": "EUR"}}), "/price/amount", "out_of_range"),
        (json!({"price": {"amount": 1.5, "currency": "EUR"}}), "/price/amount", "invalid_value"),
        (json!({"price": {"amount": 1, "currency": "EURO"}}), "/price/currency", "invalid_value"),
        (json!({"attributes": {"a": 1}}), "/attributes/a", "invalid_value"),
        (json!({"attributes": {"": "a"}}), "/attributes/", "too_short"),
        (json!({"images": ["/etc/passwd"]}), "/images/0", "invalid_value"),
        (json!({"stock": -1}), "/stock", "out_of_range"),
        (json!({"stock": 1_000_001}), "/stock", "out_of_range"),
        (json!({"stock": 1.5}), "/stock", "invalid_value"),
        (json!({"category": "nowhere"}), "/category", "unknown_category"),
        (json!({"category": "nowhere", "sku": "TAKEN"}), "/category", "unknown_category"),
        (json!({"slug": "mine"}), "/slug", "unknown_field"),
        (json!({"name": null}), "/name", "missing_field"),
    ] {
        let (status, problem) = refused(fields.clone()).await;
        assert_eq!((status, &problem["code"]), (422, &json!("validation_failed")), "{fields} {problem}");
        assert_eq!(problem["errors"][0]["code"], code, "{fields} {problem}");
        assert_eq!(pointers(&problem), [pointer], "{fields}");
    }
    let (status, problem) = refused(json!({"sku": "TAKEN"})).await;
    assert_eq!((status, &problem["code"]), (409, &json!("sku_taken")));
    assert_eq!(names(&shop, "").await.len(), 1);
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn only_staff_change_the_catalogue() {
    let shop = shop().await;
    let path = format!("/products/{}", shop.stocked(1).await);
    let ledger = format!("{path}/stock-adjustments");
    for (method, path) in [
        (Method::POST, "/products"),
        (Method::PATCH, &path),
        (Method::DELETE, &path),
        (Method::POST, &ledger),
        (Method::GET, &ledger),
    ] {
        // Nothing else is looked at before: neither body nor If-Match is there.
        let (status, problem) = answer(shop.anyone(method.clone(), path).send().await.unwrap()).await;
        assert_eq!((status, &problem["code"]), (401, &json!("missing_token")), "{method} {path}");
        let customer = shop.as_role(Role::Customer, method.clone(), path).send().await.unwrap();
        assert_eq!(answer(customer).await.0, 403, "{method} {path}");
    }
    let admin = shop.as_role(Role::Admin, Method::POST, "/products").json(&form()).send().await.unwrap();
    assert_eq!(admin.status(), 201);
}

#[tokio::test]
async fn admins_may_what_staff_may_and_anybody_may_look() {
    let shop = shop().await;
    let path = format!("/products/{}", shop.stocked(1).await);
    let ledger = format!("{path}/stock-adjustments");
    let admin = |method: Method, path: &str| shop.as_role(Role::Admin, method, path).header("if-match", "*");
    let adjust = json!({"delta": 1, "reason": "found"});
    for (request, status) in [
        (admin(Method::PATCH, &path).json(&json!({"name": "Renamed"})), 200),
        (admin(Method::POST, &ledger).json(&adjust), 201),
        (admin(Method::GET, &ledger), 200),
        (shop.anyone(Method::GET, "/products"), 200),
        (shop.as_role(Role::Customer, Method::GET, "/products"), 200),
        (shop.as_role(Role::Customer, Method::GET, &path), 200),
        (shop.anyone(Method::GET, "/categories"), 200),
        (shop.as_role(Role::Customer, Method::GET, "/categories"), 200),
        (admin(Method::PUT, &path), 405),
        (admin(Method::DELETE, "/categories"), 405),
        (admin(Method::DELETE, &path), 204),
        (admin(Method::DELETE, &path), 404),
        (admin(Method::POST, &ledger).json(&adjust), 404),
        (admin(Method::GET, &ledger), 404),
    ] {
        let (given, body) = answer(request.send().await.unwrap()).await;
        assert_eq!(given, status, "{body}");
    }
}

#[tokio::test]
async fn a_slug_stays_and_is_never_given_twice() {
    let shop = shop().await;
    let first = shop.product(json!({"name": "Storm Lamp"})).await;
    assert_eq!(first["slug"], "storm-lamp");
    let rename = shop.staff(Method::PATCH, "/products/storm-lamp").header("if-match", "*");
    let (status, renamed) = answer(rename.json(&json!({"name": "Calm Lamp"})).send().await.unwrap()).await;
    assert_eq!(
        (status, &renamed["slug"], &renamed["name"]),
        (200, &json!("storm-lamp"), &json!("Calm Lamp"))
    );
    let archive = shop.staff(Method::DELETE, "/products/storm-lamp").header("if-match", "*");
    assert_eq!(archive.send().await.unwrap().status(), 204);
    assert_eq!(shop.get("/products/storm-lamp").await.0, 404);
    let mut slugs = BTreeSet::from(["storm-lamp".to_owned()]);
    for _ in 0..3 {
        let twin = shop.product(json!({"name": "Storm Lamp"})).await;
        let slug = twin["slug"].as_str().unwrap().to_owned();
        assert_eq!(shop.get(&format!("/products/{slug}")).await.1["id"], twin["id"]);
        assert!(slug.starts_with("storm-lamp-") && slugs.insert(slug), "{twin}");
    }
    // A name may read like another product's id.
    let id = id(&renamed);
    let posing = shop.product(json!({ "name": id })).await;
    assert_eq!(shop.get(&format!("/products/{}", posing["id"].as_str().unwrap())).await.1["name"], id);
}

#[tokio::test]
async fn a_body_that_is_not_json_or_too_long_is_refused_as_such() {
    let shop = shop().await;
    let post = || shop.staff(Method::POST, "/products");
    let json = "application/json";
    for (request, status, code) in [
        (post().body("{}"), 415, "unsupported_media_type"),
        (post().header("content-type", json).body("{"), 400, "malformed_json"),
        (post().header("content-type", json).body("7"), 422, "validation_failed"),
        (post().header("content-type", json).body(" ".repeat(1024 * 1024 + 1)), 413, "payload_too_large"),
    ] {
        let (given, problem) = answer(request.send().await.unwrap()).await;
        assert_eq!((given, &problem["code"]), (status, &json!(code)));
    }
}

#[tokio::test]
async fn a_patch_needs_the_current_etag() {
    let shop = shop().await;
    let product = shop.product(json!({"attributes": {"color": "red", "size": "M"}, "stock": 5})).await;
    let path = format!("/products/{}", id(&product));
    let read = || async {
        let response = shop.anyone(Method::GET, &path).send().await.unwrap();
        response.headers()["etag"].to_str().unwrap().to_owned()
    };
    let patch = |etag: Option<&str>, body: Value| {
        let request = shop.staff(Method::PATCH, &path).json(&body);
        let request = match etag {
            Some(etag) => request.header("if-match", etag),
            None => request,
        };
        async move { answer(request.send().await.unwrap()).await }
    };
    let first = read().await;
    let dearer = json!({"price": {"amount": 2500}, "attributes": {"size": null}});
    let (status, problem) = patch(None, dearer.clone()).await;
    assert_eq!((status, &problem["code"]), (428, &json!("precondition_required")));
    // A sale in between is no conflict, though it makes a new tag.
    shop.reserve(Uuid::now_v7(), &[(&id(&product), 1)]).await;
    assert_ne!(read().await, first);
    let (status, patched) = patch(Some(&first), dearer.clone()).await;
    assert_eq!(status, 200, "{patched}");
    assert_eq!(patched["price"], json!({"amount": 2500, "currency": "EUR"}));
    assert_eq!(patched["attributes"], json!({"color": "red"}));
    assert_eq!(patched["slug"], product["slug"]);

    for stale in [first.as_str(), "\"x\"", "*x", "", &format!("W/{}", read().await)] {
        let (status, problem) = patch(Some(stale), json!({"name": "Other"})).await;
        assert_eq!((status, &problem["code"]), (412, &json!("precondition_failed")), "{stale}");
    }
    let several = format!("\"0.0\", {}", read().await);
    assert_eq!(patch(Some(&several), json!({"name": "Other"})).await.0, 200);
    assert_eq!(shop.get(&path).await.1["name"], "Other");
}

#[tokio::test]
async fn a_patch_is_checked_in_the_order_of_the_contract() {
    let shop = shop().await;
    shop.product(json!({"sku": "TAKEN"})).await;
    let path = format!("/products/{}", shop.stocked(1).await);
    let send = |path: &str, body: Value, etag: &'static str| {
        let request = shop.staff(Method::PATCH, path).header("content-type", "application/merge-patch+json");
        let request = request.header("if-match", etag).body(body.to_string());
        async move {
            let (status, problem) = answer(request.send().await.unwrap()).await;
            let error = &problem["errors"][0];
            (status, format!("{} {} {}", problem["code"], error["pointer"], error["code"]).replace('"', ""))
        }
    };
    let said = |status: u16, text: &str| (status, text.to_owned());
    let absent = format!("/products/{}", Uuid::now_v7());
    let (stale, any) = ("\"9.9\"", "*");
    assert_eq!(send(&absent, json!({"sku": ""}), stale).await, said(404, "not_found null null"));
    for (bad, pointer, code) in [
        (json!({"sku": ""}), "/sku", "invalid_sku"),
        (json!({"name": null}), "/name", "missing_field"),
        (json!({"price": {"currency": "USD"}}), "/price/currency", "currency_fixed"),
        (json!({"stock": 5}), "/stock", "unknown_field"),
        (json!({"id": null}), "/id", "unknown_field"),
        (json!([1]), "", "invalid_value"),
        (json!({"category": "nowhere"}), "/category", "unknown_category"),
    ] {
        let expected = said(422, &format!("validation_failed {pointer} {code}"));
        assert_eq!(send(&path, bad, stale).await, expected);
    }
    let taken = json!({"sku": "TAKEN"});
    assert_eq!(send(&path, taken.clone(), stale).await, said(412, "precondition_failed null null"));
    assert_eq!(send(&path, taken, any).await, said(409, "sku_taken null null"));
}

#[tokio::test]
async fn an_archived_product_is_gone_from_the_shop() {
    let shop = shop().await;
    let product = shop.product(json!({"sku": "OLD", "name": "Old Lamp"})).await;
    let path = format!("/products/{}", id(&product));
    let delete = || shop.staff(Method::DELETE, &path);
    assert_eq!(delete().send().await.unwrap().status(), 428);
    assert_eq!(delete().header("if-match", "\"7.0\"").send().await.unwrap().status(), 412);
    assert_eq!(delete().header("if-match", "\"1.0\"").send().await.unwrap().status(), 204);
    assert_eq!(delete().header("if-match", "*").send().await.unwrap().status(), 404);
    for path in [path.as_str(), "/products/old-lamp"] {
        assert_eq!(shop.get(path).await.0, 404);
    }
    assert!(names(&shop, "").await.is_empty());
    assert_eq!(shop.get("/categories").await.1["items"][1]["product_count"], 0);
    let mut again = form();
    again["sku"] = json!("OLD");
    let other = format!("/products/{}", shop.stocked(1).await);
    let patch = shop.staff(Method::PATCH, &other).header("if-match", "*").json(&json!({"sku": "OLD"}));
    for request in [shop.staff(Method::POST, "/products").json(&again), patch] {
        let (status, problem) = answer(request.send().await.unwrap()).await;
        assert_eq!((status, &problem["code"]), (409, &json!("sku_taken")));
    }
}

#[tokio::test]
async fn a_reader_who_has_it_already_gets_304() {
    let shop = shop().await;
    let product = shop.stocked(5).await;
    let get = |etag: String| {
        let request = shop.anyone(Method::GET, &format!("/products/{product}")).header("if-none-match", etag);
        async move { request.send().await.unwrap() }
    };
    let etag = get("\"x\"".to_owned()).await.headers()["etag"].to_str().unwrap().to_owned();
    assert!(etag.starts_with('"'), "strong: {etag}");
    for held in [etag.clone(), format!("W/{etag}"), format!("\"a\", {etag}"), "*".to_owned()] {
        let response = get(held).await;
        assert_eq!((response.status().as_u16(), &response.headers()["etag"]), (304, &etag.parse().unwrap()));
    }
    shop.reserve(Uuid::now_v7(), &[(&product, 1)]).await;
    let response = get(etag).await;
    assert_eq!(answer(response).await.1["stock"]["available"], 4, "available is part of the body");
}

#[tokio::test]
async fn a_walk_over_equal_values_meets_each_product_once() {
    let shop = shop().await;
    for n in 0..25 {
        let (price, name) = (if n < 20 { 500 } else { n }, format!("Lamp {}", n / 10));
        shop.product(json!({"name": name, "price": {"amount": price, "currency": "EUR"}})).await;
    }
    for query in
        ["", "?sort=price", "?sort=-price", "?sort=name", "?q=lamp", "?q=lamp&sort=newest&category=t-sea"]
    {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        for _ in 0..5 {
            let joint = if query.is_empty() { "?" } else { "&" };
            let (status, page) = shop.get(&format!("/products{query}{joint}limit=7{cursor}")).await;
            assert_eq!(status, 200, "{page}");
            seen.extend(page["items"].as_array().unwrap().clone());
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
            // A product that comes in between shifts nothing.
            if query.is_empty() && seen.len() == 7 {
                shop.product(json!({"name": "Latecomer"})).await;
            }
        }
        let ids: BTreeSet<String> = seen.iter().map(id).collect();
        assert_eq!((seen.len(), ids.len()), (25, 25), "{query}");
        let prices = seen.iter().map(|item| item["price"]["amount"].as_i64().unwrap());
        match query {
            "?sort=price" => assert!(prices.is_sorted()),
            "?sort=-price" => assert!(prices.rev().is_sorted()),
            "?sort=name" => assert!(seen.iter().map(|item| item["name"].as_str().unwrap()).is_sorted()),
            "" => assert!(seen.iter().map(|item| item["created_at"].as_str().unwrap()).rev().is_sorted()),
            _ => {}
        }
        if query.is_empty() {
            let late = shop.get("/products?limit=1").await.1["items"][0].clone();
            let archive =
                shop.staff(Method::DELETE, &format!("/products/{}", id(&late))).header("if-match", "*");
            assert_eq!(archive.send().await.unwrap().status(), 204);
        }
    }
}

#[tokio::test]
async fn a_search_finds_what_it_names() {
    let shop = shop().await;
    let eur = |amount: i64| json!({"amount": amount, "currency": "EUR"});
    shop.product(json!({"name": "Waxed Jacket", "description": "For rain.", "price": eur(9000), "stock": 1,
        "sku": "DKS-CLO-0001", "attributes": {"color": "vermilion"}}))
        .await;
    shop.product(json!({"name": "Mooring Rope", "description": "Goes with a jacket.", "price": eur(3000),
        "category": "t-rope"}))
        .await;
    shop.product(json!({"name": "blanket", "price": eur(5000), "category": "t-home"})).await;
    for (query, found) in [
        ("?q=jackets", &["Waxed Jacket", "Mooring Rope"][..]),
        ("?q=jaket", &["Waxed Jacket", "Mooring Rope"]),
        ("?q=waxed%20jakcet&category=t-sea&in_stock=true", &["Waxed Jacket"]),
        ("?q=morring%20rop", &["Mooring Rope"]),
        ("?q=vermillon", &["Waxed Jacket"]),
        ("?q=%22jaket%22", &[]),
        ("?q=jaket%20-rope", &[]),
        ("?q=the", &[]),
        ("?q=vermilion", &["Waxed Jacket"]),
        ("?q=DKS-CLO-0001", &["Waxed Jacket"]),
        ("?q=waxed%20-jacket", &[]),
        ("?q=zzzzzz", &[]),
        ("?q=%27%22%5C%28%26%7C%21", &[]),
        ("?category=t-sea", &["Mooring Rope", "Waxed Jacket"]),
        ("?category=t-rope", &["Mooring Rope"]),
        ("?min_price=3000&max_price=5000&sort=price", &["Mooring Rope", "blanket"]),
        ("?in_stock=true", &["Waxed Jacket"]),
        ("?in_stock=false&sort=name", &["blanket", "Mooring Rope"]),
        ("?q=jacket&sort=-price&facets=true&utm=1", &["Waxed Jacket", "Mooring Rope"]),
        ("?q=&sort=name", &["blanket", "Mooring Rope", "Waxed Jacket"]),
    ] {
        assert_eq!(names(&shop, query).await, found, "{query}");
    }
}

#[tokio::test]
async fn a_search_that_can_not_be_is_refused() {
    let shop = shop().await;
    shop.stocked(1).await;
    shop.stocked(1).await;
    for (query, pointer) in [
        ("sort=rating", "/sort"),
        ("sort=relevance", "/sort"),
        ("min_price=-1", "/min_price"),
        ("max_price=1.5", "/max_price"),
        ("max_price=99999999999999999999", "/max_price"),
        ("min_price=2&max_price=1", "/min_price"),
        ("in_stock=yes", "/in_stock"),
        ("facets=1", "/facets"),
        ("category=nowhere", "/category"),
        ("category=", "/category"),
        ("limit=0", "/limit"),
        ("limit=101", "/limit"),
        ("q=%00", "/q"),
        (&format!("q={}", "x".repeat(201)), "/q"),
    ] {
        let (status, problem) = shop.get(&format!("/products?{query}")).await;
        assert_eq!((status, pointers(&problem)), (422, vec![pointer]), "{query}");
    }
    let cursor = shop.get("/products?limit=1&sort=price").await.1["next_cursor"].clone();
    let cursor = cursor.as_str().unwrap();
    let tampered = |query: &str, place: Value, respelt: Value| {
        let mut filters = json!({"q": null, "category": null, "min_price": null, "max_price": null,
            "in_stock": null, "sort": "newest"});
        filters.as_object_mut().unwrap().extend(match query {
            "" => json!({}).as_object().unwrap().clone(),
            _ => json!({"q": "lamp", "sort": "relevance"}).as_object().unwrap().clone(),
        });
        let id = "019aaaaa-0000-7000-8000-000000000000";
        let cursor = json!({"filters": filters, "respelt": respelt, "place": place, "id": id});
        format!("{query}&cursor={}", BASE64.encode(cursor.to_string()))
    };
    let sane = tampered("q=lamp", json!({"relevance": ["name", 5]}), json!(["o'l\\amp"]));
    assert_eq!(shop.get(&format!("/products?{sane}")).await.0, 200);
    for query in [
        "cursor=nonsense".to_owned(),
        format!("cursor={cursor}"),
        format!("sort=-price&cursor={cursor}"),
        format!("sort=price&q=lamp&cursor={cursor}"),
        format!("sort=price&category=t-sea&cursor={cursor}"),
        format!("sort=price&min_price=1&cursor={cursor}"),
        format!("sort=price&in_stock=true&cursor={cursor}"),
        tampered("", json!({"newest": i64::MAX}), json!(null)),
        tampered("", json!({"price": 5}), json!(null)),
        tampered("q=lamp", json!({"relevance": ["name", i64::MIN]}), json!(null)),
        tampered("q=lamp", json!({"relevance": ["name", 5]}), json!(["a\u{0}b"])),
        tampered("q=lamp", json!({"relevance": ["name", 5]}), json!([])),
        tampered("q=lamp", json!({"relevance": ["name", 5]}), json!(["x".repeat(201)])),
    ] {
        let (status, problem) = shop.get(&format!("/products?{query}")).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_cursor")), "{query}");
    }
    for path in ["/products/nothing", "/products/%00", "/products/019aaaaa-0000-7000-8000-000000000000"] {
        assert_eq!(shop.get(path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn words_in_a_name_go_before_those_in_attributes_and_descriptions() {
    let shop = shop().await;
    for n in 0..4 {
        let lamp = ["", " lamp"][n % 2];
        shop.product(json!({"name": format!("Brass{lamp} {n}"), "description": "Burns oil, as a lamp."}))
            .await;
        shop.product(json!({"name": format!("Lantern {n}"), "attributes": {"like": "brass lamp"}})).await;
        shop.product(json!({"name": format!("Wick {n}"), "description": "For a lamp of brass."})).await;
    }
    let order = [
        "Brass lamp 3",
        "Brass lamp 1",
        "Lantern 3",
        "Lantern 2",
        "Lantern 1",
        "Lantern 0",
        "Wick 3",
        "Wick 2",
        "Brass 2",
        "Wick 1",
        "Wick 0",
        "Brass 0",
    ];
    for (q, respelt) in [("brass%20lamp", false), ("bras%20lampp", true)] {
        assert_eq!(names(&shop, &format!("?q={q}")).await, order, "{q}");
        for limit in [1, 2, 5] {
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            for _ in 0..13 {
                let (_, page) = shop.get(&format!("/products?q={q}&limit={limit}{cursor}")).await;
                let items = page["items"].as_array().unwrap().iter();
                seen.extend(items.map(|item| item["name"].as_str().unwrap().to_owned()));
                let Some(next) = page["next_cursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
                // From now on the shop knows the words as they were spelt; the walk goes on as it began.
                if respelt && limit == 5 {
                    shop.product(json!({"name": "bras lampp"})).await;
                }
            }
            assert_eq!(seen, order, "{q} by {limit}");
        }
    }
}

#[tokio::test]
async fn in_stock_is_as_of_now() {
    let shop = shop().await;
    let product = shop.stocked(2).await;
    let found = async |query: &str| names(&shop, query).await.len();
    let order = Uuid::now_v7();
    for (in_stock, sold_out) in [(1, 0), (0, 1), (1, 0)] {
        assert_eq!((found("?in_stock=true").await, found("?in_stock=false").await), (in_stock, sold_out));
        let (_, answer) = shop.get("/products?in_stock=false&facets=true").await;
        assert_eq!(answer["facets"]["price_bands"][1]["count"], sold_out);
        if in_stock == 1 {
            shop.reserve(order, &[(&product, 2)]).await;
        } else {
            shop.release(order).await;
        }
    }
    let adjust = json!({"delta": -2, "reason": "lost"});
    assert_eq!(shop.post(&format!("/products/{product}/stock-adjustments"), &adjust).await.0, 201);
    assert_eq!(found("?in_stock=true").await, 0);
}

#[tokio::test]
async fn facets_count_by_all_filters_but_their_own() {
    let shop = shop().await;
    for (category, amount, stock, name) in [
        ("t-sea", 500, 1, "Lamp"),
        ("t-rope", 999, 1, "Rope"),
        ("t-rope", 1000, 0, "Rope lamp"),
        ("t-rope", 30_000, 1, "Rope"),
        ("t-home", 2499, 1, "Lamp"),
    ] {
        let price = json!({"amount": amount, "currency": "EUR"});
        shop.product(json!({"category": category, "price": price, "stock": stock, "name": name,
            "description": "Good."}))
            .await;
    }
    // Sea with what is below it, Rope, Home; then the bands.
    for (query, categories, bands) in [
        ("", [4, 3, 1], [2, 2, 0, 0, 0, 1]),
        ("&category=t-rope", [4, 3, 1], [1, 1, 0, 0, 0, 1]),
        ("&category=t-sea&max_price=999", [2, 1, 0], [2, 1, 0, 0, 0, 1]),
        ("&in_stock=true", [3, 2, 1], [2, 1, 0, 0, 0, 1]),
        ("&in_stock=false", [1, 1, 0], [0, 1, 0, 0, 0, 0]),
        ("&q=lamp", [2, 1, 1], [1, 2, 0, 0, 0, 0]),
        ("&q=lampp&category=t-home&min_price=1000", [1, 1, 1], [0, 1, 0, 0, 0, 0]),
        ("&q=zzzzzz", [0, 0, 0], [0, 0, 0, 0, 0, 0]),
        ("&q=the", [0, 0, 0], [0, 0, 0, 0, 0, 0]),
        ("&q=good&in_stock=true&max_price=2499", [2, 1, 1], [2, 1, 0, 0, 0, 1]),
    ] {
        let (status, answer) = shop.get(&format!("/products?facets=true&limit=1{query}")).await;
        assert_eq!(status, 200, "{answer}");
        let facets = &answer["facets"];
        let counts = |nodes: &Value| {
            let nodes = nodes.as_array().unwrap().iter();
            nodes.map(|node| (node["slug"].clone(), node["count"].clone())).collect::<Vec<_>>()
        };
        let expected = |counts: &[(&str, i64)]| {
            let counts = counts.iter().filter(|(_, count)| *count > 0);
            counts.map(|(slug, count)| (json!(slug), json!(count))).collect::<Vec<_>>()
        };
        let [sea, rope, home] = categories;
        let tree = &facets["categories"];
        assert_eq!(counts(tree), expected(&[("t-sea", sea), ("t-home", home)]), "{query} {facets}");
        if sea > 0 {
            assert_eq!(counts(&tree[0]["children"]), expected(&[("t-rope", rope)]), "{query} {facets}");
        }
        let given =
            facets["price_bands"].as_array().unwrap().iter().map(|band| band["count"].as_i64().unwrap());
        assert_eq!(given.collect::<Vec<_>>(), bands, "{query} {facets}");
    }
    let (_, answer) = shop.get("/products?facets=true").await;
    let facets = &answer["facets"];
    assert_eq!(
        facets["price_bands"][1],
        json!({"min_price": 1000, "max_price": 2499, "count": 2, "capped": false})
    );
    assert_eq!(facets["price_bands"][5], json!({"min_price": 25_000, "count": 1, "capped": false}));
    assert_eq!(
        facets["categories"][1],
        json!({"slug": "t-home", "name": "Home", "count": 1, "capped": false, "children": []})
    );
    for query in ["", "?facets=false"] {
        assert_eq!(shop.get(&format!("/products{query}")).await.1.get("facets"), None);
    }
}

#[tokio::test]
async fn categories_count_what_is_below_them() {
    let shop = shop().await;
    for category in ["t-sea", "t-rope", "t-rope"] {
        shop.product(json!({ "category": category })).await;
    }
    let leaf = |slug: &str, name: &str, count: i64| json!({"slug": slug, "name": name, "product_count": count, "children": []});
    let mut sea = leaf("t-sea", "Sea", 3);
    sea["children"] = json!([leaf("t-rope", "Rope", 2)]);
    assert_eq!(shop.get("/categories").await, (200, json!({"items": [sea, leaf("t-home", "Home", 0)]})));
}

#[tokio::test]
async fn the_ledger_tells_where_the_stock_went() {
    let shop = shop().await;
    let product = shop.stocked(10).await;
    let path = format!("/products/{product}/stock-adjustments");
    let order = Uuid::now_v7();
    shop.reserve(order, &[(&product, 4)]).await;
    let (status, entry) = shop.post(&path, &json!({"delta": -6, "reason": "broken"})).await;
    assert_eq!(status, 201);
    assert_eq!(
        (&entry["delta"], &entry["on_hand"], &entry["kind"]),
        (&json!(-6), &json!(4), &json!("adjustment"))
    );
    assert_eq!(entry["product_id"], product.as_str());
    for delta in [-1, -1_000_000] {
        let (status, problem) = shop.post(&path, &json!({"delta": delta, "reason": "too many"})).await;
        assert_eq!((status, &problem["code"]), (409, &json!("insufficient_stock")));
    }
    shop.commit(order).await;
    for (bad, pointer) in [
        (json!({"delta": 0, "reason": "x"}), "/delta"),
        (json!({"delta": 1_000_001, "reason": "x"}), "/delta"),
        (json!({"delta": 1.5, "reason": "x"}), "/delta"),
        (json!({"delta": 1, "reason": " "}), "/reason"),
        (json!({"delta": 1, "reason": "x", "on_hand": 5}), "/on_hand"),
    ] {
        let (status, problem) = shop.post(&path, &bad).await;
        assert_eq!((status, pointers(&problem)), (422, vec![pointer]), "{bad}");
    }
    let nowhere = format!("/products/{}/stock-adjustments", Uuid::now_v7());
    assert_eq!(shop.post(&nowhere, &json!({"delta": 0})).await.0, 404);

    let list = |query: String| {
        let request = shop.staff(Method::GET, &format!("{path}{query}"));
        async move { answer(request.send().await.unwrap()).await }
    };
    let (_, first) = list("?limit=2".to_owned()).await;
    let (_, rest) = list(format!("?limit=2&cursor={}", first["next_cursor"].as_str().unwrap())).await;
    let entries = first["items"].as_array().unwrap().iter().chain(rest["items"].as_array().unwrap());
    let entries: Vec<Value> =
        entries.map(|entry| json!([entry["kind"], entry["delta"], entry["on_hand"]])).collect();
    assert_eq!(json!(entries), json!([["sale", -4, 0], ["adjustment", -6, 4], ["initial", 10, 10]]));
    assert_eq!(first["items"][0]["order_id"], order.to_string());
    let adjustment = &first["items"][1];
    assert_eq!((&adjustment["reason"], &adjustment["order_id"]), (&json!("broken"), &Value::Null));
    assert!(adjustment["actor"].as_str().unwrap().parse::<Uuid>().is_ok(), "{adjustment}");
    assert!(adjustment["created_at"].as_str().unwrap().ends_with('Z'), "{adjustment}");
    let other = format!("/products/{}/stock-adjustments", shop.stocked(1).await);
    let cursor = first["next_cursor"].as_str().unwrap();
    let strange = shop.staff(Method::GET, &format!("{other}?cursor={cursor}")).send().await.unwrap();
    assert_eq!(answer(strange).await.1["code"], "invalid_cursor");
    assert_eq!(rest["next_cursor"], Value::Null);
    assert_eq!(list("?cursor=x".to_owned()).await.1["code"], "invalid_cursor");
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn the_running_service_serves_its_part_of_the_document() {
    let shop = shop().await;
    let root = shop.base.strip_suffix("/api/v1").unwrap();
    let served = answer(reqwest::get(format!("{root}/openapi.json")).await.unwrap()).await;
    assert_eq!(served, (200, product::openapi()));
}

#[tokio::test]
async fn a_name_that_is_being_given_twice_is_told_to_come_again() {
    let shop = shop().await;
    // Whatever a product is called, its slug is taken by another transaction meanwhile.
    shop.product(json!({"name": "Taken"})).await;
    sqlx::raw_sql(
        "CREATE FUNCTION products.taken() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN NEW.slug := 'taken'; RETURN NEW; END $$;
         CREATE TRIGGER taken BEFORE INSERT ON products.products
             FOR EACH ROW EXECUTE FUNCTION products.taken();",
    )
    .execute(&shop.pool)
    .await
    .unwrap();
    let (status, problem) = shop.post("/products", &common::form()).await;
    assert_eq!((status, &problem["code"]), (409, &json!("slug_taken")), "{problem}");
}

//! The public API.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

mod common;

use std::collections::BTreeSet;

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
    assert_eq!(shop.post("/products", &again).await.0, 409);
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
        ("?q=jaket", &["Waxed Jacket"]),
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
    // {"sort":"newest","q":null,"number":9223372036854775807,"name":"","id":"019aaaaa-..."}
    let no_time = "eyJzb3J0IjoibmV3ZXN0IiwicSI6bnVsbCwibnVtYmVyIjo5MjIzMzcyMDM2ODU0Nzc1ODA3LCJuYW1lIjoiIiwiaWQiOiIwMTlhYWFhYS0wMDAwLTcwMDAtODAwMC0wMDAwMDAwMDAwMDAifQ";
    for query in [
        "cursor=nonsense".to_owned(),
        format!("cursor={cursor}"),
        format!("sort=-price&cursor={cursor}"),
        format!("sort=price&q=lamp&cursor={cursor}"),
        format!("cursor={no_time}"),
    ] {
        let (status, problem) = shop.get(&format!("/products?{query}")).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_cursor")), "{query}");
    }
    for path in ["/products/nothing", "/products/%00", "/products/019aaaaa-0000-7000-8000-000000000000"] {
        assert_eq!(shop.get(path).await.0, 404, "{path}");
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
    assert_eq!(rest["next_cursor"], Value::Null);
    assert_eq!(list("?cursor=x".to_owned()).await.1["code"], "invalid_cursor");
    shop.assert_books_balance().await;
}

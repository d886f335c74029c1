//! What each operation refuses: callers and requests, with which code, and in which order it checks.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use crate::common::{Shop, answer, form, id, pointers, shop};
use identity::Role;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use uuid::Uuid;

const JSON: &str = "application/json";
const PNG: &[u8] = b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR and what follows";

/// All that staff may do with a product, and what they may do with `/products`.
fn for_staff(product: &str) -> Vec<(Method, String)> {
    let below = |path: &str| format!("/products/{product}{path}");
    let of_product = [
        (Method::PATCH, below("")),
        (Method::DELETE, below("")),
        (Method::GET, below("/stock-adjustments")),
        (Method::POST, below("/stock-adjustments")),
        (Method::PUT, below("/images/0")),
        (Method::DELETE, below("/images/0")),
    ];
    of_product.into_iter().collect()
}

/// Asserts a problem document of this status and code, and returns it with its headers.
#[track_caller]
fn assert_problem(got: &(u16, HeaderMap, Value), status: u16, code: &str, of: &str) {
    let (given, headers, problem) = got;
    assert_eq!((*given, &problem["code"]), (status, &json!(code)), "{of}: {problem}");
    assert_eq!(headers["content-type"], "application/problem+json", "{of}");
    assert_eq!(problem["status"], status, "{of}");
    for field in ["type", "title", "detail", "instance"] {
        assert!(!problem[field].as_str().unwrap_or_default().is_empty(), "{of}, {field}: {problem}");
    }
}

async fn send(request: reqwest::RequestBuilder) -> (u16, HeaderMap, Value) {
    let response = request.send().await.unwrap();
    let headers = response.headers().clone();
    let (status, body) = answer(response).await;
    (status, headers, body)
}

/// (pointer, code) of each error.
fn errors(problem: &Value) -> Vec<(&str, &str)> {
    let errors = problem["errors"].as_array().unwrap().iter();
    errors.map(|error| (error["pointer"].as_str().unwrap(), error["code"].as_str().unwrap())).collect()
}

/// `form()` with these fields; null takes one away.
fn with(fields: Value) -> Value {
    let mut body = form();
    for (name, value) in fields.as_object().unwrap() {
        match value {
            Value::Null => drop(body.as_object_mut().unwrap().remove(name)),
            value => body[name] = value.clone(),
        }
    }
    body
}

async fn products(shop: &Shop) -> Value {
    shop.get("/products?limit=100").await.1["items"].clone()
}

#[tokio::test]
async fn access_is_checked_before_anything_else() {
    let shop = shop().await;
    let product = shop.stocked(1).await;
    let before = products(&shop).await;
    let mut operations: Vec<(Method, String)> = vec![
        (Method::POST, "/products".to_owned()),
        (Method::POST, "/product-imports".to_owned()),
        (Method::GET, format!("/product-imports/{product}")),
        (Method::GET, "/product-imports/nonsense".to_owned()),
    ];
    operations.extend(for_staff(&product));
    operations.extend(for_staff("nonsense"));
    for (method, path) in operations {
        let of = format!("{method} {path}");
        // A refusal needs neither a body, nor If-Match, nor such a product.
        let anyone = shop.anyone(method.clone(), &path).body("{");
        let got = send(anyone).await;
        assert_problem(&got, 401, "missing_token", &of);
        assert!(got.1["www-authenticate"].to_str().unwrap().starts_with("Bearer "), "{of}");
        let got = send(shop.anyone(method.clone(), &path).bearer_auth("x").body("{")).await;
        assert_problem(&got, 401, "invalid_token", &of);
        assert!(got.1["www-authenticate"].to_str().unwrap().contains("invalid_token"), "{of}");
        let got = send(shop.as_role(Role::Customer, method, &path).body("{")).await;
        assert_problem(&got, 403, "forbidden", &of);
    }
    assert_eq!(products(&shop).await, before);
}

#[tokio::test]
async fn public_operations_ignore_a_token() {
    let shop = shop().await;
    let product = shop.stocked(1).await;
    let image = format!("/products/{product}/images/0");
    assert_eq!(send(shop.staff(Method::PUT, &image).body(PNG)).await.0, 201);
    for path in ["/products?facets=true", "/categories", &format!("/products/{product}"), &image] {
        for token in ["x".to_owned(), shop.token(Role::Customer), shop.token(Role::Staff)] {
            assert_eq!(send(shop.anyone(Method::GET, path).bearer_auth(token)).await.0, 200, "{path}");
        }
    }
}

#[tokio::test]
async fn a_missing_product_is_reported_before_the_body_is_checked() {
    let shop = shop().await;
    let archived = shop.product(json!({"name": "Gone Lamp", "stock": 2})).await;
    let path = format!("/products/{}", id(&archived));
    assert_eq!(send(shop.staff(Method::PUT, &format!("{path}/images/0")).body(PNG)).await.0, 201);
    assert_eq!(send(shop.staff(Method::DELETE, &path).header("if-match", "*")).await.0, 204);
    let absent = Uuid::now_v7().to_string();
    for name in [&id(&archived), "gone-lamp", &absent, "nonsense", "%00", "%FF", "a%2Fb"] {
        for (method, path) in for_staff(name) {
            // A body of no media type, and no If-Match.
            let got = send(shop.staff(method.clone(), &path).body("{")).await;
            assert_problem(&got, 404, "not_found", &format!("{method} {path}"));
        }
        for path in [format!("/products/{name}"), format!("/products/{name}/images/0")] {
            let got = send(shop.anyone(Method::GET, &path)).await;
            assert_problem(&got, 404, "not_found", &path);
        }
    }
    assert_eq!(shop.stock(&id(&archived)).await, (2, 0));
}

#[tokio::test]
async fn a_body_that_no_operation_takes_is_refused_by_each_and_changes_nothing() {
    let shop = shop().await;
    let product = shop.stocked(3).await;
    let path = format!("/products/{product}");
    let before = products(&shop).await;
    for (method, path) in [
        (Method::POST, "/products".to_owned()),
        // Without If-Match: the errors of the body come first.
        (Method::PATCH, path.clone()),
        (Method::POST, format!("{path}/stock-adjustments")),
    ] {
        let of = format!("{method} {path}");
        let staff = || shop.staff(method.clone(), &path);
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/xml", "x"] {
            let got = send(staff().header("content-type", kind).body("{}")).await;
            assert_problem(&got, 415, "unsupported_media_type", &of);
        }
        assert_problem(&send(staff().body("{}")).await, 415, "unsupported_media_type", &of);
        let deep = ["[".repeat(200), "]".repeat(200)].concat();
        for body in ["", "{", "{} {}", "{\"name\": \"\\ud800\"}", &deep] {
            let got = send(staff().header("content-type", JSON).body(body.to_owned())).await;
            assert_problem(&got, 400, "malformed_json", &of);
        }
        let got = send(staff().header("content-type", JSON).body(b"{\"name\": \"\xFF\"}".to_vec())).await;
        assert_problem(&got, 400, "malformed_json", &of);
        let long = format!("\"{}\"", "x".repeat(1 << 20));
        let got = send(staff().header("content-type", JSON).body(long)).await;
        assert_problem(&got, 413, "payload_too_large", &of);
        for (body, pointer, code) in [
            (json!([]), "", "invalid_value"),
            (json!(7), "", "invalid_value"),
            (json!({"state": "sold"}), "/state", "unknown_field"),
            (json!({"name": "a\u{0}b"}), "/name", "control_character"),
            (json!({"a\n": 1}), "/a\n", "control_character"),
        ] {
            let got = send(staff().json(&body)).await;
            assert_problem(&got, 422, "validation_failed", &of);
            assert_eq!(errors(&got.2)[0], (pointer, code), "{of}: {body}");
        }
    }
    assert_eq!(products(&shop).await, before);
    assert_eq!(shop.stock(&product).await, (3, 0));
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn every_limit_of_a_product_is_kept_by_both_post_and_patch() {
    let shop = shop().await;
    let other = id(&shop.product(json!({})).await);
    let own_image = format!("/api/v1/products/{other}/images/0");
    assert_eq!(
        send(shop.staff(Method::PUT, own_image.strip_prefix("/api/v1").unwrap()).body(PNG)).await.0,
        201
    );
    let product = shop.product(json!({})).await;
    let path = format!("/products/{}", id(&product));
    let many = |n: usize| -> Value {
        (0..n).map(|n| (format!("a{n}"), json!("x"))).collect::<serde_json::Map<_, _>>().into()
    };
    let addresses = |n: usize| -> Value { (0..n).map(|n| format!("https://a.example/{n}.jpg")).collect() };
    let long_address = format!("https://a.example/{}", "x".repeat(2000));
    for (fields, pointer, code) in [
        (json!({"sku": ""}), "/sku", "invalid_sku"),
        (json!({"sku": "a\u{200b}"}), "/sku", "invalid_sku"),
        (json!({"sku": 7}), "/sku", "invalid_value"),
        (json!({"name": " "}), "/name", "too_short"),
        (json!({"price": 7}), "/price", "invalid_value"),
        (json!({"price": "7 EUR"}), "/price", "invalid_value"),
        (json!({"price": {"amount": "7", "currency": "EUR"}}), "/price/amount", "invalid_value"),
        (json!({"price": {"amount": 1, "currency": "eur"}}), "/price/currency", "invalid_value"),
        (json!({"price": {"amount": 1, "currency": "EUR", "tax": 1}}), "/price/tax", "unknown_field"),
        (json!({"category": ""}), "/category", "unknown_category"),
        (json!({"category": ["t-sea"]}), "/category", "invalid_value"),
        (json!({"attributes": ["red"]}), "/attributes", "invalid_value"),
        (json!({"attributes": many(51)}), "/attributes", "too_many"),
        (json!({"attributes": {"a/b~c": "x".repeat(201)}}), "/attributes/a~1b~0c", "too_long"),
        (json!({"attributes": {"x": {"y": "z"}}}), "/attributes/x", "invalid_value"),
        (json!({"images": "https://a.example/1.jpg"}), "/images", "invalid_value"),
        (json!({"images": addresses(21)}), "/images", "too_many"),
        (json!({"images": ["https://a.example/1.jpg", "ftp://a.example"]}), "/images/1", "invalid_value"),
        (json!({"images": [long_address]}), "/images/0", "invalid_value"),
        (json!({"images": [own_image]}), "/images/0", "unknown_image"),
    ] {
        let created = send(shop.staff(Method::POST, "/products").json(&with(fields.clone()))).await;
        let patched = send(shop.staff(Method::PATCH, &path).header("if-match", "*").json(&fields)).await;
        for got in [created, patched] {
            assert_problem(&got, 422, "validation_failed", &fields.to_string());
            assert_eq!(errors(&got.2), [(pointer, code)], "{fields}");
        }
    }
    for field in ["sku", "name", "description", "price", "category"] {
        let mut body = json!({});
        body[field] = Value::Null;
        let got = send(shop.staff(Method::POST, "/products").json(&with(body))).await;
        let pointer = format!("/{field}");
        assert_eq!(errors(&got.2), [(pointer.as_str(), "missing_field")], "{field}");
    }
    let got = send(shop.staff(Method::POST, "/products").json(&with(json!({"price": {"amount": 1}})))).await;
    assert_eq!(errors(&got.2), [("/price/currency", "missing_field")]);
    let all = json!({"sku": " ", "name": " ", "price": {"amount": -1, "currency": "EUR"}, "stock": -1});
    let got = send(shop.staff(Method::POST, "/products").json(&with(all))).await;
    let pointers: Vec<&str> = errors(&got.2).into_iter().map(|(pointer, _)| pointer).collect();
    assert_eq!(pointers, ["/sku", "/name", "/price/amount", "/stock"]);
    assert_eq!(shop.get(&path).await.1, product);
    assert_eq!(products(&shop).await.as_array().unwrap().len(), 2);
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_product_may_be_as_large_as_the_limits() {
    let shop = shop().await;
    // Letters of four bytes in an order that does not compress, as an index holds a name.
    let letters = |seed: u32, n: u32| -> String {
        let place = |i: u32| (i.wrapping_add(seed)).wrapping_mul(2_654_435_761) >> 16;
        (0..n).map(|i| char::from_u32(0x20000 + place(i) % 0xA000).unwrap()).collect()
    };
    let attributes: serde_json::Map<String, Value> =
        (0..50).map(|n| (letters(n, 64), json!(letters(n * 7, 200)))).collect();
    let images: Vec<String> =
        (0..20).map(|n| format!("https://a.example/{n}/{}", "x".repeat(1979))).collect();
    let body = json!({"sku": "S".repeat(64), "name": letters(1, 200), "description": letters(2, 5000),
        "price": {"amount": 99_999_999, "currency": "EUR"}, "category": "t-sea",
        "attributes": attributes, "images": images, "stock": 1_000_000});
    let (status, product) = shop.post("/products", &body).await;
    assert_eq!(status, 201, "{product}");
    for field in ["sku", "name", "description", "price", "attributes", "images"] {
        assert_eq!(product[field], body[field], "{field}");
    }
    let slug = product["slug"].as_str().unwrap();
    assert_eq!(shop.get(&format!("/products/{slug}")).await, (200, product.clone()));
    for sort in ["newest", "name", "price"] {
        assert_eq!(shop.get(&format!("/products?sort={sort}")).await.1["items"], json!([product]));
    }
    let found = shop.anyone(Method::GET, "/products").query(&[("q", letters(1, 200))]);
    assert_eq!(send(found).await.2["items"][0]["id"], product["id"]);
}

#[tokio::test]
async fn a_search_takes_any_words() {
    let shop = shop().await;
    shop.stocked(1).await;
    let (many, long) = ("ab ".repeat(66), "x".repeat(200));
    for q in [
        "or",
        "-",
        "- -",
        "\"",
        "\"\"",
        "-lamp",
        "-\"a lamp\"",
        "lamp or",
        "or or or",
        "lamp -lamp",
        ":*",
        "a:b",
        "lamp:*A",
        "'",
        "''",
        "\\",
        "\\'",
        "<->",
        "lamp <-> lamp",
        "!!",
        "(",
        ")",
        "&",
        "| |",
        "%",
        "_",
        "*",
        "🏮",
        "\u{200b}",
        "\u{feff}",
        "e\u{301}",
        "ﷺ",
        "http://a.example/?b=c#d",
        "a@b.c",
        "1e400",
        "-1.5e-3",
        "../../etc/passwd",
        "<a href='x'>",
        "{}",
        "NULL",
        "lamp\u{a0}lamp",
        &many,
        &long,
    ] {
        for more in [("facets", "true"), ("sort", "price")] {
            let request = shop.anyone(Method::GET, "/products").query(&[("q", q), more]);
            let (status, _, page) = send(request).await;
            assert_eq!(status, 200, "{q:?} {page}");
            assert!(page["items"].is_array(), "{q:?}");
        }
    }
}

#[tokio::test]
async fn a_page_has_twenty_items_unless_it_is_asked_for_others() {
    let shop = shop().await;
    for _ in 0..21 {
        shop.product(json!({})).await;
    }
    let page = async |query: &str| {
        let (status, page) = shop.get(&format!("/products{query}")).await;
        assert_eq!(status, 200, "{page}");
        (page["items"].as_array().unwrap().len(), page["next_cursor"].is_string())
    };
    assert_eq!(page("").await, (20, true));
    assert_eq!(page("?limit=1").await, (1, true));
    assert_eq!(page("?limit=21").await, (21, false));
    assert_eq!(page("?limit=100").await, (21, false));
    for (query, pointer) in [
        ("limit=-1", "/limit"),
        ("limit=1.0", "/limit"),
        ("limit=", "/limit"),
        ("limit=1&limit=2", "/limit"),
        ("sort=name&sort=price", "/sort"),
        ("sort=", "/sort"),
        ("sort=Name", "/sort"),
        ("sort=-name", "/sort"),
        ("sort=-newest", "/sort"),
        ("category=t-sea%00", "/category"),
        ("min_price=", "/min_price"),
        ("min_price=1e3", "/min_price"),
        ("max_price=-0.1", "/max_price"),
        ("in_stock=", "/in_stock"),
        ("in_stock=TRUE", "/in_stock"),
        ("facets=", "/facets"),
    ] {
        let got = send(shop.anyone(Method::GET, &format!("/products?{query}"))).await;
        assert_problem(&got, 422, "validation_failed", query);
        assert_eq!(errors(&got.2)[0].0, pointer, "{query}");
    }
    let got = send(shop.anyone(Method::GET, "/products?sort=x&in_stock=y&min_price=z&limit=1")).await;
    let pointers: Vec<&str> = errors(&got.2).into_iter().map(|(pointer, _)| pointer).collect();
    assert_eq!(pointers, ["/sort", "/min_price", "/in_stock"]);
}

#[tokio::test]
async fn a_patch_of_nothing_changes_nothing_and_each_answer_has_the_current_tag() {
    let shop = shop().await;
    let product = shop.product(json!({"attributes": {"color": "red"}, "stock": 1})).await;
    let path = format!("/products/{}", id(&product));
    let events = async || -> i64 {
        let events = "SELECT count(*) FROM outbox WHERE type = 'product.updated.v1'";
        sqlx::query_scalar(events).fetch_one(&shop.pool).await.unwrap()
    };
    let tag = async || send(shop.anyone(Method::GET, &path)).await.1["etag"].to_str().unwrap().to_owned();
    let patch = |tag: &str, body: Value| {
        let request = shop.staff(Method::PATCH, &path).header("if-match", tag);
        send(request.header("content-type", "application/merge-patch+json").body(body.to_string()))
    };
    let first = tag().await;
    assert_eq!(events().await, 1);
    for same in
        [json!({}), json!({"name": product["name"]}), json!({"attributes": {"size": null}, "price": {}})]
    {
        let (status, headers, body) = patch(&first, same.clone()).await;
        assert_eq!((status, &body), (200, &product), "{same}");
        assert_eq!(headers["etag"], first.as_str(), "{same}");
    }
    assert_eq!((events().await, tag().await), (1, first.clone()));

    // One PATCH after the other, without a GET in between.
    let (status, headers, body) = patch(&first, json!({"category": "t-rope", "sku": "OTHER"})).await;
    assert_eq!((status, &body["category"], &body["sku"]), (200, &json!("t-rope"), &json!("OTHER")));
    let second = headers["etag"].to_str().unwrap().to_owned();
    assert_eq!((events().await, tag().await), (2, second.clone()));
    assert_ne!(second, first);
    let (status, _, body) = patch(&second, json!({"attributes": null, "description": ""})).await;
    assert_eq!((status, &body["attributes"], &body["description"]), (200, &json!({}), &json!("")));
    let (status, _, problem) = patch(&second, json!({"name": "Late"})).await;
    assert_eq!((status, &problem["code"]), (412, &json!("precondition_failed")));
    let tree = shop.get("/categories").await.1["items"].clone();
    assert_eq!((&tree[0]["product_count"], &tree[0]["children"][0]["product_count"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn an_adjustment_has_its_limits_and_a_refused_one_leaves_no_entry() {
    let shop = shop().await;
    let product = shop.product(json!({"name": "Anchor", "stock": 5})).await;
    let path = "/products/anchor/stock-adjustments";
    let adjust = |body: Value| send(shop.staff(Method::POST, path).json(&body).header("if-match", "\"0.0\""));
    for (body, pointer, code) in [
        (json!({}), "/delta", "missing_field"),
        (json!({"delta": 1}), "/reason", "missing_field"),
        (json!({"reason": "x"}), "/delta", "missing_field"),
        (json!({"delta": "1", "reason": "x"}), "/delta", "invalid_value"),
        (json!({"delta": null, "reason": "x"}), "/delta", "invalid_value"),
        (json!({"delta": -1_000_001, "reason": "x"}), "/delta", "out_of_range"),
        (json!({"delta": i64::MAX, "reason": "x"}), "/delta", "out_of_range"),
        (json!({"delta": u64::MAX, "reason": "x"}), "/delta", "invalid_value"),
        (json!({"delta": 1, "reason": "x".repeat(201)}), "/reason", "too_long"),
        (json!({"delta": 1, "reason": null}), "/reason", "invalid_value"),
        (json!({"delta": 1, "reason": "a\u{0}b"}), "/reason", "control_character"),
        (json!({"delta": 1, "reason": "x", "actor": "me"}), "/actor", "unknown_field"),
    ] {
        let got = adjust(body.clone()).await;
        assert_problem(&got, 422, "validation_failed", &body.to_string());
        assert_eq!(errors(&got.2), [(pointer, code)], "{body}");
    }
    for delta in [-6, -1_000_000] {
        let got = adjust(json!({"delta": delta, "reason": "x"})).await;
        assert_problem(&got, 409, "insufficient_stock", &delta.to_string());
    }
    let staff = |query: &str| send(shop.staff(Method::GET, &format!("{path}{query}")));
    for bad in ["0", "101", "x", ""] {
        let got = staff(&format!("?limit={bad}")).await;
        assert_problem(&got, 422, "validation_failed", bad);
        assert_eq!(errors(&got.2), [("/limit", "out_of_range")], "{bad}");
    }
    for bad in ["", "x", "bnVsbA", "WzFd"] {
        assert_problem(&staff(&format!("?cursor={bad}")).await, 400, "invalid_cursor", bad);
    }
    let whole = "Ü".repeat(200);
    let (status, _, entry) = adjust(json!({"delta": 1_000_000, "reason": whole})).await;
    assert_eq!((status, &entry["on_hand"], &entry["reason"]), (201, &json!(1_000_005), &json!(whole)));
    assert_eq!(adjust(json!({"delta": -1_000_000, "reason": "x"})).await.0, 201);
    assert_eq!(adjust(json!({"delta": -5, "reason": "all"})).await.2["on_hand"], 0);
    assert_eq!(staff("").await.2["items"].as_array().unwrap().len(), 4);
    shop.assert_books_balance().await;

    let full = "UPDATE products.stock SET on_hand = 99999999 WHERE product_id = $1::uuid";
    sqlx::query(full).bind(id(&product)).execute(&shop.pool).await.unwrap();
    let got = adjust(json!({"delta": 2, "reason": "x"})).await;
    assert_problem(&got, 422, "validation_failed", "a full shelf");
    assert_eq!(errors(&got.2), [("/delta", "out_of_range")]);
    assert_eq!(shop.stock(&id(&product)).await, (99_999_999, 0));
    assert_eq!(staff("").await.2["items"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_refused_with_those_it_has() {
    let shop = shop().await;
    let product = shop.stocked(1).await;
    let below = |path: &str| format!("/products/{product}{path}");
    for (method, path, allowed) in [
        (Method::DELETE, "/products".to_owned(), "POST"),
        (Method::PUT, below(""), "PATCH"),
        (Method::PATCH, below("/stock-adjustments"), "POST"),
        (Method::POST, below("/images/0"), "PUT"),
        (Method::GET, "/product-imports".to_owned(), "POST"),
        (Method::POST, format!("/product-imports/{product}"), "GET"),
        (Method::PUT, "/categories".to_owned(), "GET"),
    ] {
        let got = send(shop.anyone(method.clone(), &path)).await;
        assert_problem(&got, 405, "method_not_allowed", &path);
        let allow = got.1["allow"].to_str().unwrap();
        assert!(allow.contains(allowed) && !allow.contains(method.as_str()), "{method} {path}: {allow}");
    }
    assert_problem(&send(shop.anyone(Method::GET, "/product")).await, 404, "not_found", "no such address");
}

#[tokio::test]
async fn a_query_parameter_that_there_is_not_is_refused_and_the_nearest_is_named() {
    let shop = shop().await;
    let product = shop.stocked(1).await;
    let ledger = format!("/products/{product}/stock-adjustments");
    for (path, name, nearest) in [
        ("/products?max_prise=5", "/max_prise", "max_price"),
        ("/products?q=lamp&colour=red&limit=1", "/colour", "cursor"),
        ("/products?q=lamp&Q=lamp", "/Q", "q"),
    ] {
        let (status, problem) = shop.get(path).await;
        assert_eq!((status, pointers(&problem)), (422, vec![name]), "{path}");
        assert_eq!(problem["errors"][0]["code"], "unknown_parameter");
        let detail = problem["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.contains(nearest), "{path}: {detail}");
    }
    // Also where there are none, with any method, and never before it is known who asks.
    for path in [format!("/products/{product}?x=1"), "/categories?limit=1".to_owned()] {
        assert_eq!(shop.get(&path).await.0, 422, "{path}");
    }
    let (path, before) = (format!("{ledger}?dry_run=true"), shop.stock(&product).await);
    let adjust = json!({"delta": 5, "reason": "found"});
    assert_eq!(shop.post(&path, &adjust).await.0, 422);
    assert_eq!(shop.stock(&product).await, before);
    let path = format!("{ledger}?limt=1");
    assert_eq!(shop.get(&path).await.0, 401);
    let customer = shop.as_role(Role::Customer, Method::GET, &path).send().await.unwrap();
    assert_eq!(customer.status(), 403);
    let staff = answer(shop.staff(Method::GET, &path).send().await.unwrap()).await;
    assert_eq!((staff.0, pointers(&staff.1)), (422, vec!["/limt"]));
}

#[tokio::test]
async fn a_store_that_is_spoken_to_in_the_clear_is_refused_before_anything_is_opened() {
    use clap::Parser;

    let started = |settings: [&str; 3]| {
        let of_all = ["--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"];
        let own = ["--trusted-callers=order=x", "--object-store-url=s3://bucket"];
        let all = ["product"].into_iter().chain(of_all).chain(own).chain(settings);
        let config = product::Config::parse_from(all);
        async move { product::start(config, &service::Lifecycle::new()).await.unwrap_err().to_string() }
    };
    let verified = "--database-url=postgres://db.example/shop?sslmode=verify-full";
    let (broker, objects) = ("--amqp-url=amqps://broker.example", "--aws-endpoint-url=https://s3.example");
    for (settings, setting) in [
        (["--database-url=postgres://db.example/shop", broker, objects], "DATABASE_URL"),
        ([verified, "--amqp-url=amqp://broker.example", objects], "AMQP_URL"),
        ([verified, broker, "--aws-endpoint-url=http://s3.example"], "AWS_ENDPOINT_URL"),
        ([verified, broker, objects], "JWKS_URL"),
    ] {
        let said = started(settings).await;
        assert!(said.starts_with(&format!("{setting} leads over the network unencrypted")), "{said}");
    }
}

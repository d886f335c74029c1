//! The public API.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use std::collections::BTreeSet;

use crate::common::{answer, form, id, names, pointers, shop};
use identity::Role;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

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
        (json!({"sku": " "}), "/sku", "invalid_sku"),
        (json!({"sku": "a".repeat(65)}), "/sku", "invalid_sku"),
        (json!({"name": ""}), "/name", "too_short"),
        (json!({"name": "x".repeat(201)}), "/name", "too_long"),
        (json!({"name": "a\u{0}b"}), "/name", "control_character"),
        (json!({"description": "x".repeat(5001)}), "/description", "too_long"),
        (json!({"price": {"amount": -1, "currency": "EUR"}}), "/price/amount", "out_of_range"),
        (
            json!({"price": {"amount": 1_000_000_000_000_i64, "currency": "EUR"}}),
            "/price/amount",
            "out_of_range",
        ),
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
        // Nothing else is checked before: there is neither a body nor If-Match.
        let (status, problem) = answer(shop.anyone(method.clone(), path).send().await.unwrap()).await;
        assert_eq!((status, &problem["code"]), (401, &json!("missing_token")), "{method} {path}");
        let customer = shop.as_role(Role::Customer, method.clone(), path).send().await.unwrap();
        assert_eq!(answer(customer).await.0, 403, "{method} {path}");
    }
    let admin = shop.as_role(Role::Admin, Method::POST, "/products").json(&form()).send().await.unwrap();
    assert_eq!(admin.status(), 201);
}

#[tokio::test]
async fn admins_may_what_staff_may_and_anybody_may_read() {
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
}

#[tokio::test]
async fn what_was_deleted_can_be_restored_until_another_has_its_sku() {
    let shop = shop().await;
    let product = shop.product(json!({"sku": "OLD", "name": "Old Lamp", "stock": 3})).await;
    let path = format!("/products/{}", id(&product));
    let delete = async || {
        let delete = shop.staff(Method::DELETE, &path).header("if-match", "*");
        assert_eq!(delete.send().await.unwrap().status(), 204);
    };
    let restore =
        async || answer(shop.staff(Method::POST, &format!("{path}/restore")).send().await.unwrap()).await;
    delete().await;
    let customer = shop.as_role(Role::Customer, Method::POST, &format!("{path}/restore"));
    assert_eq!(customer.send().await.unwrap().status(), 403);
    let deleted = answer(shop.staff(Method::GET, "/products?status=deleted").send().await.unwrap()).await;
    assert_eq!((deleted.0, &deleted.1["items"][0]["status"]), (200, &json!("deleted")));
    for again in 0..2 {
        let (status, restored) = restore().await;
        assert_eq!(
            (status, restored.get("status"), &restored["stock"]),
            (200, None, &product["stock"]),
            "{again}"
        );
    }
    assert_eq!(names(&shop, "?q=old").await, ["Old Lamp"]);

    // By POST, by an import and by a PATCH its SKU is another's.
    delete().await;
    let (status, other) = shop
        .post("/products", &{
            let mut body = form();
            body["sku"] = json!("OLD");
            body
        })
        .await;
    assert_eq!(status, 201, "{other}");
    let (status, problem) = restore().await;
    assert_eq!((status, &problem["code"]), (409, &json!("sku_taken")));
    let import = shop.staff(Method::POST, "/product-imports").header("content-type", "application/x-ndjson");
    let mut line = form();
    (line["sku"], line["name"]) = (json!("OLD"), json!("New Lamp"));
    let (_, report) = answer(import.body(line.to_string()).send().await.unwrap()).await;
    assert_eq!((&report["updated"], &report["failed"]), (&json!(1), &json!(0)), "{report}");
    let other = format!("/products/{}", id(&other));
    let patch = shop.staff(Method::PATCH, &other).header("if-match", "*").json(&json!({"sku": "NEW"}));
    assert_eq!(patch.send().await.unwrap().status(), 200);
    assert_eq!(restore().await.0, 200);
}

#[tokio::test]
async fn a_draft_is_for_staff_until_it_is_published() {
    let shop = shop().await;
    let draft =
        shop.product(json!({"sku": "D-1", "name": "Draft Lamp", "status": "draft", "stock": 2})).await;
    assert_eq!(draft["status"], "draft");
    let path = format!("/products/{}", id(&draft));
    assert_eq!(shop.get(&path).await.0, 404);
    assert_eq!(shop.get("/products/draft-lamp").await.0, 404);
    assert!(names(&shop, "").await.is_empty() && names(&shop, "?q=draft").await.is_empty());
    let customer = shop.as_role(Role::Customer, Method::GET, &path).send().await.unwrap();
    assert_eq!(customer.status(), 404);
    let (status, seen) = answer(shop.staff(Method::GET, &path).send().await.unwrap()).await;
    assert_eq!((status, &seen), (200, &draft));
    let order = Uuid::now_v7();
    assert!(!crate::common::is_reserved(&shop.reserve(order, &[(&id(&draft), 1)]).await));
    // Staff get it ready.
    let image = format!("{path}/images/0");
    let png = [b"\x89PNG\r\n\x1a\n".as_slice(), &[0; 60]].concat();
    let put = shop.staff(Method::PUT, &image).header("content-type", "image/png").body(png);
    assert_eq!(put.send().await.unwrap().status(), 201);
    assert_eq!(shop.get(&image).await.0, 404);
    assert_eq!(shop.staff(Method::GET, &image).send().await.unwrap().status(), 200);
    let ledger = shop.staff(Method::GET, &format!("{path}/stock-adjustments")).send().await.unwrap();
    assert_eq!(answer(ledger).await.1["items"][0]["on_hand"], 2);

    for (path, status) in [
        ("/products?status=draft", 401),
        ("/products?status=draft&q=lamp", 401),
        ("/products?status=hidden", 422),
        ("/products?status=published", 200),
    ] {
        assert_eq!(shop.get(path).await.0, status, "{path}");
    }
    let customer = shop.as_role(Role::Customer, Method::GET, "/products?status=draft").send().await.unwrap();
    assert_eq!(customer.status(), 403);
    for more in ["q=lamp", "sort=name", "attributes.color=red", "attributes.NAME=red"] {
        let list = shop.staff(Method::GET, &format!("/products?status=draft&{more}")).send().await.unwrap();
        let (status, problem) = answer(list).await;
        assert_eq!((status, &problem["errors"][0]["code"]), (422, &json!("not_allowed")), "{more}");
    }
    let (_, drafts) = answer(shop.staff(Method::GET, "/products?status=draft").send().await.unwrap()).await;
    let listed: Vec<_> = drafts["items"].as_array().unwrap().iter().map(|item| &item["id"]).collect();
    assert_eq!(listed, [&draft["id"]]);
    // Its words are nobody else's business.
    shop.product(json!({"sku": "D-2", "name": "Xylophon", "status": "draft"})).await;
    let (_, page) = shop.get("/products?q=xylophom").await;
    assert_eq!((page.get("did_you_mean"), &page["items"]), (None, &json!([])));

    let patch = async |change: Value| {
        let patch = shop.staff(Method::PATCH, &path).header("if-match", "*").json(&change);
        answer(patch.send().await.unwrap()).await
    };
    assert_eq!(patch(json!({"name": "Deck Lamp"})).await.1["status"], "draft");
    let (status, published) = patch(json!({"status": "published", "description": "Done."})).await;
    assert_eq!((status, published.get("status"), &published["name"]), (200, None, &json!("Deck Lamp")));
    assert_eq!(names(&shop, "?q=deck").await, ["Deck Lamp"]);
    assert_eq!(patch(json!({"status": "draft"})).await.1["status"], "draft");
    assert_eq!(patch(json!({"status": "deleted"})).await.0, 422);
    assert!(names(&shop, "").await.is_empty());
    let mut twin = form();
    twin["sku"] = json!("D-1");
    assert_eq!(shop.post("/products", &twin).await.1["code"], "sku_taken");
    let delete = async || {
        let delete = shop.staff(Method::DELETE, &path).header("if-match", "*").send().await.unwrap();
        assert_eq!(delete.status(), 204);
    };
    delete().await;
    let restore = shop.staff(Method::POST, &format!("{path}/restore")).send().await.unwrap();
    assert_eq!(answer(restore).await.1["status"], "draft", "it is not in the shop for having been deleted");
    delete().await;
    assert_eq!(shop.post("/products", &twin).await.0, 201);
}

#[tokio::test]
async fn products_that_are_asked_for_together_are_each_the_one_that_was_named() {
    let shop = shop().await;
    let (lamp, rope) =
        (shop.product(json!({"name": "Storm Lamp"})).await, shop.product(json!({"name": "Rope"})).await);
    // A name that reads like the id of another product: the id comes first.
    let twin = shop.product(json!({"name": id(&lamp)})).await;
    let gone = shop.product(json!({"name": "Old Lamp"})).await;
    let path = format!("/products/{}", id(&gone));
    assert_eq!(shop.staff(Method::DELETE, &path).header("if-match", "*").send().await.unwrap().status(), 204);
    let asked = [
        (id(&lamp), Some(id(&lamp))),
        ("storm-lamp".to_owned(), Some(id(&lamp))),
        ("rope".to_owned(), Some(id(&rope))),
        (id(&rope), Some(id(&rope))),
        (id(&twin), Some(id(&twin))),
        (id(&gone), None),
        ("old-lamp".to_owned(), None),
        ("%00".to_owned(), None),
        (Uuid::now_v7().to_string(), None),
    ];
    let all = asked.iter().cycle().take(90).map(|(name, wanted)| {
        let shop = &shop;
        async move {
            let (status, body) = shop.get(&format!("/products/{name}")).await;
            let found = (status == 200).then(|| id(&body));
            assert_eq!((status, &found), (if wanted.is_some() { 200 } else { 404 }, wanted), "{name}");
        }
    });
    futures_util::future::join_all(all).await;
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
async fn the_ledger_shows_where_the_stock_went() {
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
async fn a_name_that_is_being_used_twice_is_refused_for_now() {
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
    let (status, problem) = shop.post("/products", &crate::common::form()).await;
    assert_eq!((status, &problem["code"]), (409, &json!("slug_taken")), "{problem}");
}

//! The tree of categories, changed by staff.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use crate::common::{Shop, answer, names, pointers, shop};
use identity::Role;
use reqwest::Method;
use serde_json::{Value, json};

async fn send(shop: &Shop, method: Method, path: &str, body: Value) -> (u16, Value) {
    answer(shop.staff(method, &format!("/categories{path}")).json(&body).send().await.unwrap()).await
}

/// Where the category's address leads without following it.
async fn leads_to(shop: &Shop, slug: &str) -> (u16, Option<String>) {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let answer = client.get(format!("{}/categories/{slug}", shop.base)).send().await.unwrap();
    let location = answer.headers().get("location").map(|to| to.to_str().unwrap().to_owned());
    (answer.status().as_u16(), location)
}

#[tokio::test]
async fn a_category_is_made_once_with_a_key() {
    let shop = shop().await;
    let body = json!({"name": "Deck Gear", "parent": "t-sea"});
    let token = shop.token(Role::Staff);
    for replayed in [None, Some("true")] {
        let post = shop.anyone(Method::POST, "/categories").bearer_auth(&token);
        let made = post.header("idempotency-key", "k").json(&body).send().await.unwrap();
        assert_eq!(made.headers().get("idempotency-replayed").map(|value| value.to_str().unwrap()), replayed);
        assert_eq!(made.headers()["location"], "/api/v1/categories/deck-gear");
        assert_eq!(
            answer(made).await,
            (201, json!({"slug": "deck-gear", "name": "Deck Gear", "parent": "t-sea"}))
        );
    }
    assert_eq!(send(&shop, Method::POST, "", body.clone()).await.1["code"], "slug_taken");
    let (_, tree) = shop.get("/categories").await;
    assert_eq!(tree["items"][0]["children"][1]["slug"], "deck-gear");
    for (body, pointer) in [
        (json!({"name": ""}), "/name"),
        (json!({"name": "A", "slug": "A b"}), "/slug"),
        (json!({"name": "A", "slug": null}), "/slug"),
        (json!({"name": "A", "parent": "nowhere"}), "/parent"),
        (json!({"name": "A", "position": 1}), "/position"),
    ] {
        let (status, problem) = send(&shop, Method::POST, "", body.clone()).await;
        assert_eq!((status, pointers(&problem)), (422, vec![pointer]), "{body}");
    }
    for (role, status) in [(None, 401), (Some(Role::Customer), 403)] {
        let post = match role {
            None => shop.anyone(Method::POST, "/categories"),
            Some(role) => shop.as_role(role, Method::POST, "/categories"),
        };
        assert_eq!(post.json(&json!({"name": "B"})).send().await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn a_category_with_another_slug_is_found_by_the_old_one() {
    let shop = shop().await;
    shop.product(json!({"name": "Cleat", "category": "t-rope"})).await;
    let rename = json!({"slug": "t-lines", "name": "Lines"});
    for again in 0..2 {
        let (status, place) = send(&shop, Method::PATCH, "/t-rope", rename.clone()).await;
        let wanted = json!({"slug": "t-lines", "name": "Lines", "parent": "t-sea"});
        assert_eq!((status, place), (200, wanted), "{again}");
    }
    assert_eq!(leads_to(&shop, "t-rope").await, (308, Some("/api/v1/categories/t-lines".to_owned())));
    for query in ["?category=t-rope", "?category=t-lines", "?category=t-sea"] {
        assert_eq!(names(&shop, query).await, ["Cleat"], "{query}");
    }
    let (_, page) = shop.get("/products?category=t-rope").await;
    assert_eq!(page["items"][0]["category"], "t-lines");
    // Staff's lists and programs may still have the old one.
    let made = shop.product(json!({"name": "Bollard", "category": "t-rope", "description": ""})).await;
    assert_eq!(made["category"], "t-lines");
    // Renamed once more, both lead to the third.
    assert_eq!(send(&shop, Method::PATCH, "/t-lines", json!({"slug": "t-cord"})).await.0, 200);
    for old in ["t-rope", "t-lines"] {
        assert_eq!(leads_to(&shop, old).await.1.as_deref(), Some("/api/v1/categories/t-cord"), "{old}");
    }
    assert_eq!(
        send(&shop, Method::PATCH, "/t-cord", json!({"slug": "t-home"})).await.1["code"],
        "slug_taken"
    );
    assert_eq!(leads_to(&shop, "nowhere").await, (404, None));
}

#[tokio::test]
async fn a_category_moves_but_not_into_itself() {
    let shop = shop().await;
    shop.product(json!({"name": "Cleat", "category": "t-rope"})).await;
    for parent in ["t-sea", "t-rope"] {
        let (status, problem) = send(&shop, Method::PATCH, "/t-sea", json!({"parent": parent})).await;
        assert_eq!((status, pointers(&problem)), (422, vec!["/parent"]), "{parent}");
    }
    let moved = send(&shop, Method::PATCH, "/t-rope", json!({"parent": "t-home", "name": "Ropes"})).await;
    assert_eq!(moved, (200, json!({"slug": "t-rope", "name": "Ropes", "parent": "t-home"})));
    assert!(names(&shop, "?category=t-sea").await.is_empty());
    assert_eq!(names(&shop, "?category=t-home").await, ["Cleat"]);
    assert_eq!(send(&shop, Method::PATCH, "/t-rope", json!({"parent": null})).await.1["parent"], Value::Null);
    // Ten levels and no more.
    for level in 1..=10 {
        let parent = (level > 1).then(|| format!("l-{}", level - 1));
        let made =
            send(&shop, Method::POST, "", json!({"name": format!("L {level}"), "parent": parent})).await;
        assert_eq!(made.0, 201, "{}", made.1);
    }
    let (status, problem) = send(&shop, Method::POST, "", json!({"name": "L 11", "parent": "l-10"})).await;
    assert_eq!((status, &problem["errors"][0]["code"]), (422, &json!("too_deep")));
    assert_eq!(send(&shop, Method::PATCH, "/t-sea", json!({"parent": "l-10"})).await.0, 422);
}

#[tokio::test]
async fn a_category_is_emptied_into_another() {
    let shop = shop().await;
    for n in 0..3 {
        shop.product(json!({"name": format!("Cleat {n}"), "category": "t-sea"})).await;
    }
    let gone = shop.product(json!({"name": "Gone", "category": "t-sea"})).await;
    let delete = shop.staff(Method::DELETE, &format!("/products/{}", crate::common::id(&gone)));
    assert_eq!(delete.header("if-match", "*").send().await.unwrap().status(), 204);
    assert_eq!(send(&shop, Method::DELETE, "/t-sea", json!(null)).await.1["code"], "category_not_empty");
    for (into, status) in
        [("nowhere", 422), ("t-sea", 422), ("t-rope", 422), ("t-home", 204), ("t-home", 204)]
    {
        let path = format!("/t-sea?move_to={into}");
        assert_eq!(send(&shop, Method::DELETE, &path, json!(null)).await.0, status, "{into}");
    }
    assert_eq!(names(&shop, "?category=t-sea&sort=name").await, ["Cleat 0", "Cleat 1", "Cleat 2"]);
    let (_, tree) = shop.get("/categories").await;
    let home = json!([{"slug": "t-home", "name": "Home", "product_count": 3,
        "children": [{"slug": "t-rope", "name": "Rope", "product_count": 0, "children": []}]}]);
    assert_eq!(tree["items"], home);
    assert_eq!(send(&shop, Method::DELETE, "/t-rope", json!(null)).await.0, 204);
    assert_eq!(send(&shop, Method::DELETE, "/t-rope", json!(null)).await.0, 404);
    // A slug that led elsewhere may be a category's again.
    assert_eq!(send(&shop, Method::POST, "", json!({"name": "Sea", "slug": "t-sea"})).await.0, 201);
    assert!(names(&shop, "?category=t-sea").await.is_empty());
}

#[tokio::test]
async fn an_import_goes_by_the_slugs_that_categories_had() {
    let shop = shop().await;
    assert_eq!(send(&shop, Method::PATCH, "/t-rope", json!({"slug": "t-lines"})).await.0, 200);
    let mut line = crate::common::form();
    (line["sku"], line["category"], line["category_name"]) = (json!("OLD-1"), json!("t-rope"), json!("Rope"));
    let mut below = crate::common::form();
    (below["sku"], below["category"], below["category_name"]) =
        (json!("OLD-2"), json!("t-twine"), json!("Twine"));
    below["category_parent"] = json!("t-rope");
    let import = shop.staff(Method::POST, "/product-imports").header("content-type", "application/x-ndjson");
    let (_, report) = answer(import.body(format!("{line}\n{below}\n")).send().await.unwrap()).await;
    assert_eq!((&report["created"], &report["failed"]), (&json!(2), &json!(0)), "{report}");
    let (_, page) = shop.get("/products?category=t-lines").await;
    let found: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| &item["category"]).collect();
    assert_eq!(found, ["t-twine", "t-lines"]);
    assert_eq!(leads_to(&shop, "t-rope").await, (308, Some("/api/v1/categories/t-lines".to_owned())));
}

#[tokio::test]
async fn a_category_is_merged_only_where_what_is_in_it_fits() {
    let shop = shop().await;
    let mut parent = "t-sea".to_owned();
    for level in 2..=10 {
        let slug = format!("l-{level}");
        let body = json!({"slug": slug, "name": "Level", "parent": parent});
        assert_eq!(send(&shop, Method::POST, "", body).await.0, 201);
        parent = slug;
    }
    let inner = json!({"slug": "inner", "name": "Inner", "parent": "t-rope"});
    assert_eq!(send(&shop, Method::POST, "", inner).await.0, 201);
    let (status, problem) = send(&shop, Method::DELETE, "/t-rope?move_to=l-10", Value::Null).await;
    assert_eq!((status, pointers(&problem)), (422, vec!["/move_to"]));
    assert_eq!(problem["errors"][0]["code"], "too_deep");
    // Of two at the bottom one can be merged into the other.
    let leaf = json!({"slug": "leaf", "name": "Leaf", "parent": "l-9"});
    assert_eq!(send(&shop, Method::POST, "", leaf).await.0, 201);
    let merge = shop.staff(Method::DELETE, "/categories/leaf?move_to=l-10");
    assert_eq!(merge.send().await.unwrap().status(), 204);
    // One that is gone itself leads on.
    let merge = shop.staff(Method::DELETE, "/categories/inner?move_to=leaf");
    assert_eq!(merge.send().await.unwrap().status(), 204);
    assert_eq!(leads_to(&shop, "inner").await.1.as_deref(), Some("/api/v1/categories/l-10"));
}

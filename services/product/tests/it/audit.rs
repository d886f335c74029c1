//! The record of who did what.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use crate::common::{Shop, answer, form, id, shop};
use identity::Role;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

const PNG: &[u8] = b"\x89PNG\r\n\x1A\n-1-";
const AUDIT: &str = "/audit/products";

/// Somebody who works here.
struct Worker<'a> {
    shop: &'a Shop,
    id: Uuid,
    token: String,
}

impl<'a> Worker<'a> {
    fn of(shop: &'a Shop) -> Self {
        let id = Uuid::now_v7();
        Self { shop, id, token: shop.token_of(id, Role::Staff) }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.shop.anyone(method, path).bearer_auth(&self.token).header("if-match", "*")
    }

    async fn sends(&self, method: Method, path: &str, body: &Value) -> Value {
        let (status, body) = answer(self.request(method, path).json(body).send().await.unwrap()).await;
        assert!((200..300).contains(&status), "{path}: {status} {body}");
        body
    }

    /// Does what the operation is for, and returns what is to be recorded of it: action and object.
    async fn does(&self, operation: &str) -> (&'static str, String) {
        let product = self.shop.stocked(5).await;
        let path = format!("/products/{product}");
        let category = format!("c-{}", Uuid::now_v7().simple());
        let made = json!({"slug": category, "name": "C"});
        let none = Value::Null;
        match operation {
            "create_product" => {
                ("product.created", id(&self.sends(Method::POST, "/products", &form()).await))
            }
            "update_product" => {
                self.sends(Method::PATCH, &path, &json!({"name": "Another"})).await;
                ("product.changed", product)
            }
            "delete_product" => {
                self.sends(Method::DELETE, &path, &none).await;
                ("product.archived", product)
            }
            "restore_product" => {
                let gone = self.shop.staff(Method::DELETE, &path).header("if-match", "*").send().await;
                assert_eq!(gone.unwrap().status(), 204);
                self.sends(Method::POST, &format!("{path}/restore"), &none).await;
                ("product.restored", product)
            }
            "create_stock_adjustment" => {
                let path = format!("{path}/stock-adjustments");
                self.sends(Method::POST, &path, &json!({"delta": 2, "reason": "found"})).await;
                ("stock.adjusted", product)
            }
            "put_product_image" | "delete_product_image" => {
                let path = format!("{path}/images/0");
                let by = if operation.starts_with("put") { self } else { &Worker::of(self.shop) };
                let put = by.request(Method::PUT, &path).header("content-type", "image/png").body(PNG);
                assert_eq!(put.send().await.unwrap().status(), 201);
                if operation.starts_with("put") {
                    return ("image.put", product);
                }
                self.sends(Method::DELETE, &path, &none).await;
                ("image.deleted", product)
            }
            "import_products" => {
                let import = Uuid::now_v7();
                let lines = format!("{}\n{}\n", form(), form());
                let post = self.request(Method::POST, &format!("/product-imports?id={import}"));
                let post = post.header("content-type", "application/x-ndjson").body(lines);
                let (status, report) = answer(post.send().await.unwrap()).await;
                assert_eq!((status, &report["created"]), (200, &json!(2)), "{report}");
                ("products.imported", import.to_string())
            }
            "create_category" => {
                self.sends(Method::POST, "/categories", &made).await;
                ("category.created", category)
            }
            "update_category" => {
                assert_eq!(self.shop.post("/categories", &made).await.0, 201);
                self.sends(Method::PATCH, &format!("/categories/{category}"), &json!({"name": "D"})).await;
                ("category.changed", category)
            }
            "delete_category" => {
                assert_eq!(self.shop.post("/categories", &made).await.0, 201);
                self.sends(Method::DELETE, &format!("/categories/{category}"), &none).await;
                ("category.deleted", category)
            }
            other => panic!("{other} is for staff: how is it used, and what is recorded of it?"),
        }
    }
}

async fn audit(shop: &Shop, query: &str) -> Vec<Value> {
    let asked = shop.as_role(Role::Admin, Method::GET, &format!("{AUDIT}{query}"));
    let (status, page) = answer(asked.send().await.unwrap()).await;
    assert_eq!(status, 200, "{page}");
    page["items"].as_array().unwrap().clone()
}

async fn count(shop: &Shop) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM audit_log").fetch_one(&shop.pool).await.unwrap()
}

#[tokio::test]
async fn each_operation_for_staff_that_changes_something_is_recorded() {
    let shop = shop().await;
    let document = product::openapi();
    let mut walked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let scopes = operation["security"][0]["token"].to_string();
            if method == "get" || !(scopes.contains("staff") || scopes.contains("admin")) {
                continue;
            }
            let worker = Worker::of(&shop);
            let (action, object) = worker.does(operation["operationId"].as_str().unwrap()).await;
            let entries = audit(&shop, &format!("?actor={}", worker.id)).await;
            assert_eq!(entries.len(), 1, "{method} {path}: {entries:?}");
            let entry = &entries[0];
            assert_eq!(
                (&entry["action"], &entry["object"]["id"]),
                (&json!(action), &json!(object)),
                "{path}"
            );
            assert_eq!((&entry["role"], entry["request_id"].is_string()), (&json!("staff"), true), "{path}");
            walked += 1;
        }
    }
    assert_eq!(walked, 11);
}

#[tokio::test]
async fn what_changes_nothing_is_not_recorded() {
    let shop = shop().await;
    let product = id(&shop.product(json!({"name": "Same"})).await);
    let before = count(&shop).await;
    let path = format!("/products/{product}");
    let patch = async |tag: &str, body: Value| {
        let patch = shop.staff(Method::PATCH, &path).header("if-match", tag).json(&body);
        patch.send().await.unwrap().status().as_u16()
    };
    assert_eq!(patch("*", json!({"name": "Same"})).await, 200);
    assert_eq!(patch("\"0.0\"", json!({"name": "Other"})).await, 412);
    assert_eq!(patch("*", json!({"name": ""})).await, 422);
    let dry = shop.staff(Method::POST, "/product-imports?dry_run=true");
    let dry = dry.header("content-type", "application/x-ndjson").body(form().to_string());
    assert_eq!(dry.send().await.unwrap().status(), 200);
    assert_eq!(count(&shop).await, before);

    let token = shop.token(Role::Staff);
    for _ in 0..2 {
        let post = shop.anyone(Method::POST, &format!("{path}/stock-adjustments")).bearer_auth(&token);
        let post = post.header("idempotency-key", "k").json(&json!({"delta": 1, "reason": "one"}));
        assert_eq!(post.send().await.unwrap().status(), 201);
    }
    assert_eq!(count(&shop).await, before + 1);
}

#[tokio::test]
async fn the_database_refuses_to_change_or_delete_what_is_recorded() {
    let shop = shop().await;
    shop.stocked(1).await;
    for statement in [
        "UPDATE audit_log SET action = 'x.y'",
        "UPDATE audit_log SET at = now() - interval '9 years'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "UPDATE audit_personal SET changes = '[]'",
        "TRUNCATE audit_personal",
    ] {
        // The tests' role is a superuser.
        let error = sqlx::query(statement).execute(&shop.pool).await.expect_err(statement);
        let code = error.as_database_error().and_then(|error| error.code().map(String::from));
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error}");
    }
    assert_eq!(count(&shop).await, 1);
    let of_the_owner = "SELECT privilege_type::text FROM information_schema.role_table_grants
         WHERE table_schema = 'products' AND table_name = 'audit_log' AND grantee = current_user";
    let kept: Vec<String> = sqlx::query_scalar(of_the_owner).fetch_all(&shop.pool).await.unwrap();
    assert!(!kept.iter().any(|right| right == "UPDATE" || right == "TRUNCATE"), "{kept:?}");

    // What is older than a year may go: the sweep takes it.
    sqlx::query(
        "INSERT INTO audit_log (id, at, action, object_kind, changes)
         VALUES (gen_random_uuid(), now() - interval '366 days', 'x.y', 'x', '[]')",
    )
    .execute(&shop.pool)
    .await
    .unwrap();
    let old = "DELETE FROM audit_log WHERE action = 'x.y'";
    assert_eq!(sqlx::query(old).execute(&shop.pool).await.unwrap().rows_affected(), 1);
}

#[tokio::test]
async fn admins_find_what_was_done_by_whom_to_what_and_when() {
    let shop = shop().await;
    let worker = Worker::of(&shop);
    let product = id(&worker.sends(Method::POST, "/products", &form()).await);
    let path = format!("/products/{product}");
    worker.sends(Method::PATCH, &path, &json!({"price": {"amount": 2499, "currency": "EUR"}})).await;
    shop.stocked(3).await;

    let actions = async |query: &str| -> Vec<String> {
        let entries = audit(&shop, query).await;
        entries.iter().map(|entry| entry["action"].as_str().unwrap().to_owned()).collect()
    };
    let both = ["product.changed", "product.created"];
    assert_eq!(actions(&format!("?actor={}", worker.id)).await, both);
    assert_eq!(actions(&format!("?object={product}")).await, both);
    assert_eq!(actions(&format!("?action=product.changed&object={product}")).await, both[..1]);
    assert_eq!(actions("?action=product.created").await.len(), 2);
    assert_eq!(actions("?from=2020-01-01").await.len(), 3);
    assert_eq!(actions("?to=2020-01-01").await.len(), 0);
    assert_eq!(actions("?limit=1").await, ["product.created"]);

    let changed = &audit(&shop, &format!("?action=product.changed&object={product}")).await[0];
    let price = json!([{
        "field": "price",
        "before": {"amount": 1999, "currency": "EUR"},
        "after": {"amount": 2499, "currency": "EUR"},
    }]);
    assert_eq!(changed["changes"], price);

    let first = shop.as_role(Role::Admin, Method::GET, &format!("{AUDIT}?limit=2"));
    let (_, first) = answer(first.send().await.unwrap()).await;
    let next = format!("?cursor={}", first["next_cursor"].as_str().unwrap());
    assert_eq!(actions(&next).await, ["product.created"]);
    for bad in ["actor=x", "from=yesterday", "to=2026-02-30", "action=", "object=%20"] {
        let asked = shop.as_role(Role::Admin, Method::GET, &format!("{AUDIT}?{bad}"));
        assert_eq!(asked.send().await.unwrap().status(), 422, "{bad}");
    }

    let export = format!("{AUDIT}/export?actor={}", worker.id);
    let file = shop.as_role(Role::Admin, Method::GET, &export).send().await.unwrap();
    assert_eq!(file.headers()["content-type"], "application/x-ndjson");
    let text = file.text().await.unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, audit(&shop, &format!("?actor={}", worker.id)).await);
    for path in [AUDIT, &export] {
        for (role, status) in [(Role::Customer, 403), (Role::Staff, 403), (Role::Admin, 200)] {
            assert_eq!(shop.as_role(role, Method::GET, path).send().await.unwrap().status(), status);
        }
        assert_eq!(shop.anyone(Method::GET, path).send().await.unwrap().status(), 401);
    }
}

//! What admins do with accounts.

use std::sync::Arc;

use crate::app::{Answer, App, PASSWORD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const USERS: &str = "/api/v1/users";

async fn id_of(app: &App, token: &str) -> String {
    app.get("/api/v1/me", token).await.body["id"].as_str().expect("an id").to_owned()
}

async fn patch(app: &App, token: &str, id: &str, body: Value) -> Answer {
    app.call(Method::PATCH, &format!("{USERS}/{id}"), token, body).await
}

#[tokio::test]
async fn admins_list_accounts_in_pages_and_find_one_by_address() {
    let app = App::start().await;
    let root = app.admin("root@example.com").await.access;
    for name in ["a", "b", "c", "d"] {
        app.register(&format!("{name}@example.com")).await;
    }
    let (mut path, mut seen) = (format!("{USERS}?limit=2"), Vec::new());
    for size in [2, 2, 1] {
        let page = app.get(&path, &root).await.body;
        let items = page["items"].as_array().unwrap();
        assert_eq!(items.len(), size);
        seen.extend(items.iter().map(|item| item["email"].as_str().unwrap().to_owned()));
        path = format!("{USERS}?limit=2&cursor={}", page["next_cursor"].as_str().unwrap_or_default());
    }
    assert_eq!(seen, ["d", "c", "b", "a", "root"].map(|name| format!("{name}@example.com")));

    let found = app.get(&format!("{USERS}?email=C%40EXAMPLE.com"), &root).await;
    assert_eq!((found.status, &found.body["next_cursor"]), (StatusCode::OK, &Value::Null));
    let items = found.body["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["email"]), (1, &json!("c@example.com")));
    let mut fields: Vec<_> = items[0].as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["created_at", "disabled", "email", "id", "language", "name", "role"]);
    for none in ["nobody%40example.com", "c", ""] {
        let none = app.get(&format!("{USERS}?email={none}"), &root).await.body;
        assert_eq!(none, json!({"items": [], "next_cursor": null}));
    }
    for bad in ["0", "101", "-1", "1.5", ""] {
        app.get(&format!("{USERS}?limit={bad}"), &root).await.is_invalid(&[("/limit", "out_of_range")]);
    }
    for bad in ["email=a%40b.c&email=d%40e.f", "email=a%00%40b.c", "email=%0A"] {
        app.get(&format!("{USERS}?{bad}"), &root).await.is_invalid(&[("/email", "invalid_value")]);
    }
    app.get(&format!("{USERS}?cursor=x"), &root).await.is_problem(400, "invalid_cursor");

    let one = app.get(&format!("{USERS}/{}", items[0]["id"].as_str().unwrap()), &root).await;
    assert_eq!((one.status, &one.body), (StatusCode::OK, &items[0]));
}

#[tokio::test]
async fn nobody_but_an_admin_may_see_or_change_accounts() {
    let app = App::start().await;
    let customer = app.signed_in("ada@example.com").await.access;
    app.admin("staff@example.com").await;
    app.sql("UPDATE users.accounts SET role = 'staff' WHERE email = 'staff@example.com'").await;
    let staff = app.login("staff@example.com", PASSWORD).await.tokens().access;
    let one = format!("{USERS}/{}", id_of(&app, &customer).await);
    for token in [&customer, &staff] {
        app.get(USERS, token).await.is_problem(403, "forbidden");
        for path in [one.as_str(), "/api/v1/users/nonsense"] {
            app.get(path, token).await.is_problem(403, "forbidden");
            let role = json!({"role": "admin"});
            app.call(Method::PATCH, path, token, role).await.is_problem(403, "forbidden");
        }
    }
    app.needs_a_token(&[(Method::GET, USERS), (Method::GET, &one), (Method::PATCH, &one)]).await;
    assert_eq!(app.get("/api/v1/me", &customer).await.body["role"], "customer");
}

#[tokio::test]
async fn a_changed_role_signs_out_everywhere_and_counts_from_the_next_sign_in() {
    let app = App::start().await;
    let root = app.admin("root@example.com").await.access;
    let ada = app.signed_in("ada@example.com").await;
    let id = id_of(&app, &ada.access).await;
    let changed = patch(&app, &root, &id, json!({"role": "staff"})).await;
    assert_eq!((changed.status, &changed.body["role"]), (StatusCode::OK, &json!("staff")));
    assert_eq!(changed.body["disabled"], false);
    app.get("/api/v1/me", &ada.access).await.is_problem(401, "invalid_token");
    app.refresh(&ada.refresh).await.is_problem(401, "invalid_refresh_token");
    let ada = app.login("ada@example.com", PASSWORD).await.tokens();
    assert_eq!(app.get("/api/v1/me", &ada.access).await.body["role"], "staff");

    // What changes nothing signs nobody out.
    for same in [json!({}), json!({"role": "staff"}), json!({"role": "staff", "disabled": false})] {
        assert_eq!(patch(&app, &root, &id, same).await.status, StatusCode::OK);
    }
    app.refresh(&ada.refresh).await.tokens();
}

#[tokio::test]
async fn a_disabled_account_is_shut_out_until_it_is_enabled_again() {
    let app = App::start().await;
    let root = app.admin("root@example.com").await.access;
    let ada = app.signed_in("ada@example.com").await;
    let id = id_of(&app, &ada.access).await;
    let disabled = patch(&app, &root, &id, json!({"disabled": true})).await;
    assert_eq!((disabled.status, &disabled.body["disabled"]), (StatusCode::OK, &json!(true)));
    app.get("/api/v1/me", &ada.access).await.is_problem(401, "invalid_token");
    app.refresh(&ada.refresh).await.is_problem(401, "invalid_refresh_token");
    app.login("ada@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
    assert_eq!(app.count("SELECT count(*) FROM users.sessions").await, 1);

    assert_eq!(patch(&app, &root, &id, json!({"disabled": false})).await.body["disabled"], false);
    app.login("ada@example.com", PASSWORD).await.tokens();
    // The old sessions stay ended.
    app.refresh(&ada.refresh).await.is_problem(401, "invalid_refresh_token");
}

#[tokio::test]
async fn bad_changes_are_refused_and_change_nothing() {
    let app = App::start().await;
    let root = app.admin("root@example.com").await.access;
    let ada = app.signed_in("ada@example.com").await.access;
    let id = id_of(&app, &ada).await;
    for (body, pointer, code) in [
        (json!({"role": "root"}), "/role", "invalid_value"),
        (json!({"role": null}), "/role", "invalid_value"),
        (json!({"disabled": "yes"}), "/disabled", "invalid_value"),
        (json!({"disabled": null}), "/disabled", "invalid_value"),
        (json!({"email": "x@example.com"}), "/email", "unknown_field"),
        (json!([]), "", "invalid_value"),
    ] {
        patch(&app, &root, &id, body).await.is_invalid(&[(pointer, code)]);
    }
    let absent = "018f0000-0000-7000-8000-000000000000";
    for id in [absent, "nonsense"] {
        patch(&app, &root, id, json!({"x": 1})).await.is_problem(404, "not_found");
        app.get(&format!("{USERS}/{id}"), &root).await.is_problem(404, "not_found");
    }
    let request = app.request(Method::PATCH, &format!("{USERS}/{id}")).bearer_auth(&root).body("{}");
    Answer::of(request.send().await.unwrap()).await.is_problem(415, "unsupported_media_type");
    let me = app.get("/api/v1/me", &ada).await;
    assert_eq!((me.status, &me.body["role"]), (StatusCode::OK, &json!("customer")));
}

#[tokio::test]
async fn one_change_may_be_of_both_and_another_admin_may_be_changed() {
    let app = App::start().await;
    let root = app.admin("root@example.com").await.access;
    let second = app.admin("second@example.com").await;
    let id = id_of(&app, &second.access).await;
    let merge = app.request(Method::PATCH, &format!("{USERS}/{id}")).bearer_auth(&root);
    let merge = merge.header("content-type", "application/merge-patch+json");
    let body = json!({"role": "customer", "disabled": true}).to_string();
    let changed = Answer::of(merge.body(body).send().await.unwrap()).await;
    assert_eq!((changed.status, &changed.body["role"]), (StatusCode::OK, &json!("customer")));
    assert_eq!(changed.body["disabled"], true);
    app.refresh(&second.refresh).await.is_problem(401, "invalid_refresh_token");
    assert_eq!(app.get(&format!("{USERS}/{id}"), &root).await.body, changed.body);
}

#[tokio::test]
async fn an_admin_does_not_change_the_own_account() {
    let app = App::start().await;
    let root = app.admin("root@example.com").await.access;
    app.admin("second@example.com").await;
    let id = id_of(&app, &root).await;
    for change in [json!({"role": "customer"}), json!({"disabled": true})] {
        patch(&app, &root, &id, change).await.is_problem(409, "own_account");
    }
    let same = patch(&app, &root, &id, json!({"role": "admin", "disabled": false})).await;
    assert_eq!(same.status, StatusCode::OK);
    assert_eq!(app.get(USERS, &root).await.status, StatusCode::OK);
}

#[tokio::test]
async fn of_two_admins_who_demote_each_other_at_once_one_stays() {
    let app = Arc::new(App::start().await);
    let tokens = [app.admin("a@example.com").await.access, app.admin("b@example.com").await.access];
    let ids = [id_of(&app, &tokens[0]).await, id_of(&app, &tokens[1]).await];
    let demote = |by: usize| {
        let (app, token, id) = (app.clone(), tokens[by].clone(), ids[1 - by].clone());
        tokio::spawn(async move { patch(&app, &token, &id, json!({"role": "customer"})).await })
    };
    let held = app.hold("SELECT FROM users.accounts FOR UPDATE").await;
    let (one, other) = (demote(0), demote(1));
    app.release(held, 2).await;
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    let (done, refused) = if one.status == StatusCode::OK { (one, other) } else { (other, one) };
    assert_eq!(done.body["role"], "customer");
    refused.is_problem(409, "last_admin");
    assert_eq!(app.count("SELECT count(*) FROM users.accounts WHERE role = 'admin'").await, 1);
}

//! The record of who did what to accounts, and of what matters to their security.

use crate::app::mail::queue;
use crate::app::{App, NO_BROKER, PASSWORD};
use reqwest::Method;
use serde_json::{Value, json};

const AUDIT: &str = "/api/v1/audit/users";

/// Nothing listens there: mails are made, and wait.
const AWAY: &str = "--smtp-url=smtp://127.0.0.1:1";

async fn start() -> App {
    App::start_with(&testing::database("users").await, NO_BROKER, "dockside", &[AWAY]).await
}

async fn audit(app: &App, admin: &str, query: &str) -> Vec<Value> {
    let page = app.get(&format!("{AUDIT}{query}"), admin).await;
    assert_eq!(page.status, 200, "{page:?}");
    page.body["items"].as_array().expect("a page").clone()
}

fn actions(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["action"].as_str().unwrap_or_default()).collect()
}

async fn id_of(app: &App, token: &str) -> String {
    app.get("/api/v1/me", token).await.body["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn each_operation_for_staff_that_changes_something_is_recorded() {
    let app = start().await;
    let admin = app.admin("root@example.com").await.access;
    let root = id_of(&app, &admin).await;
    let document = user::openapi();
    let mut walked = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let scopes = operation["security"][0]["token"].to_string();
            if method == "get" || !(scopes.contains("staff") || scopes.contains("admin")) {
                continue;
            }
            let action = match operation["operationId"].as_str().unwrap_or_default() {
                "update_user" => {
                    let ada = app.signed_in("ada@example.com").await.access;
                    let path = format!("/api/v1/users/{}", id_of(&app, &ada).await);
                    let change = json!({"role": "staff", "disabled": true});
                    assert_eq!(app.call(Method::PATCH, &path, &admin, change).await.status, 200);
                    "account.changed"
                }
                "send_mail_again" => {
                    let event = queue(&app, "bob@example.com").await;
                    let row = "SELECT user_id, order_id FROM users.notifications WHERE event_id = $1";
                    let (user, order): (uuid::Uuid, uuid::Uuid) =
                        sqlx::query_as(row).bind(event).fetch_one(&app.pool).await.expect("a mail");
                    let path = format!("/api/v1/users/{user}/mails");
                    // One that waits leaves by itself: nothing is done, and nothing recorded.
                    let left = "UPDATE users.notifications SET status = 'sent'";
                    for before in ["SELECT", left] {
                        app.sql(before).await;
                        let sent = app.call(Method::POST, &path, &admin, json!({"order_id": order})).await;
                        assert_eq!(sent.status, 201, "{sent:?}");
                    }
                    "mail.sent_again"
                }
                other => panic!("{other} is for staff: how is it used, and what is recorded of it?"),
            };
            let entries = audit(&app, &admin, &format!("?actor={root}&action={action}")).await;
            assert_eq!(entries.len(), 1, "{method} {path}: {entries:?}");
            assert_eq!((&entries[0]["role"], entries[0]["request_id"].is_string()), (&json!("admin"), true));
            walked += 1;
        }
    }
    assert_eq!(walked, 2);
    let changed = &audit(&app, &admin, "?action=account.changed").await[0]["changes"];
    let wanted = json!([
        {"field": "role", "before": "customer", "after": "staff"},
        {"field": "disabled", "before": false, "after": true},
    ]);
    assert_eq!(changed, &wanted);
}

#[tokio::test]
async fn what_matters_to_the_security_of_an_account_is_recorded() {
    let app = start().await;
    let admin = app.admin("root@example.com").await.access;
    let tokens = app.signed_in("ada@example.com").await;
    let id = id_of(&app, &tokens.access).await;
    app.login("ada@example.com", "wrong horse 9").await.is_problem(401, "invalid_credentials");
    app.login("nobody@example.com", "wrong horse 9").await.is_problem(401, "invalid_credentials");
    let change = json!({"current_password": PASSWORD, "email": "ada@example.org"});
    assert_eq!(app.call(Method::POST, "/api/v1/me/email", &tokens.access, change).await.status, 200);
    let change = json!({"current_password": PASSWORD, "new_password": "another horse 8"});
    assert_eq!(app.call(Method::POST, "/api/v1/me/password", &tokens.access, change).await.status, 204);
    let asked = app.post("/api/v1/password-resets", &json!({"email": "ada@example.org"})).await;
    assert_eq!(asked.status, 202);
    let token = testing::eventually("the mail is made", || async {
        sqlx::query_scalar::<_, String>(
            "SELECT convert_from(payload, 'UTF8')::json->>'token' FROM users.notifications
             WHERE kind = 'account.password_reset' AND payload IS NOT NULL",
        )
        .fetch_optional(&app.pool)
        .await
        .expect("the statement works")
    })
    .await;
    let reset = json!({"token": token, "password": "third horse 10"});
    assert_eq!(app.post("/api/v1/password-resets/confirm", &reset).await.status, 204);

    let object = format!("?object={id}");
    let entries = audit(&app, &admin, &object).await;
    let newest_first = [
        "password.reset",
        "password.reset_asked",
        "password.changed",
        "email.changed",
        "sign_in.failed",
        "sign_in.succeeded",
    ];
    assert_eq!(actions(&entries), newest_first);
    assert_eq!((&entries[2]["actor"], &entries[4]["actor"]), (&json!(id), &Value::Null));
    assert_eq!(entries[2]["changes"], json!([{"field": "password"}]));
    let new_device = json!({"field": "new_device", "before": false, "after": true});
    assert_eq!(entries[5]["changes"][1], new_device);
    let email = json!([{"field": "email", "before": "ada@example.com", "after": "ada@example.org"}]);
    assert_eq!(entries[3]["changes"], email);
    // Of an unknown address nothing is recorded: anybody could fill the database.
    let failed = audit(&app, &admin, "?action=sign_in.failed").await;
    let objects: Vec<&Value> = failed.iter().map(|entry| &entry["object"]["id"]).collect();
    assert_eq!(objects, [&json!(id)]);
    assert!(!json!(failed).to_string().contains("example.com"));

    // The tenth failure in a row starts a pause.
    for _ in 0..10 {
        app.login("ada@example.org", "wrong horse 9").await.is_problem(401, "invalid_credentials");
    }
    assert_eq!(audit(&app, &admin, "?action=sign_in.paused").await.len(), 1);
    assert_eq!(audit(&app, &admin, &object).await.len(), newest_first.len() + 10);
}

#[tokio::test]
async fn an_erased_account_leaves_ids_in_the_record_and_no_personal_value() {
    let app = start().await;
    let admin = app.admin("root@example.com").await.access;
    let tokens = app.signed_in("ada@example.com").await;
    let id = id_of(&app, &tokens.access).await;
    let change = json!({"current_password": PASSWORD, "email": "ada@example.org"});
    assert_eq!(app.call(Method::POST, "/api/v1/me/email", &tokens.access, change).await.status, 200);
    assert_eq!(app.delete("/api/v1/me", &tokens.access).await.status, 204);
    let entries = audit(&app, &admin, &format!("?object={id}")).await;
    assert_eq!(actions(&entries), ["account.erased", "email.changed", "sign_in.succeeded"]);
    assert_eq!(entries[1]["changes"], json!([{"field": "email"}]));
    assert_eq!(app.count("SELECT count(*) FROM users.audit_personal").await, 0);
    for (method, path) in [(Method::GET, AUDIT), (Method::GET, "/api/v1/audit/users/export")] {
        let bob = format!("bob-{}@example.com", path.len());
        let bob = app.signed_in(&bob).await.access;
        app.call(method, path, &bob, Value::Null).await.is_problem(403, "forbidden");
    }
    app.needs_a_token(&[(Method::GET, AUDIT), (Method::GET, "/api/v1/audit/users/export")]).await;
    let file = app.request(Method::GET, "/api/v1/audit/users/export").bearer_auth(&admin);
    let text = file.send().await.expect("an answer").text().await.expect("a file");
    assert_eq!(text.lines().count(), audit(&app, &admin, "?limit=100").await.len());
}

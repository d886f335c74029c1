//! What somebody does with the own account: sessions, password, erasure.

use std::sync::Arc;

use crate::app::{Answer, App, PASSWORD};
use prost::Message;
use proto::events::USER_DELETED;
use proto::user::v1::UserDeleted;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const SESSIONS: &str = "/api/v1/me/sessions";
const PASSWORD_PATH: &str = "/api/v1/me/password";
const NEW_PASSWORD: &str = "another horse 8";

async fn sign_in_with(app: &App, email: &str, user_agent: &str) -> crate::app::Tokens {
    let request = app.request(Method::POST, "/api/v1/auth/login").header("user-agent", user_agent);
    let request = request.json(&json!({"email": email, "password": PASSWORD}));
    Answer::of(request.send().await.expect("the service answers")).await.tokens()
}

#[tokio::test]
async fn somebody_sees_where_they_are_signed_in_and_signs_one_out() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await;
    let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    let laptop = sign_in_with(&app, "ada@example.com", firefox).await;
    app.signed_in("eve@example.com").await;

    let list = app.get(SESSIONS, &laptop.access).await;
    assert_eq!((list.status, &list.body["next_cursor"]), (StatusCode::OK, &Value::Null));
    let items = list.body["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!((&items[0]["current"], &items[0]["user_agent"]), (&json!(true), &json!("Firefox on Linux")));
    assert_eq!((&items[1]["current"], &items[1]["user_agent"]), (&json!(false), &json!(null)));
    for item in items {
        assert_eq!(item.as_object().unwrap().len(), 5, "{item}");
        assert!(item["created_at"].as_str().unwrap().ends_with('Z'));
        assert!(item["last_used_at"].as_str().unwrap() >= item["created_at"].as_str().unwrap());
    }

    let other = format!("{SESSIONS}/{}", items[1]["id"].as_str().unwrap());
    let signed_out = app.delete(&other, &laptop.access).await;
    assert_eq!((signed_out.status, signed_out.body), (StatusCode::NO_CONTENT, Value::Null));
    app.get("/api/v1/me", &ada.access).await.is_problem(401, "invalid_token");
    app.refresh(&ada.refresh).await.is_problem(401, "invalid_refresh_token");
    app.delete(&other, &laptop.access).await.is_problem(404, "not_found");
    assert_eq!(app.get(SESSIONS, &laptop.access).await.body["items"].as_array().unwrap().len(), 1);

    let own = format!("{SESSIONS}/{}", items[0]["id"].as_str().unwrap());
    assert_eq!(app.delete(&own, &laptop.access).await.status, StatusCode::NO_CONTENT);
    app.get(SESSIONS, &laptop.access).await.is_problem(401, "invalid_token");
}

#[tokio::test]
async fn sessions_come_in_pages_and_those_that_ran_out_do_not_come() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await;
    for _ in 0..4 {
        app.login("ada@example.com", PASSWORD).await.tokens();
    }
    let (mut path, mut seen) = (format!("{SESSIONS}?limit=2"), Vec::new());
    for size in [2, 2, 1] {
        let page = app.get(&path, &ada.access).await.body;
        let items = page["items"].as_array().unwrap();
        assert_eq!(items.len(), size);
        seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        path = format!("{SESSIONS}?limit=2&cursor={}", page["next_cursor"].as_str().unwrap_or_default());
    }
    assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");

    app.sql("UPDATE users.sessions SET expires_at = now() WHERE id <> (SELECT id FROM users.sessions ORDER BY id LIMIT 1)")
        .await;
    assert_eq!(app.get(SESSIONS, &ada.access).await.body["items"].as_array().unwrap().len(), 1);
    for bad in ["0", "101", "x"] {
        let answer = app.get(&format!("{SESSIONS}?limit={bad}"), &ada.access).await;
        answer.is_invalid(&[("/limit", "out_of_range")]);
    }
    for bad in ["x", "", "bnVsbA", "WzFd"] {
        let answer = app.get(&format!("{SESSIONS}?cursor={bad}"), &ada.access).await;
        answer.is_problem(400, "invalid_cursor");
    }
}

#[tokio::test]
async fn somebody_signs_out_everywhere_session_by_session() {
    let app = App::start().await;
    let here = app.signed_in("ada@example.com").await;
    let phone = app.login("ada@example.com", PASSWORD).await.tokens();
    let laptop = app.login("ada@example.com", PASSWORD).await.tokens();
    let eve = app.signed_in("eve@example.com").await;
    let list = app.get(SESSIONS, &here.access).await.body;
    let mut sessions = list["items"].as_array().unwrap().clone();
    // The own one last, as nothing can be done after it.
    sessions.sort_by_key(|session| session["current"].as_bool());
    assert_eq!(sessions.len(), 3);
    for session in &sessions {
        let path = format!("{SESSIONS}/{}", session["id"].as_str().unwrap());
        assert_eq!(app.delete(&path, &here.access).await.status, StatusCode::NO_CONTENT);
    }
    for ended in [&here, &phone, &laptop] {
        app.get("/api/v1/me", &ended.access).await.is_problem(401, "invalid_token");
        app.refresh(&ended.refresh).await.is_problem(401, "invalid_refresh_token");
    }
    app.refresh(&eve.refresh).await.tokens();
    app.login("ada@example.com", PASSWORD).await.tokens();
}

#[tokio::test]
async fn somebody_signs_out_everywhere_at_once() {
    let app = App::start().await;
    let here = app.signed_in("ada@example.com").await;
    let phone = app.login("ada@example.com", PASSWORD).await.tokens();
    let eve = app.signed_in("eve@example.com").await;
    app.delete(SESSIONS, "nonsense").await.is_problem(401, "invalid_token");
    let signed_out = app.delete(SESSIONS, &here.access).await;
    assert_eq!((signed_out.status, signed_out.body), (StatusCode::NO_CONTENT, Value::Null));
    for ended in [&here, &phone] {
        app.delete(SESSIONS, &ended.access).await.is_problem(401, "invalid_token");
        app.refresh(&ended.refresh).await.is_problem(401, "invalid_refresh_token");
    }
    app.refresh(&eve.refresh).await.tokens();
    app.login("ada@example.com", PASSWORD).await.tokens();
}

#[tokio::test]
async fn staff_and_admins_have_an_account_like_anybody() {
    let app = App::start().await;
    app.register("staff@example.com").await;
    app.sql("UPDATE users.accounts SET role = 'staff'").await;
    app.admin("root@example.com").await;
    for (email, role) in [("staff@example.com", "staff"), ("root@example.com", "admin")] {
        let token = app.login(email, PASSWORD).await.tokens().access;
        let renamed = app.call(Method::PATCH, "/api/v1/me", &token, json!({"name": "Another"})).await;
        assert_eq!((&renamed.body["name"], &renamed.body["role"]), (&json!("Another"), &json!(role)));
        assert_eq!(app.get("/api/v1/me", &token).await.body, renamed.body);
        let place =
            json!({"name": "A", "line1": "1", "city": "Hull", "postal_code": "HU1 1AA", "country": "GB"});
        let added = app.call(Method::POST, "/api/v1/me/addresses", &token, place).await;
        assert_eq!(added.status, StatusCode::CREATED);
        assert_eq!(app.delete(added.header("location"), &token).await.status, StatusCode::NO_CONTENT);
        let list = app.get(SESSIONS, &token).await.body;
        assert_eq!(list["items"][0]["current"], true);
        let change = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
        let changed = app.call(Method::POST, PASSWORD_PATH, &token, change).await;
        assert_eq!(changed.status, StatusCode::NO_CONTENT);
        app.login(email, NEW_PASSWORD).await.tokens();
    }
    let staff = app.login("staff@example.com", NEW_PASSWORD).await.tokens().access;
    assert_eq!(app.delete("/api/v1/me", &staff).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn another_ones_session_is_not_there() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await;
    let list = app.get(SESSIONS, &ada.access).await.body;
    let id = list["items"][0]["id"].as_str().unwrap();
    let (customer, admin) = (app.signed_in("bob@example.com").await, app.admin("eve@example.com").await);
    for other in [customer, admin] {
        app.delete(&format!("{SESSIONS}/{id}"), &other.access).await.is_problem(404, "not_found");
    }
    for absent in ["018f0000-0000-7000-8000-000000000000", "nonsense", "1"] {
        app.delete(&format!("{SESSIONS}/{absent}"), &ada.access).await.is_problem(404, "not_found");
    }
    assert_eq!(app.get("/api/v1/me", &ada.access).await.status, StatusCode::OK);
}

#[tokio::test]
async fn nothing_of_it_is_for_the_anonymous() {
    let app = App::start().await;
    app.needs_a_token(&[
        (Method::GET, "/api/v1/me"),
        (Method::PATCH, "/api/v1/me"),
        (Method::DELETE, "/api/v1/me"),
        (Method::POST, "/api/v1/me/email"),
        (Method::POST, PASSWORD_PATH),
        (Method::GET, SESSIONS),
        (Method::DELETE, SESSIONS),
        (Method::DELETE, "/api/v1/me/sessions/nonsense"),
    ])
    .await;
}

#[tokio::test]
async fn a_new_password_signs_out_everywhere_else() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await;
    let phone = app.login("ada@example.com", PASSWORD).await.tokens();
    let eve = app.signed_in("eve@example.com").await;
    let change = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    let changed = app.call(Method::POST, PASSWORD_PATH, &ada.access, change).await;
    assert_eq!((changed.status, changed.body), (StatusCode::NO_CONTENT, Value::Null));

    app.get("/api/v1/me", &phone.access).await.is_problem(401, "invalid_token");
    app.refresh(&phone.refresh).await.is_problem(401, "invalid_refresh_token");
    app.refresh(&ada.refresh).await.tokens();
    app.refresh(&eve.refresh).await.tokens();
    app.login("ada@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
    app.login("ada@example.com", NEW_PASSWORD).await.tokens();
}

#[tokio::test]
async fn a_password_is_changed_only_by_who_knows_it_and_to_a_good_one() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await;
    let phone = app.login("ada@example.com", PASSWORD).await.tokens();
    let change = |current: &str, new: &str| {
        let body = json!({"current_password": current, "new_password": new});
        app.call(Method::POST, PASSWORD_PATH, &ada.access, body)
    };
    let wrong = change("wrong", NEW_PASSWORD).await;
    wrong.is_problem(422, "wrong_password");
    assert_eq!(wrong.body["errors"][0]["pointer"], "/current_password");
    change(PASSWORD, "short").await.is_invalid(&[("/new_password", "too_short")]);
    change(PASSWORD, &"x".repeat(129)).await.is_invalid(&[("/new_password", "too_long")]);
    change(PASSWORD, "Password123").await.is_invalid(&[("/new_password", "password_too_common")]);
    change(PASSWORD, "a\u{7f}bcdefgh").await.is_invalid(&[("/new_password", "control_character")]);
    let send = |body: Value| app.call(Method::POST, PASSWORD_PATH, &ada.access, body);
    send(json!({"current_password": PASSWORD})).await.is_invalid(&[("/new_password", "missing_field")]);
    send(json!({"current_password": 7, "new_password": NEW_PASSWORD}))
        .await
        .is_invalid(&[("/current_password", "invalid_value")]);
    send(json!({})).await.is_invalid(&[("/current_password", "missing_field")]);
    send(json!({"current_password": "x", "new_password": NEW_PASSWORD, "email": "x"}))
        .await
        .is_invalid(&[("/email", "unknown_field")]);
    // Nothing changed, and nobody was signed out.
    app.refresh(&phone.refresh).await.tokens();
    app.login("ada@example.com", PASSWORD).await.tokens();
}

#[tokio::test]
async fn guesses_at_the_current_password_are_slowed_down_like_sign_ins() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await;
    let change = |current: &str| {
        let body = json!({"current_password": current, "new_password": NEW_PASSWORD});
        app.call(Method::POST, PASSWORD_PATH, &ada.access, body)
    };
    change("wrong").await.is_problem(422, "wrong_password");
    app.sql("UPDATE users.sign_in_failures SET failures = 14").await;
    change("wrong").await.is_problem(422, "wrong_password");
    change(PASSWORD).await.is_problem(429, "too_many_attempts");
    // In this session: whoever has its token keeps nobody else out.
    app.login("ada@example.com", PASSWORD).await.tokens();
    app.sql("UPDATE users.sign_in_failures SET blocked_until = now()").await;
    assert_eq!(change(PASSWORD).await.status, StatusCode::NO_CONTENT);
    assert_eq!(app.count("SELECT count(*) FROM users.sign_in_failures").await, 0);
}

#[tokio::test]
async fn of_two_password_changes_at_once_one_succeeds() {
    let app = Arc::new(App::start().await);
    let ada = app.signed_in("ada@example.com").await;
    let change = || {
        let (app, token) = (app.clone(), ada.access.clone());
        let body = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
        async move { app.call(Method::POST, PASSWORD_PATH, &token, body).await }
    };
    let held = app.hold("SELECT FROM users.accounts FOR UPDATE").await;
    let (answers, ()) = tokio::join!(crate::app::at_once(2, change), app.release(held, 2));
    let changed = answers.iter().filter(|answer| answer.status == StatusCode::NO_CONTENT).count();
    assert_eq!(changed, 1, "{answers:?}");
    answers.iter().find(|answer| answer.status != 204).unwrap().is_problem(422, "wrong_password");
}

#[tokio::test]
async fn a_sign_in_that_overlaps_a_password_change_opens_no_session() {
    let app = Arc::new(App::start().await);
    let ada = app.signed_in("ada@example.com").await;
    // The change is under way when the sign-in has checked the old password.
    let mut change = testing::begin(&app.pool).await;
    sqlx::query("UPDATE users.accounts SET password_hash = 'another'").execute(&mut *change).await.unwrap();
    let signing_in = {
        let app = app.clone();
        tokio::spawn(async move { app.login("ada@example.com", PASSWORD).await })
    };
    testing::eventually("the sign-in waits", || async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (app.count(waiting).await == 1).then_some(())
    })
    .await;
    change.commit().await.unwrap();
    signing_in.await.unwrap().is_problem(401, "invalid_credentials");
    assert_eq!(app.get(SESSIONS, &ada.access).await.body["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn erasure_leaves_nothing_of_a_person_and_is_announced() {
    let app = App::start().await;
    let eve = app.signed_in("eve@example.com").await;
    let registered = app.register("ada@example.com").await.body;
    let ada = app.login("ada@example.com", PASSWORD).await.tokens();
    let place = json!({"name": "Ada Lovelace", "line1": "12 St James's Square", "city": "London",
        "postal_code": "SW1Y 4JH", "country": "GB"});
    app.call(Method::POST, "/api/v1/me/addresses", &ada.access, place).await;
    app.sql(
        "INSERT INTO users.notifications (event_id, user_id, order_id, kind, payload)
         SELECT gen_random_uuid(), id, gen_random_uuid(), 'order.placed.v1', 'Ada'::bytea FROM users.accounts",
    )
    .await;
    app.login("ada@example.com", "wrong").await;
    let event = "SELECT count(*) FROM users.outbox WHERE type = 'user.deleted.v1'";
    assert_eq!(app.count(event).await, 0);

    let erased = app.delete("/api/v1/me", &ada.access).await;
    assert_eq!((erased.status, erased.body), (StatusCode::NO_CONTENT, Value::Null));
    app.delete("/api/v1/me", &ada.access).await.is_problem(401, "invalid_token");
    app.get("/api/v1/me", &ada.access).await.is_problem(401, "invalid_token");
    app.refresh(&ada.refresh).await.is_problem(401, "invalid_refresh_token");
    app.login("ada@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
    app.sql("DELETE FROM users.sign_in_failures").await; // of the line above

    let (kind, version, payload): (String, i64, Vec<u8>) = sqlx::query_as(
        "SELECT type, aggregate_version, payload FROM users.outbox WHERE type = 'user.deleted.v1'",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert_eq!((kind.as_str(), version), (USER_DELETED, 2));
    let id = registered["id"].as_str().unwrap();
    assert_eq!(UserDeleted::decode(payload.as_slice()).unwrap().user_id, id);

    // Nowhere in the schema: not by name, by address, nor by anything that hangs on the account.
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'users'",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    assert!(tables.len() >= 9, "{tables:?}");
    for table in tables {
        let rows = format!("SELECT row_to_json(t)::text FROM users.{table} t");
        let rows: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(rows)).fetch_all(&app.pool).await.unwrap();
        for row in rows {
            let row = row.to_lowercase();
            assert!(!row.contains("ada@") && !row.contains("lovelace"), "{table}: {row}");
            // What was done, and to which account, stays.
            let may_name_it = ["outbox", "audit_log"].contains(&table.as_str());
            assert!(may_name_it || !row.contains(id), "{table}: {row}");
        }
    }
    // Another one's stays.
    assert_eq!(app.count("SELECT count(*) FROM users.notifications").await, 1);
    assert_eq!(app.get("/api/v1/me", &eve.access).await.status, StatusCode::OK);
    // And the address is free again.
    assert_eq!(app.register("ada@example.com").await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn of_many_erasures_at_once_one_is_announced() {
    let app = Arc::new(App::start().await);
    let ada = app.signed_in("ada@example.com").await;
    let erase = || {
        let (app, token) = (app.clone(), ada.access.clone());
        async move { app.delete("/api/v1/me", &token).await }
    };
    let held = app.hold("SELECT FROM users.accounts FOR UPDATE").await;
    let (answers, ()) = tokio::join!(crate::app::at_once(5, erase), app.release(held, 5));
    assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::NO_CONTENT).count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != StatusCode::NO_CONTENT) {
        answer.is_problem(401, "invalid_token");
    }
    assert_eq!(app.count("SELECT count(*) FROM users.outbox WHERE type = 'user.deleted.v1'").await, 1);
}

#[tokio::test]
async fn the_last_admin_can_not_leave() {
    let app = App::start().await;
    let admin = app.admin("root@example.com").await;
    app.delete("/api/v1/me", &admin.access).await.is_problem(409, "last_admin");
    assert_eq!(app.get("/api/v1/me", &admin.access).await.status, StatusCode::OK);
    app.admin("second@example.com").await;
    assert_eq!(app.delete("/api/v1/me", &admin.access).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn an_address_is_changed_by_who_knows_the_password_and_to_a_free_one() {
    let app = App::start().await;
    assert_eq!(app.register("eve@example.com").await.status, 201);
    let token = app.signed_in("ada@example.com").await.access;
    let change = |email: &str, password: &str| {
        let body = json!({"email": email, "current_password": password});
        app.call(Method::POST, "/api/v1/me/email", &token, body)
    };
    change("ada@b\u{fc}cher.example", "not it, ever").await.is_problem(422, "wrong_password");
    change("EVE@example.com", PASSWORD).await.is_problem(409, "email_taken");
    change("ada", PASSWORD).await.is_invalid(&[("/email", "invalid_email")]);
    assert_eq!(app.get("/api/v1/me", &token).await.body["email"], "ada@example.com");
    for _ in 0..2 {
        let changed = change(" ada@b\u{fc}cher.example", PASSWORD).await;
        assert_eq!(
            (changed.status.as_u16(), &changed.body["email"]),
            (200, &json!("ada@b\u{fc}cher.example"))
        );
    }
    app.login("ada@xn--bcher-kva.example", PASSWORD).await.tokens();
    app.login("ada@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
    // The old one is free again.
    assert_eq!(app.register("ada@example.com").await.status, 201);
}

/// PostgreSQL looks up what goes with a deleted row by the foreign key alone: without an index for that it reads the
/// whole table, each time.
#[tokio::test]
async fn what_goes_with_an_account_is_found_by_an_index() {
    let app = App::start().await;
    let keys = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND confdeltype = 'c'";
    assert!(app.count(keys).await > 5);
    let without = sqlx::query_scalar::<_, String>(
        "SELECT conrelid::regclass || '.' || attname FROM pg_constraint
         JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
         WHERE contype = 'f' AND confdeltype = 'c' AND NOT EXISTS (
             SELECT FROM pg_index WHERE indrelid = conrelid AND indkey[0] = conkey[1] AND indisvalid
                AND (indpred IS NULL
                     OR pg_get_expr(indpred, indrelid) = format('(%I IS NOT NULL)', attname)))",
    );
    assert_eq!(without.fetch_all(&app.pool).await.unwrap(), Vec::<String>::new());
}

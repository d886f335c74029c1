//! Sign-up, sign-in and the own account, over HTTP on a real PostgreSQL.

use std::sync::Arc;

use crate::app::{Answer, App, PASSWORD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn somebody_registers_signs_in_and_reads_their_account() {
    let app = App::start().await;
    let registered = app.register("Ada@Example.com").await;
    assert_eq!(registered.status, StatusCode::CREATED);
    assert_eq!(registered.body["email"], "Ada@Example.com");
    assert_eq!(registered.body["name"], "Ada");
    assert_eq!(registered.body["role"], "customer");
    assert!(registered.body["created_at"].as_str().unwrap().ends_with('Z'));
    let fields: Vec<_> = registered.body.as_object().unwrap().keys().collect();
    assert_eq!(fields.len(), 6, "{fields:?}");
    assert_eq!(registered.body["language"], "en");

    let login = app.login("ada@EXAMPLE.com", PASSWORD).await;
    let tokens = login.tokens();
    assert_eq!(login.body["token_type"], "Bearer");
    assert_eq!(login.body["expires_in"], 900);
    assert_eq!(login.header("cache-control"), "no-store");

    let me = app.get("/api/v1/me", &tokens.access).await;
    assert_eq!((me.status, &me.body), (StatusCode::OK, &registered.body));
}

#[tokio::test]
async fn an_address_has_one_account_whatever_its_case() {
    let app = App::start().await;
    assert_eq!(app.register("ada@example.com").await.status, StatusCode::CREATED);
    app.register("ADA@example.com").await.is_problem(409, "email_taken");
    // The errors of the other fields come first.
    let weak = json!({"email": "ada@example.com", "password": "short", "name": "Eve"});
    app.post("/api/v1/auth/register", &weak).await.is_invalid(&[("/password", "too_short")]);
    assert_eq!(app.count("SELECT count(*) FROM users.accounts").await, 1);
    assert_eq!(app.count("SELECT count(*) FROM users.outbox").await, 1);
}

#[tokio::test]
async fn of_six_registrations_of_one_address_at_once_one_succeeds() {
    let app = Arc::new(App::start().await);
    let register = || {
        let app = app.clone();
        async move { app.register("ada@example.com").await }
    };
    // Few enough for all to have their turn at hashing on a slow machine.
    let answers = crate::app::at_once(6, register).await;
    let created = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    assert_eq!(created, 1);
    for answer in answers.iter().filter(|answer| answer.status != StatusCode::CREATED) {
        answer.is_problem(409, "email_taken");
    }
    assert_eq!(app.count("SELECT count(*) FROM users.outbox").await, 1);
}

#[tokio::test]
async fn a_bad_registration_names_each_bad_field_and_changes_nothing() {
    let app = App::start().await;
    let register = |body: Value| {
        let app = &app;
        async move { app.post("/api/v1/auth/register", &body).await }
    };
    register(json!({"email": "nobody", "password": "short", "name": " "})).await.is_invalid(&[
        ("/email", "invalid_email"),
        ("/password", "too_short"),
        ("/name", "too_short"),
    ]);
    let long = |n: usize| "x".repeat(n);
    register(json!({"email": format!("{}@b.c", long(252)), "password": long(129), "name": long(101)}))
        .await
        .is_invalid(&[("/email", "invalid_email"), ("/password", "too_long"), ("/name", "too_long")]);
    register(json!({"email": "a@b.c", "password": "PassWord123", "name": "Ada"}))
        .await
        .is_invalid(&[("/password", "password_too_common")]);
    register(json!({"email": "a@b.c", "password": PASSWORD, "name": "A\u{0}da"}))
        .await
        .is_invalid(&[("/name", "control_character")]);
    register(json!({"email": "a@b.c", "password": "a\u{7}bcdefgh", "name": "Ada"}))
        .await
        .is_invalid(&[("/password", "control_character")]);
    register(json!({"email": format!("{}@b.c", long(251)), "password": long(7), "name": ""}))
        .await
        .is_invalid(&[("/email", "invalid_email"), ("/password", "too_short"), ("/name", "too_short")]);
    let whole = json!({"email": "a@b.c", "password": PASSWORD, "name": "Ada"});
    for field in ["email", "password", "name"] {
        for (value, code) in [(None, "missing_field"), (Some(json!(null)), "invalid_value")] {
            let mut body = whole.clone();
            body.as_object_mut().unwrap().remove(field);
            body.as_object_mut().unwrap().extend(value.map(|value| (field.to_owned(), value)));
            register(body).await.is_invalid(&[(&format!("/{field}"), code)]);
        }
    }
    register(json!({"email": "a@b.c", "password": PASSWORD, "name": "Ada", "role": "admin"}))
        .await
        .is_invalid(&[("/role", "unknown_field")]);
    register(json!({"email": 1, "password": PASSWORD, "name": "Ada"}))
        .await
        .is_invalid(&[("/email", "invalid_value")]);
    assert_eq!(app.count("SELECT count(*) FROM users.accounts").await, 0);
    assert_eq!(app.count("SELECT count(*) FROM users.outbox").await, 0);
}

#[tokio::test]
async fn limits_count_characters_and_unicode_comes_back_as_it_was_sent() {
    let app = App::start().await;
    let (email, password, name) = ("zoë+🚢@bücher.example", "🔑".repeat(128), "Ž".repeat(100));
    let body = json!({"email": email, "password": password, "name": name});
    let registered = app.post("/api/v1/auth/register", &body).await;
    assert_eq!(registered.status, StatusCode::CREATED, "{:?}", registered.body);
    assert_eq!(registered.body["email"], email);
    assert_eq!(registered.body["name"], name);
    app.login(email, &password).await.tokens();

    let (email, password) = (format!("{}@b.c", "x".repeat(250)), "7 horses");
    let body = json!({"email": email, "password": password, "name": "A"});
    assert_eq!(app.post("/api/v1/auth/register", &body).await.status, StatusCode::CREATED);
    app.login(&email, password).await.tokens();
}

#[tokio::test]
async fn an_address_is_one_account_however_it_is_typed() {
    let app = App::start().await;
    let register = |email: &str| {
        let body = json!({"email": email, "password": PASSWORD, "name": "Ada"});
        let app = &app;
        async move { app.post("/api/v1/auth/register", &body).await }
    };
    let registered = register(" Ada@Bücher.example ").await;
    assert_eq!(
        (registered.status, &registered.body["email"]),
        (StatusCode::CREATED, &json!("Ada@Bücher.example"))
    );
    for same in [
        "ada@xn--bcher-kva.example",
        " ADA@BÜCHER.EXAMPLE  ",
        "ada@bu\u{308}cher.example",
        "ada@bücher.example\u{a0}",
    ] {
        register(same).await.is_problem(409, "email_taken");
        app.login(same, PASSWORD).await.tokens();
    }
    let admin = app.admin("root@example.com").await;
    let found = app.get("/api/v1/users?email=ada@XN--BCHER-KVA.example", &admin.access).await.body;
    assert_eq!(found["items"][0]["id"], registered.body["id"]);

    // An account from when domains were compared as they were written.
    register("old@example.com").await;
    app.sql(
        "UPDATE users.accounts SET email = 'old@xn--bcher-kva.example', email_key = 'old@xn--bcher-kva.example'
         WHERE email_key = 'old@example.com'",
    )
    .await;
    for same in ["old@xn--bcher-kva.example", "old@bücher.example"] {
        register(same).await.is_problem(409, "email_taken");
        app.login(same, PASSWORD).await.tokens();
    }
}

#[tokio::test]
async fn a_query_parameter_that_there_is_not_is_refused_and_the_nearest_is_named() {
    let app = App::start().await;
    let admin = app.admin("root@example.com").await;
    let slip = app.get("/api/v1/users?emial=ada@example.com", &admin.access).await;
    assert_eq!(slip.body["errors"][0]["pointer"], "/emial");
    assert!(slip.body["errors"][0]["detail"].as_str().unwrap().ends_with("the nearest is email."));
    slip.is_problem(422, "validation_failed");
    app.get("/api/v1/users?emial=ada@example.com", "").await.is_problem(401, "missing_token");
    app.get("/api/v1/me?fields=name", &admin.access).await.is_problem(422, "validation_failed");
}

#[tokio::test]
async fn a_body_that_no_operation_takes_is_refused_by_each_and_changes_nothing() {
    let app = App::start().await;
    let root = app.admin("root@example.com").await;
    let ada = app.register("ada@example.com").await.body;
    let place =
        json!({"name": "Root", "line1": "1", "city": "Hull", "postal_code": "HU1 1AA", "country": "GB"});
    let added = app.call(Method::POST, "/api/v1/me/addresses", &root.access, place).await;
    assert_eq!(added.status, StatusCode::CREATED);
    let user = format!("/api/v1/users/{}", ada["id"].as_str().unwrap());
    let me = app.get("/api/v1/me", &root.access).await.body;

    app.takes_json_alone(
        &root.access,
        &[
            (Method::POST, "/api/v1/auth/register"),
            (Method::POST, "/api/v1/auth/login"),
            (Method::POST, "/api/v1/auth/refresh"),
            (Method::POST, "/api/v1/auth/logout"),
            (Method::PATCH, "/api/v1/me"),
            (Method::POST, "/api/v1/me/password"),
            (Method::POST, "/api/v1/me/addresses"),
            (Method::PUT, added.header("location")),
            (Method::PATCH, &user),
        ],
    )
    .await;

    assert_eq!(app.get("/api/v1/me", &root.access).await.body, me);
    assert_eq!(app.get(added.header("location"), &root.access).await.body, added.body);
    assert_eq!(app.count("SELECT count(*) FROM users.addresses").await, 1);
    assert_eq!(app.count("SELECT count(*) FROM users.accounts").await, 2);
    assert_eq!(app.count("SELECT count(*) FROM users.sessions").await, 1);
    assert_eq!(app.count("SELECT count(*) FROM users.sign_in_failures").await, 0);
    let unchanged = app.get(&user, &root.access).await.body;
    assert_eq!((&unchanged["role"], &unchanged["disabled"]), (&json!("customer"), &json!(false)));
    app.refresh(&root.refresh).await.tokens();
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_refused_with_those_it_has() {
    let app = App::start().await;
    for (method, path, allowed) in [
        (Method::GET, "/api/v1/auth/login", "POST"),
        (Method::DELETE, "/api/v1/auth/register", "POST"),
        (Method::PUT, "/api/v1/me", "PATCH"),
        (Method::DELETE, "/api/v1/users", "GET"),
        (Method::PATCH, "/api/v1/me/addresses/nonsense", "PUT"),
        (Method::POST, "/.well-known/jwks.json", "GET"),
    ] {
        let answer = Answer::of(app.request(method.clone(), path).send().await.unwrap()).await;
        answer.is_problem(405, "method_not_allowed");
        let allow = answer.header("allow");
        assert!(allow.contains(allowed) && !allow.contains(method.as_str()), "{method} {path}: {allow}");
    }
    app.get("/api/v1/nothing", "x").await.is_problem(404, "not_found");
}

#[tokio::test]
async fn a_wrong_password_an_unknown_address_and_a_disabled_account_look_the_same() {
    let app = App::start().await;
    app.register("ada@example.com").await;
    app.register("eve@example.com").await;
    app.sql("UPDATE users.accounts SET disabled = true WHERE email_key = 'eve@example.com'").await;
    let wrong = app.login("ada@example.com", "wrong").await;
    let unknown = app.login("bob@example.com", PASSWORD).await;
    let disabled = app.login("eve@example.com", PASSWORD).await;
    for answer in [&wrong, &unknown, &disabled] {
        answer.is_problem(401, "invalid_credentials");
        assert_eq!(answer.body["detail"], wrong.body["detail"]);
    }
    app.login("not an address", "wrong").await.is_invalid(&[("/email", "invalid_email")]);
    app.login("ada@example.com", "").await.is_problem(401, "invalid_credentials");

    let sign_in = |body: Value| {
        let app = &app;
        async move { app.post("/api/v1/auth/login", &body).await }
    };
    sign_in(json!({"email": "ada@example.com"})).await.is_invalid(&[("/password", "missing_field")]);
    sign_in(json!({"password": PASSWORD})).await.is_invalid(&[("/email", "missing_field")]);
    sign_in(json!({"email": ["ada@example.com"], "password": PASSWORD}))
        .await
        .is_invalid(&[("/email", "invalid_value")]);
    sign_in(json!({"email": "ada@example.com", "password": PASSWORD, "role": "admin"}))
        .await
        .is_invalid(&[("/role", "unknown_field")]);
    assert_eq!(app.count("SELECT count(*) FROM users.sessions").await, 0);
}

#[tokio::test]
async fn a_closed_or_disabled_account_can_do_nothing_with_its_tokens() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await;
    app.sql("UPDATE users.accounts SET disabled = true").await;
    app.get("/api/v1/me", &ada.access).await.is_problem(401, "invalid_token");
    app.refresh(&ada.refresh).await.is_problem(401, "invalid_refresh_token");
    app.sql("DELETE FROM users.accounts").await;
    app.get("/api/v1/me", &ada.access).await.is_problem(401, "invalid_token");
    app.refresh(&ada.refresh).await.is_problem(401, "invalid_refresh_token");
}

#[tokio::test]
async fn a_customer_changes_their_name_and_nothing_else() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await;
    let patch = |kind: &'static str, body: Value| {
        let request = app.request(Method::PATCH, "/api/v1/me").bearer_auth(&ada.access);
        async move {
            let request = request.header("content-type", kind).body(body.to_string());
            Answer::of(request.send().await.unwrap()).await
        }
    };
    let renamed = patch("application/json", json!({"name": "Countess"})).await;
    assert_eq!((renamed.status, &renamed.body["name"]), (StatusCode::OK, &json!("Countess")));
    let renamed = patch("application/merge-patch+json", json!({"name": "Lovelace"})).await;
    assert_eq!(renamed.status, StatusCode::OK);
    for (body, pointer, code) in [
        (json!({"name": ""}), "/name", "too_short"),
        (json!({"name": "x".repeat(101)}), "/name", "too_long"),
        (json!({"name": "a\u{1b}b"}), "/name", "control_character"),
        (json!({"name": null}), "/name", "invalid_value"),
        (json!({}), "/name", "missing_field"),
        (json!({"name": "x", "role": "admin"}), "/role", "unknown_field"),
        (json!({"name": "x", "email": "eve@example.com"}), "/email", "unknown_field"),
        (json!({"name": "x", "id": "018f0000-0000-7000-8000-000000000000"}), "/id", "unknown_field"),
    ] {
        patch("application/json", body).await.is_invalid(&[(pointer, code)]);
    }
    patch("text/plain", json!({"name": "x"})).await.is_problem(415, "unsupported_media_type");
    assert_eq!(app.get("/api/v1/me", &ada.access).await.body, renamed.body);

    let anonymous = app.request(Method::PATCH, "/api/v1/me").body("{").send().await.unwrap();
    Answer::of(anonymous).await.is_problem(401, "missing_token");
}

#[tokio::test]
async fn demo_accounts_exist_only_when_asked_for_and_keep_a_changed_password() {
    let app = App::start().await;
    assert_eq!(app.count("SELECT count(*) FROM users.accounts").await, 0);

    let demo =
        App::start_with(&app.database_url, crate::app::NO_BROKER, "dockside", &["--demo-accounts=true"])
            .await;
    for (name, role) in [("demo", "customer"), ("staff", "staff"), ("admin", "admin")] {
        let (email, password) = (format!("{name}@dockside.test"), format!("dockside-{name}"));
        let exists = || async {
            let known = sqlx::query("SELECT FROM users.accounts WHERE email = $1").bind(&email);
            known.fetch_optional(&demo.pool).await.unwrap()
        };
        testing::eventually("the demo account", exists).await;
        let tokens = demo.login(&email, &password).await.tokens();
        assert_eq!(demo.get("/api/v1/me", &tokens.access).await.body["role"], role);
    }

    demo.sql("UPDATE users.accounts SET password_hash = 'changed' WHERE email = 'demo@dockside.test'").await;
    demo.sql("DELETE FROM users.accounts WHERE email = 'admin@dockside.test'").await;
    let again =
        App::start_with(&app.database_url, crate::app::NO_BROKER, "dockside", &["--demo-accounts=true"])
            .await;
    testing::eventually("the missing account is back", || async {
        (again.count("SELECT count(*) FROM users.accounts").await == 3).then_some(())
    })
    .await;
    let kept = "SELECT count(*) FROM users.accounts WHERE password_hash = 'changed'";
    assert_eq!(again.count(kept).await, 1);
}

#[tokio::test]
async fn the_running_service_serves_its_part_of_the_document() {
    let app = App::start().await;
    let served = app.get("/openapi.json", "none").await;
    assert_eq!((served.status, served.body), (StatusCode::OK, user::openapi()));
}

#[tokio::test]
async fn an_account_has_the_language_that_it_was_opened_with_until_it_gets_another() {
    let app = App::start().await;
    let register = |email: &str, language: serde_json::Value| {
        let mut body = json!({"email": email, "password": PASSWORD, "name": "Ada"});
        if !language.is_null() {
            body["language"] = language;
        }
        let app = &app;
        async move { app.post("/api/v1/auth/register", &body).await }
    };
    assert_eq!(register("ada@example.com", json!(null)).await.body["language"], "en");
    assert_eq!(register("xiao@example.com", json!("zh")).await.body["language"], "zh");
    for unknown in [json!("de"), json!("ZH"), json!(""), json!(1)] {
        register("eve@example.com", unknown).await.is_invalid(&[("/language", "invalid_value")]);
    }
    let token = app.login("xiao@example.com", PASSWORD).await.tokens().access;
    let edit = |body: serde_json::Value| app.call(Method::PATCH, "/api/v1/me", &token, body);
    assert_eq!(edit(json!({"name": "Xiao"})).await.body["language"], "zh");
    let edited = edit(json!({"language": "en"})).await.body;
    assert_eq!((&edited["language"], &edited["name"]), (&json!("en"), &json!("Xiao")));
    for (body, pointer, code) in [
        (json!({}), "/name", "missing_field"),
        (json!({"language": null}), "/language", "invalid_value"),
        (json!({"language": "fr"}), "/language", "invalid_value"),
    ] {
        edit(body).await.is_invalid(&[(pointer, code)]);
    }
    assert_eq!(app.get("/api/v1/me", &token).await.body["language"], "en");
}

#[tokio::test]
async fn a_password_is_the_same_from_every_keyboard() {
    use argon2::{Argon2, PasswordHasher};

    let app = App::start().await;
    let (composed, decomposed) = ("Gr\u{fc}ne \u{d6}ltonne 7", "Gru\u{308}ne O\u{308}ltonne 7");
    for (email, typed) in [("ada@example.com", composed), ("bea@example.com", decomposed)] {
        let body = json!({"email": email, "password": typed, "name": "Ada"});
        assert_eq!(app.post("/api/v1/auth/register", &body).await.status, StatusCode::CREATED);
        for password in [composed, decomposed] {
            assert_eq!(app.login(email, password).await.status, StatusCode::OK, "{email} {password:?}");
        }
        app.login(email, "Grune Oltonne 7").await.is_problem(401, "invalid_credentials");
    }
    // As an earlier release hashed it: only what was typed is the password, until it is typed once.
    let old: argon2::password_hash::phc::PasswordHash =
        Argon2::default().hash_password(decomposed.as_bytes()).unwrap();
    let update = "UPDATE users.accounts SET password_hash = $1 WHERE email = 'ada@example.com'";
    sqlx::query(update).bind(old.to_string()).execute(&app.pool).await.unwrap();
    app.login("ada@example.com", composed).await.is_problem(401, "invalid_credentials");
    for password in [decomposed, composed] {
        assert_eq!(app.login("ada@example.com", password).await.status, StatusCode::OK, "{password:?}");
    }
}

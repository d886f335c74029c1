//! Devices that somebody has signed in from: guesses from elsewhere don't slow them, and sign-ins from others
//! cause a mail.

use crate::app::{Answer, App, NO_BROKER, PASSWORD, Tokens};
use reqwest::{Method, StatusCode};
use serde_json::json;

const NEW_PASSWORD: &str = "another horse 8";
const PAUSE: &str = "UPDATE users.sign_in_failures SET blocked_until = now() + interval '50 seconds'";
const NEW_DEVICE_MAILS: &str = "SELECT count(*) FROM users.notifications WHERE kind = 'account.new_device'";

/// With a mail server that is away: mails are made, and wait.
async fn start() -> App {
    let database = testing::database("users").await;
    let app = App::start_with(&database, NO_BROKER, "dockside", &["--smtp-url=smtp://127.0.0.1:1"]).await;
    assert_eq!(app.register("ada@example.com").await.status, StatusCode::CREATED);
    app
}

async fn login(app: &App, email: &str, password: &str, devices: &str) -> Answer {
    let request = app.request(Method::POST, "/api/v1/auth/login").header("x-device-token", devices);
    let request = request.json(&json!({"email": email, "password": password}));
    Answer::of(request.send().await.expect("the service answers")).await
}

fn device(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    answer.body["device_token"].as_str().expect("a device token").to_owned()
}

async fn change_password(app: &App, ada: &Tokens, devices: &str) {
    let body = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    let request = app.request(Method::POST, "/api/v1/me/password").bearer_auth(&ada.access).json(&body);
    let changed = request.header("x-device-token", devices).send().await.expect("the service answers");
    assert_eq!(changed.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn guesses_from_elsewhere_do_not_slow_a_known_device_and_its_own_do() {
    let app = start().await;
    let own = device(&app.login("ada@example.com", PASSWORD).await);
    app.login("ada@example.com", "wrong").await.is_problem(401, "invalid_credentials");
    app.sql(PAUSE).await;
    app.login("ada@example.com", PASSWORD).await.is_problem(429, "too_many_attempts");
    let known = login(&app, "ada@example.com", PASSWORD, &own).await;
    known.tokens();
    assert!(known.body.get("device_token").is_none(), "it has one");
    // Nor does its sign-in forget what others guessed.
    app.login("ada@example.com", PASSWORD).await.is_problem(429, "too_many_attempts");

    login(&app, "ada@example.com", "wrong", &own).await.is_problem(401, "invalid_credentials");
    app.sql("UPDATE users.sign_in_failures SET blocked_until = now()").await;
    app.sql("UPDATE users.sign_in_failures SET failures = 14 WHERE email_key LIKE 'device %'").await;
    login(&app, "ada@example.com", "wrong", &own).await.is_problem(401, "invalid_credentials");
    login(&app, "ada@example.com", PASSWORD, &own).await.is_problem(429, "too_many_attempts");
    app.login("ada@example.com", PASSWORD).await.tokens();
}

#[tokio::test]
async fn a_token_is_of_no_use_for_another_account_and_a_browser_may_have_several() {
    let app = start().await;
    app.register("eve@example.com").await;
    let eves = device(&app.login("eve@example.com", PASSWORD).await);
    let adas = device(&login(&app, "ada@example.com", PASSWORD, &eves).await);
    app.login("ada@example.com", "wrong").await.is_problem(401, "invalid_credentials");
    app.sql(PAUSE).await;
    login(&app, "ada@example.com", PASSWORD, &eves).await.is_problem(429, "too_many_attempts");
    for sent in ["x", &"A".repeat(43)] {
        login(&app, "ada@example.com", PASSWORD, sent).await.is_problem(429, "too_many_attempts");
    }
    login(&app, "ada@example.com", PASSWORD, &format!("{eves}, {adas}")).await.tokens();
}

#[tokio::test]
async fn a_sign_in_from_another_device_causes_a_mail_but_for_the_first() {
    let app = start().await;
    let first = device(&app.login("ada@example.com", PASSWORD).await);
    login(&app, "ada@example.com", PASSWORD, &first).await.tokens();
    assert_eq!(app.count(NEW_DEVICE_MAILS).await, 0);
    app.login("ada@example.com", "wrong").await.is_problem(401, "invalid_credentials");
    assert_eq!(app.count(NEW_DEVICE_MAILS).await, 0);
    // A few within an hour.
    for mails in [1, 2, 3, 3] {
        app.login("ada@example.com", PASSWORD).await.tokens();
        assert_eq!(app.count(NEW_DEVICE_MAILS).await, mails);
    }
    let hashed = "SELECT count(*) FROM users.devices WHERE length(token_hash) = 32";
    assert_eq!(app.count(hashed).await, 5);
}

#[tokio::test]
async fn a_new_password_causes_a_mail_and_only_the_device_that_set_it_stays_known() {
    let app = start().await;
    let signed_in = app.login("ada@example.com", PASSWORD).await;
    let (ada, own) = (signed_in.tokens(), device(&signed_in));
    let other = device(&app.login("ada@example.com", PASSWORD).await);
    change_password(&app, &ada, &own).await;
    let changed = "SELECT count(*) FROM users.notifications WHERE kind = 'account.password_changed'";
    assert_eq!(app.count(changed).await, 1);
    let known = login(&app, "ada@example.com", NEW_PASSWORD, &own).await;
    assert!(known.body.get("device_token").is_none(), "{:?}", known.body);
    assert_ne!(device(&login(&app, "ada@example.com", NEW_PASSWORD, &other).await), other);
}

#[tokio::test]
async fn an_account_has_a_hundred_devices_and_takes_them_along() {
    let app = start().await;
    let ada = app.login("ada@example.com", PASSWORD).await.tokens();
    app.sql(
        "INSERT INTO users.devices (id, account_id, token_hash)
         SELECT gen_random_uuid(), id, sha256(n::text::bytea) FROM users.accounts, generate_series(1, 150) n",
    )
    .await;
    app.login("ada@example.com", PASSWORD).await.tokens();
    assert_eq!(app.count("SELECT count(*) FROM users.devices").await, 100);
    assert_eq!(app.delete("/api/v1/me", &ada.access).await.status, StatusCode::NO_CONTENT);
    assert_eq!(app.count("SELECT count(*) FROM users.devices").await, 0);
}

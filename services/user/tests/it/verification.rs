//! Addresses that count once they are verified: registration, and a change of the address.

use std::sync::Arc;

use crate::app::{Answer, App, NO_BROKER, PASSWORD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const CONFIRM: &str = "/api/v1/email-verifications/confirm";
const AGAIN: &str = "/api/v1/email-verifications";

/// Nothing listens there: mails are made, and wait.
const AWAY: &str = "--smtp-url=smtp://127.0.0.1:1";
const REQUIRED: &str = "--email-verification=required";

async fn start(settings: &[&str]) -> App {
    App::start_with(&testing::database("users").await, NO_BROKER, "dockside", settings).await
}

async fn start_required() -> App {
    start(&[AWAY, REQUIRED]).await
}

async fn register(app: &App, email: &str, password: &str) -> Answer {
    let body = json!({"email": email, "password": password, "name": "Ada", "language": "zh"});
    app.post("/api/v1/auth/register", &body).await
}

async fn confirm(app: &App, token: &str, password: &str) -> Answer {
    app.post(CONFIRM, &json!({"token": token, "password": password})).await
}

/// The kinds of the mails to this address, the oldest first, each with its token.
async fn mails(app: &App, email: &str) -> Vec<(String, String)> {
    let mails = sqlx::query_as(
        "SELECT kind, COALESCE(NULLIF(convert_from(payload, 'UTF8'), '')::json->>'token', '')
         FROM users.notifications WHERE user_id IS NULL AND email = $1 ORDER BY event_id",
    );
    mails.bind(email).fetch_all(&app.pool).await.expect("the statement works")
}

async fn kinds(app: &App, email: &str) -> Vec<String> {
    mails(app, email).await.into_iter().map(|(kind, _)| kind).collect()
}

/// The token in the newest mail to this address.
async fn token(app: &App, email: &str) -> String {
    mails(app, email).await.pop().expect("a mail").1
}

/// An account that was opened by a mail, signed in.
async fn verified(app: &App, email: &str) -> String {
    assert_eq!(register(app, email, PASSWORD).await.status, StatusCode::ACCEPTED);
    let opened = confirm(app, &token(app, email).await, PASSWORD).await;
    assert_eq!(opened.status, StatusCode::OK, "{:?}", opened.body);
    app.login(email, PASSWORD).await.tokens().access
}

#[tokio::test]
async fn an_account_is_opened_when_its_token_comes_back_with_its_password() {
    let app = start_required().await;
    let asked = register(&app, "ada@example.com", PASSWORD).await;
    assert_eq!((asked.status, asked.body), (StatusCode::ACCEPTED, json!({"expires_in": 86400})));
    assert_eq!(app.count("SELECT count(*) FROM users.accounts").await, 0);
    assert_eq!(app.count("SELECT count(*) FROM users.outbox").await, 0);

    // Only a caller who knows the password learns why.
    app.login("ada@example.com", PASSWORD).await.is_problem(403, "email_not_verified");
    app.login("ada@example.com", "wrong horse 9").await.is_problem(401, "invalid_credentials");
    assert_eq!(kinds(&app, "ada@example.com").await, ["account.confirm_address"]);
    let token = token(&app, "ada@example.com").await;
    let hashed = "SELECT count(*) FROM users.email_verifications WHERE length(token_hash) = 32";
    assert_eq!(app.count(hashed).await, 1);

    // The link alone opens nothing.
    let wrong = confirm(&app, &token, "wrong horse 9").await;
    wrong.is_problem(422, "wrong_password");
    assert_eq!(wrong.body["errors"][0]["pointer"], "/password");
    for bad in ["", "x", &"A".repeat(43), &format!("{token}A")] {
        confirm(&app, bad, PASSWORD).await.is_problem(422, "invalid_verification_token");
    }
    assert_eq!(app.count("SELECT count(*) FROM users.accounts").await, 0);

    let opened = confirm(&app, &token, PASSWORD).await;
    assert_eq!((opened.status, &opened.body["email"]), (StatusCode::OK, &json!("ada@example.com")));
    assert_eq!((&opened.body["language"], &opened.body["role"]), (&json!("zh"), &json!("customer")));
    app.login("ada@example.com", PASSWORD).await.tokens();
    confirm(&app, &token, PASSWORD).await.is_problem(422, "invalid_verification_token");
    assert_eq!(app.count("SELECT count(*) FROM users.email_verifications").await, 0);
}

#[tokio::test]
async fn a_known_address_gets_the_same_answer_and_a_mail_that_somebody_tried() {
    let app = start_required().await;
    verified(&app, "ada@example.com").await;
    let mut answers = Vec::new();
    for email in ["ADA@example.com", "nobody@example.com"] {
        let Answer { status, body, headers } = register(&app, email, "another horse 8").await;
        let names: Vec<String> = headers.keys().map(ToString::to_string).collect();
        answers.push((status, body, names));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(kinds(&app, "ada@example.com").await, ["account.confirm_address", "account.address_known"]);
    // Nothing is of use to who tried, who learns no more by signing in with the password that they chose.
    let mut answers = Vec::new();
    for email in ["ada@example.com", "nobody@example.com"] {
        for password in ["another horse 8", "wrong horse 9"] {
            let Answer { status, body, .. } = app.login(email, password).await;
            answers.push((status.as_u16(), body["code"].clone(), body["detail"].clone()));
        }
    }
    assert_eq!(answers[..2], answers[2..]);
    assert_eq!((answers[0].0, &answers[0].1), (403, &json!("email_not_verified")));
    assert_eq!((answers[1].0, &answers[1].1), (401, &json!("invalid_credentials")));
    app.login("ada@example.com", PASSWORD).await.tokens();
}

#[tokio::test]
async fn a_stranger_who_registers_an_address_first_gets_no_account_of_its_owner() {
    let app = start_required().await;
    register(&app, "ada@example.com", "stranger horse 6").await;
    let strangers = token(&app, "ada@example.com").await;
    register(&app, "ada@example.com", PASSWORD).await;
    let own = token(&app, "ada@example.com").await;
    // Any token shows that the address is the owner's, and the password tells which registration is.
    confirm(&app, &strangers, "wrong horse 9").await.is_problem(422, "wrong_password");
    let opened = confirm(&app, &strangers, PASSWORD).await;
    assert_eq!((opened.status, &opened.body["language"]), (StatusCode::OK, &json!("zh")));
    confirm(&app, &own, PASSWORD).await.is_problem(409, "email_taken");
    app.login("ada@example.com", "stranger horse 6").await.is_problem(401, "invalid_credentials");
    app.login("ada@example.com", PASSWORD).await.tokens();
}

#[tokio::test]
async fn the_mail_can_be_asked_for_again_and_an_address_gets_three_an_hour() {
    let app = start_required().await;
    register(&app, "ada@example.com", PASSWORD).await;
    let first = token(&app, "ada@example.com").await;
    for email in ["ada@example.com", "nobody@example.com"] {
        let asked = app.post(AGAIN, &json!({"email": email})).await;
        assert_eq!((asked.status, asked.body), (StatusCode::ACCEPTED, json!({"expires_in": 86400})));
    }
    let two = async || (mails(&app, "ada@example.com").await.len() == 2).then_some(());
    testing::eventually("another mail is made", two).await;
    let second = token(&app, "ada@example.com").await;
    assert_ne!(first, second);
    for _ in 0..3 {
        assert_eq!(register(&app, "ada@example.com", "another horse 8").await.status, 202);
    }
    assert_eq!(mails(&app, "ada@example.com").await.len(), 3);
    assert_eq!(mails(&app, "nobody@example.com").await.len(), 0);
    app.sql("UPDATE users.password_reset_callers SET since = since - interval '61 minutes'").await;
    register(&app, "ada@example.com", PASSWORD).await;
    assert_eq!(mails(&app, "ada@example.com").await.len(), 4);
    assert_eq!(confirm(&app, &second, PASSWORD).await.status, StatusCode::OK);
    app.takes_json_alone("x", &[(Method::POST, AGAIN), (Method::POST, CONFIRM)]).await;
}

#[tokio::test]
async fn a_client_address_has_a_few_mails_an_hour_sent_to_whatever_addresses() {
    let app = start(&[AWAY, REQUIRED, "--password-resets-an-hour=2"]).await;
    let send = |path: &'static str, body: Value| {
        let request = app.request(Method::POST, path).header("x-forwarded-for", "2001:db8::1").json(&body);
        async move { Answer::of(request.send().await.expect("the service answers")).await }
    };
    let new = |email: &str| json!({"email": email, "password": PASSWORD, "name": "Ada"});
    assert_eq!(send("/api/v1/auth/register", new("ada@example.com")).await.status, 202);
    assert_eq!(send(AGAIN, json!({"email": "eve@example.com"})).await.status, 202);
    send("/api/v1/auth/register", new("bea@example.com")).await.is_problem(429, "too_many_mails");
    send(AGAIN, json!({"email": "eve@example.com"})).await.is_problem(429, "too_many_mails");
    assert_eq!(mails(&app, "bea@example.com").await.len(), 0);
}

#[tokio::test]
async fn a_token_that_is_sent_again_is_good_for_each_registration() {
    let app = start_required().await;
    register(&app, "ada@example.com", PASSWORD).await;
    register(&app, "ada@example.com", "stranger horse 6").await;
    // Each is a copy of the stranger's registration, which is the newest.
    for sent in 3..8 {
        app.sql("UPDATE users.password_reset_callers SET since = since - interval '61 minutes'").await;
        assert_eq!(app.post(AGAIN, &json!({"email": "ada@example.com"})).await.status, 202);
        let all = async || (mails(&app, "ada@example.com").await.len() == sent).then_some(());
        testing::eventually("another mail is made", all).await;
    }
    let newest = token(&app, "ada@example.com").await;
    assert_eq!(confirm(&app, &newest, PASSWORD).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_stranger_does_not_use_up_the_mails_of_an_address() {
    let app = start_required().await;
    let send = |network: &'static str, password: &'static str| {
        let body = json!({"email": "ada@example.com", "password": password, "name": "Ada"});
        let request = app.request(Method::POST, "/api/v1/auth/register").header("x-forwarded-for", network);
        async move { Answer::of(request.json(&body).send().await.expect("the service answers")).await }
    };
    for _ in 0..5 {
        assert_eq!(send("192.0.2.7", "stranger horse 6").await.status, 202);
    }
    assert_eq!(mails(&app, "ada@example.com").await.len(), 3);
    assert_eq!(send("198.51.100.1", PASSWORD).await.status, 202);
    assert_eq!(mails(&app, "ada@example.com").await.len(), 4);
    assert_eq!(confirm(&app, &token(&app, "ada@example.com").await, PASSWORD).await.status, StatusCode::OK);
    // No address is kept by what is counted.
    assert_eq!(
        app.count("SELECT count(*) FROM users.password_reset_callers WHERE caller LIKE '%@%'").await,
        0
    );
}

#[tokio::test]
async fn who_has_a_token_is_not_slowed_down_by_guesses_at_the_address() {
    let app = start_required().await;
    register(&app, "ada@example.com", PASSWORD).await;
    let token = token(&app, "ada@example.com").await;
    for _ in 0..11 {
        app.login("ada@example.com", "wrong horse 9").await;
    }
    app.login("ada@example.com", "wrong horse 9").await.is_problem(429, "too_many_attempts");
    for _ in 0..10 {
        confirm(&app, &token, "wrong horse 9").await.is_problem(422, "wrong_password");
    }
    confirm(&app, &token, PASSWORD).await.is_problem(429, "too_many_attempts");
    app.sql("UPDATE users.sign_in_failures SET blocked_until = now() WHERE email_key LIKE 'token %'").await;
    assert_eq!(confirm(&app, &token, PASSWORD).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_new_address_ends_a_token_for_a_new_password_that_went_to_the_old_one() {
    let app = start_required().await;
    let ada = verified(&app, "ada@example.com").await;
    app.post("/api/v1/password-resets", &json!({"email": "ada@example.com"})).await;
    let mailed = async || {
        let token = sqlx::query_scalar::<_, String>(
            "SELECT convert_from(payload, 'UTF8')::json->>'token' FROM users.notifications
             WHERE kind = 'account.password_reset' AND payload IS NOT NULL",
        );
        token.fetch_optional(&app.pool).await.expect("the statement works")
    };
    let reset = testing::eventually("the mail is made", mailed).await;
    let body = json!({"current_password": PASSWORD, "email": "new@example.com"});
    assert_eq!(app.call(Method::POST, "/api/v1/me/email", &ada, body).await.status, 202);
    assert_eq!(confirm(&app, &token(&app, "new@example.com").await, PASSWORD).await.status, StatusCode::OK);
    let body = json!({"token": reset, "password": "stranger horse 6"});
    app.post("/api/v1/password-resets/confirm", &body).await.is_problem(422, "invalid_reset_token");
}

#[tokio::test]
async fn a_token_is_good_for_a_day_and_what_nobody_verified_goes() {
    let app = start_required().await;
    register(&app, "ada@example.com", PASSWORD).await;
    let token = token(&app, "ada@example.com").await;
    app.sql("UPDATE users.email_verifications SET created_at = created_at - interval '24 hours'").await;
    confirm(&app, &token, PASSWORD).await.is_problem(422, "invalid_verification_token");
    app.login("ada@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
    app.sql("UPDATE users.notifications SET status = 'failed', created_at = now() - interval '25 hours'")
        .await;
    let _other = App::start_with(&app.database_url, NO_BROKER, "dockside", &[]).await;
    let kept = "SELECT (SELECT count(*) FROM users.email_verifications) + (SELECT count(*) FROM users.notifications)";
    testing::eventually("it is swept", async || (app.count(kept).await == 0).then_some(())).await;
}

#[tokio::test]
async fn of_two_confirmations_at_once_one_opens_the_account() {
    let app = Arc::new(start_required().await);
    register(&app, "ada@example.com", PASSWORD).await;
    let token = token(&app, "ada@example.com").await;
    let send = || {
        let (app, token) = (app.clone(), token.clone());
        async move { confirm(&app, &token, PASSWORD).await }
    };
    let held = app.hold("SELECT FROM users.email_verifications FOR UPDATE").await;
    let (answers, ()) = tokio::join!(crate::app::at_once(2, send), app.release(held, 2));
    let opened = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(opened, 1, "{answers:?}");
    answers.iter().find(|answer| answer.status != 200).unwrap().is_problem(422, "invalid_verification_token");
    assert_eq!(app.count("SELECT count(*) FROM users.accounts").await, 1);
}

#[tokio::test]
async fn a_new_address_counts_once_it_is_verified_and_the_old_one_gets_a_mail() {
    let app = start_required().await;
    let ada = verified(&app, "ada@example.com").await;
    verified(&app, "eve@example.com").await;
    let change = async |email: &str| {
        let body = json!({"current_password": PASSWORD, "email": email});
        app.call(Method::POST, "/api/v1/me/email", &ada, body).await
    };
    let mut answers = Vec::new();
    for email in ["eve@example.com", "new@example.com"] {
        let Answer { status, body, .. } = change(email).await;
        answers.push((status, body));
    }
    let same = (StatusCode::ACCEPTED, json!({"expires_in": 86400}));
    assert_eq!(answers, [same.clone(), same]);
    assert_eq!(kinds(&app, "eve@example.com").await.last().unwrap(), "account.address_known");
    assert_eq!(app.get("/api/v1/me", &ada).await.body["email"], "ada@example.com");

    let token = token(&app, "new@example.com").await;
    confirm(&app, &token, "wrong horse 9").await.is_problem(422, "wrong_password");
    let changed = confirm(&app, &token, PASSWORD).await;
    assert_eq!((changed.status, &changed.body["email"]), (StatusCode::OK, &json!("new@example.com")));
    app.get("/api/v1/me", &ada).await.is_problem(401, "invalid_token");
    app.login("ada@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
    app.login("new@example.com", PASSWORD).await.tokens();
    assert_eq!(kinds(&app, "ada@example.com").await.last().unwrap(), "account.address_changed");
    confirm(&app, &token, PASSWORD).await.is_problem(422, "invalid_verification_token");
}

#[tokio::test]
async fn the_own_address_may_be_written_otherwise_without_a_mail() {
    let app = start_required().await;
    let ada = verified(&app, "ada@example.com").await;
    let body = json!({"current_password": PASSWORD, "email": "Ada@Example.com"});
    let changed = app.call(Method::POST, "/api/v1/me/email", &ada, body).await;
    assert_eq!((changed.status, &changed.body["email"]), (StatusCode::OK, &json!("Ada@Example.com")));
}

#[tokio::test]
async fn without_verification_a_change_ends_other_sessions_and_the_old_address_gets_a_mail() {
    let app = start(&[AWAY]).await;
    let ada = app.signed_in("ada@example.com").await;
    let phone = app.login("ada@example.com", PASSWORD).await.tokens();
    let body = json!({"current_password": PASSWORD, "email": "new@example.com"});
    assert_eq!(app.call(Method::POST, "/api/v1/me/email", &ada.access, body).await.status, 200);
    app.get("/api/v1/me", &phone.access).await.is_problem(401, "invalid_token");
    assert_eq!(app.get("/api/v1/me", &ada.access).await.status, 200);
    // Beside the mail about the second device.
    assert_eq!(kinds(&app, "ada@example.com").await.last().unwrap(), "account.address_changed");
    assert_eq!(kinds(&app, "new@example.com").await, Vec::<String>::new());
}

#[tokio::test]
async fn accounts_from_before_sign_in_and_an_erased_one_takes_all_along() {
    let before = start(&[]).await;
    before.register("ada@example.com").await;
    let app = App::start_with(&before.database_url, NO_BROKER, "dockside", &[AWAY, REQUIRED]).await;
    let ada = app.login("ada@example.com", PASSWORD).await.tokens();
    register(&app, "ada@example.com", "stranger horse 6").await;
    let body = json!({"current_password": PASSWORD, "email": "new@example.com"});
    assert_eq!(app.call(Method::POST, "/api/v1/me/email", &ada.access, body).await.status, 202);
    assert_eq!(app.delete("/api/v1/me", &ada.access).await.status, StatusCode::NO_CONTENT);
    for rows in ["SELECT count(*) FROM users.email_verifications", "SELECT count(*) FROM users.notifications"]
    {
        assert_eq!(app.count(rows).await, 0, "{rows}");
    }
}

#[tokio::test]
async fn a_mail_leaves_for_its_address_in_its_language_and_without_a_name() {
    let folder = std::env::temp_dir().join(format!("dockside-mail-{}", uuid::Uuid::now_v7()));
    let mail_dir = format!("--mail-dir={}", folder.display());
    let app =
        start(&[&mail_dir, REQUIRED, "--email-verification-url=https://shop.test/c?token={token}"]).await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD, "name": "Win at evil.example"});
    app.post("/api/v1/auth/register", &body).await;
    let row = async || {
        let row = sqlx::query_scalar::<_, uuid::Uuid>(
            "SELECT event_id FROM users.notifications WHERE status = 'sent' AND payload IS NULL",
        );
        row.fetch_optional(&app.pool).await.expect("the statement works")
    };
    let id = testing::eventually("the mail is sent", row).await;
    let mail = std::fs::read_to_string(folder.join(format!("{id}.eml"))).expect("the mail is a file");
    let mail = mail.replace("=\r\n", "");
    assert!(
        mail.contains("To: ada@example.com\r\n") && mail.contains("Subject: Confirm your address"),
        "{mail}"
    );
    assert!(!mail.contains("evil"), "{mail}");
    let (_, link) = mail.split_once("https://shop.test/c?token=").expect("the link");
    let token = link.strip_prefix("3D").unwrap_or(link).get(..43).expect("the token");
    assert_eq!(confirm(&app, token, PASSWORD).await.status, StatusCode::OK);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn without_a_mail_server_nothing_can_be_verified_and_the_service_does_not_start() {
    use clap::Parser;

    let database = testing::database("users").await;
    let lifecycle = service::Lifecycle::new();
    let config = user::Config::parse_from([
        "user",
        "--http-addr=127.0.0.1:0",
        "--grpc-addr=127.0.0.1:0",
        "--admin-addr=127.0.0.1:0",
        "--allow-plaintext=true",
        "--database-url",
        &database,
        "--amqp-url",
        NO_BROKER,
        REQUIRED,
    ]);
    let error = user::start(config, &lifecycle).await.expect_err("it does not start");
    assert!(error.to_string().contains("SMTP_URL"), "{error:#}");
}

//! Forgotten passwords: from the request over the mail to a new one.

use std::path::Path;
use std::sync::Arc;

use crate::app::{Answer, App, NO_BROKER, PASSWORD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

const PATH: &str = "/api/v1/password-resets";
const CONFIRM: &str = "/api/v1/password-resets/confirm";
const NEW_PASSWORD: &str = "another horse 8";

/// Nothing listens there: mails are made, and wait.
const AWAY: &str = "--smtp-url=smtp://127.0.0.1:1";

async fn start(settings: &[&str]) -> App {
    App::start_with(&testing::database("users").await, NO_BROKER, "dockside", settings).await
}

async fn ask(app: &App, email: &str) -> Answer {
    app.post(PATH, &json!({"email": email})).await
}

/// As the edge passes it on.
async fn ask_from(app: &App, caller: &str, email: &str) -> Answer {
    let request = app.request(Method::POST, PATH).header("x-forwarded-for", caller);
    Answer::of(request.json(&json!({"email": email})).send().await.expect("the service answers")).await
}

async fn confirm(app: &App, token: &str, password: &str) -> Answer {
    app.post(CONFIRM, &json!({"token": token, "password": password})).await
}

/// The tokens in mails to this address that wait, the oldest first.
async fn tokens(app: &App, email: &str) -> Vec<String> {
    let tokens = sqlx::query_scalar::<_, String>(
        "SELECT convert_from(n.payload, 'UTF8')::json->>'token'
         FROM users.notifications n JOIN users.accounts a ON a.id = n.user_id
         WHERE n.kind = 'account.password_reset' AND n.payload IS NOT NULL AND a.email = $1 ORDER BY n.event_id",
    );
    tokens.bind(email).fetch_all(&app.pool).await.expect("the statement works")
}

/// Waits for the mail that makes it so many, and returns its token.
async fn token(app: &App, email: &str, count: usize) -> String {
    let newest = || async {
        let tokens = tokens(app, email).await;
        (tokens.len() == count).then(|| tokens.last().cloned()).flatten()
    };
    testing::eventually("the mail is made", newest).await
}

/// Waits until a mail of this kind to this address has left, and returns it. Nothing of what it was made of is kept.
async fn sent(app: &App, folder: &Path, kind: &str, email: &str) -> String {
    let row = || async {
        let row = sqlx::query_as::<_, (Uuid, bool)>(
            "SELECT n.event_id, n.payload IS NULL FROM users.notifications n JOIN users.accounts a ON a.id = n.user_id
             WHERE n.kind = $1 AND a.email = $2 AND n.status = 'sent'",
        );
        row.bind(kind).bind(email).fetch_optional(&app.pool).await.expect("the statement works")
    };
    let (id, blank) = testing::eventually("the mail is sent", row).await;
    assert!(blank, "{kind} keeps what it was made of");
    let mail = std::fs::read_to_string(folder.join(format!("{id}.eml"))).expect("the mail is a file");
    // Lines that were too long, as quoted-printable breaks them.
    mail.replace("=\r\n", "")
}

/// Nothing has changed: the old password is good, and so is this session.
async fn is_as_before(app: &App, email: &str, access_token: &str) {
    app.login(email, PASSWORD).await.tokens();
    app.login(email, NEW_PASSWORD).await.is_problem(401, "invalid_credentials");
    assert_eq!(app.get("/api/v1/me", access_token).await.status, StatusCode::OK);
    let changed = "SELECT count(*) FROM users.notifications WHERE kind = 'account.password_changed'";
    assert_eq!(app.count(changed).await, 0);
}

#[tokio::test]
async fn who_has_forgotten_the_password_gets_in_again_by_a_mail() {
    let folder = std::env::temp_dir().join(format!("dockside-mail-{}", Uuid::now_v7()));
    let mail_dir = format!("--mail-dir={}", folder.display());
    let app = start(&[&mail_dir, "--password-reset-url=https://shop.test/new#{token}"]).await;
    let (ada, eve) = (app.signed_in("ada@example.com").await, app.signed_in("eve@example.com").await);
    let phone = app.login("ada@example.com", PASSWORD).await.tokens();
    app.login("ada@example.com", "forgotten").await.is_problem(401, "invalid_credentials");

    let asked = ask(&app, " ADA@Example.com ").await;
    assert_eq!((asked.status, &asked.body), (StatusCode::ACCEPTED, &json!({"expires_in": 3600})));
    let mail = sent(&app, &folder, "account.password_reset", "ada@example.com").await;
    assert!(mail.contains("Subject: Choose a new password\r\n"), "{mail}");
    let (_, link) = mail.split_once("https://shop.test/new#").unwrap();
    let token = &link[..43];
    is_as_before(&app, "ada@example.com", &ada.access).await;

    let set = confirm(&app, token, NEW_PASSWORD).await;
    assert_eq!((set.status, set.body), (StatusCode::NO_CONTENT, Value::Null));
    for ended in [ada, phone] {
        app.get("/api/v1/me", &ended.access).await.is_problem(401, "invalid_token");
        app.refresh(&ended.refresh).await.is_problem(401, "invalid_refresh_token");
    }
    app.login("ada@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
    app.login("ada@example.com", NEW_PASSWORD).await.tokens();
    let mail = sent(&app, &folder, "account.password_changed", "ada@example.com").await;
    assert!(mail.contains("Subject: Your password was changed\r\n"), "{mail}");
    assert_eq!(app.get("/api/v1/me", &eve.access).await.status, StatusCode::OK);

    // A second use changes nothing.
    confirm(&app, token, PASSWORD).await.is_problem(422, "invalid_reset_token");
    app.login("ada@example.com", NEW_PASSWORD).await.tokens();
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn both_mails_are_in_the_language_of_the_account_and_without_a_link_the_token_is_in_the_first() {
    let folder = std::env::temp_dir().join(format!("dockside-mail-{}", Uuid::now_v7()));
    let app = start(&[&format!("--mail-dir={}", folder.display())]).await;
    for (email, language, subjects) in [
        ("ada@example.com", "en", ["Choose a new password", "Your password was changed"]),
        ("xiao@example.com", "zh", ["=?utf-8?b?", "=?utf-8?b?"]),
    ] {
        let tokens = app.signed_in(email).await;
        let wish = json!({"language": language});
        assert_eq!(app.call(Method::PATCH, "/api/v1/me", &tokens.access, wish).await.status, 200);
        assert_eq!(ask(&app, email).await.status, StatusCode::ACCEPTED);
        let mail = sent(&app, &folder, "account.password_reset", email).await;
        assert!(mail.contains(&format!("Subject: {}", subjects[0])), "{mail}");
        // Chinese is base64.
        let says = mail.contains("POST /api/v1/password-resets/confirm");
        assert!(says || language == "zh", "{mail}");
        // Of 32 zeros.
        app.sql(
            "UPDATE users.password_resets SET token_hash = sha256(decode(repeat('00', 32), 'hex'))
             WHERE ended_at IS NULL",
        )
        .await;
        assert_eq!(confirm(&app, &"A".repeat(43), NEW_PASSWORD).await.status, StatusCode::NO_CONTENT);
        let mail = sent(&app, &folder, "account.password_changed", email).await;
        assert!(mail.contains(&format!("Subject: {}", subjects[1])), "{mail}");
        app.sql("DELETE FROM users.password_resets").await;
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn an_unknown_and_a_disabled_account_get_the_same_answer_and_no_mail() {
    let app = start(&[AWAY]).await;
    for email in ["ada@example.com", "off@example.com"] {
        assert_eq!(app.register(email).await.status, StatusCode::CREATED);
    }
    app.sql("UPDATE users.accounts SET disabled = true WHERE email = 'off@example.com'").await;
    let mut answers = Vec::new();
    for email in ["nobody@example.com", "off@example.com", "ada@example.com"] {
        let Answer { status, body, headers } = ask(&app, email).await;
        let names: Vec<String> = headers.keys().map(ToString::to_string).collect();
        answers.push((status, body, names));
    }
    assert_eq!(answers[0].0, StatusCode::ACCEPTED);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let token = token(&app, "ada@example.com", 1).await;
    // By then the others would have one too.
    assert_eq!(app.count("SELECT count(*) FROM users.password_resets").await, 1);
    assert_eq!(app.count("SELECT count(*) FROM users.notifications").await, 1);
    // Nor does an account that was disabled since get a password.
    app.sql("UPDATE users.accounts SET disabled = true").await;
    confirm(&app, &token, NEW_PASSWORD).await.is_problem(422, "invalid_reset_token");
}

#[tokio::test]
async fn a_wrong_token_an_old_one_and_one_with_a_newer_get_one_answer_and_change_nothing() {
    let app = start(&[AWAY]).await;
    let ada = app.signed_in("ada@example.com").await;
    ask(&app, "ada@example.com").await;
    let first = token(&app, "ada@example.com", 1).await;
    ask(&app, "ada@example.com").await;
    let second = token(&app, "ada@example.com", 2).await;
    assert_ne!(first, second);

    let mut bodies = Vec::new();
    let wrong = "A".repeat(43);
    for token in [&first, &wrong, &String::new(), &format!("{second}A")] {
        let refused = confirm(&app, token, NEW_PASSWORD).await;
        refused.is_problem(422, "invalid_reset_token");
        bodies.push(refused.body);
    }
    app.sql("UPDATE users.password_resets SET created_at = created_at - interval '61 minutes'").await;
    let old = confirm(&app, &second, NEW_PASSWORD).await;
    old.is_problem(422, "invalid_reset_token");
    bodies.push(old.body);
    for body in &mut bodies {
        assert_eq!(body["errors"][0]["pointer"], "/token");
        body["trace_id"] = Value::Null;
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    is_as_before(&app, "ada@example.com", &ada.access).await;

    // What is an hour old goes by itself: a replica that starts sweeps.
    let _other = App::start_with(&app.database_url, NO_BROKER, "dockside", &[]).await;
    let kept = "SELECT count(*) FROM users.password_resets";
    testing::eventually("old tokens are swept", async || (app.count(kept).await == 0).then_some(())).await;
}

#[tokio::test]
async fn a_token_ends_with_another_change_of_the_password_or_of_the_address() {
    let app = start(&[AWAY]).await;
    let ada = app.signed_in("ada@example.com").await;
    ask(&app, "ada@example.com").await;
    let first = token(&app, "ada@example.com", 1).await;
    let change = json!({"current_password": PASSWORD, "new_password": PASSWORD});
    let changed = app.call(Method::POST, "/api/v1/me/password", &ada.access, change).await;
    assert_eq!(changed.status, StatusCode::NO_CONTENT);
    confirm(&app, &first, NEW_PASSWORD).await.is_problem(422, "invalid_reset_token");

    ask(&app, "ada@example.com").await;
    let second = token(&app, "ada@example.com", 2).await;
    let change = json!({"current_password": PASSWORD, "email": "new@example.com"});
    let changed = app.call(Method::POST, "/api/v1/me/email", &ada.access, change).await;
    assert_eq!(changed.status, StatusCode::OK);
    confirm(&app, &second, NEW_PASSWORD).await.is_problem(422, "invalid_reset_token");
    // Of the change above.
    app.sql("DELETE FROM users.notifications WHERE kind = 'account.password_changed'").await;
    is_as_before(&app, "new@example.com", &ada.access).await;
}

#[tokio::test]
async fn a_token_ends_with_a_change_that_a_release_before_tokens_makes_and_with_the_account_disabled() {
    let app = start(&[AWAY]).await;
    for (email, change) in [
        ("ada@example.com", "UPDATE users.accounts SET password_hash = 'x'"),
        ("bea@example.com", "UPDATE users.accounts SET email = 'x' || email, email_key = 'x' || email_key"),
        ("eve@example.com", "UPDATE users.accounts SET disabled = true"),
    ] {
        assert_eq!(app.register(email).await.status, 201);
        ask(&app, email).await;
        let token = token(&app, email, 1).await;
        app.sql(change).await;
        app.sql("UPDATE users.accounts SET disabled = false").await;
        confirm(&app, &token, NEW_PASSWORD).await.is_problem(422, "invalid_reset_token");
    }
}

#[tokio::test]
async fn a_bad_password_is_refused_as_at_registration_and_the_token_stays_good() {
    let app = start(&[AWAY]).await;
    app.register("ada@example.com").await;
    ask(&app, "ada@example.com").await;
    let token = token(&app, "ada@example.com", 1).await;
    confirm(&app, &token, "short").await.is_invalid(&[("/password", "too_short")]);
    confirm(&app, &token, "Password123").await.is_invalid(&[("/password", "password_too_common")]);
    ask(&app, "no address").await.is_invalid(&[("/email", "invalid_email")]);
    app.takes_json_alone("x", &[(Method::POST, PATH), (Method::POST, CONFIRM)]).await;
    assert_eq!(confirm(&app, &token, NEW_PASSWORD).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn an_account_gets_three_mails_an_hour_and_nobody_learns_why_no_more() {
    let app = start(&[AWAY]).await;
    for email in ["ada@example.com", "eve@example.com"] {
        assert_eq!(app.register(email).await.status, StatusCode::CREATED);
    }
    for _ in 0..6 {
        assert_eq!(ask(&app, "ada@example.com").await.status, StatusCode::ACCEPTED);
    }
    token(&app, "ada@example.com", 3).await;
    ask(&app, "eve@example.com").await;
    token(&app, "eve@example.com", 1).await;
    assert_eq!(tokens(&app, "ada@example.com").await.len(), 3);
    app.sql(
        "UPDATE users.password_resets SET created_at = created_at - interval '1 hour'
         WHERE token_hash = (SELECT token_hash FROM users.password_resets WHERE ended_at IS NOT NULL LIMIT 1)",
    )
    .await;
    ask(&app, "ada@example.com").await;
    token(&app, "ada@example.com", 4).await;
}

#[tokio::test]
async fn a_client_address_asks_a_few_times_an_hour_for_whatever_account() {
    let app = start(&[AWAY, "--password-resets-an-hour=3"]).await;
    app.register("ada@example.com").await;
    for email in ["ada@example.com", "nobody@example.com", "none@example.com"] {
        assert_eq!(ask_from(&app, "192.0.2.7", email).await.status, StatusCode::ACCEPTED);
    }
    for email in ["ada@example.com", "nobody@example.com"] {
        let refused = ask_from(&app, "192.0.2.7", email).await;
        refused.is_problem(429, "too_many_resets");
        let seconds: u32 = refused.header("retry-after").parse().unwrap();
        assert!((3500..=3600).contains(&seconds), "{seconds}");
    }
    // Others may, and who asks past the edge has no address.
    assert_eq!(ask_from(&app, "192.0.2.8", "nobody@example.com").await.status, StatusCode::ACCEPTED);
    assert_eq!(ask(&app, "nobody@example.com").await.status, StatusCode::ACCEPTED);
    app.sql("UPDATE users.password_reset_callers SET since = since - interval '61 minutes'").await;
    assert_eq!(ask_from(&app, "192.0.2.7", "ada@example.com").await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn of_two_confirmations_at_once_one_succeeds() {
    let app = Arc::new(start(&[AWAY]).await);
    app.register("ada@example.com").await;
    ask(&app, "ada@example.com").await;
    let token = token(&app, "ada@example.com", 1).await;
    let set = || {
        let (app, token) = (app.clone(), token.clone());
        async move { confirm(&app, &token, NEW_PASSWORD).await }
    };
    let held = app.hold("SELECT FROM users.accounts FOR UPDATE").await;
    let (answers, ()) = tokio::join!(crate::app::at_once(2, set), app.release(held, 2));
    let done = answers.iter().filter(|answer| answer.status == StatusCode::NO_CONTENT).count();
    assert_eq!(done, 1, "{answers:?}");
    answers.iter().find(|answer| answer.status != 204).unwrap().is_problem(422, "invalid_reset_token");
    app.login("ada@example.com", NEW_PASSWORD).await.tokens();
    let changed = "SELECT count(*) FROM users.notifications WHERE kind = 'account.password_changed'";
    assert_eq!(app.count(changed).await, 1);
}

#[tokio::test]
async fn an_erased_account_takes_its_tokens_along() {
    let app = start(&[AWAY]).await;
    let ada = app.signed_in("ada@example.com").await;
    ask(&app, "ada@example.com").await;
    let token = token(&app, "ada@example.com", 1).await;
    assert_eq!(app.delete("/api/v1/me", &ada.access).await.status, StatusCode::NO_CONTENT);
    for rows in ["SELECT count(*) FROM users.password_resets", "SELECT count(*) FROM users.notifications"] {
        assert_eq!(app.count(rows).await, 0, "{rows}");
    }
    confirm(&app, &token, NEW_PASSWORD).await.is_problem(422, "invalid_reset_token");
}

#[tokio::test]
async fn a_mail_that_could_not_leave_within_the_hour_fails_and_its_token_is_gone() {
    let app = start(&[AWAY]).await;
    app.register("ada@example.com").await;
    ask(&app, "ada@example.com").await;
    token(&app, "ada@example.com", 1).await;
    app.sql("UPDATE users.notifications SET created_at = now() - interval '61 minutes', due_at = now()")
        .await;
    let failed = "SELECT count(*) FROM users.notifications WHERE status = 'failed' AND payload IS NULL";
    testing::eventually("it has failed", async || (app.count(failed).await == 1).then_some(())).await;
}

#[tokio::test]
async fn a_shop_without_a_mail_server_answers_and_makes_no_token() {
    let app = start(&[]).await;
    let ada = app.signed_in("ada@example.com").await;
    let asked = ask(&app, "ada@example.com").await;
    assert_eq!((asked.status, &asked.body), (StatusCode::ACCEPTED, &json!({"expires_in": 3600})));
    is_as_before(&app, "ada@example.com", &ada.access).await;
    assert_eq!(app.count("SELECT count(*) FROM users.password_resets").await, 0);
}

//! `user admin create`, as the shop's operator runs it.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use reqwest::StatusCode;

use crate::app::{App, NO_BROKER};

/// Runs the program with `arguments` and this text on its standard input.
fn admin_create(database_url: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_user"))
        .args(["admin", "create"])
        .args(arguments)
        .env_clear()
        .envs([("DATABASE_URL", database_url), ("AMQP_URL", NO_BROKER), ("ALLOW_PLAINTEXT", "true")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // One that reads nothing may have ended.
    let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
    child.wait_with_output().expect("the program ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn the_first_admin_is_made_on_an_empty_database_and_signs_in_with_the_password_that_is_shown_once() {
    let database_url = testing::database("users").await;
    let made = admin_create(&database_url, &["ada@example.com"], "");
    let said = text(&made.stdout);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let password = said.lines().nth(1).expect("the password is on a line of its own");
    assert!(password.len() >= 24, "{said}");

    let app = App::start_with(&database_url, NO_BROKER, "dockside", &[]).await;
    let tokens = app.login("ada@example.com", password).await.tokens();
    let me = app.get("/api/v1/me", &tokens.access).await.body;
    assert_eq!((me["role"].as_str(), me["name"].as_str()), (Some("admin"), Some("Admin")));
    let registered = "SELECT count(*) FROM users.outbox WHERE type = 'user.registered.v1'";
    assert_eq!(app.count(registered).await, 1);

    let recorded = "SELECT count(*) FROM users.audit_log WHERE action = 'account.opened' AND actor IS NULL";
    assert_eq!(app.count(recorded).await, 1);

    let again = admin_create(&database_url, &["ADA@example.com"], "");
    assert!(again.status.success());
    assert!(text(&again.stdout).contains("is an admin already"), "{}", text(&again.stdout));
    assert_eq!(app.count("SELECT count(*) FROM users.accounts").await, 1);
    assert_eq!(app.login("ada@example.com", password).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_admins_password_comes_from_standard_input_and_keeps_the_rules() {
    let app = App::start().await;
    let create = |password: &'static str| {
        let arguments = ["--password-stdin", "--name=Grace", "grace@example.com"];
        admin_create(&app.database_url, &arguments, password)
    };
    for (password, code) in [("short\n", "/password"), ("\n", "/password"), ("password\n", "/password")] {
        let refused = create(password);
        assert!(!refused.status.success() && text(&refused.stderr).contains(code), "{password}");
    }
    assert_eq!(app.count("SELECT count(*) FROM users.accounts").await, 0);

    let made = create("a horse and a cart\n");
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(!text(&made.stdout).contains("horse"));
    let tokens = app.login("grace@example.com", "a horse and a cart").await.tokens();
    assert_eq!(app.get("/api/v1/me", &tokens.access).await.body["role"], "admin");
    assert!(text(&create("another password\n").stdout).contains("Nothing was changed"));
    assert_eq!(app.login("grace@example.com", "a horse and a cart").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_account_that_somebody_opened_is_not_made_an_admins() {
    let app = App::start().await;
    let customer = app.signed_in("ada@example.com").await;
    let refused = admin_create(&app.database_url, &["ada@example.com"], "");
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("no admin's"), "{}", text(&refused.stderr));
    assert_eq!(app.get("/api/v1/me", &customer.access).await.body["role"], "customer");

    app.sql("UPDATE users.accounts SET role = 'admin', disabled = true").await;
    let refused = admin_create(&app.database_url, &["ada@example.com"], "");
    assert!(!refused.status.success() && text(&refused.stderr).contains("disabled"));
}

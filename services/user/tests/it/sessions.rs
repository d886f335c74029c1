//! Refresh tokens: rotation, reuse, lost answers, sign-out.

use std::collections::HashSet;
use std::sync::Arc;

use crate::app::{App, PASSWORD};
use reqwest::StatusCode;
use serde_json::json;

const FIFTY_SECONDS_PASS: &str =
    "UPDATE users.refresh_tokens SET spent_at = spent_at - interval '50 seconds'";

#[tokio::test]
async fn each_refresh_gives_a_new_pair_that_works() {
    let app = App::start().await;
    let first = app.signed_in("ada@example.com").await;
    let answer = app.refresh(&first.refresh).await;
    let second = answer.tokens();
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_ne!(second.refresh, first.refresh);
    assert_ne!(second.access, first.access);
    let third = app.refresh(&second.refresh).await.tokens();
    assert_eq!(app.get("/api/v1/me", &third.access).await.status, StatusCode::OK);
    assert_eq!(app.count("SELECT count(*) FROM users.sessions").await, 1);
}

#[tokio::test]
async fn a_retry_after_a_lost_answer_gets_the_same_successor() {
    let app = App::start().await;
    let first = app.signed_in("ada@example.com").await;
    let second = app.refresh(&first.refresh).await.tokens();
    let retried = app.refresh(&first.refresh).await.tokens();
    assert_eq!(retried.refresh, second.refresh);
    app.refresh(&second.refresh).await.tokens();
}

#[tokio::test]
async fn who_comes_back_within_a_minute_of_a_lost_answer_is_still_signed_in() {
    let app = App::start().await;
    let first = app.signed_in("ada@example.com").await;
    let second = app.refresh(&first.refresh).await.tokens();
    app.sql(FIFTY_SECONDS_PASS).await;
    assert_eq!(app.refresh(&first.refresh).await.tokens().refresh, second.refresh);
    // The successor is used: the answer was not lost, and the old token is a thief's.
    let third = app.refresh(&second.refresh).await.tokens();
    app.refresh(&first.refresh).await.is_problem(401, "invalid_refresh_token");
    app.refresh(&third.refresh).await.is_problem(401, "invalid_refresh_token");
    let recorded = "SELECT count(*) FROM users.audit_log WHERE action = 'session.token_reused'";
    assert_eq!(app.count(recorded).await, 1);
}

#[tokio::test]
async fn a_spent_token_used_again_later_ends_the_family() {
    let app = App::start().await;
    let first = app.signed_in("ada@example.com").await;
    let other = app.login("ada@example.com", PASSWORD).await.tokens();
    let second = app.refresh(&first.refresh).await.tokens();
    for _ in 0..2 {
        app.sql(FIFTY_SECONDS_PASS).await;
    }
    app.refresh(&first.refresh).await.is_problem(401, "invalid_refresh_token");
    app.refresh(&second.refresh).await.is_problem(401, "invalid_refresh_token");
    // Another sign-in of the same account is none of it.
    app.refresh(&other.refresh).await.tokens();
}

#[tokio::test]
async fn a_spent_token_whose_successor_was_used_ends_the_family_at_once() {
    let app = App::start().await;
    let first = app.signed_in("ada@example.com").await;
    let second = app.refresh(&first.refresh).await.tokens();
    let third = app.refresh(&second.refresh).await.tokens();
    app.refresh(&first.refresh).await.is_problem(401, "invalid_refresh_token");
    app.refresh(&third.refresh).await.is_problem(401, "invalid_refresh_token");
}

#[tokio::test]
async fn twenty_refreshes_at_once_with_one_token_get_one_successor() {
    let app = Arc::new(App::start().await);
    let first = app.signed_in("ada@example.com").await;
    let refresh = || {
        let (app, token) = (app.clone(), first.refresh.clone());
        async move { app.refresh(&token).await }
    };
    let held = app.hold("SELECT FROM users.refresh_tokens FOR UPDATE").await;
    let (answers, ()) = tokio::join!(crate::app::at_once(20, refresh), app.release(held, 5));
    let successors: HashSet<String> = answers.iter().map(|answer| answer.tokens().refresh).collect();
    assert_eq!(successors.len(), 1);
    assert_eq!(app.count("SELECT count(*) FROM users.refresh_tokens").await, 2);
    for successor in successors {
        app.refresh(&successor).await.tokens();
    }
}

#[tokio::test]
async fn a_session_unused_for_thirty_days_has_run_out() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await;
    let days = "SELECT round(EXTRACT(epoch FROM expires_at - now()) / 86400)::bigint FROM users.sessions";
    assert_eq!(app.count(days).await, 30);
    app.sql("UPDATE users.sessions SET expires_at = now()").await;
    app.refresh(&ada.refresh).await.is_problem(401, "invalid_refresh_token");
}

#[tokio::test]
async fn signing_out_ends_the_family_and_can_be_repeated() {
    let app = App::start().await;
    let first = app.signed_in("ada@example.com").await;
    let second = app.refresh(&first.refresh).await.tokens();
    let unknown = "A".repeat(43);
    for token in [&second.refresh, &second.refresh, &first.refresh, &unknown, &"nonsense".to_owned()] {
        let answer = app.post("/api/v1/auth/logout", &json!({"refresh_token": token})).await;
        assert_eq!((answer.status, answer.body), (StatusCode::NO_CONTENT, json!(null)));
    }
    app.refresh(&second.refresh).await.is_problem(401, "invalid_refresh_token");
    let ada = app.login("ada@example.com", PASSWORD).await.tokens();
    for (body, pointer, code) in [
        (json!({}), "/refresh_token", "missing_field"),
        (json!({"refresh_token": 7}), "/refresh_token", "invalid_value"),
        (json!({"refresh_token": ada.refresh, "all": true}), "/all", "unknown_field"),
    ] {
        app.post("/api/v1/auth/logout", &body).await.is_invalid(&[(pointer, code)]);
    }
    app.refresh(&ada.refresh).await.tokens();
}

#[tokio::test]
async fn signing_out_leaves_other_sign_ins_alone() {
    let app = App::start().await;
    let phone = app.signed_in("ada@example.com").await;
    let laptop = app.login("ada@example.com", PASSWORD).await.tokens();
    let eve = app.signed_in("eve@example.com").await;
    let answer = app.post("/api/v1/auth/logout", &json!({"refresh_token": phone.refresh})).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    app.get("/api/v1/me", &phone.access).await.is_problem(401, "invalid_token");
    for other in [&laptop, &eve] {
        assert_eq!(app.get("/api/v1/me", &other.access).await.status, StatusCode::OK);
        app.refresh(&other.refresh).await.tokens();
    }
}

#[tokio::test]
async fn what_is_no_refresh_token_is_refused() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await;
    for token in ["", "nonsense", &"A".repeat(43), &"é".repeat(50_000), &ada.access] {
        app.refresh(token).await.is_problem(401, "invalid_refresh_token");
    }
    for (body, pointer, code) in [
        (json!({"refresh_token": null}), "/refresh_token", "invalid_value"),
        (json!({}), "/refresh_token", "missing_field"),
        (json!({"refresh_token": ada.refresh, "role": "admin"}), "/role", "unknown_field"),
    ] {
        app.post("/api/v1/auth/refresh", &body).await.is_invalid(&[(pointer, code)]);
    }
    assert_eq!(app.count("SELECT count(*) FROM users.refresh_tokens").await, 1);
    app.refresh(&ada.refresh).await.tokens();
}

#[tokio::test]
async fn the_database_holds_no_token() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await;
    app.refresh(&ada.refresh).await.tokens();
    let lengths = "SELECT count(*) FROM users.refresh_tokens WHERE octet_length(token_hash) = 32
                   AND token_hash <> ALL (SELECT successor_salt FROM users.refresh_tokens
                                          WHERE successor_salt IS NOT NULL)";
    assert_eq!(app.count(lengths).await, 2);
}

//! Guessing passwords: slow, whether or not the address has an account. The
//! only test of its process, since it counts what the process hashes.

#[path = "it/app/mod.rs"]
mod app;

use std::sync::Arc;

use app::{App, PASSWORD};
use clap::Parser;

const PAUSE_STARTS: &str = "UPDATE users.sign_in_failures SET blocked_until = now() + interval '50 seconds'";
const PAUSE_ENDS: &str = "UPDATE users.sign_in_failures SET blocked_until = now()";
const PAUSE_SECONDS: &str = "SELECT round(EXTRACT(epoch FROM blocked_until - last_failed_at))::bigint
                             FROM users.sign_in_failures ORDER BY last_failed_at DESC LIMIT 1";

#[tokio::test]
async fn guesses_cost_the_same_and_are_slowed_down_known_address_or_not() {
    let settings = user::Config::parse_from(["user", "--database-url=x", "--amqp-url=x", "--rust-log=off"]);
    let _telemetry = service::telemetry::start("user", &settings.process).unwrap();
    let app = Arc::new(App::start().await);
    app.register("ada@example.com").await;
    let mut hashed = hashes(&app).await;
    assert_eq!(hashed, 1);

    for email in ["ada@example.com", "nobody@example.com"] {
        // Nine are free; from the tenth on, each doubles the pause up to a minute.
        for pause in [None; 9].into_iter().chain([1, 2, 4, 8, 16, 32, 60, 60].map(Some)) {
            app.login(email, "wrong").await.is_problem(401, "invalid_credentials");
            hashed += 1;
            assert_eq!(hashes(&app).await, hashed, "{email}");
            if let Some(pause) = pause {
                assert_eq!(app.count(PAUSE_SECONDS).await, pause);
                app.sql(PAUSE_STARTS).await;
                // Now not even the right password is checked.
                let paused = app.login(&email.to_uppercase(), PASSWORD).await;
                paused.is_problem(429, "too_many_attempts");
                let seconds: u32 = paused.header("retry-after").parse().unwrap();
                assert!((30..=50).contains(&seconds), "{seconds}");
                assert_eq!(hashes(&app).await, hashed, "{email}");
                app.sql(PAUSE_ENDS).await;
            }
        }
    }

    // Many guesses at once learn no more than one after the other: the first
    // of these starts a pause of a minute.
    let guess = || {
        let app = app.clone();
        async move { app.login("ada@example.com", "wrong").await }
    };
    let answers = app::at_once(20, guess).await;
    let (checked, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 401);
    assert_eq!(checked.len(), 1);
    for answer in refused {
        match answer.status.as_u16() {
            // A machine that is too busy to hash refuses some without a check.
            503 => answer.is_problem(503, "service_unavailable"),
            _ => answer.is_problem(429, "too_many_attempts"),
        }
    }

    // Never a lock-out: the right password works after the pause, and forgets the failures.
    app.sql(PAUSE_ENDS).await;
    app.login("ada@example.com", PASSWORD).await.tokens();
    let failures = "SELECT count(*) FROM users.sign_in_failures WHERE email_key = 'ada@example.com'";
    assert_eq!(app.count(failures).await, 0);

    // A quarter of an hour without failure forgets them too.
    app.sql("UPDATE users.sign_in_failures SET last_failed_at = now() - interval '16 minutes'").await;
    app.login("nobody@example.com", "wrong").await.is_problem(401, "invalid_credentials");
    assert_eq!(app.count("SELECT failures::bigint FROM users.sign_in_failures").await, 1);
}

/// What `/metrics` says of passwords hashed.
async fn hashes(app: &App) -> u64 {
    let url = format!("http://{}/metrics", app.addresses.admin);
    let answer = reqwest::get(url).await.expect("the admin port answers");
    let text = answer.text().await.expect("metrics are text");
    let line = text.lines().find(|line| line.starts_with("password_hashes_total"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

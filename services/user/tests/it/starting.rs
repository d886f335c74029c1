//! How the service starts: beside another version, and when it has to stop before it is ready.

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::app::{App, NO_BROKER};
use reqwest::StatusCode;
use serde_json::Value;
use sqlx::AssertSqlSafe;

#[tokio::test]
async fn a_replica_starts_on_a_schema_that_a_later_version_has_migrated() {
    let app = App::start().await;
    for table in ["_sqlx_migrations", "_messaging_migrations"] {
        let later = format!(
            "INSERT INTO users.{table} (version, description, success, checksum, execution_time)
             VALUES (9999, 'of a later version', true, '\\x00', 0)"
        );
        sqlx::query(AssertSqlSafe(later)).execute(&app.pool).await.unwrap();
    }
    let older = App::start_with(&app.database_url, NO_BROKER, "dockside", &[]).await;
    assert_eq!(older.register("ada@example.com").await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_service_that_waits_for_its_database_stops_on_its_signal() {
    let service = Process::start();
    let admin = service.admin_address();
    testing::eventually("it says that it is starting", || async {
        let answer = reqwest::get(format!("http://{admin}/startupz")).await.ok()?;
        (answer.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;

    Command::new("kill").arg(service.child.borrow().id().to_string()).status().unwrap();
    let ended = || async { service.child.borrow_mut().try_wait().unwrap() };
    let status = testing::eventually("it ends", ended).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn each_start_says_which_demo_accounts_anybody_can_sign_in_with() {
    let database_url = testing::database("users").await;
    for (asked_for, word) in [(true, "true"), (false, "false")] {
        let service = Process::with(&database_url, &[("DEMO_ACCOUNTS", word)]);
        let said = service.logged("demo.accounts_open");
        assert_eq!(said["log.level"], "warn", "{said}");
        assert_eq!(said["demo.asked_for"], asked_for, "{said}");
        assert_eq!(said["demo.accounts"], "customer staff admin", "{said}");
    }
}

#[test]
fn a_store_that_is_spoken_to_in_the_clear_is_refused_in_a_sentence_that_says_what_to_set() {
    let verified = "postgres://db.example/shop?sslmode=verify-full";
    for (database, broker, setting) in [
        ("postgres://db.example/shop?sslmode=require", "amqps://broker.example", "DATABASE_URL"),
        (verified, "amqp://broker.example", "AMQP_URL"),
    ] {
        for arguments in [&[][..], &["admin", "create", "ada@example.com"]] {
            let ended = Command::new(env!("CARGO_BIN_EXE_user"))
                .args(arguments)
                .env_clear()
                .envs([("DATABASE_URL", database), ("AMQP_URL", broker)])
                .envs(["HTTP_ADDR", "GRPC_ADDR", "ADMIN_ADDR"].map(|name| (name, "127.0.0.1:0")))
                .output()
                .expect("the program runs");
            let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
            assert!(!ended.status.success(), "{said}");
            assert!(said.contains(&format!("{setting} leads over the network unencrypted")), "{said}");
            assert!(said.contains("ALLOW_PLAINTEXT=true"), "{said}");
        }
    }
}

/// The program itself, killed when a test fails before it ends.
struct Process {
    child: RefCell<Child>,
    log: mpsc::Receiver<String>,
}

impl Process {
    /// On free ports; nothing listens where its database should be.
    fn start() -> Self {
        Self::with("postgres://127.0.0.1:1/none", &[])
    }

    /// With these settings too.
    fn with(database_url: &str, more: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_user"))
            .env_clear()
            .envs([("DATABASE_URL", database_url), ("AMQP_URL", NO_BROKER), ("ALLOW_PLAINTEXT", "true")])
            .envs(more.iter().copied())
            .envs(["HTTP_ADDR", "GRPC_ADDR", "ADMIN_ADDR"].map(|name| (name, "127.0.0.1:0")))
            .envs([("LOG_FORMAT", "json"), ("RUST_LOG", "service=debug,user=info")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("its log")).lines();
        let (sender, log) = mpsc::channel();
        // To its end, whether or not somebody still wants it: a full pipe would stop the program.
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        Self { child: RefCell::new(child), log }
    }

    fn admin_address(&self) -> String {
        self.logged("service.bound")["listen.admin"].as_str().expect("an address").to_owned()
    }

    /// The next line of the log with this event.
    fn logged(&self, event: &str) -> Value {
        let lines = || self.log.recv_timeout(Duration::from_secs(30)).ok();
        let mut lines = std::iter::from_fn(lines)
            .take(200)
            .map(|line| serde_json::from_str::<Value>(&line).expect("a JSON log"));
        lines.find(|line| line["message"] == event).unwrap_or_else(|| panic!("no {event} in the log"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

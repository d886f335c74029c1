//! What was answered is in the log: restarts, torn tails, kill -9.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::TempDir;
use crate::support::{Api, DEADLINE, Sandbox, config, id};
use reqwest::StatusCode;
use tokio::task::JoinSet;

#[tokio::test]
async fn a_restart_keeps_intents_refunds_ledger_and_answers() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let paid = api.captured("pm_card_visa").await;
    let declined = api.intent("pm_card_chargeDeclined").await;
    let decline = format!("{declined}/confirm");
    let refusal = api.post_with_key("decline", &decline, &[]).await;
    let form = [("payment_intent", id(&paid)), ("amount", "400")];
    let refund = api.post_with_key("refund", "/v1/refunds", &form).await;
    assert_eq!(refund.0, StatusCode::OK);
    let paths = [paid.as_str(), &declined, "/ledger", "/v1/refunds"];
    let mut before = Vec::new();
    for path in paths {
        before.push(api.get(path).await);
    }

    let sandbox = sandbox.restart().await;
    let api = &sandbox.client;
    for (path, before) in paths.iter().zip(before) {
        assert_eq!(api.get(path).await, before);
    }
    assert_eq!(api.post_with_key("decline", &decline, &[]).await, (refusal.0, true, refusal.2));
    assert_eq!(api.post_with_key("refund", "/v1/refunds", &form).await, (refund.0, true, refund.2));
    assert_eq!(api.ledger().await, [2500, 2500, 400, 0, 1]);
}

#[tokio::test]
async fn after_a_restart_a_slow_confirm_ends_and_a_hanging_one_stays_processing() {
    let mut sandbox = Sandbox::with(|config| config.slow_millis = 60_000).await;
    let slow = sandbox.client.intent("pm_card_slow").await;
    let hangs = sandbox.client.intent("pm_card_hang").await;
    for intent in [&slow, &hangs] {
        sandbox.client.post_unanswered(intent, &format!("{intent}/confirm"), &[]).await;
        sandbox.client.until_status(intent, "processing").await;
    }
    sandbox.config.slow_millis = 100;
    // Requests that hang for a minute don't hold up a stop.
    let restart = tokio::time::timeout(Duration::from_secs(30), sandbox.restart());
    let sandbox = restart.await.expect("it stops");
    sandbox.client.until_status(&slow, "requires_capture").await;
    assert_eq!(sandbox.client.get(&hangs).await.2["status"], "processing");
    assert_eq!(sandbox.client.ledger().await, [2500, 0, 0, 2500, 0]);
}

#[tokio::test]
async fn a_torn_last_line_is_cut_off_and_the_log_goes_on() {
    let sandbox = Sandbox::start().await;
    let intent = sandbox.client.authorized("pm_card_visa").await;
    let file = sandbox.log_file();
    let mut config = sandbox.config.clone();
    let dir = sandbox.stop().await;
    config.data_dir = dir.path().to_owned();
    let whole = std::fs::read_to_string(&file).unwrap();
    let (kept, last) = whole.trim_end().rsplit_once('\n').unwrap();

    for length in [1, last.len() / 2, last.len()] {
        std::fs::write(&file, format!("{kept}\n{}", &last[..length])).unwrap();
        let handle = payment_sandbox::start(config.clone()).await.unwrap();
        let api = Api::new(&format!("http://{}", handle.addr));
        assert_eq!(api.get(&intent).await.2["status"], "requires_confirmation");
        let (status, _, _) = api.post(&format!("{intent}/confirm"), &[]).await;
        assert_eq!(status, StatusCode::OK);
        handle.stop().await.unwrap();
        let handle = payment_sandbox::start(config.clone()).await.unwrap();
        let api = Api::new(&format!("http://{}", handle.addr));
        assert_eq!(api.get(&intent).await.2["status"], "requires_capture");
        handle.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_corrupt_line_is_an_error_with_its_number() {
    let sandbox = Sandbox::start().await;
    sandbox.client.captured("pm_card_visa").await;
    let (file, config) = (sandbox.log_file(), sandbox.config.clone());
    let _dir = sandbox.stop().await;
    let whole = std::fs::read_to_string(&file).unwrap();
    let mut lines: Vec<&str> = whole.lines().collect();
    assert_eq!(lines.len(), 3);
    let confirm = lines.remove(1);
    for (second, reason) in [("{\"commit\":{", "line 2 is corrupt"), ("", "line 2 is corrupt")] {
        std::fs::write(&file, format!("{}\n{second}\n{}\n", lines[0], lines[1])).unwrap();
        let error = payment_sandbox::start(config.clone()).await.err().unwrap();
        assert!(format!("{error:#}").contains(reason), "{error:#}");
    }
    std::fs::write(&file, format!("{confirm}\n")).unwrap();
    let error = payment_sandbox::start(config).await.err().unwrap();
    assert!(format!("{error:#}").contains("line 1: an event of the unknown intent"), "{error:#}");
}

#[tokio::test]
async fn a_log_has_one_writer() {
    let sandbox = Sandbox::start().await;
    let error = payment_sandbox::start(sandbox.config.clone()).await.err().unwrap();
    assert!(format!("{error:#}").contains("another process uses this log"), "{error:#}");
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_payment-sandbox");

/// The program itself, on a free port.
struct Process {
    child: Child,
    api: Api,
    log: BufReader<ChildStderr>,
}

impl Process {
    fn start(dir: &TempDir) -> Self {
        let mut command = Command::new(PROGRAM);
        command.env_clear();
        Self::run(command, dir)
    }

    fn run(mut command: Command, dir: &TempDir) -> Self {
        let mut child = command
            .env("HTTP_ADDR", "127.0.0.1:0")
            .env("DATA_DIR", dir.path())
            .env("LOG_FORMAT", "json")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = BufReader::new(child.stderr.take().expect("its log"));
        let mut process = Self { child, api: Api::new(""), log };
        // The address may come after a warning about a torn line.
        for _ in 0..10 {
            let mut line = String::new();
            process.log.read_line(&mut line).expect("a line of the log");
            let line: serde_json::Value = serde_json::from_str(&line).expect("a JSON log");
            if let Some(addr) = line["addr"].as_str() {
                process.api = Api::new(&format!("http://{addr}"));
                return process;
            }
        }
        panic!("the log does not name the bound address");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn kill_9_loses_nothing_that_was_answered() {
    const CLIENTS: u32 = 16;
    const BEFORE_THE_KILL: u32 = 300;
    let dir = TempDir::new();
    let mut process = Process::start(&dir);
    let create = [
        ("amount", "100"),
        ("currency", "eur"),
        ("payment_method_types[]", "card"),
        ("payment_method", "pm_card_visa"),
        ("confirm", "true"),
    ];
    let answered = Arc::new(AtomicU32::new(0));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (api, answered) = (process.api.clone(), answered.clone());
        clients.spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0..u32::MAX {
                let key = format!("{client}-{number}");
                let path = "/v1/payment_intents";
                let request = api.request(reqwest::Method::POST, path).header("Idempotency-Key", &key);
                let Ok(response) = request.form(&create).send().await else {
                    break;
                };
                assert_eq!(response.status(), StatusCode::OK);
                let Ok(body) = response.json::<serde_json::Value>().await else {
                    break;
                };
                acknowledged.push((key, body));
                answered.fetch_add(1, Ordering::Relaxed);
            }
            acknowledged
        });
    }
    let deadline = Instant::now() + DEADLINE;
    while answered.load(Ordering::Relaxed) < BEFORE_THE_KILL {
        assert!(Instant::now() < deadline, "too slow: {answered:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    let acknowledged: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    assert!(acknowledged.len() >= BEFORE_THE_KILL as usize);

    let process = Process::start(&dir);
    for (key, body) in &acknowledged {
        let again = process.api.post_with_key(key, "/v1/payment_intents", &create).await;
        assert_eq!(again, (StatusCode::OK, true, body.clone()));
    }
    let (_, _, ledger) = process.api.get("/ledger").await;
    let captures = ledger["items"][0]["captures"].as_u64().unwrap();
    let unacknowledged = captures - acknowledged.len() as u64;
    assert!(unacknowledged <= u64::from(CLIENTS), "{unacknowledged} were captured but not answered");
}

#[tokio::test]
async fn a_full_disk_ends_the_program_and_nothing_unwritten_was_answered() {
    let dir = TempDir::new();
    // A limit on the size of files stands in for a full disk: writes past it fail.
    let mut limited = Command::new("/bin/sh");
    limited.env_clear().args(["-c", "trap '' XFSZ; ulimit -f 40; exec \"$0\"", PROGRAM]);
    let mut process = Process::run(limited, &dir);
    let create = [
        ("amount", "100"),
        ("currency", "eur"),
        ("payment_method_types[]", "card"),
        ("payment_method", "pm_card_visa"),
        ("confirm", "true"),
    ];
    let mut acknowledged = Vec::new();
    let refusal = loop {
        let request = process.api.request(reqwest::Method::POST, "/v1/payment_intents").form(&create);
        let response = request.send().await.unwrap();
        if response.status() != StatusCode::OK {
            break response.status();
        }
        acknowledged.push(response.json::<serde_json::Value>().await.unwrap());
        assert!(acknowledged.len() < 1000, "the limit has no effect");
    };
    assert_eq!(refusal, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!acknowledged.is_empty());
    let status = process.child.wait().unwrap();
    assert_eq!(status.code(), Some(1), "{status}");

    let process = Process::start(&dir);
    for intent in &acknowledged {
        let path = format!("/v1/payment_intents/{}", intent["id"].as_str().unwrap());
        assert_eq!(process.api.get(&path).await, (StatusCode::OK, false, intent.clone()));
    }
    let (_, _, ledger) = process.api.get("/ledger").await;
    assert_eq!(ledger["items"][0]["captures"], acknowledged.len(), "the refused one took no effect");
}

#[tokio::test]
async fn sigterm_ends_the_program_in_time_with_requests_hanging() {
    // What Kubernetes gives it: k8s/overlays/local/payment-sandbox.yaml.
    const GRACE: Duration = Duration::from_secs(15);
    let dir = TempDir::new();
    let mut process = Process::start(&dir);
    let intent = process.api.intent("pm_card_hang").await;
    let hanging = tokio::spawn({
        let (api, path) = (process.api.clone(), format!("{intent}/confirm"));
        async move { api.post(&path, &[]).await.0 }
    });
    process.api.until_status(&intent, "processing").await;
    let asked = Instant::now();
    let pid = process.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let status = process.child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(asked.elapsed() < GRACE, "{:?}", asked.elapsed());
    assert_eq!(hanging.await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
    let mut log = String::new();
    std::io::Read::read_to_string(&mut process.log, &mut log).unwrap();
    assert!(log.contains("stopping"), "{log}");
}

#[tokio::test]
async fn answers_older_than_a_day_are_forgotten_at_start() {
    let sandbox = Sandbox::start().await;
    let create = [("amount", "100"), ("currency", "eur")];
    let first = sandbox.client.post_with_key("k", "/v1/payment_intents", &create).await;
    let (file, config) = (sandbox.log_file(), sandbox.config.clone());
    let _dir = sandbox.stop().await;
    let mut line: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let at = line["commit"]["at"].as_u64().unwrap();
    line["commit"]["at"] = (at - 25 * 60 * 60 * 1000).into();
    let mut log = OpenOptions::new().write(true).truncate(true).open(&file).unwrap();
    writeln!(log, "{line}").unwrap();
    drop(log);

    let handle = payment_sandbox::start(config).await.unwrap();
    let api = Api::new(&format!("http://{}", handle.addr));
    let (status, replayed, second) = api.post_with_key("k", "/v1/payment_intents", &create).await;
    assert_eq!((status, replayed), (StatusCode::OK, false));
    assert_ne!(second["id"], first.2["id"]);
    handle.stop().await.unwrap();
}

#[tokio::test]
async fn a_corrupt_or_missing_setting_is_an_error_at_start() {
    let dir = TempDir::new();
    let mut config = config(&dir);
    config.webhook_url = Some("not a url".into());
    let error = payment_sandbox::start(config.clone()).await.err().unwrap();
    assert!(format!("{error:#}").contains("WEBHOOK_URL"), "{error:#}");
    config.api_version = "2019-01-01".into();
    let error = payment_sandbox::start(config).await.err().unwrap();
    assert!(format!("{error:#}").contains("API_VERSION"), "{error:#}");
}

#[tokio::test]
async fn secrets_come_from_files_and_healthcheck_asks_the_running_program() {
    let dir = TempDir::new();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "sk_from_file\n").unwrap();
    let mut command = Command::new(PROGRAM);
    command.env_clear().env("DATA_DIR", dir.path()).env("SECRET_KEY", "x").env("SECRET_KEY_FILE", &secret);
    let both = command.output().unwrap();
    assert!(String::from_utf8_lossy(&both.stderr).contains("both set") && !both.status.success());

    command.env_remove("SECRET_KEY");
    let mut process = Process::run(command, &dir);
    let path = format!("{}/v1/payment_intents/pi_x", process.api.base);
    for (key, status) in
        [("sk_from_file", StatusCode::NOT_FOUND), ("sk_test_dockside", StatusCode::UNAUTHORIZED)]
    {
        let answer = process.api.http.get(&path).bearer_auth(key).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }

    let address = process.api.base.trim_start_matches("http://").to_owned();
    let healthy = || {
        let asked = Command::new(PROGRAM).arg("healthcheck").env_clear().env("HTTP_ADDR", &address).output();
        asked.unwrap().status.success()
    };
    assert!(healthy());
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    assert!(!healthy());
}

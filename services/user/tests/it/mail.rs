//! Mail: from event to a real SMTP conversation, with servers that take it,
//! put it off, turn it down, hang, or are not there.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::app::App;
use crate::app::mail::{TIME_PASSES, queue, queue_more, queue_together, until, until_sent};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

/// What the server says to a mail.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Accept,
    /// 451 after the data.
    Later,
    /// 550 to recipients that start with `bounce`.
    NoSuchMailbox,
    /// 535 to any account.
    WrongPassword,
    /// Nothing at all, once connected.
    Silence,
    /// Nothing to recipients that start with `slow`.
    SilenceToSome,
}

struct Received {
    to: String,
    data: String,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        let head = self.data.split("\r\n\r\n").next().unwrap_or_default();
        head.split("\r\n").find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default()
    }
}

/// A mail server on a port of its own.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    received: Arc<Mutex<Vec<Received>>>,
    conversations: Arc<Mutex<usize>>,
}

impl Server {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let server = Self {
            address: listener.local_addr().expect("an address"),
            answer: Arc::new(Mutex::new(answer)),
            received: Arc::default(),
            conversations: Arc::default(),
        };
        let started = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *server.conversations.lock().expect("no test has panicked") += 1;
                let server = server.clone();
                tokio::spawn(async move { server.talk(stream).await });
            }
        });
        started
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock().expect("no test has panicked") = answer;
    }

    fn conversations(&self) -> usize {
        *self.conversations.lock().expect("no test has panicked")
    }

    async fn talk(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let answer = *self.answer.lock().expect("no test has panicked");
        if answer == Answer::Silence {
            return std::future::pending().await;
        }
        stream.write_all(b"220 mail.test ESMTP\r\n").await?;
        let (mut line, mut to) = (String::new(), String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let verb = line.split([' ', '\r']).next().unwrap_or_default().to_ascii_uppercase();
            let reply = match verb.as_str() {
                "EHLO" => "250-mail.test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 AUTH PLAIN",
                "AUTH" if answer == Answer::WrongPassword => "535 5.7.8 Wrong password",
                "MAIL" | "AUTH" => "250 OK",
                "RCPT" if answer == Answer::NoSuchMailbox && line.contains("<bounce") => {
                    "550 No such mailbox"
                }
                "RCPT" if answer == Answer::SilenceToSome && line.contains("<slow") => {
                    return std::future::pending().await;
                }
                "RCPT" => {
                    to = line.trim_end().to_owned();
                    "250 OK"
                }
                "DATA" => {
                    stream.write_all(b"354 Go on\r\n").await?;
                    let mut data = String::new();
                    while !data.ends_with("\r\n.\r\n") {
                        if stream.read_line(&mut data).await? == 0 {
                            return Ok(());
                        }
                    }
                    if answer == Answer::Later {
                        "451 Try again later"
                    } else {
                        self.received
                            .lock()
                            .expect("no test has panicked")
                            .push(Received { to: to.clone(), data });
                        "250 Taken"
                    }
                }
                "QUIT" => "221 Bye",
                _ => "500 What?",
            };
            stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
        }
    }

    /// An app that sends through this server, and needs no broker.
    async fn app(&self) -> App {
        self.replica(&testing::database("users").await).await
    }

    async fn replica(&self, database_url: &str) -> App {
        let url = format!("smtp://{}", self.address);
        let settings = ["--smtp-url", &url, "--smtp-deadline-seconds=1"];
        App::start_with(database_url, crate::app::NO_BROKER, "dockside", &settings).await
    }
}

#[tokio::test]
async fn a_mail_names_its_event_and_goes_to_the_address_of_today_in_text_and_html() {
    let server = Server::start(Answer::Later).await;
    let app = server.app().await;
    let event = queue(&app, "old@example.com").await;
    until(&app, event, "one attempt", |row| row["error"].is_string()).await;
    app.sql("UPDATE users.accounts SET email = 'new@example.com', name = 'Zoë \"Z\" <z>'").await;
    server.answers(Answer::Accept);
    app.sql(TIME_PASSES).await;
    let row = until_sent(&app, event).await;
    assert_eq!(&row["error"], &Value::Null);
    assert!(row["settled_at"].is_string());

    let received = server.received.lock().unwrap();
    assert_eq!(received.len(), 1);
    let mail = &received[0];
    assert!(mail.to.starts_with("RCPT TO:<new@example.com>"), "{}", mail.to);
    assert_eq!(mail.header("Message-ID"), format!("<{event}@dockside.test>"));
    assert_eq!(mail.header("From"), "Dockside <shop@dockside.test>");
    assert_eq!(mail.header("Subject"), "We have your order");
    assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
    assert!(mail.header("To").ends_with("<new@example.com>"), "{}", mail.header("To"));
    assert!(mail.header("Content-Type").starts_with("multipart/alternative"));
    let (text, html) = mail.data.split_once("Content-Type: text/html").unwrap();
    assert!(text.contains("Content-Type: text/plain"));
    assert!(text.contains("2 x Mug <b>: 25.00 EUR"), "{text}");
    assert!(html.contains("Mug &#60;b&#62;") && !html.contains("<b>"), "{html}");
}

#[tokio::test]
async fn a_domain_with_letters_beyond_ascii_is_written_as_mail_servers_know_it() {
    let server = Server::start(Answer::Accept).await;
    let app = server.app().await;
    let event = queue(&app, "ada@bücher.example").await;
    until_sent(&app, event).await;
    let received = server.received.lock().unwrap();
    assert!(received[0].to.starts_with("RCPT TO:<ada@xn--bcher-kva.example>"), "{}", received[0].to);
}

#[tokio::test]
async fn a_mail_that_is_put_off_is_tried_again_and_arrives_once() {
    let server = Server::start(Answer::Later).await;
    let app = server.app().await;
    let event = queue(&app, "ada@example.com").await;
    let row = until(&app, event, "one attempt", |row| row["error"].is_string()).await;
    assert_eq!(
        (&row["status"], &row["attempts"], &row["refusals"]),
        (&"pending".into(), &1.into(), &0.into())
    );
    assert!(row["error"].as_str().unwrap().contains("451"), "{row}");
    let wait = "SELECT round(EXTRACT(epoch FROM due_at - now()))::bigint FROM users.notifications";
    assert!((20..=33).contains(&app.count(wait).await));

    server.answers(Answer::Accept);
    app.sql(TIME_PASSES).await;
    assert_eq!(until_sent(&app, event).await["attempts"], 2);
    assert_eq!(server.received.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_mail_that_is_refused_fails_after_three_tries_and_others_flow() {
    let server = Server::start(Answer::NoSuchMailbox).await;
    let app = server.app().await;
    let bounced = queue(&app, "bounce@example.com").await;
    for refusals in 1..=2 {
        let refused = |row: &Value| row["refusals"] == refusals;
        let row = until(&app, bounced, "a refusal", refused).await;
        assert_eq!(row["status"], "pending");
        app.sql(TIME_PASSES).await;
    }
    let row = until(&app, bounced, "it has failed", |row| row["status"] == "failed").await;
    assert_eq!(row["attempts"], 3);
    assert!(row["error"].as_str().unwrap().contains("550"), "{row}");
    let good = queue(&app, "ada@example.com").await;
    until_sent(&app, good).await;
    assert_eq!(server.received.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_wrong_account_at_the_mail_server_fails_no_mail() {
    let server = Server::start(Answer::WrongPassword).await;
    let url = format!("smtp://shop:secret@{}", server.address);
    let database = testing::database("users").await;
    let app = App::start_with(&database, crate::app::NO_BROKER, "dockside", &["--smtp-url", &url]).await;
    let event = queue(&app, "ada@example.com").await;
    let row = until(&app, event, "one attempt", |row| row["error"].is_string()).await;
    assert_eq!((&row["status"], &row["refusals"]), (&"pending".into(), &0.into()));
    assert!(row["error"].as_str().unwrap().contains("535"), "{row}");
}

#[tokio::test]
async fn a_server_that_hangs_or_is_away_loses_no_mail() {
    let server = Server::start(Answer::Silence).await;
    let app = server.app().await;
    let event = queue(&app, "ada@example.com").await;
    let row = until(&app, event, "one attempt", |row| row["error"].is_string()).await;
    assert_eq!((&row["status"], &row["refusals"]), (&"pending".into(), &0.into()));
    assert_eq!(row["error"], "no answer in time");
    // Whoever wants something of the service does not wait for it.
    assert_eq!(app.register("eve@example.com").await.status, 201);
    server.answers(Answer::Accept);
    app.sql(TIME_PASSES).await;
    until_sent(&app, event).await;

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("smtp://{nobody}");
    let database = testing::database("users").await;
    let app = App::start_with(&database, crate::app::NO_BROKER, "dockside", &["--smtp-url", &url]).await;
    let event = queue(&app, "ada@example.com").await;
    let row = until(&app, event, "one attempt", |row| row["error"].is_string()).await;
    assert_eq!((&row["status"], &row["refusals"]), (&"pending".into(), &0.into()));
    app.sql("UPDATE users.notifications SET created_at = now() - interval '73 hours', due_at = now()").await;
    until(&app, event, "it has failed", |row| row["status"] == "failed").await;
}

#[tokio::test]
async fn a_server_that_is_away_is_offered_few_of_many_mails() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("smtp://{nobody}");
    let database = testing::database("users").await;
    let app = App::start_with(&database, crate::app::NO_BROKER, "dockside", &["--smtp-url", &url]).await;
    let event = queue(&app, "ada@example.com").await;
    until(&app, event, "one attempt", |row| row["error"].is_string()).await;
    queue_more(&app, event, 50).await;
    let tried = "SELECT count(*) FROM users.notifications WHERE error IS NOT NULL";
    testing::eventually("a second pass", async || (app.count(tried).await > 1).then_some(())).await;
    // Those that it was not offered are as they were.
    let not_tried = "SELECT count(*) FROM users.notifications WHERE error IS NULL AND attempts = 0";
    testing::eventually("the rest is given back", async || (app.count(not_tried).await >= 20).then_some(()))
        .await;
}

#[tokio::test]
async fn mails_that_went_out_are_marked_while_another_waits_for_its_answer() {
    let server = Server::start(Answer::Accept).await;
    let url = format!("smtp://{}", server.address);
    let database = testing::database("users").await;
    let settings = ["--smtp-url", &url, "--smtp-deadline-seconds=20"];
    let app = App::start_with(&database, crate::app::NO_BROKER, "dockside", &settings).await;
    let (fast, slow) = (queue(&app, "ada@example.com").await, queue(&app, "slow@example.com").await);
    until_sent(&app, fast).await;
    until_sent(&app, slow).await;
    server.answers(Answer::SilenceToSome);
    // Claimed in one pass.
    let events = queue_together(&app, &[(slow, 1), (fast, 20)]).await;
    let sent = "SELECT count(*) FROM users.notifications WHERE status = 'sent'";
    testing::eventually("the others are marked", async || (app.count(sent).await == 22).then_some(())).await;
    // The slow one is still under way: once its time is up it has an error.
    until(&app, events[0], "it waits", |row| row["status"] == "pending" && row["error"].is_null()).await;
}

#[tokio::test]
async fn many_mails_leave_once_each() {
    let server = Server::start(Answer::Accept).await;
    let app = server.app().await;
    let first = queue(&app, "ada@example.com").await;
    until_sent(&app, first).await;
    let events = queue_more(&app, first, 150).await;
    let waiting = "SELECT count(*) FROM users.notifications WHERE status <> 'sent'";
    testing::eventually("all are sent", async || (app.count(waiting).await == 0).then_some(())).await;
    let received = server.received.lock().unwrap();
    assert_eq!(received.len(), 151);
    for event in events {
        let id = format!("<{event}@");
        assert_eq!(received.iter().filter(|mail| mail.header("Message-ID").starts_with(&id)).count(), 1);
    }
}

#[tokio::test]
async fn two_replicas_send_each_mail_once() {
    let server = Server::start(Answer::Later).await;
    let first = server.app().await;
    let _second = server.replica(&first.database_url).await;
    let event = queue(&first, "ada@example.com").await;
    until(&first, event, "one attempt", |row| row["error"].is_string()).await;
    server.answers(Answer::Accept);
    first
        .sql(
            "INSERT INTO users.notifications (event_id, user_id, order_id, kind, payload, status)
             SELECT gen_random_uuid(), user_id, order_id, kind, payload, 'pending'
             FROM users.notifications, generate_series(1, 60)",
        )
        .await;
    testing::eventually("all are sent", || async {
        let sent = "SELECT count(*) FROM users.notifications WHERE status = 'sent'";
        (first.count(sent).await == 60).then_some(())
    })
    .await;
    let received = server.received.lock().unwrap();
    let mut ids: Vec<&str> = received.iter().map(|mail| mail.header("Message-ID")).collect();
    assert_eq!(ids.len(), 60);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 60);
}

#[tokio::test]
async fn an_erased_account_gets_no_mail_any_more() {
    let server = Server::start(Answer::Later).await;
    let app = server.app().await;
    let event = queue(&app, "ada@example.com").await;
    until(&app, event, "one attempt", |row| row["error"].is_string()).await;
    let ada = app.login("ada@example.com", crate::app::PASSWORD).await.tokens();
    assert_eq!(app.delete("/api/v1/me", &ada.access).await.status, 204);
    assert_eq!(app.count("SELECT count(*) FROM users.notifications").await, 0);
    server.answers(Answer::Accept);
    // A later one's mail goes out, and by then that one would have.
    let later = queue(&app, "eve@example.com").await;
    until_sent(&app, later).await;
    assert_eq!(server.received.lock().unwrap().len(), 1);
    assert!(server.conversations() >= 2);
}

#[tokio::test]
async fn without_a_server_mails_are_files_in_a_folder_or_nothing() {
    let folder = std::env::temp_dir().join(format!("dockside-mail-{}", Uuid::now_v7()));
    let setting = format!("--mail-dir={}", folder.display());
    let database = testing::database("users").await;
    let app = App::start_with(&database, crate::app::NO_BROKER, "dockside", &[&setting]).await;
    let event = queue(&app, "ada@example.com").await;
    until_sent(&app, event).await;
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, [std::ffi::OsString::from(format!("{event}.eml"))]);
    let mail = std::fs::read_to_string(folder.join(&files[0])).unwrap();
    assert!(mail.contains("To: Ada <ada@example.com>\r\n"), "{mail}");
    assert!(mail.contains(&format!("Message-ID: <{event}@dockside.test>\r\n")), "{mail}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn an_event_that_no_mail_can_be_made_of_fails() {
    let server = Server::start(Answer::Accept).await;
    let app = server.app().await;
    let event = queue(&app, "ada@example.com").await;
    until_sent(&app, event).await;
    app.sql(
        "UPDATE users.notifications SET status = 'pending', payload = '\\xff', refusals = 2, due_at = now()",
    )
    .await;
    let row = until(&app, event, "it has failed", |row| row["status"] == "failed").await;
    assert!(row["error"].is_string());
    assert_eq!(server.received.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_mail_is_in_the_language_that_its_account_has_when_it_leaves() {
    let server = Server::start(Answer::Later).await;
    let app = server.app().await;
    let (english, chinese) = (queue(&app, "ada@example.com").await, queue(&app, "xiao@example.com").await);
    until(&app, chinese, "one attempt", |row| row["error"].is_string()).await;
    app.sql("UPDATE users.accounts SET language = 'zh' WHERE email = 'xiao@example.com'").await;
    server.answers(Answer::Accept);
    app.sql(TIME_PASSES).await;
    until_sent(&app, english).await;
    until_sent(&app, chinese).await;
    let received = server.received.lock().unwrap();
    let subject = |to: &str| {
        let mail = received.iter().find(|mail| mail.to.contains(to)).expect("it came");
        mail.header("Subject").to_owned()
    };
    assert_eq!(subject("ada@"), "We have your order");
    assert!(subject("xiao@").starts_with("=?utf-8?b?"), "{}", subject("xiao@"));
}

/// Whose mail a row is, as the path to have it sent again, and what to ask for.
fn again(row: &Value) -> (String, Value) {
    let user = row["user_id"].as_str().expect("an id");
    (format!("/api/v1/users/{user}/mails"), json!({"order_id": row["order_id"]}))
}

/// The token of somebody of the staff.
async fn staff(app: &App) -> String {
    assert_eq!(app.register("staff@example.com").await.status, 201);
    app.sql("UPDATE users.accounts SET role = 'staff' WHERE email = 'staff@example.com'").await;
    app.login("staff@example.com", crate::app::PASSWORD).await.tokens().access
}

#[tokio::test]
async fn staff_have_the_newest_mail_of_an_order_sent_again_a_few_times_an_hour() {
    let server = Server::start(Answer::Accept).await;
    let app = server.app().await;
    let event = queue(&app, "ada@example.com").await;
    let ((path, body), staff) = (again(&until_sent(&app, event).await), staff(&app).await);
    app.sql("UPDATE users.accounts SET language = 'zh', email = 'new@example.com' WHERE email LIKE 'ada%'")
        .await;
    let with_key = async |body: &Value| {
        let request = app.request(Method::POST, &path).bearer_auth(&staff).header("Idempotency-Key", "once");
        crate::app::Answer::of(request.json(body).send().await.unwrap()).await
    };
    let first = with_key(&body).await;
    assert_eq!((first.status.as_u16(), &first.body["event"]), (201, &json!("order.placed.v1")), "{first:?}");
    assert_eq!(first.body["order_id"], body["order_id"]);
    let id: Uuid = first.body["id"].as_str().unwrap().parse().unwrap();
    assert_ne!(id, event);
    let row = until_sent(&app, id).await;
    assert_eq!((&row["again_of"], &row["attempts"]), (&json!(event), &json!(1)));
    // Repeated, it is the same mail.
    let repeated = with_key(&body).await;
    assert_eq!((repeated.status, &repeated.body), (first.status, &first.body));
    assert_eq!(repeated.header("idempotency-replayed"), "true");
    with_key(&json!({"order_id": Uuid::now_v7()})).await.is_problem(422, "idempotency_key_reused");
    {
        let received = server.received.lock().unwrap();
        assert_eq!(received.len(), 2);
        assert!(received[1].to.contains("<new@example.com>"), "{}", received[1].to);
        assert_eq!(received[1].header("Message-ID"), format!("<{id}@dockside.test>"));
        assert!(received[1].header("Subject").starts_with("=?utf-8?b?"), "{}", received[1].header("Subject"));
    }
    for _ in 0..2 {
        let answer = app.call(Method::POST, &path, &staff, body.clone()).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        until_sent(&app, answer.body["id"].as_str().unwrap().parse().unwrap()).await;
    }
    app.call(Method::POST, &path, &staff, body.clone()).await.is_problem(429, "too_many_mails");
    app.sql(
        "UPDATE users.notifications SET created_at = created_at - interval '1 hour' WHERE event_id IN (
                 SELECT event_id FROM users.notifications WHERE again_of IS NOT NULL LIMIT 1)",
    )
    .await;
    assert_eq!(app.call(Method::POST, &path, &staff, body).await.status, 201);
    assert_eq!(app.count("SELECT count(*) FROM users.notifications").await, 5);
}

#[tokio::test]
async fn only_what_has_left_is_sent_again_and_only_what_is_kept() {
    let server = Server::start(Answer::Later).await;
    let app = server.app().await;
    let event = queue(&app, "ada@example.com").await;
    let row = until(&app, event, "one attempt", |row| row["error"].is_string()).await;
    let ((path, body), staff) = (again(&row), staff(&app).await);
    // It leaves by itself.
    for _ in 0..5 {
        let waiting = app.call(Method::POST, &path, &staff, body.clone()).await;
        assert_eq!((waiting.status.as_u16(), &waiting.body["id"]), (201, &json!(event)));
    }
    server.answers(Answer::Accept);
    app.sql(TIME_PASSES).await;
    until_sent(&app, event).await;
    // Of an order of somebody else's, or of none.
    let other = json!({"order_id": Uuid::now_v7()});
    app.call(Method::POST, &path, &staff, other).await.is_problem(409, "no_mail");
    // As an earlier release left it.
    app.sql("UPDATE users.notifications SET payload = NULL").await;
    app.call(Method::POST, &path, &staff, body.clone()).await.is_problem(409, "no_mail");
    assert_eq!(app.count("SELECT count(*) FROM users.notifications").await, 1);

    let nobody = format!("/api/v1/users/{}/mails", Uuid::now_v7());
    app.call(Method::POST, &nobody, &staff, json!({"x": 1})).await.is_problem(404, "not_found");
    for wrong in [json!({}), json!({"order_id": "x"}), json!({"order_id": null})] {
        app.call(Method::POST, &path, &staff, wrong).await.is_problem(422, "validation_failed");
    }
    let ada = app.login("ada@example.com", crate::app::PASSWORD).await.tokens();
    app.call(Method::POST, &path, &ada.access, body).await.is_problem(403, "forbidden");
    app.needs_a_token(&[(Method::POST, &path)]).await;
    app.takes_json_alone(&staff, &[(Method::POST, &path)]).await;
}

#[tokio::test]
async fn a_shop_without_a_mail_server_sends_none_again() {
    let app = App::start().await;
    let event = queue(&app, "ada@example.com").await;
    let row = until(&app, event, "a record", |_| true).await;
    // As it was left when a mail server was still set up.
    app.sql("UPDATE users.notifications SET status = 'sent', payload = '\\x00'").await;
    let (path, body) = again(&row);
    app.call(Method::POST, &path, &staff(&app).await, body).await.is_problem(409, "no_mail");
    assert_eq!(app.count("SELECT count(*) FROM users.notifications").await, 1);
}

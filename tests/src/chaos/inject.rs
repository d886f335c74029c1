//! Does to a running shop what the plan says, and knows when it is well again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::schedule::{Fault, Kind};
use crate::Shop;

const DEADLINE: Duration = Duration::from_secs(5);

const SCHEMAS: [&str; 3] = ["orders", "products", "users"];

/// When a relay may have an event that is to arrive out of order, as SQL.
const LATER: &str = "now() + random() * interval '3 seconds'";

/// Events of these types with a body that is none: for user and product, and for order.
const POISONED: [(&str, &[&str]); 2] =
    [("order.cancelled.v1", &["user", "product"]), ("user.deleted.v1", &["order"])];

/// A process as the shop's supervisor knows it.
#[derive(Clone, Debug)]
pub struct Process {
    pub name: String,
    pub pid: Option<u32>,
    http: Option<String>,
    admin: Option<String>,
}

/// An expected dead letter: in whose queue, and the message's id.
pub type DeadLetter = (String, Uuid);

pub struct Injector {
    dir: PathBuf,
    database: String,
    broker: String,
    edge: String,
    client: reqwest::Client,
    webhook_key: hmac::Key,
    /// How often each victim was struck.
    blows: Mutex<BTreeMap<String, u32>>,
    /// What the broker has confirmed, and what it may have.
    poison: Mutex<(BTreeSet<DeadLetter>, BTreeSet<DeadLetter>)>,
}

impl Injector {
    pub fn new(shop: &Shop) -> anyhow::Result<Self> {
        let dir = PathBuf::from(&shop.dir);
        let secrets: Value = serde_json::from_slice(&std::fs::read(dir.join("secrets.json"))?)?;
        let secret = secrets["payment_webhook_secret"].as_str().unwrap_or_default();
        Ok(Self {
            dir,
            database: shop.database_url.clone(),
            broker: shop.broker_url.clone(),
            edge: shop.edge.clone(),
            client: reqwest::Client::builder().timeout(DEADLINE).build()?,
            webhook_key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            blows: Mutex::default(),
            poison: Mutex::default(),
        })
    }

    /// The supervisor's list as it is now. Its file, since `status` asks every process first, and those that are
    /// stopped or cut off take seconds to answer.
    pub fn processes(&self) -> Vec<Process> {
        let state: Value = std::fs::read(self.dir.join("state.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let listed = state["processes"].as_array().cloned().unwrap_or_default();
        listed
            .iter()
            .filter(|process| process["hidden"] != true)
            .filter_map(|process| {
                Some(Process {
                    name: text(&process["name"])?,
                    pid: process["pid"].as_u64().and_then(|pid| pid.try_into().ok()),
                    http: text(&process["http"]),
                    admin: text(&process["admin"]),
                })
            })
            .collect()
    }

    fn process(&self, name: &str) -> Option<Process> {
        self.processes().into_iter().find(|process| process.name == name)
    }

    /// What can be killed; links have a proxy of their own, which is not part of the shop.
    pub fn victims(&self) -> Vec<String> {
        self.processes().into_iter().map(|process| process.name).filter(|name| name != "links").collect()
    }

    /// The file that says how far a process's clock is ahead; there is none for a clock that cannot jump.
    pub fn clock(&self, name: &str) -> PathBuf {
        self.dir.join("clocks").join(name)
    }

    /// The links that can be cut; none when the shop was started without a proxy for them.
    pub async fn links(&self) -> Vec<String> {
        let answer = self.command_links("list").await.unwrap_or_default();
        let links = answer.split_whitespace().skip(1);
        links.filter_map(|link| Some(link.split_once('=')?.0.to_owned())).collect()
    }

    /// One line to the links' control port, one line back.
    async fn command_links(&self, line: &str) -> anyhow::Result<String> {
        let links = self.process("links").and_then(|links| links.http);
        let links = links.ok_or_else(|| anyhow::anyhow!("the shop runs without links"))?;
        let talk = async {
            let mut stream = BufReader::new(TcpStream::connect(links).await?);
            stream.write_all(format!("{line}\n").as_bytes()).await?;
            let mut answer = String::new();
            stream.read_line(&mut answer).await?;
            anyhow::ensure!(answer.starts_with("ok"), "{line}: {answer}");
            Ok(answer)
        };
        tokio::time::timeout(DEADLINE, talk).await?
    }

    /// Strikes and, for a fault that lasts, heals. An error when its victim is not there to be struck.
    pub async fn inject(&self, fault: &Fault) -> anyhow::Result<()> {
        let victim = fault.victim.as_str();
        match fault.kind {
            Kind::Kill => self.signal(victim, Signal::KILL),
            // As the supervisor ends them: PostgreSQL would wait for its sessions, which are the services'.
            Kind::Restart if victim == "postgres" => self.signal(victim, Signal::INT),
            Kind::Restart if victim == "edge" => self.signal(victim, Signal::QUIT),
            Kind::Restart => self.signal(victim, Signal::TERM),
            Kind::Pause => {
                let stopped = self.stop_all(victim)?;
                tokio::time::sleep(fault.lasts).await;
                for pid in stopped {
                    let _ = kill_process(pid, Signal::CONT);
                }
                Ok(())
            }
            Kind::Sever | Kind::Stall | Kind::Slow => {
                let command = match fault.kind {
                    Kind::Sever => format!("sever {victim}"),
                    Kind::Stall => format!("stall {victim}"),
                    _ => format!("slow {victim} 100"),
                };
                self.command_links(&command).await?;
                tokio::time::sleep(fault.lasts).await;
                self.command_links(&format!("heal {victim}")).await.map(drop)
            }
            Kind::Clock => {
                std::fs::write(self.clock(victim), format!("{:+}\n", fault.jump))?;
                tokio::time::sleep(fault.lasts).await;
                Ok(std::fs::write(self.clock(victim), "+0\n")?)
            }
            Kind::Repeat => self.repeat().await,
            Kind::Backlog => self.backlog(fault.lasts).await,
            Kind::Poison => tokio::time::timeout(DEADLINE, self.poison()).await?,
            Kind::Webhooks => self.webhooks().await,
        }
    }

    /// Counts a blow to a victim; returns which one this is.
    pub fn blow(&self, victim: &str) -> u32 {
        let mut blows = self.blows.lock().unwrap_or_else(PoisonError::into_inner);
        let count = blows.entry(victim.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Returns when a victim is struck again after that blow.
    pub async fn struck_again(&self, victim: &str, blow: u32) {
        let count = || self.blows.lock().unwrap_or_else(PoisonError::into_inner).get(victim).copied();
        while count().is_none_or(|count| count == blow) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn signal(&self, victim: &str, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid(victim)?;
        Ok(kill_process(pid, signal)?)
    }

    fn pid(&self, victim: &str) -> anyhow::Result<Pid> {
        let pid =
            self.process(victim).and_then(|process| process.pid).and_then(|pid| i32::try_from(pid).ok());
        pid.and_then(Pid::from_raw).ok_or_else(|| anyhow::anyhow!("{victim} is not running"))
    }

    /// Stops a process and all that it has started, such as PostgreSQL's backends.
    fn stop_all(&self, victim: &str) -> anyhow::Result<Vec<Pid>> {
        let mut all = vec![self.pid(victim)?];
        kill_process(all[0], Signal::STOP)?;
        let parents = parents();
        let mut next = 0;
        while next < all.len() {
            let children = parents.iter().filter(|(_, parent)| *parent == all[next].as_raw_pid());
            let children: Vec<Pid> = children.filter_map(|(pid, _)| Pid::from_raw(*pid)).collect();
            for child in children {
                if kill_process(child, Signal::STOP).is_ok() {
                    all.push(child);
                }
            }
            next += 1;
        }
        Ok(all)
    }

    /// Has the relays publish what they have published before, in another order.
    async fn repeat(&self) -> anyhow::Result<()> {
        let again = async {
            let mut database = PgConnection::connect(&self.database).await?;
            let mut events = 0;
            for schema in SCHEMAS {
                let sql = format!(
                    "UPDATE {schema}.outbox SET published_at = NULL, claimed_until = {LATER} WHERE id IN (
                         SELECT id FROM {schema}.outbox WHERE published_at > now() - interval '1 minute'
                         ORDER BY random() LIMIT 500)"
                );
                events += sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut database).await?.rows_affected();
            }
            database.close().await?;
            anyhow::ensure!(events > 0, "there was no event to repeat");
            Ok(())
        };
        tokio::time::timeout(DEADLINE, again).await?
    }

    /// Has each new event wait for another time before a relay may have it.
    async fn backlog(&self, lasts: Duration) -> anyhow::Result<()> {
        let held = self.hold_back(LATER).await;
        if held.is_ok() {
            tokio::time::sleep(lasts).await;
        }
        self.let_through().await?;
        held
    }

    /// Has relays take new events at once again.
    pub async fn let_through(&self) -> anyhow::Result<()> {
        // As often as it takes, as other faults strike meanwhile.
        let mut last = Ok(());
        for _ in 0..60 {
            last = self.hold_back("'-infinity'").await;
            if last.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        last
    }

    async fn hold_back(&self, until: &str) -> anyhow::Result<()> {
        // All or none. What has to wait for longer must not happen after we have gone.
        let mut sql = "SET LOCAL lock_timeout = '1s';".to_owned();
        for schema in SCHEMAS {
            sql += &format!("ALTER TABLE {schema}.outbox ALTER COLUMN claimed_until SET DEFAULT {until};");
        }
        let all = async {
            let mut database = PgConnection::connect(&self.database).await?;
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut database).await?;
            Ok(database.close().await?)
        };
        tokio::time::timeout(DEADLINE, all).await?
    }

    async fn poison(&self) -> anyhow::Result<()> {
        let connection = Connection::connect(&self.broker, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        for (kind, subscribers) in POISONED {
            let id = Uuid::now_v7();
            let dead_letters = subscribers.iter().map(|subscriber| ((*subscriber).to_owned(), id));
            self.poison_list().1.extend(dead_letters.clone());
            let mut headers = FieldTable::default();
            headers.insert("aggregate_id".into(), AMQPValue::LongString(id.to_string().into()));
            headers.insert("aggregate_version".into(), AMQPValue::LongLongInt(1));
            let properties = BasicProperties::default()
                .with_delivery_mode(2)
                .with_message_id(id.to_string().into())
                .with_type(kind.into())
                .with_headers(headers);
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let body = b"\xff\xff\xff\xff no event";
            let sent = channel
                .basic_publish("dockside.events".into(), kind.into(), options, body, properties)
                .await?;
            if matches!(sent.await?, Confirmation::Ack(None)) {
                self.poison_list().0.extend(dead_letters);
            }
        }
        connection.close(200, "done".into()).await?;
        Ok(())
    }

    fn poison_list(&self) -> std::sync::MutexGuard<'_, (BTreeSet<DeadLetter>, BTreeSet<DeadLetter>)> {
        self.poison.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dead letters that there must be, and those that there may be.
    pub fn poisoned(&self) -> (BTreeSet<DeadLetter>, BTreeSet<DeadLetter>) {
        self.poison_list().clone()
    }

    /// Signed as the provider signs, about intents that it knows, true or not: only what it says when asked counts.
    async fn webhooks(&self) -> anyhow::Result<()> {
        let some = async {
            let mut database = PgConnection::connect(&self.database).await?;
            let sql = "SELECT intent_id FROM (SELECT intent_id FROM orders.sagas WHERE intent_id IS NOT NULL
                           ORDER BY order_id DESC LIMIT 300) recent ORDER BY random() LIMIT 60";
            let intents: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut database).await?;
            database.close().await?;
            Ok::<_, anyhow::Error>(intents)
        };
        let intents = tokio::time::timeout(DEADLINE, some).await??;
        let kinds = [
            "payment_intent.succeeded",
            "payment_intent.canceled",
            "payment_intent.amount_capturable_updated",
            "charge.refunded",
        ];
        for (intent, kind) in intents.iter().zip(kinds.iter().cycle()) {
            let body = json!({"id": format!("evt_{}", Uuid::now_v7().simple()), "type": kind, "data": {"object": {"id": intent}}});
            let body = body.to_string();
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            let signature = hmac::sign(&self.webhook_key, format!("{now}.{body}").as_bytes());
            let signature: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            let request = self.client.post(format!("{}/api/v1/payments/webhook", self.edge));
            // Whether the service is there to take it is another fault's matter.
            let _ = request
                .header("Stripe-Signature", format!("t={now},v1={signature}"))
                .header("Content-Type", "application/json")
                .body(body)
                .send()
                .await;
        }
        Ok(())
    }

    /// The process's id; None while it is being started again.
    pub fn pid_of(&self, name: &str) -> Option<u32> {
        self.process(name)?.pid
    }

    /// Waits until a process that was struck serves again, as another one than `dead`: how long, or None when it did
    /// not in time.
    pub async fn recovered(
        &self,
        victim: &str,
        dead: Option<u32>,
        since: Instant,
        limit: Duration,
    ) -> Option<Duration> {
        while since.elapsed() < limit {
            let another = dead.is_none() || self.pid_of(victim) != dead;
            if another && tokio::time::timeout(DEADLINE, self.serves(victim)).await == Ok(true) {
                return Some(since.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        None
    }

    async fn serves(&self, name: &str) -> bool {
        let Some(process) = self.process(name) else { return false };
        if process.pid.is_none() {
            return false;
        }
        let answers = async |url: String| {
            self.client.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
        };
        match (name, process.admin, process.http) {
            ("postgres", ..) => match PgConnection::connect(&self.database).await {
                Ok(database) => database.close().await.is_ok(),
                Err(_) => false,
            },
            ("rabbitmq", ..) => {
                match Connection::connect(&self.broker, ConnectionProperties::default()).await {
                    Ok(broker) => broker.close(200, "there".into()).await.is_ok(),
                    Err(_) => false,
                }
            }
            ("payment-sandbox", _, Some(http)) => answers(format!("{http}/livez")).await,
            (_, Some(admin), _) => answers(format!("{admin}/readyz")).await,
            (_, None, Some(http)) => answers(format!("{http}/")).await,
            _ => true,
        }
    }
}

/// Every process of this machine and its parent: fields 1 and 4 of proc_pid_stat(5).
fn parents() -> Vec<(i32, i32)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name, in parentheses, may hold anything.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        all.extend(parent.map(|parent| (pid, parent)));
    }
    all
}

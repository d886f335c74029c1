//! The provider at work: decides under one lock, logs, and answers once the log is on disk.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::book::Book;
use crate::commands::{After, Command, Fault, Outcome, Then, decide, under_way};
use crate::config::Config;
use crate::error::ApiError;
use crate::idempotency::{Answer, Key, Keys, Stored};
use crate::intents::Event;
use crate::log::Log;
use crate::version::Version;
use crate::webhooks::{self, Hook, Webhooks};

/// Events that are kept to be asked for. Stripe keeps those of 30 days.
const EVENTS: usize = 1000;

/// How long a request that never gets an answer is kept open.
const HANGS: Duration = Duration::from_secs(120);

/// One line of the log.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    Commit(Commit),
    /// The event needs no more delivery: it arrived, or every try failed.
    Webhook {
        event: String,
        delivered: bool,
    },
}

/// What one request changed, and its answer: both are kept, or neither.
#[derive(Serialize, Deserialize)]
pub struct Commit {
    id: String,
    /// Unix milliseconds.
    at: u64,
    events: Vec<Event>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Stored>,
    /// Whether a webhook was set up then: one that is set up later gets no events of the past.
    notify: bool,
}

/// How a request ends.
pub enum Reply {
    Answer(Answer),
    /// The stored answer to an earlier request with the same key.
    Replayed(Answer),
    /// It took effect, and its answer is to be lost.
    Lost,
}

/// What a request asks for: to be done, and whether what can be expanded in the answer is to be.
pub struct Asked {
    pub command: Command,
    pub expand: bool,
}

#[derive(Default)]
struct State {
    book: Book,
    keys: Keys,
    /// The latest, oldest first.
    events: VecDeque<Arc<Hook>>,
}

impl State {
    /// Applies the events of one commit and returns the webhooks that they call for.
    fn apply(&mut self, commit: &str, at: u64, events: &[Event]) -> anyhow::Result<Vec<Arc<Hook>>> {
        let mut hooks = Vec::new();
        for event in events {
            self.book.apply(event, at)?;
            for (kind, object) in webhooks::calls_for(event, &self.book) {
                hooks.push(Arc::new(Hook::new(format!("evt_{commit}{}", hooks.len()), kind, object, at)));
            }
        }
        self.events.extend(hooks.iter().cloned());
        self.events.drain(..self.events.len().saturating_sub(EVENTS));
        Ok(hooks)
    }
}

pub struct Sandbox {
    state: Mutex<State>,
    log: Arc<Log>,
    webhooks: Option<Arc<Webhooks>>,
    slow: Duration,
    time_to_act: Duration,
    public_url: Option<String>,
    version: Version,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Sandbox {
    /// Replays the log in the data directory and goes on where it ends: slow confirmations that were under way run
    /// their full time again, undelivered webhooks are sent. `stop` ends what waits.
    pub fn open(config: &Config, stop: CancellationToken) -> anyhow::Result<Arc<Self>> {
        std::fs::create_dir_all(&config.data_dir)
            .with_context(|| format!("creating {}", config.data_dir.display()))?;
        let path = config.data_dir.join("ledger.jsonl");
        let mut state = State::default();
        let (log, undelivered) =
            replay(&path, &mut state).with_context(|| format!("opening {}", path.display()))?;
        state.keys.forget_old(now());
        let version = config.version()?;

        let log = Arc::new(log);
        let tasks = TaskTracker::new();
        let webhooks = match config.webhook_url.as_deref().filter(|url| !url.is_empty()) {
            Some(url) => {
                let secret = &config.webhook_secret;
                Some(Arc::new(Webhooks::new(url, secret, version, log.clone(), stop.clone(), tasks.clone())?))
            }
            None => None,
        };
        let sandbox = Arc::new(Self {
            state: Mutex::new(state),
            log,
            webhooks,
            slow: config.slow(),
            time_to_act: Duration::from_secs(config.authentication_seconds),
            public_url: config.public_url.clone().filter(|url| !url.is_empty()),
            version,
            stop,
            tasks,
        });
        sandbox.notify(undelivered.into_values(), 0);
        sandbox.resume();
        Ok(sandbox)
    }

    /// Runs a command to its end, whether or not the client still waits for it.
    /// With a key, it runs once: repetitions get the first answer (or 409 until there is one).
    pub async fn run(self: &Arc<Self>, asked: Asked, key: Option<Key>) -> Result<Reply, ApiError> {
        let sandbox = self.clone();
        let run = self.tasks.spawn(async move { sandbox.execute(&asked, key).await });
        run.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a request ended unexpectedly");
            Err(ApiError::server(StatusCode::INTERNAL_SERVER_ERROR, "The request ended unexpectedly."))
        })
    }

    /// Looks something up, and returns it once all that it may rest on is on disk.
    pub async fn read<T>(&self, look_up: impl FnOnce(&Book) -> T) -> Result<T, ApiError> {
        let (found, line) = {
            let state = self.state();
            (look_up(&state.book), self.log.last())
        };
        self.durable(line).await?;
        Ok(found)
    }

    /// Keeps a request waiting for 120 s, or until the sandbox stops.
    pub async fn never_answers(&self) -> ApiError {
        match self.pause(HANGS).await {
            Ok(()) => ApiError::server(StatusCode::GATEWAY_TIMEOUT, "The request took too long."),
            Err(stopping) => stopping,
        }
    }

    /// Waits for the requests and deliveries under way.
    pub async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The account's.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What addresses of pages begin with, for a client that called this server `here`.
    pub fn pages(&self, here: &str) -> String {
        self.public_url.as_deref().unwrap_or(here).trim_end_matches('/').to_owned()
    }

    /// The latest events, oldest first.
    pub async fn events(&self) -> Result<Vec<Arc<Hook>>, ApiError> {
        let (events, line) = {
            let state = self.state();
            (state.events.iter().cloned().collect(), self.log.last())
        };
        self.durable(line).await?;
        Ok(events)
    }

    async fn execute(self: &Arc<Self>, asked: &Asked, key: Option<Key>) -> Result<Reply, ApiError> {
        let claim = match key {
            None => None,
            Some(key) => {
                let stored = self.state().keys.claim(&key, now())?;
                if let Some(answer) = stored {
                    self.durable(self.log.last()).await?;
                    return Ok(Reply::Replayed(answer));
                }
                Some(Claim { sandbox: self.clone(), key })
            }
        };
        let key = claim.as_ref().map(|claim| &claim.key);
        let (answer, fault) = self.commit(&asked.command, asked.expand, key).await?;
        match fault {
            Fault::None | Fault::ServerError => Ok(Reply::Answer(answer)),
            Fault::AnswerLost => Ok(Reply::Lost),
            Fault::Hangs => Err(self.never_answers().await),
            Fault::Slow => {
                self.pause(self.slow).await?;
                let Some(settle) = asked.command.settle() else {
                    return Ok(Reply::Answer(answer));
                };
                let (answer, _) = self.commit(&settle, asked.expand, key).await?;
                Ok(Reply::Answer(answer))
            }
        }
    }

    /// Decides the command as things are now, logs what follows from it, and returns the answer once it is on disk.
    async fn commit(
        self: &Arc<Self>,
        command: &Command,
        expand: bool,
        key: Option<&Key>,
    ) -> Result<(Answer, Fault), ApiError> {
        let (answer, fault, hooks, line, then) = {
            let mut state = self.state();
            let decision = decide(&state.book, command)?;
            let (fault, then) = (decision.fault, decision.then);
            let (id, at) = (Uuid::now_v7().simple().to_string(), now());
            let hooks = state.apply(&id, at, &decision.events).map_err(internal)?;
            let answer = answer(&state.book, decision.outcome, expand, fault);
            let ends = !matches!(fault, Fault::Slow | Fault::Hangs);
            let stored =
                key.filter(|_| ends).map(|key| Stored { request: key.clone(), answer: answer.clone() });
            let line = if decision.events.is_empty() && stored.is_none() {
                self.log.last()
            } else {
                let notify = self.webhooks.is_some();
                let commit = Commit { id, at, events: decision.events, answer: stored.clone(), notify };
                self.log.append(&Line::Commit(commit)).map_err(internal)?
            };
            if let Some(stored) = stored {
                state.keys.answered(&stored.request, stored.answer, at);
            }
            (answer, fault, hooks, line, then)
        };
        self.notify(hooks, line);
        if let Some(then) = then {
            self.later(then);
        }
        self.durable(line).await?;
        tracing::debug!(?command, status = answer.status, ?fault, "done");
        Ok((answer, fault))
    }

    fn notify(&self, hooks: impl IntoIterator<Item = Arc<Hook>>, line: u64) {
        if let Some(webhooks) = &self.webhooks {
            hooks.into_iter().for_each(|hook| webhooks.send(hook, line));
        }
    }

    /// Does what happens by itself later.
    fn later(self: &Arc<Self>, Then { command, after }: Then) {
        let sandbox = self.clone();
        let time = match after {
            After::AWhile => self.slow,
            After::TimeToAct => self.time_to_act,
        };
        self.tasks.spawn(async move {
            if sandbox.pause(time).await.is_ok()
                && let Err(error) = sandbox.boxed_commit(command).await
            {
                tracing::error!(?error, "what was to happen later could not be recorded");
            }
        });
    }

    /// `commit` spawns what comes later, which commits: boxed, or its type would have no end.
    fn boxed_commit(
        self: &Arc<Self>,
        command: Command,
    ) -> Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send>> {
        let sandbox = self.clone();
        Box::pin(async move { sandbox.commit(&command, false, None).await.map(drop) })
    }

    /// Ends what the last run left under way.
    fn resume(self: &Arc<Self>) {
        let open = under_way(&self.state().book, || new_id("ch"));
        open.into_iter().for_each(|then| self.later(then));
    }

    async fn pause(&self, time: Duration) -> Result<(), ApiError> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            () = self.stop.cancelled() => {
                Err(ApiError::server(StatusCode::SERVICE_UNAVAILABLE, "The sandbox is stopping."))
            }
        }
    }

    async fn durable(&self, line: u64) -> Result<(), ApiError> {
        self.log.durable(line).await.map_err(internal)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under this lock may leave a half-applied command behind: better no answers than wrong ones.
        self.state.lock().expect("nothing panics while it holds the state")
    }
}

/// A key that is in use; freed when its request ends without an answer to keep.
struct Claim {
    sandbox: Arc<Sandbox>,
    key: Key,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Ok(mut state) = self.sandbox.state.lock() {
            state.keys.release(&self.key);
        }
    }
}

fn replay(path: &Path, state: &mut State) -> anyhow::Result<(Log, BTreeMap<String, Arc<Hook>>)> {
    let mut undelivered = BTreeMap::new();
    let log = Log::open(path, |line| {
        match line {
            Line::Commit(commit) => {
                let hooks = state.apply(&commit.id, commit.at, &commit.events)?;
                if commit.notify {
                    undelivered.extend(hooks.into_iter().map(|hook| (hook.id.clone(), hook)));
                }
                if let Some(stored) = commit.answer {
                    state.keys.answered(&stored.request, stored.answer, commit.at);
                }
            }
            Line::Webhook { event, .. } => {
                undelivered.remove(&event);
            }
        }
        Ok(())
    })?;
    Ok((log, undelivered))
}

fn answer(book: &Book, outcome: Outcome, expand: bool, fault: Fault) -> Answer {
    if fault == Fault::ServerError {
        return ApiError::server(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong.").into();
    }
    let found = match outcome {
        Outcome::Intent(id) => book.intent(&id).map(|intent| intent.expanded(expand)),
        Outcome::Refund(id) => book.refund(&id).map(|refund| refund.expanded(book, expand)),
        Outcome::Dispute(id) => book.dispute(&id).map(|dispute| dispute.view()),
        Outcome::Refused(error, intent) => {
            return match book.intent(&intent) {
                Some(intent) => error.with_intent(intent.view()).into(),
                None => error.into(),
            };
        }
    };
    // `decide` names only what its own events have made or what was there before them.
    Answer::new(StatusCode::OK, &found.unwrap_or_default())
}

fn internal(error: anyhow::Error) -> ApiError {
    tracing::error!(error = format!("{error:#}"), "a request could not be recorded");
    ApiError::server(StatusCode::INTERNAL_SERVER_ERROR, "The request could not be recorded.")
}

/// A new id such as `pi_0199...`.
pub fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::now_v7().simple())
}

/// Unix milliseconds.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

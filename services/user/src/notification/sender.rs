//! From row to mail: claim, send, mark.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lettre::Message;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use opentelemetry::metrics::Counter;
use service::db::Pool;
use service::telemetry::Gauge;
use service::{Lifecycle, Pulse, telemetry};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::store::{self, Due};
use super::{mail, pause_after};
use crate::account::{Email, Language};
use crate::mailer::{Failure, Mailer};

/// Mails claimed and marked together.
const TOGETHER: usize = 64;

/// Mails handed over at the same time. Each takes no longer than its deadline,
/// which is far below the lease.
const AT_ONCE: usize = 8;

/// A mail that a slow server was not offered by then is released, so that those that it took are marked soon.
const OFFER_WITHIN: Duration = Duration::from_secs(2);

/// Sent mails are marked when nothing more has arrived for this long.
const MARK_AFTER: Duration = Duration::from_millis(500);

const POLL_EVERY: Duration = Duration::from_millis(500);
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// Between tries of a server that can't be reached.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Sends what is due until `lifecycle` stops.
pub(crate) fn start(pool: Pool, mailer: Mailer, lifecycle: &Lifecycle) {
    let stop = lifecycle.stopping();
    lifecycle.spawn_worker("mail.sender", |pulse| async move {
        run(&pool, &mailer, &stop, &pulse).await;
    });
}

async fn run(pool: &Pool, mailer: &Mailer, stop: &CancellationToken, pulse: &Pulse) {
    for result in ["sent", "put_off", "failed"] {
        attempts().add(0, &[telemetry::label("result", result)]);
    }
    let backlog = telemetry::gauge("mail.backlog", "{mail}", "Mails that wait to be sent.");
    let lag = telemetry::gauge("mail.lag", "s", "How long the oldest of them has waited.");
    let mut rest = POLL_EVERY;
    let mut measured: Option<Instant> = None;
    loop {
        let pause = match send_due(pool, mailer, stop).await {
            Ok(Step { reachable: false, .. }) => {
                rest = (rest * 2).min(LONGEST_REST);
                rest
            }
            Ok(Step { claimed, .. }) => {
                if claimed > 0 {
                    rest = POLL_EVERY;
                }
                // The batch was full: there are probably more.
                if claimed == TOGETHER { Duration::ZERO } else { POLL_EVERY }
            }
            Err(error) => {
                tracing::warn!(%error, "mail.paused");
                rest = (rest * 2).min(LONGEST_REST);
                rest
            }
        };
        if measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
            measure(pool, &backlog, &lag).await;
            measured = Some(Instant::now());
        }
        if pulse.rest(stop.run_until_cancelled(tokio::time::sleep(pause))).await.is_none() {
            return;
        }
    }
}

fn attempts() -> Counter<u64> {
    telemetry::counter("mail.attempts", "{mail}", "Mails that were tried to send.")
}

async fn measure(pool: &Pool, backlog: &Gauge, lag: &Gauge) {
    let waiting = async { store::backlog(&mut *pool.acquire().await?).await };
    match waiting.await {
        Ok((waiting, age)) => {
            backlog.record(waiting as f64, &[]);
            lag.record(age, &[]);
        }
        Err(error) => tracing::debug!(%error, "mail.not_measured"),
    }
}

struct Step {
    claimed: usize,
    /// False when no mail got through to the server.
    reachable: bool,
}

/// Claims, sends and marks. Mails that the server was not offered are released as soon as that is clear, and
/// those that it took are marked while others still wait for its answer: a process that dies then sends few
/// mails again.
async fn send_due(pool: &Pool, mailer: &Mailer, stop: &CancellationToken) -> sqlx::Result<Step> {
    let due = store::claim(&mut *pool.acquire().await?, TOGETHER as i64).await?;
    let (claimed, began) = (due.len(), Instant::now());
    let (mut left, mut under_way) = (VecDeque::from(due), FuturesUnordered::new());
    let (mut sent, mut marked, mut failed, mut unreachable) = (Vec::new(), 0, Vec::new(), 0);
    loop {
        // A server that one mail could not reach will not take the next one either.
        let offers = unreachable == 0 && !stop.is_cancelled() && began.elapsed() < OFFER_WITHIN;
        if !offers && !left.is_empty() && release(pool, left.make_contiguous()).await.is_ok() {
            left.clear();
        }
        while offers
            && under_way.len() < AT_ONCE
            && let Some(mail) = left.pop_front()
        {
            under_way.push(async move {
                let outcome = hand_over(mailer, &mail).await;
                (mail, outcome)
            });
        }
        match timeout(MARK_AFTER, under_way.next()).await {
            Ok(None) => break,
            Ok(Some((mail, Ok(())))) => sent.push(mail.event_id),
            Ok(Some((mail, Err(failure)))) => {
                unreachable += usize::from(matches!(failure, Failure::Unreachable(_)));
                failed.push((mail, failure));
            }
            Err(_) => {
                if mark(pool, &sent).await.is_ok() {
                    marked += sent.len();
                    sent.clear();
                }
            }
        }
    }
    mark_sent(pool, &sent).await;
    let attempts = attempts();
    attempts.add((marked + sent.len()) as u64, &[telemetry::label("result", "sent")]);
    let reachable = unreachable == 0 || unreachable < marked + sent.len() + failed.len();
    // All of these are tried, whichever fail. What is not written waits for its lease.
    let mut done = release(pool, left.make_contiguous()).await;
    for (mail, failure) in &failed {
        match put_off(pool, mail, failure).await {
            Ok(result) => attempts.add(1, &[telemetry::label("result", result)]),
            Err(error) => done = done.and(Err(error)),
        }
    }
    done.map(|()| Step { claimed, reachable })
}

async fn hand_over(mailer: &Mailer, mail: &Due) -> Result<(), Failure> {
    if mail.has_run_out() {
        return Err(Failure::Refused("its token has run out".to_owned()));
    }
    match compose(mailer, mail) {
        Ok(message) => mailer.send(mail.event_id, message).await,
        Err(error) => Err(Failure::Refused(format!("{error:#}"))),
    }
}

async fn mark(pool: &Pool, sent: &[Uuid]) -> sqlx::Result<()> {
    if sent.is_empty() {
        return Ok(());
    }
    store::sent(&mut *pool.acquire().await?, sent).await
}

async fn release(pool: &Pool, left: &[Due]) -> sqlx::Result<()> {
    if left.is_empty() {
        return Ok(());
    }
    store::release(&mut *pool.acquire().await?, left).await
}

/// Tries for longer than others do: a mail that is not marked is sent again.
async fn mark_sent(pool: &Pool, sent: &[Uuid]) {
    if sent.is_empty() {
        return;
    }
    for pause in [1, 2, 4, 8, 0] {
        match mark(pool, sent).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, mails = sent.len(), "mail.sent_but_not_marked"),
        }
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }
}

async fn put_off(pool: &Pool, mail: &Due, failure: &Failure) -> sqlx::Result<&'static str> {
    let detail: String = failure.detail().chars().take(500).collect();
    let mut connection = pool.acquire().await?;
    let (event, kind, attempts) = (mail.event_id, failure.kind(), mail.attempts);
    let pause = pause_after(failure, attempts, mail.refusals, mail.age());
    match pause.filter(|_| !mail.has_run_out()) {
        Some(pause) => {
            let refused = matches!(failure, Failure::Refused(_));
            tracing::info!(event.id = %event, failure = kind, attempts, "mail.put_off");
            store::retry(&mut connection, mail, pause, refused, &detail).await?;
            Ok("put_off")
        }
        None => {
            tracing::error!(event.id = %event, failure = kind, attempts, "mail.given_up");
            store::mark_failed(&mut connection, mail, &detail).await?;
            Ok("failed")
        }
    }
}

/// The mail for an event: the same Message-ID whenever it is made.
fn compose(mailer: &Mailer, due: &Due) -> anyhow::Result<Message> {
    let name = mail::cleaned(&due.name);
    let text = mail::write(&due.kind, &due.payload, &name, Language::stored(&due.language))?;
    let address =
        Email::stored(due.email.clone()).for_mail().parse().context("mail can't be sent to this address")?;
    let id = format!("<{}@{}>", due.event_id, mailer.from.email.domain());
    // RFC 3834, section 5: keeps holiday notices from answering.
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    let message = Message::builder()
        .from(mailer.from.clone())
        .to(Mailbox::new(Some(name).filter(|name| !name.is_empty()), address))
        .subject(text.subject)
        .message_id(Some(id))
        .date(due.created_at.into())
        .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
        .multipart(MultiPart::alternative_plain_html(text.text, text.html))?;
    Ok(message)
}

//! The command line: settings in, text or JSON out; see the library.

mod cli;
mod schedule;
mod text;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::CommandFactory;
use clap::error::ErrorKind;
use messaging::topology::Topology;
use operator::dlq::{self, Which};
use operator::provider::Provider;
use operator::reconcile::{self, Difference, Options, Report, Sources};
use operator::saga::Stuck;
use operator::{certificates, outbox, saga, trace};
use serde_json::json;
use service::plaintext;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::cli::{Cli, Command, Dlq, Outbox, Reconcile, Saga, Settings};

/// For one command. Without it the program would wait for ever for a database that has vanished.
const LONGEST: Duration = Duration::from_secs(30 * 60);

#[tokio::main]
async fn main() -> ExitCode {
    let done = async {
        let cli: Cli = service::config::load()?;
        // Again and again: each comparison has its own limit.
        if matches!(&cli.command, Command::Reconcile(Reconcile { every: Some(_), .. })) {
            return run(cli).await;
        }
        let late = |_| Err(anyhow!("not done within {} minutes", LONGEST.as_secs() / 60));
        tokio::time::timeout(LONGEST, run(cli)).await.unwrap_or_else(late)
    };
    match done.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False when something was found, or is left to do.
async fn run(cli: Cli) -> Result<bool> {
    let settings = &cli.settings;
    match cli.command {
        Command::Dlq(command) => dlq_command(settings, command).await,
        Command::Outbox(Outbox::Status { older }) => {
            let all = outbox::status(&database(settings).await?).await?;
            show(settings, &json!(all), &text::outboxes(&all));
            Ok(all.iter().all(|of| of.oldest_seconds <= f64::from(older)))
        }
        Command::Saga(Saga::List { stuck, older, attempts, limit }) => {
            let bounds = stuck.then_some(Stuck { older_seconds: f64::from(older), attempts });
            let sagas = saga::list(&database(settings).await?, bounds, i64::from(limit)).await?;
            let none = if stuck { "No saga is stuck.\n" } else { "No saga has anything to do.\n" };
            show(settings, &json!(sagas), &text::or(text::sagas(&sagas), none));
            Ok(!stuck || sagas.is_empty())
        }
        Command::Saga(Saga::Nudge { order }) => {
            let known = saga::reschedule(&database(settings).await?, order).await?;
            let text = if known {
                "Rescheduled: its saga asks again within a second.\n"
            } else {
                "No such order.\n"
            };
            show(settings, &json!({"order_id": order, "nudged": known}), text);
            Ok(known)
        }
        Command::Trace { order, without_provider } => {
            let provider = provider(settings, without_provider)?;
            let found = trace::trace(&database(settings).await?, provider.as_ref(), order).await?;
            let text = found.as_ref().map_or_else(|| "No such order.\n".to_owned(), text::trace);
            show(settings, &json!(found), &text);
            Ok(found.is_some())
        }
        Command::Certificates { folder, names, hosts } => {
            certificates::make(&folder, &names, &hosts)?;
            let said = format!("Certificates for {} are in {}.\n", names.join(", "), folder.display());
            show(settings, &json!({"folder": folder, "names": names}), &said);
            Ok(true)
        }
        Command::Reconcile(command) => reconcile_command(settings, command).await,
    }
}

async fn dlq_command(settings: &Settings, command: Dlq) -> Result<bool> {
    let topology = topology(settings, need(settings.amqp_url.as_deref(), "AMQP_URL"))?;
    match command {
        Dlq::List { of, limit } => {
            let found = dlq::list(&topology, &dlq::services(of.service.as_deref())?, limit).await?;
            let mut text = text::or(text::dead_letters(&found.dead_letters), "No dead letters.\n");
            if found.total > found.dead_letters.len() {
                text.push_str(&format!("{} of {} are shown.\n", found.dead_letters.len(), found.total));
            }
            show(settings, &json!(found.dead_letters), &text);
            Ok(true)
        }
        Dlq::Show { id, of } => {
            let found = dlq::list(&topology, &dlq::services(of.service.as_deref())?, usize::MAX).await?;
            let mut meant = found.dead_letters;
            meant.retain(|dead_letter| dead_letter.id.eq_ignore_ascii_case(&id));
            show(settings, &json!(meant), &text::or(text::whole(&meant), "No such dead letter.\n"));
            Ok(!meant.is_empty())
        }
        Dlq::Replay { which, force, of } => {
            let which = which.id.map_or(Which::All, Which::Id);
            let moved = dlq::replay(&topology, &dlq::services(of.service.as_deref())?, &which, force).await?;
            let mut text = format!("{} given back.\n{}", moved.done.len(), text::dead_letters(&moved.done));
            if !moved.refused.is_empty() {
                text.push_str("No events, so they would come straight back; `dlq drop` deletes them:\n");
                text.push_str(&text::dead_letters(&moved.refused));
            }
            if !moved.too_old.is_empty() {
                text.push_str(
                    "More than 30 days old, so their service can't know whether it has applied them before; \
                     where you know that it has not, say --force:\n",
                );
                text.push_str(&text::dead_letters(&moved.too_old));
            }
            if !moved.untrusted.is_empty() {
                text.push_str(
                    "Not believed, as another account sent them or under another routing key: they may be forged. \
                     Where you know that they are right, say --force:\n",
                );
                text.push_str(&text::dead_letters(&moved.untrusted));
            }
            let json = json!({
                "replayed": moved.done, "refused": moved.refused, "too_old": moved.too_old,
                "untrusted": moved.untrusted,
            });
            show(settings, &json, &text);
            let nothing = moved.done.is_empty() && matches!(which, Which::Id(_));
            let left = !moved.refused.is_empty() || !moved.too_old.is_empty() || !moved.untrusted.is_empty();
            Ok(!left && !nothing)
        }
        Dlq::Drop { which, yes, of } => {
            if which.all && !yes {
                usage("dlq drop --all deletes every dead letter for good: say --yes, too");
            }
            let which = which.id.map_or(Which::All, Which::Id);
            let moved = dlq::drop(&topology, &dlq::services(of.service.as_deref())?, &which).await?;
            let text = format!("{} deleted.\n{}", moved.done.len(), text::whole(&moved.done));
            show(settings, &json!(moved.done), &text);
            Ok(!moved.done.is_empty() || matches!(which, Which::All))
        }
    }
}

async fn reconcile_command(settings: &Settings, command: Reconcile) -> Result<bool> {
    let command = &command;
    let check = || async move { compare(settings, command).await.map(|(report, _)| report) };
    if let Some(every) = command.every {
        schedule::start_log();
        schedule::repeat(every, schedule::stop_signal()?, check).await;
        return Ok(true);
    }
    if command.log {
        schedule::start_log();
        let outcome = check().await;
        schedule::log(&outcome);
        return Ok(outcome.is_ok_and(|report| report.is_clean()));
    }
    let (report, left) = compare(settings, command).await?;
    let text = text::report(&report, left.as_deref());
    show(settings, &json!({"report": report, "left": left}), &text);
    Ok(left.unwrap_or(report.differences).is_empty())
}

/// What was found, and with --mend what is left of it. Everything is opened anew, so that what was away may be back.
async fn compare(settings: &Settings, command: &Reconcile) -> Result<(Report, Option<Vec<Difference>>)> {
    let provider = provider(settings, command.without_provider)?;
    let broker = settings.amqp_url.as_deref().map(|url| topology(settings, url)).transpose()?;
    let database = database(settings).await?;
    let sources = Sources { database: &database, provider: provider.as_ref(), broker: broker.as_ref() };
    let hours = Duration::from_secs(u64::from(command.since) * 3600);
    let options = Options {
        since: (command.since > 0).then_some(hours),
        grace: Duration::from_secs(u64::from(command.grace)),
    };
    if !command.mend {
        return Ok((reconcile::check(&sources, &options).await?, None));
    }
    let patience = Duration::from_secs(u64::from(command.patience));
    let outcome = reconcile::mend(&sources, &options, patience).await?;
    Ok((outcome.found, Some(outcome.left)))
}

fn topology(settings: &Settings, url: &str) -> Result<Topology> {
    plaintext::refuse(settings.allow_plaintext, &[("AMQP_URL", url)])?;
    Ok(Topology::new(url, &settings.amqp_namespace, proto::events::SUBSCRIPTIONS))
}

fn provider(settings: &Settings, without: bool) -> Result<Option<Provider>> {
    if without {
        return Ok(None);
    }
    let url = need(settings.payment_url.as_deref(), "PAYMENT_URL (or --without-provider)");
    plaintext::refuse(settings.allow_plaintext, &[("PAYMENT_URL", url)])?;
    Provider::new(url, need(settings.payment_secret_key.as_deref(), "PAYMENT_SECRET_KEY")).map(Some)
}

fn show(settings: &Settings, json: &serde_json::Value, text: &str) {
    match settings.json {
        true => println!("{json:#}"),
        false => print!("{text}"),
    }
}

async fn database(settings: &Settings) -> Result<PgPool> {
    let url = need(settings.database_url.as_deref(), "DATABASE_URL");
    plaintext::refuse(settings.allow_plaintext, &[("DATABASE_URL", url)])?;
    let options = service::db::primary("DATABASE_URL", url).await?;
    // To compare years of orders may take longer than a request may.
    let options = options.application_name("operator").options([("statement_timeout", "10min")]);
    let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(10));
    pool.connect_with(options).await.context("the database does not answer")
}

fn need<'a>(value: Option<&'a str>, name: &str) -> &'a str {
    value.unwrap_or_else(|| usage(&format!("{name} is not set")))
}

fn usage(message: &str) -> ! {
    Cli::command().error(ErrorKind::MissingRequiredArgument, message).exit()
}

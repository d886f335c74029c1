//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

/// Looks after a running Dockside shop: dead letters, outboxes, sagas, and
/// whether orders, stock, money and events agree.
#[derive(Parser)]
#[command(
    name = "operator",
    version,
    after_help = "Exit codes: 0 all is well or done; 1 something was found or failed; 2 wrong usage.\n\
                  Each setting X can be given as a file, too: X_FILE."
)]
pub struct Cli {
    #[command(flatten)]
    pub settings: Settings,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args)]
pub struct Settings {
    /// PostgreSQL, with a role that may read the three schemas, and for nudge and --mend write orders.sagas and the outboxes.
    #[arg(long, env = "DATABASE_URL", help_heading = "Settings", hide_env_values = true, global = true)]
    pub database_url: Option<String>,
    /// RabbitMQ, with an account that may read and write the services' queues.
    #[arg(long, env = "AMQP_URL", help_heading = "Settings", hide_env_values = true, global = true)]
    pub amqp_url: Option<String>,
    /// Take addresses that are not encrypted, or whose certificates are not checked: without it they are refused.
    #[arg(
        long,
        env = "ALLOW_PLAINTEXT",
        help_heading = "Settings",
        default_value_t = false,
        action = clap::ArgAction::Set,
        global = true
    )]
    pub allow_plaintext: bool,
    /// What the names of the exchange and of all queues start with.
    #[arg(
        long,
        env = "AMQP_NAMESPACE",
        help_heading = "Settings",
        default_value = "dockside",
        global = true
    )]
    pub amqp_namespace: String,
    /// The payment provider: anything that speaks Stripe's PaymentIntents API.
    #[arg(long, env = "PAYMENT_URL", help_heading = "Settings", global = true)]
    pub payment_url: Option<String>,
    /// The secret key that the payment provider knows this shop by; one that may only read is enough.
    #[arg(
        long,
        env = "PAYMENT_SECRET_KEY",
        help_heading = "Settings",
        hide_env_values = true,
        global = true
    )]
    pub payment_secret_key: Option<String>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum Command {
    /// Dead letters: events that a service could not apply.
    #[command(subcommand)]
    Dlq(Dlq),
    /// Events that wait to be published.
    #[command(subcommand)]
    Outbox(Outbox),
    /// Orders whose money or stock is under way.
    #[command(subcommand)]
    Saga(Saga),
    /// One order's life: what was asked, written, published, applied, mailed and paid, and when.
    Trace {
        order: Uuid,
        /// Don't ask the payment provider.
        #[arg(long)]
        without_provider: bool,
    },
    /// Make a private authority in a folder, once, and a certificate of it for each name: `tls.crt`, `tls.key` and
    /// `ca.crt` in a folder of that name, good for 90 days.
    Certificates {
        folder: PathBuf,
        /// Of services, as they are called by.
        #[arg(required = true)]
        names: Vec<String>,
        /// Other host names and addresses that each of them is called by.
        #[arg(long = "host")]
        hosts: Vec<String>,
    },
    /// Compare orders, stock, the provider's payments and events; exit code 1 when something differs.
    Reconcile(Reconcile),
}

#[derive(Subcommand)]
pub enum Dlq {
    /// List them, oldest first; they stay where they are.
    List {
        #[command(flatten)]
        of: Of,
        /// Most of each service.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Show one with its body.
    Show {
        /// An event's id, or what `list` shows in its place.
        id: String,
        #[command(flatten)]
        of: Of,
    },
    /// Give them back to their service, once the cause is gone. Safe to repeat: what was applied is not applied again.
    Replay {
        #[command(flatten)]
        which: Which,
        /// Events, too, that are older than the 30 days for which a service remembers what it has applied. Make sure
        /// first that it was not: a letter may have been given back before, and be here still. And those that were
        /// not believed, as somebody else may have sent them.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        of: Of,
    },
    /// Delete them for good, and print them.
    Drop {
        #[command(flatten)]
        which: Which,
        /// Needed with --all.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        of: Of,
    },
}

#[derive(Args)]
pub struct Of {
    /// Only this service's; all when left out.
    #[arg(long, value_parser = ["user", "product", "order"])]
    pub service: Option<String>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// The ones with this id.
    pub id: Option<String>,
    /// All of them.
    #[arg(long)]
    pub all: bool,
}

#[derive(Subcommand)]
pub enum Outbox {
    /// What waits in each service's outbox; exit code 1 when something has waited for too long.
    Status {
        /// Seconds that an event may wait.
        #[arg(long, default_value_t = 60)]
        older: u32,
    },
}

#[derive(Subcommand)]
pub enum Saga {
    /// The sagas that have something to do, longest due first; with --stuck exit code 1 when there are any.
    List {
        /// Only those that get nowhere.
        #[arg(long)]
        stuck: bool,
        /// Stuck: due for more than so many seconds ...
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        older: u32,
        /// ... or tried in vain more often than this.
        #[arg(long, default_value_t = 20)]
        attempts: i32,
        /// Most to list.
        #[arg(long, default_value_t = 1000)]
        limit: u32,
    },
    /// Have an order's saga look again now, at its payment too; safe at any time.
    Nudge { order: Uuid },
}

#[derive(Args)]
pub struct Reconcile {
    /// Orders that changed, and events and payments that were made, within so many hours; 0: ever.
    #[arg(long, default_value_t = 24, value_name = "HOURS")]
    pub since: u32,
    /// Seconds that something may be on its way.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub grace: u32,
    /// Set right what can be by having the services do their work again: sagas look again, events are published again.
    /// Money and stock are never written.
    #[arg(long)]
    pub mend: bool,
    /// With --mend: seconds until what is still different counts as left.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub patience: u32,
    /// Don't ask the payment provider.
    #[arg(long)]
    pub without_provider: bool,
    /// Tell the outcome as a line of JSON, and each difference as another, for a log; --every does so, too.
    #[arg(long, conflicts_with = "mend")]
    pub log: bool,
    /// Compare now and again after each such time (90s, 30m, 1h), until SIGTERM. A comparison that fails or takes too
    /// long is logged, and the next one follows.
    #[arg(long, value_name = "TIME", value_parser = interval, conflicts_with = "mend")]
    pub every: Option<Duration>,
}

/// A minute to a day, as `90s`, `30m` or `1h`.
fn interval(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let parts = units.into_iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)));
    let seconds = parts.and_then(|(number, unit)| number.parse::<u64>().ok()?.checked_mul(unit));
    let seconds = seconds.filter(|seconds| (60..=86_400).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| "a minute to a day, as in 90s, 30m or 1h".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn all_dead_letters_or_one_are_meant_and_never_neither() {
        let parses = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(parses("operator dlq replay --all --json"));
        assert!(parses("operator dlq drop some-id --service user"));
        assert!(!parses("operator dlq replay"));
        assert!(!parses("operator dlq drop some-id --all"));
        assert!(!parses("operator dlq list --service shop"));
    }

    #[test]
    fn an_interval_has_a_unit_and_is_a_minute_to_a_day() {
        let seconds = |text: &str| interval(text).map_or(0, |time| time.as_secs());
        assert_eq!(["60s", "30m", "1h", "24h"].map(seconds), [60, 1800, 3600, 86_400]);
        for wrong in ["", "h", "60", "59s", "0m", "25h", "1.5h", "-1h", "1 h", "1d", "9999999999999999h"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_runs_by_itself_mends_nothing() {
        let parses = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(parses("operator reconcile --every 1h --since 2"));
        assert!(parses("operator reconcile --log"));
        assert!(!parses("operator reconcile --every 1h --mend"));
        assert!(!parses("operator reconcile --log --mend"));
    }
}

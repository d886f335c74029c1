//! The command line, and the plan that is made of it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Parser};

use crate::Refusal;
use crate::plan::{self, Errand, Follow, Limits, Loop, Mix, Plan, Stage};

/// Arrivals a second when nothing else is said.
const RATE: f64 = 10.0;
/// Parts that a ramp is divided into, to see where it became too much.
const PARTS: usize = 10;
/// Accounts when nothing else is said: registering one costs the shop two hashed passwords.
const ACCOUNTS: usize = 64;
/// The same where many carts are filled at once.
const ACCOUNTS_FOR_CARTS: usize = 256;
const MOST_ACCOUNTS: usize = 10_000;

#[derive(Debug, Parser)]
#[command(
    name = "load",
    bin_name = "cargo dockside load",
    about = "Send shoppers to a shop, and measure how it serves them",
    after_long_help = EXAMPLES,
    group = ArgGroup::new("shape").args(["rate", "users", "ramp", "steps"])
)]
pub struct Options {
    /// The shop's address, as http://localhost:8080
    ///
    /// `cargo dockside load` takes the running shop's when it is left out.
    #[arg(long, value_name = "ADDRESS")]
    pub url: String,

    /// Open loop: so many shoppers arrive a second, at random times, however slow the shop is [default: 10]
    #[arg(long, value_name = "R", value_parser = plan::level)]
    pub rate: Option<f64>,

    /// Closed loop: so many shop at the same time, and begin again when they are done
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub users: Option<u32>,

    /// Arrivals a second that change evenly over the run, as 20:200
    #[arg(long, value_name = "FROM:TO", value_parser = plan::ramp)]
    pub ramp: Option<(f64, f64)>,

    /// Arrivals a second, step by step, as 50,100,200; the knee is printed at the end
    #[arg(long, value_name = "A,B,C", value_parser = steps)]
    pub steps: Option<Steps>,

    /// With --ramp and --steps: shoppers at the same time (closed loop) in place of arrivals a second
    #[arg(long, conflicts_with_all = ["rate", "users"])]
    pub closed: bool,

    /// How long, in seconds; not with --steps
    #[arg(long, value_name = "N", default_value = "60", value_parser = seconds, conflicts_with = "steps")]
    pub seconds: Duration,

    /// How long each step takes, in seconds
    #[arg(long, value_name = "N", default_value = "20", value_parser = seconds)]
    pub step_seconds: Duration,

    /// Seconds at the begin that do not count, with the load that comes first
    #[arg(long, value_name = "N", default_value = "5", value_parser = seconds_or_none)]
    pub warm_up: Duration,

    /// What shoppers come for, by weight
    #[arg(long, value_name = "NAME=WEIGHT,...", default_value_t = Mix::default())]
    pub mix: Mix,

    /// Mean seconds that a shopper thinks between two requests (exponential); 0 for none
    #[arg(long, value_name = "MEAN", default_value = "1", value_parser = seconds_or_none)]
    pub think: Duration,

    /// The same arrivals and choices as in a run before; random and printed when left out
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// How orders are followed until they read confirmed
    #[arg(long, value_name = "HOW", default_value = "sse")]
    pub follow: Follow,

    /// What shoppers pay with
    #[arg(long, value_name = "METHOD", default_value = "pm_card_visa", value_parser = payment_method)]
    pub payment_method: String,

    /// Accounts to register before the load [default: 64; up to 256 where many fill carts, and in closed loop no more than
    /// users]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_ACCOUNTS as i64))]
    pub accounts: Option<u32>,

    /// Make so many products with 500,000 units each, as staff, and sell those; else what the catalogue has in stock
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub prepare: Option<u32>,

    /// Who makes the products of --prepare
    #[arg(long, value_name = "EMAIL", default_value = "staff@dockside.test", env = "LOAD_STAFF_EMAIL")]
    pub staff_email: String,

    #[arg(
        long,
        value_name = "PASSWORD",
        default_value = "dockside-staff",
        env = "LOAD_STAFF_PASSWORD",
        hide_env_values = true
    )]
    pub staff_password: String,

    /// Shoppers under way at once, at most; the edge serves one address 1,000 requests at a time
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub in_flight: u32,

    /// Seconds that a request may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub timeout: Duration,

    /// Seconds that an order may take until it reads confirmed
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub confirm_within: Duration,

    /// Seconds that 99 of 100 requests have to stay below
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = positive)]
    pub limit_p99: f64,

    /// Of a hundred requests, how many may fail or be refused
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent)]
    pub limit_errors: f64,

    /// Seconds that the generator itself may begin shoppers late (99 of 100); more makes the run invalid
    #[arg(long, value_name = "SECONDS", default_value = "0.02", value_parser = positive)]
    pub limit_lag: f64,

    /// Run on a machine that is too busy to measure on; the report says so
    #[arg(long)]
    pub noisy: bool,

    /// Write load.json and load.html into this folder
    #[arg(long, value_name = "FOLDER")]
    pub report: Option<PathBuf>,

    /// A process whose CPU and memory, with its children's, are drawn; `cargo dockside load` names the running shop's
    #[arg(long, value_name = "NAME=PID", value_parser = watched)]
    pub watch: Vec<(String, u32)>,
}

const EXAMPLES: &str = "\
Examples:
  cargo dockside load                                    10 shoppers a second, for a minute, at the running shop
  cargo dockside load --rate 200 --report out            with a page of plots in out/
  cargo dockside load --steps 50,100,200,400 --prepare 50   how much the shop can take
  cargo dockside load --users 64 --think 0 --mix order=1 64 who do nothing but buy
  cargo dockside load --url http://10.0.0.7:8080 --ramp 10:300 --seconds 300

Open loop (--rate, --ramp, --steps): shoppers come when they come, and a request's time runs from when its shopper was due.
Closed loop (--users, --closed): a slow shop gets fewer requests. Each shopper's first request is timed from when it was
due, any other from when it is sent.

Exit code: 0 when all is well, 1 when a limit was passed, 2 when the run did not begin or is not valid.";

/// The values of --steps. A type of its own: a bare list would be read as an option that is given several times.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps(pub Vec<f64>);

fn steps(text: &str) -> Result<Steps, String> {
    plan::steps(text).map(Steps)
}

fn seconds_or_none(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.0..=86_400.0).contains(&number) {
        Ok(Duration::from_secs_f64(number))
    } else {
        Err("seconds are between 0 and 86400".to_owned())
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    seconds_or_none(text).and_then(|time| match time.as_secs_f64() >= 0.1 {
        true => Ok(time),
        false => Err("that is too short: 0.1 seconds at least".to_owned()),
    })
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err(format!("{text:?} is not a number above 0")),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=100.0).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is not between 0 and 100")),
    }
}

fn payment_method(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
        Ok(text.to_owned())
    } else {
        Err("a payment method has letters, digits and _, as pm_card_visa".to_owned())
    }
}

fn watched(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = text.split_once('=').ok_or("it is NAME=PID")?;
    Ok((name.to_owned(), pid.parse().map_err(|_| format!("{pid:?} is no process id"))?))
}

impl Options {
    /// How many accounts to register; none when nobody buys.
    pub fn accounts(&self) -> usize {
        if !self.mix.buys() {
            return 0;
        }
        let most = match (self.users, self.ramp, &self.steps) {
            (Some(users), _, _) => f64::from(users),
            (_, Some((from, to)), _) => from.max(to),
            (_, _, Some(Steps(steps))) => steps.iter().copied().fold(0.0, f64::max),
            (None, None, None) => self.rate.unwrap_or(RATE),
        };
        let closed = self.closed || self.users.is_some();
        let wanted = if closed {
            (most.ceil() as usize).clamp(1, ACCOUNTS)
        } else {
            // A cart is one shopper's alone while that one thinks twice; twice as many, for a shop that is slow.
            let share = f64::from(self.mix.weight(Errand::Cart)) / f64::from(self.mix.total());
            let carts = 2.0 * most * share * (2.0 * self.think.as_secs_f64() + 1.0);
            (carts.ceil() as usize).clamp(ACCOUNTS, ACCOUNTS_FOR_CARTS)
        };
        self.accounts.map_or(wanted, |n| n as usize)
    }

    /// What is to be done.
    ///
    /// # Errors
    /// when options do not fit each other.
    pub fn plan(&self, seed: u64) -> Result<Plan, Refusal> {
        if self.closed && self.ramp.is_none() && self.steps.is_none() {
            return Err(Refusal(
                "--closed is for --ramp and --steps; --users alone is a closed loop".to_owned(),
            ));
        }
        let kind = if self.users.is_some() || self.closed { Loop::Closed } else { Loop::Open };
        let mut stages = match (self.users, self.ramp, &self.steps) {
            (Some(users), _, _) => vec![level(f64::from(users), f64::from(users), self.seconds)],
            (_, Some((from, to)), _) => {
                let at = |part: usize| from + (to - from) * part as f64 / PARTS as f64;
                let length = self.seconds / PARTS as u32;
                (0..PARTS).map(|part| level(at(part), at(part + 1), length)).collect()
            }
            (_, _, Some(Steps(steps))) => {
                steps.iter().map(|step| level(*step, *step, self.step_seconds)).collect()
            }
            (None, None, None) => {
                let rate = self.rate.unwrap_or(RATE);
                vec![level(rate, rate, self.seconds)]
            }
        };
        if !self.warm_up.is_zero() {
            let first = stages[0].from;
            let warm_up = Stage {
                name: "warm-up".to_owned(),
                from: first,
                to: first,
                length: self.warm_up,
                counts: false,
            };
            stages.insert(0, warm_up);
        }
        Ok(Plan {
            kind,
            stages,
            mix: self.mix,
            think: self.think,
            seed,
            follow: self.follow,
            payment_method: self.payment_method.clone(),
            in_flight: self.in_flight as usize,
            confirm_within: self.confirm_within,
            limits: Limits { p99: self.limit_p99, errors: self.limit_errors, lag: self.limit_lag },
        })
    }
}

fn level(from: f64, to: f64, length: Duration) -> Stage {
    let number = |n: f64| format!("{}", (n * 100.0).round() / 100.0);
    let name = if from == to { number(from) } else { format!("{} to {}", number(from), number(to)) };
    Stage { name, from, to, length, counts: true }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn typed(words: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(["load", "--url", "http://x"].into_iter().chain(words.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn options_become_stages() {
        let plan = |words: &str| typed(words).unwrap().plan(1).unwrap();
        let names = |plan: Plan| plan.stages.into_iter().map(|stage| stage.name).collect::<Vec<_>>();
        assert_eq!(names(plan("")), ["warm-up", "10"]);
        assert_eq!(names(plan("--steps 5,10,20.5 --warm-up 0")), ["5", "10", "20.5"]);
        assert_eq!(plan("--users 8").kind, Loop::Closed);
        assert_eq!(plan("--steps 1,2 --closed").kind, Loop::Closed);
        let ramp = plan("--ramp 20:200 --seconds 90 --warm-up 2");
        assert_eq!(ramp.length(), Duration::from_secs(92));
        assert_eq!((ramp.stages[1].from, ramp.stages[10].to), (20.0, 200.0));
        assert_eq!(ramp.stages[10].name, "182 to 200");
    }

    #[test]
    fn accounts_are_as_many_as_there_is_use_for() {
        let accounts = |words: &str| typed(words).unwrap().accounts();
        assert_eq!(accounts("--rate 50"), 64);
        assert_eq!(accounts("--rate 200"), 120);
        assert_eq!(accounts("--steps 10,5000"), 256);
        assert_eq!(accounts("--rate 500 --mix order=1"), 64);
        assert_eq!(accounts("--users 8"), 8);
        assert_eq!(accounts("--users 500"), 64);
        assert_eq!(accounts("--users 500 --accounts 500"), 500);
        assert_eq!(accounts("--steps 4,20 --closed"), 20);
        assert_eq!(accounts("--mix browse=1"), 0);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "--rate 0",
            "--rate -5",
            "--rate x",
            "--rate NaN",
            "--rate 60000",
            "--users 0",
            "--users 1.5",
            "--rate 5 --users 5",
            "--rate 5 --steps 1,2",
            "--rate 5 --closed",
            "--steps 5",
            "--steps 9,3",
            "--steps 1,2 --seconds 9",
            "--ramp 9",
            "--seconds 0",
            "--seconds 1e9",
            "--think -1",
            "--mix browse",
            "--mix steal=1",
            "--follow mail",
            "--payment-method a\"b",
            "--accounts 0",
            "--limit-p99 0",
            "--limit-errors 101",
            "--watch order",
            "--watch order=x",
            "--in-flight 0",
        ] {
            assert!(typed(wrong).is_err(), "{wrong}");
        }
        assert!(Options::try_parse_from(["load"]).is_err(), "without an address");
        assert!(typed("--closed").unwrap().plan(1).is_err());
    }
}

//! `cargo dockside chaos`: customers and faults against the shop that it has started.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use clap::Parser;
use system_tests::chaos::cluster;
use system_tests::chaos::cluster::plan::{Fault as ClusterFault, plan};
use system_tests::chaos::schedule::Kind;
use system_tests::chaos::watch::Watch;
use system_tests::chaos::{self, Options};
use system_tests::failpoints::{self, Fault};
use system_tests::{Shop, keys};

/// Lets customers buy while faults strike, and then checks whether any order was lost, doubled or oversold.
///
/// Exit code 0: every promise was kept. 1: one was not. 2: the run could not be made.
#[derive(Parser)]
#[command(name = "cargo dockside chaos")]
struct Args {
    /// Draws the same faults and customers as a run before; drawn from the clock when left out.
    #[arg(long)]
    seed: Option<u64>,
    /// How long customers buy; healing and judging come on top.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    minutes: u64,
    /// What is done to the shop: some of kill, pause, restart, sever, stall, slow, repeat, backlog, poison, webhooks,
    /// clock. With --cluster, of its own faults, such as freeze-primary.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    /// Customers who buy at the same time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=200))]
    clients: u64,
    /// Mean seconds between two faults of a round.
    #[arg(long, default_value_t = 4.0)]
    pace: f64,
    /// Only these processes are struck, e.g. order,postgres.
    #[arg(long, value_delimiter = ',')]
    victims: Vec<String>,
    /// Processes of each service that the shop was started with.
    #[arg(long, default_value_t = 1)]
    replicas: u64,
    /// Instead of that, have the process crash, stall and fail at each failpoint, so many times.
    #[arg(long)]
    failpoints: Option<u32>,
    /// Instead of that, send 32 identical requests at once, so many times.
    #[arg(long)]
    keys: Option<u32>,
    /// The shop runs on a cluster, whose servers are struck.
    #[arg(long)]
    cluster: bool,
    /// With --cluster, the few faults that every test run tries, and no promise of speed.
    #[arg(long)]
    short: bool,
    /// With --cluster, how many faults: 40, or each of --faults once, when left out.
    #[arg(long)]
    count: Option<usize>,
    /// Folder of the journal and of report.txt, report.json and report.html.
    #[arg(long, default_value = ".dockside/chaos-report")]
    report: PathBuf,
}

fn kind(name: &str) -> Result<Kind, String> {
    let names = Kind::ALL.map(Kind::name).join(", ");
    Kind::parse(name).ok_or_else(|| format!("not one of {names}"))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(args: Args) -> anyhow::Result<bool> {
    anyhow::ensure!((0.2..=60.0).contains(&args.pace), "--pace must be from 0.2 to 60 seconds");
    let shop = Arc::new(Shop::open().await);
    if let Some(rounds) = args.failpoints {
        let faults = [Fault::Crash, Fault::Stall, Fault::Fail];
        let walk = async move { failpoints::walk(&shop, &faults, rounds, |line| println!("{line}")).await };
        return Ok(kept(walk).await);
    }
    if let Some(rounds) = args.keys {
        return Ok(kept(async move { println!("{:?}", keys::storm(&shop, rounds).await) }).await);
    }
    let drawn = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let seed = args.seed.unwrap_or_else(drawn);
    if args.cluster {
        return on_cluster(shop, seed, args).await;
    }
    let kinds = args.faults.iter().map(|name| kind(name).map_err(anyhow::Error::msg));
    let kinds = kinds.collect::<Result<Vec<_>, _>>()?;
    let options = Options {
        seed,
        lasts: Duration::from_secs(60 * args.minutes),
        kinds: if kinds.is_empty() { Kind::ALL.to_vec() } else { kinds },
        clients: args.clients,
        pause: Duration::from_millis(250),
        pace: Duration::from_secs_f64(args.pace),
        victims: args.victims,
        folder: args.report,
    };
    println!(
        "seed {}, {} processes of each service; the journal and the report go to {}",
        options.seed,
        args.replicas,
        options.folder.display()
    );
    let mut outcome = chaos::run(shop, &options, progress()).await?;
    outcome.judge_speed();
    println!("\n{}", outcome.text());
    outcome.write(&options.folder).context("the report cannot be written")?;
    println!("the run over time: {}", options.folder.join("report.html").display());
    Ok(outcome.broken.is_empty())
}

/// The faults of a cluster, one after the other.
async fn on_cluster(shop: Arc<Shop>, seed: u64, args: Args) -> anyhow::Result<bool> {
    let named = args.faults.iter().map(|name| {
        let names = || ClusterFault::all().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        ClusterFault::parse(name).with_context(|| format!("{name} is none of {}", names()))
    });
    let named = named.collect::<anyhow::Result<Vec<_>>>()?;
    let faults = match (args.short, named.is_empty()) {
        (true, _) => ClusterFault::short(),
        (false, true) => plan(seed, &ClusterFault::all(), args.count.unwrap_or(40)),
        (false, false) => plan(seed, &named, args.count.unwrap_or(named.len())),
    };
    let options = cluster::Options {
        seed,
        faults,
        lasts: Duration::from_secs(60 * args.minutes),
        clients: args.clients,
        pause: Duration::from_secs(1),
        timed: !args.short,
        folder: args.report,
    };
    println!(
        "seed {seed}, {} faults; the journal and the report go to {}",
        options.faults.len(),
        options.folder.display()
    );
    let outcome = cluster::run(shop, &options, |line| println!("{line}"), progress()).await?;
    println!("\n{}", outcome.text());
    outcome.write(&options.folder).context("the report cannot be written")?;
    println!("the run over time: {}", options.folder.join("report.html").display());
    Ok(outcome.broken.is_empty())
}

/// A trial that says itself what it finds wrong, as a panic.
async fn kept(trial: impl Future<Output = ()> + Send + 'static) -> bool {
    let begun = Instant::now();
    let kept = tokio::spawn(trial).await.is_ok();
    let verdict = if kept { "every promise was kept" } else { "BROKEN: see above" };
    println!("{verdict}, in {:.0?}", begun.elapsed());
    kept
}

/// Shows progress: on one line that changes, or, without a terminal, on one every ten seconds.
fn progress() -> impl Fn(&Watch) + Send + 'static {
    let watched = std::io::stdout().is_terminal();
    move |watch| {
        let seconds = watch.elapsed().as_secs();
        if !watched && seconds % 10 != 0 {
            return;
        }
        let placed = watch.journal.placed();
        let (last, all) = (placed.iter().rev().nth(1).copied().unwrap_or(0), placed.iter().sum::<u32>());
        let sample = watch.samples().last().copied().unwrap_or_default();
        let seconds_of = |value: Option<f64>| value.map_or("?".to_owned(), |value| format!("{value:.1}"));
        let number = |value: Option<i64>| value.map_or("?".to_owned(), |value| value.to_string());
        let wrongs = watch.journal.wrongs();
        let line = format!(
            "{seconds:>5} s {all:>6} orders {last:>3}/s {:>4} faults (over it in {:>4} s) {:>4} events wait {:>3} unpaid ({:>4} s)  {}",
            watch.strikes(),
            seconds_of(watch.last_recovery().map(|took| took.as_secs_f64())),
            number(sample.events),
            number(sample.pending),
            seconds_of(sample.oldest),
            wrongs.last().map_or("no wrong answer so far".to_owned(), |wrong| format!(
                "{} BROKEN: {wrong:.80}",
                wrongs.len()
            )),
        );
        if watched {
            print!("\r\x1b[2K{line}");
            let _ = std::io::stdout().flush();
        } else {
            println!("{line}");
        }
    }
}

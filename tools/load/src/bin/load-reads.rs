//! Reads some paths as fast as they are answered, and prints how many answers came a second, as JSON. For
//! `cargo dockside bench reads`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use load::Refusal;
use load::http::{Call, Client};
use serde_json::json;
use tokio::task::JoinSet;

/// Read paths in a closed loop.
#[derive(Parser)]
#[command(name = "load-reads")]
struct Options {
    /// The address, as http://localhost:8080.
    #[arg(long)]
    url: String,
    /// Readers at once, each with a connection of its own.
    #[arg(long, default_value_t = 32)]
    users: usize,
    /// Seconds that are measured, after one that is not.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Paths, taken in turns.
    #[arg(required = true)]
    paths: Vec<String>,
}

const WARM_UP: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime
        .map_err(|e| Refusal(format!("the runtime does not start: {e}")))
        .and_then(|runtime| runtime.block_on(run(options)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            eprintln!("load-reads: {refusal}");
            ExitCode::from(2)
        }
    }
}

/// What one reader saw: microseconds of each answer, and answers that were not 200.
type Seen = (Vec<u64>, u64);

async fn run(options: Options) -> Result<(), Refusal> {
    let client = Arc::new(Client::new(options.url.trim_end_matches('/'), TIMEOUT).await?);
    let paths: Arc<[String]> = options.paths.into();
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs(options.seconds);
    let mut readers = JoinSet::new();
    for reader in 0..options.users {
        readers.spawn(read(client.clone(), paths.clone(), reader, begin, end));
    }
    let (mut times, mut failed) = (Histogram::<u64>::new(3).map_err(|e| Refusal(e.to_string()))?, 0);
    for (took, others) in readers.join_all().await {
        failed += others;
        for micros in took {
            times.saturating_record(micros);
        }
    }
    let millis = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
    let answers = json!({
        "per_second": times.len() as f64 / options.seconds as f64,
        "p50_millis": millis(0.5),
        "p99_millis": millis(0.99),
        "failed": failed,
    });
    println!("{answers}");
    Ok(())
}

async fn read(client: Arc<Client>, paths: Arc<[String]>, first: usize, begin: Instant, end: Instant) -> Seen {
    let (mut took, mut failed) = (Vec::new(), 0);
    for path in paths.iter().cycle().skip(first) {
        let asked = Instant::now();
        if asked >= end {
            break;
        }
        let answer = client.send(Call::get(path)).await;
        let answered = Instant::now();
        if !answer.is_ok_and(|answer| answer.status == 200) {
            failed += 1;
            // A server that is not there is not asked as fast as that can be found out.
            tokio::time::sleep(Duration::from_millis(10)).await;
        } else if asked >= begin && answered < end {
            took.push(u64::try_from((answered - asked).as_micros()).unwrap_or(u64::MAX));
        }
    }
    (took, failed)
}

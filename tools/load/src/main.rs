//! `cargo dockside load`: the command line; see the library.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use load::accounts::Accounts;
use load::generator::Generator;
use load::goods::{Goods, Staff};
use load::http::Client;
use load::noise::Noise;
use load::options::Options;
use load::processes::Watch;
use load::progress::Progress;
use load::report::Report;
use load::{Refusal, shop};
use tokio::signal::unix::{SignalKind, signal};

/// How long the noise is measured.
const LISTEN: Duration = Duration::from_secs(2);
/// Not begun, or not valid.
const INVALID: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    // One thread: the shop needs the other cores.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(|e| Refusal(format!("the runtime does not start: {e}"))).and_then(|runtime| {
        let done = runtime.block_on(run(&options));
        // A look-up of a name may hang.
        runtime.shutdown_background();
        done
    });
    done.map_or_else(
        |refusal| {
            eprintln!("load: {refusal}");
            ExitCode::from(INVALID)
        },
        ExitCode::from,
    )
}

async fn run(options: &Options) -> Result<u8, Refusal> {
    let url = options.url.trim_end_matches('/');
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let plan = options.plan(seed)?;
    let unwritten = |folder: &Path, e| Refusal(format!("cannot write {}: {e}", folder.display()));
    if let Some(folder) = &options.report {
        Report::make_folder(folder).map_err(|e| unwritten(folder, e))?;
    }
    let client = Arc::new(Client::new(url, options.timeout).await?);
    shop::is_a_shop(&client, url).await?;

    let noise = tokio::task::spawn_blocking(|| Noise::measure(LISTEN)).await;
    let noise = noise.map_err(|e| Refusal(format!("the noise was not measured: {e}")))?;
    eprintln!("noise: {}", noise.text());
    match noise.judge() {
        Err(refusal) if !options.noisy => return Err(refusal),
        Err(_) => eprintln!("noise: too much to trust the figures; --noisy was given"),
        Ok(()) => {}
    }

    let goods = match options.prepare {
        Some(count) => {
            let staff = Staff { email: &options.staff_email, password: &options.staff_password };
            Goods::prepare(&client, count as usize, &staff).await?
        }
        None => Goods::listed(&client).await?,
    };
    let wanted = options.accounts();
    eprintln!("goods: {} products on sale", goods.len());
    let quarter = (wanted / 4).max(1);
    let accounts = Accounts::register(&client, wanted, |there| {
        if there.is_multiple_of(quarter) || there == wanted {
            eprintln!("accounts: {there} of {wanted} signed in");
        }
    });
    let accounts = accounts.await?;
    eprintln!("load: {:.0} s, mix {}, seed {seed}", plan.length().as_secs_f64(), plan.mix);

    let mut watch = Watch::new(&options.watch, Instant::now());
    if watch.is_none() {
        eprintln!("CPU and memory are left out: there is no /proc here");
    }
    let mut progress = Progress::new(&plan);
    let generator = Generator { client, accounts: Arc::new(accounts), goods: Arc::new(goods), plan };
    let stop = stopped()?;
    let outcome = generator.run(stop, |second| {
        progress.show(second);
        if let Some(watch) = &mut watch {
            watch.sample();
        }
    });
    let outcome = outcome.await;
    progress.end();
    let report = Report::new(url, outcome, Some(noise), watch.map(Watch::finish));
    println!("\n{}", report.text().trim_end());
    if let Some(folder) = &options.report {
        report.write(folder).map_err(|e| unwritten(folder, e))?;
        eprintln!("report: {}", folder.join("load.html").display());
    }
    Ok(report.verdict.exit_code())
}

/// Ready when Ctrl-C or SIGTERM asks for an end.
fn stopped() -> Result<impl Future<Output = ()>, Refusal> {
    let listen = |kind| signal(kind).map_err(|e| Refusal(format!("signals cannot be received: {e}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

//! `deploy-test`: the images and docker-compose.yml on a real engine, as a shop of its own that is removed at the end.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use machine::console::{self, bold, green, line, red, seconds, since_start, step};
use machine::layout::{Layout, Lock};
use machine::signals;

use crate::shop::Shop;
use crate::{canary, cluster, limits, ready, replace, restore};

/// One thing that is proven.
struct Step {
    name: &'static str,
    proves: &'static str,
    /// Returns what was found, in one line.
    run: fn(&Shop) -> Result<String>,
}

const STEPS: [Step; 10] = [
    Step {
        name: "up",
        proves: "builds the images, none over 20 MiB compressed, starts the shop and buys something",
        run: replace::up,
    },
    Step {
        name: "ready",
        proves: "each service is ready within 1 s of its container's start",
        run: ready::run,
    },
    Step { name: "heal", proves: "a service that is killed comes back and sells again", run: replace::heal },
    Step {
        name: "scale",
        proves: "100 requests/s lose none while order gets a second replica and loses it; both serve",
        run: replace::scale,
    },
    Step {
        name: "replace",
        proves: "100 requests/s lose none over ten replacements of order, product and user",
        run: replace::replace,
    },
    Step {
        name: "canary",
        proves: "under load, a canary of each service gets who asks for it, then its share up to 100 %, and nothing once rolled back",
        run: canary::run,
    },
    Step {
        name: "limits",
        proves: "400 requests/s for a minute, and as many listeners as order takes, stay within the limits of memory, and all peaks below 1 GiB",
        run: limits::run,
    },
    Step {
        name: "restore",
        proves: "the commands of docs/deploy.md, Compose's and the cluster's, bring every order back after the stores' disks are lost",
        run: restore::restore,
    },
    Step { name: "keep", proves: "orders survive down and up", run: restore::keep },
    Step {
        name: "cluster",
        proves: "the scripts of k8s/overlays/local make the Secret and a RabbitMQ with its accounts",
        run: cluster::run,
    },
];

/// What can be named on the command line.
pub fn names() -> [&'static str; 10] {
    STEPS.map(|s| s.name)
}

/// The long help.
pub fn help() -> String {
    let steps = STEPS.map(|s| format!("  {:<8} {}\n", s.name, s.proves)).concat();
    format!(
        "Test the images and docker-compose.yml on a Docker engine.\n\nRuns all steps, or up and the one named. The load \
         is that of signed-in customers: catalogue, search, carts, order lists, a tenth new orders, sign-ins. Every \
         answer counts once, none is asked for again; afterwards each order that was answered must be there, paid \
         and sold exactly once, in the shop's API, in its database and in the payment sandbox's ledger.\n\n{steps}\n\
         Needs a Docker engine on this machine with Compose 2.24 or later. It takes some ten minutes, the first build apart. The shop has a name, a port and images of its \
         own and is removed at the end, with its data."
    )
}

pub fn run(layout: &Layout, named: Option<&str>, keep: bool) -> Result<ExitCode> {
    let layout = Layout { dir: layout.dir.join("deploy-test"), ..layout.clone() };
    layout.prepare()?;
    let Some(_lock) = Lock::acquire(&layout)? else {
        bail!("another deploy-test is at work in {}", layout.dir.display());
    };
    signals::install()?;
    let shop = Shop::new(&layout)?;
    // What --keep or a killed run left.
    shop.remove()?;
    let mut done = Vec::new();
    let chosen = STEPS.iter().filter(|s| named.is_none_or(|name| s.name == name || s.name == "up"));
    let tested = chosen.into_iter().try_for_each(|s| {
        step(s.name, s.proves);
        let start = Instant::now();
        let found = signals::check().and_then(|()| (s.run)(&shop));
        done.push((s.name, start.elapsed(), found.as_ref().ok().cloned()));
        step(s.name, &format!("{}, {}", found.with_context(|| s.name.to_owned())?, seconds(start.elapsed())));
        Ok(())
    });
    let interrupted = signals::stop_asked();
    if tested.is_err() && !interrupted {
        let saved = shop.save_logs().map(|file| format!("of the containers are in {}", file.display()));
        step("logs", &saved.unwrap_or_else(|e| format!("of the containers are not saved: {e:#}")));
    }
    let mut removed = Ok(());
    if keep && !interrupted {
        line(&format!("the shop runs on {}; {} removes it", shop.edge(), bold(&shop.removal())));
    } else {
        removed = shop.remove();
    }
    table(&done);
    if let (Err(_), Err(e)) = (&tested, &removed) {
        console::error(&format!("{e:#}"));
    }
    match tested {
        Err(_) if interrupted => {
            line("interrupted");
            Ok(ExitCode::from(130))
        }
        Err(e) => Err(e),
        Ok(()) => {
            removed?;
            line(&format!("{} in {}", bold(&green("all passed")), seconds(since_start())));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn table(done: &[(&str, Duration, Option<String>)]) {
    line("");
    for (name, took, found) in done {
        let word = if found.is_some() { green("ok    ") } else { red("FAILED") };
        line(&format!(
            "  {word}  {name:<8} {:>12}  {}",
            seconds(*took),
            found.as_deref().unwrap_or_default()
        ));
    }
}

//! A gray release through the edge, counted in its log.

use anyhow::{Context, Result, ensure};

use super::books;
use super::load::Load;
use super::replace::RATE;
use super::shop::Shop;
use crate::net;
use crate::state::random_hex;

const REQUESTS: usize = 400;
const ASKED: usize = 100;
/// Each share, and how many of [`REQUESTS`] may go to the canary: four standard deviations around the mean.
const SHARES: [(&str, std::ops::RangeInclusive<usize>); 3] =
    [("0", 0..=0), ("10", 16..=65), ("50", 160..=240)];

/// Under load, which is shared out too.
pub fn run(shop: &Shop) -> Result<String> {
    let load = Load::new(shop, RATE)?;
    let (found, report) = load.during(|| {
        let up =
            ["--profile", "canary", "up", "--detach", "--wait", "--no-deps", "--no-build", "order-canary"];
        shop.compose(&up)?;
        let address = shop.address(&shop.container("order-canary")?)?;
        let mut found = Vec::new();
        for (share, wanted) in SHARES {
            set(shop, share)?;
            let count = reached(shop, &address, REQUESTS, false)?;
            ensure!(
                wanted.contains(&count),
                "{count} of {REQUESTS} requests reached the canary at {share} %"
            );
            found.push(format!("{count} at {share} %"));
            let asked = reached(shop, &address, ASKED, true)?;
            ensure!(asked == ASKED, "{asked} of {ASKED} requests with the header did at {share} %");
        }
        set(shop, "off")?;
        let none = reached(shop, &address, REQUESTS, false)? + reached(shop, &address, ASKED, true)?;
        ensure!(none == 0, "{none} requests reached the canary after the roll-back");
        shop.compose(&["--profile", "canary", "rm", "--stop", "--force", "order-canary"])?;
        Ok(found.join(", "))
    })?;
    report.none_lost()?;
    report.kept_up(RATE)?;
    books::check(shop, &load, &report)?;
    Ok(format!(
        "the canary got {found} of {REQUESTS}, all that asked for it, none once rolled back; {}, none lost",
        report.summary()
    ))
}

fn set(shop: &Shop, share: &str) -> Result<()> {
    shop.compose(&["exec", "-T", "edge", "canary", "order", share]).map(drop)
}

/// How many of so many requests went to that address; with the header if they are to ask for it.
fn reached(shop: &Shop, address: &str, count: usize, asking: bool) -> Result<usize> {
    let run = random_hex()?;
    for number in 0..count {
        let id = format!("{run}-{number}");
        let headers = [("X-Request-Id", id.as_str()), ("X-Canary", "order")];
        let headers = if asking { &headers[..] } else { &headers[..1] };
        let answer = net::request("GET", &shop.api("/orders"), headers, None, super::customers::TIME_OUT)?;
        // Order's own answer to nobody.
        ensure!(answer.status == 401, "a request was answered {}", answer.status);
    }
    let log = shop.requests(&run, count).context("counting the canary's requests")?;
    let mark = format!("\"upstream\":\"{address}:");
    Ok(log.iter().filter(|line| line.contains(&mark)).count())
}

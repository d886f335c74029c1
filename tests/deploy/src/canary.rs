//! A gray release through the edge, counted in its log.

use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};
use machine::net;
use machine::state::random_hex;

use crate::books;
use crate::load::Load;
use crate::replace::RATE;
use crate::shop::Shop;

const REQUESTS: usize = 400;
const ASKED: usize = 100;

struct Release {
    service: &'static str,
    /// Answered so by the service itself, without signing in.
    path: &'static str,
    status: u16,
    /// Each share, and how many of [`REQUESTS`] may go to the canary: four standard deviations around the mean.
    shares: &'static [(&'static str, RangeInclusive<usize>)],
}

const RELEASES: [Release; 3] = [
    Release {
        service: "order",
        path: "/orders",
        status: 401,
        shares: &[("0", 0..=0), ("10", 16..=65), ("50", 160..=240), ("100", REQUESTS..=REQUESTS)],
    },
    Release {
        service: "user",
        path: "/me",
        status: 401,
        shares: &[("0", 0..=0), ("100", REQUESTS..=REQUESTS)],
    },
    Release {
        service: "product",
        path: "/categories",
        status: 200,
        shares: &[("0", 0..=0), ("100", REQUESTS..=REQUESTS)],
    },
];

/// Under load, which is shared out too.
pub fn run(shop: &Shop) -> Result<String> {
    let load = Load::new(shop, RATE)?;
    let (found, report) =
        load.during(|| RELEASES.iter().map(|r| release(shop, r)).collect::<Result<Vec<_>>>())?;
    report.none_lost()?;
    report.kept_up(RATE)?;
    books::check(shop, &load, &report)?;
    Ok(format!(
        "of {REQUESTS} requests each, {}; all that asked for a canary got it, none once rolled back; {}, none lost",
        found.join("; "),
        report.summary()
    ))
}

fn release(shop: &Shop, release: &Release) -> Result<String> {
    let Release { service, .. } = release;
    let canary = format!("{service}-canary");
    shop.compose(&["--profile", "canary", "up", "--detach", "--wait", "--no-deps", "--no-build", &canary])?;
    let address = shop.address(&shop.container(&canary)?)?;
    let mut found = Vec::new();
    for (share, wanted) in release.shares {
        set(shop, service, share)?;
        let count = release.reached(shop, &address, REQUESTS, false)?;
        ensure!(wanted.contains(&count), "{count} of {REQUESTS} requests reached {canary} at {share} %");
        found.push(format!("{count} at {share} %"));
        let asked = release.reached(shop, &address, ASKED, true)?;
        ensure!(asked == ASKED, "{asked} of {ASKED} requests with the key reached {canary} at {share} %");
    }
    set(shop, service, "off")?;
    let none =
        release.reached(shop, &address, REQUESTS, false)? + release.reached(shop, &address, ASKED, true)?;
    ensure!(none == 0, "{none} requests reached {canary} after the roll-back");
    shop.compose(&["--profile", "canary", "rm", "--stop", "--force", &canary])?;
    Ok(format!("{canary} got {}", found.join(", ")))
}

fn set(shop: &Shop, service: &str, share: &str) -> Result<()> {
    shop.compose(&["exec", "-T", "edge", "canary", service, share]).map(drop)
}

impl Release {
    /// How many of so many requests went to that address; with the key if they are to ask for it.
    fn reached(&self, shop: &Shop, address: &str, count: usize, asking: bool) -> Result<usize> {
        let run = random_hex()?;
        let key = shop.compose(&["exec", "-T", "edge", "cat", "/run/secrets/canary_key"])?;
        for number in 0..count {
            let id = format!("{run}-{number}");
            let headers = [
                ("X-Request-Id", id.as_str()),
                ("X-Canary", self.service),
                // Last: who only names the service is nobody special.
                ("X-Canary-Key", key.trim()),
            ];
            let headers = if asking { &headers[..] } else { &headers[..2] };
            let url = shop.api(self.path);
            let answer = net::request("GET", &url, headers, None, crate::customers::TIME_OUT)?;
            ensure!(answer.status == self.status, "GET {} was answered {}", self.path, answer.status);
        }
        let log = shop.requests(&run, count).context("counting the canary's requests")?;
        let mark = format!("\"upstream\":\"{address}:");
        Ok(log.iter().filter(|line| line.contains(&mark)).count())
    }
}

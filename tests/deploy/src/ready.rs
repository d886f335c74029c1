//! How long a service takes from its container's start until it serves.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use machine::console::seconds;
use machine::signals;

use crate::shop::{Shop, docker, finish, inspect};

/// What each logs once it takes requests.
const SERVICES: [(&str, &str); 5] = [
    ("user", "service.ready"),
    ("product", "service.ready"),
    ("order", "service.ready"),
    ("storefront", "service.ready"),
    ("payment-sandbox", "payment sandbox serves"),
];
const LIMIT: Duration = Duration::from_secs(1);

/// The first start, which made tables and loaded the demo data beside all the others, and another one.
pub fn run(shop: &Shop) -> Result<String> {
    let mut found = Vec::new();
    for (service, mark) in SERVICES {
        let id = shop.container(service)?;
        let first = took(&id, mark)?;
        docker(&["restart", &id])?;
        shop.start()?;
        let again = took(&id, mark)?;
        ensure!(
            first <= LIMIT && again <= LIMIT,
            "{service} was ready {first:?} and {again:?} after its start"
        );
        found.push(format!("{service} {} then {}", seconds(first), seconds(again)));
    }
    Ok(format!("from the first start, then the second: {}", found.join("; ")))
}

/// Both times are the engine's.
fn took(id: &str, mark: &str) -> Result<Duration> {
    let started = time_of_day(&inspect(id, "{{.State.StartedAt}}")?).context("no time of start")?;
    // Some log to one stream, some to the other.
    let script = "exec docker logs --timestamps --tail=1000 \"$0\" 2>&1";
    let log = finish(Command::new("sh").args(["-c", script, id]), signals::stop_asked)?;
    let ready = log.lines().rfind(|line| line.contains(mark)).and_then(time_of_day);
    let ready = ready.with_context(|| format!("`{mark}` is not in the log of {id}"))?;
    Ok(between(started, ready))
}

/// The engine notes the start a moment after it: a line may be older by that.
fn between(started: Duration, ready: Duration) -> Duration {
    const DAY: Duration = Duration::from_secs(86_400);
    const MOMENT: Duration = Duration::from_millis(500);
    match ready.checked_sub(started) {
        Some(took) => took,
        None if started - ready < MOMENT => Duration::ZERO,
        None => ready + DAY - started,
    }
}

/// Of `2026-01-31T23:59:59.123456789Z` and what may follow, the time since midnight.
fn time_of_day(text: &str) -> Option<Duration> {
    let (clock, _) = text.split_once('T')?.1.split_once('Z')?;
    let (hours, rest) = clock.split_once(':')?;
    let (minutes, rest) = rest.split_once(':')?;
    let number = |text: &str| text.parse::<u64>().ok();
    let seconds = rest.parse::<f64>().ok().filter(|s| (0.0..61.0).contains(s))?;
    Some(
        Duration::from_secs(number(hours)? * 3600 + number(minutes)? * 60) + Duration::from_secs_f64(seconds),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_between_two_lines_is_right_across_midnight() {
        let at = |text: &str| time_of_day(text).unwrap();
        let evening = at("2026-01-31T23:59:59.900000001Z");
        assert_eq!(between(evening, at("2026-02-01T00:00:00.1Z {}")).as_millis(), 199);
        assert_eq!(between(at("x12:00:01ZT12:00:02Z"), at("T12:00:02.5Z")).as_millis(), 500);
        assert_eq!(between(at("T12:00:02Z"), at("T12:00:01.9Z")), Duration::ZERO);
        assert_eq!(time_of_day("started"), None);
    }
}

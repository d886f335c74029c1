//! `bench soak`: whether the services' memory grows while they are as busy as they can be.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use machine::compile;
use machine::layout::Layout;
use machine::supervisor::Supervisor;
use serde_json::json;

use crate::floors::Figure;
use crate::measure::{CLIENTS, Measured, SERVICES, start};
use crate::shop::{Buying, Pace, Shop};

const SECONDS: u32 = 600;
/// Memory that is taken in the first minute is kept, and no growth.
const WARM: f64 = 60.0;

pub fn measure(layout: &Layout, supervisor: &Supervisor) -> Result<Measured> {
    let built = compile::measured(layout)?;
    let admin = start(layout, supervisor, &built, 1, &[], |_| Ok(()))?;
    let shop = Shop::new(layout, supervisor, &admin, &built)?;
    let mut samples: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    let begun = Instant::now();
    let buying = Buying { seconds: SECONDS, ..Buying::by(Pace::Users(CLIENTS)) };
    let orders = shop.buy(buying, || {
        for name in SERVICES {
            let sample = shop.memory(name).map(|mib| (begun.elapsed().as_secs_f64(), mib));
            samples.entry(name).or_default().extend(sample);
        }
    })?;
    let mut largest: f64 = 0.0;
    let mut most_grown = f64::MIN;
    for (name, samples) in &samples {
        let (early, late) = early_and_late(samples).with_context(|| format!("{name} was not measured"))?;
        largest = samples.iter().map(|(_, mib)| *mib).fold(largest, f64::max);
        most_grown = most_grown.max(late - early);
    }
    let figures = vec![
        Figure::one(
            "confirmed_per_second",
            "orders confirmed a second, 32 clients, ten minutes",
            orders.confirmed_per_second,
        ),
        Figure::one("largest_mib", "the most memory that a service had, MiB", largest),
        Figure::one(
            "growth_mib",
            "from the second minute to the last, of the service that grew most, MiB",
            most_grown,
        ),
    ];
    Ok((figures, json!({"orders": orders.json(), "memory_mib_by_second": samples})))
}

/// The medians of the minute after the warm one, and of the last.
fn early_and_late(samples: &[(f64, f64)]) -> Option<(f64, f64)> {
    let end = samples.last()?.0;
    let median = |from: f64, to: f64| {
        let mut inside: Vec<f64> =
            samples.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, mib)| *mib).collect();
        inside.sort_by(f64::total_cmp);
        inside.get(inside.len() / 2).copied()
    };
    Some((median(WARM, 2.0 * WARM)?, median(end - WARM, end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_from_the_second_minute_to_the_last() {
        let samples: Vec<(f64, f64)> =
            (0..600).map(|s| (f64::from(s), if s < 60 { 1.0 } else { 20.0 })).collect();
        assert_eq!(early_and_late(&samples), Some((20.0, 20.0)));
        let grows: Vec<(f64, f64)> = (0..600).map(|s| (f64::from(s), f64::from(s))).collect();
        assert_eq!(early_and_late(&grows), Some((90.0, 569.0)));
        assert_eq!(early_and_late(&[]), None);
    }
}

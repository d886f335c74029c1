//! `bench replicas`: what an order costs when each service has more replicas on the same cores. They share work by locks
//! and leases in the database; what that costs shows here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use machine::compile;
use machine::console::step;
use machine::layout::Layout;
use machine::supervisor::Supervisor;
use serde_json::json;

use crate::floors::Figure;
use crate::measure::{CLIENTS, Measured, start};
use crate::shop::{Buying, Orders, Pace, Shop};

/// Each number once on the way up and once on the way down, so that a machine that gets slower is fair to all.
const REPLICAS: [usize; 4] = [1, 2, 4, 8];

pub fn measure(layout: &Layout) -> Result<Measured> {
    let built = compile::measured(layout)?;
    let mut costs: BTreeMap<usize, Vec<Orders>> = BTreeMap::new();
    for replicas in REPLICAS.into_iter().chain(REPLICAS.into_iter().rev()) {
        layout.forget_data()?;
        let supervisor = Supervisor::new(layout)?;
        let measured = one(layout, &supervisor, &built, replicas);
        supervisor.stop();
        let orders = measured?;
        step(
            "replicas",
            &format!(
                "{replicas}: {:.0} orders/s confirmed, {:.2} ms of CPU each",
                orders.confirmed_per_second, orders.cost.cpu_millis
            ),
        );
        costs.entry(replicas).or_default().push(orders);
    }
    let each =
        |of: fn(&Orders) -> f64, replicas| costs.get(&replicas).into_iter().flatten().map(of).collect();
    let cpu = |replicas: usize| -> Vec<f64> { each(|orders| orders.cost.cpu_millis, replicas) };
    let alone = cpu(1);
    let times =
        |more: usize| cpu(more).iter().zip(&alone).map(|(more, one)| more / one).collect::<Vec<f64>>();
    let figures = vec![
        Figure::of(
            "cpu_millis_of_1",
            "CPU for each confirmed order, ms, one replica of each service",
            alone.clone(),
        ),
        Figure::of("cpu_of_2_to_1", "the same with two / with one", times(2)),
        Figure::of("cpu_of_4_to_1", "the same with four / with one", times(4)),
        Figure::of("cpu_of_8_to_1", "the same with eight / with one", times(8)),
        Figure::of(
            "confirmed_by_8",
            "orders confirmed a second, eight of each",
            each(|orders| orders.confirmed_per_second, 8),
        ),
    ];
    let all = costs.iter().map(|(replicas, orders)| {
        json!({"replicas": replicas, "shop": orders.iter().map(Orders::json).collect::<Vec<_>>()})
    });
    Ok((figures, all.collect()))
}

fn one(
    layout: &Layout,
    supervisor: &Supervisor,
    built: &BTreeMap<String, PathBuf>,
    replicas: usize,
) -> Result<Orders> {
    let admin = start(layout, supervisor, built, replicas, &[], |_| Ok(()))?;
    Shop::new(layout, supervisor, &admin, built)?.buy(Buying::by(Pace::Users(CLIENTS)), || ())
}

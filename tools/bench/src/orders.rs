//! `bench orders`: how many orders the shop sees through, and what each costs.

use std::fs;

use anyhow::{Context, Result};
use machine::compile;
use machine::console::step;
use machine::layout::Layout;
use machine::process::pause;
use machine::supervisor::Supervisor;
use serde_json::{Value, json};

use crate::floors::Figure;
use crate::limit::{Latency, Limit};
use crate::measure::{CLIENTS, Measured, REST_MILLIS, ROUNDS, SERVICES, start};
use crate::shop::{Buying, Orders, Pace, SECONDS, Shop};

/// The same for each of what is not held to the limit at full load.
const FEW_ROUNDS: usize = 3;
const BURST_SECONDS: u32 = 5;
/// Of products that everybody wants.
const HOT: u32 = 2;
/// Of products that buyers hardly share.
const SPREAD: u32 = 1000;

pub fn measure(layout: &Layout, supervisor: &Supervisor) -> Result<Measured> {
    let built = compile::measured(layout)?;
    let mut limit = None;
    let admin = start(layout, supervisor, &built, 1, &[], |admin| {
        limit = Some(Limit::prepare(admin)?);
        Ok(())
    })?;
    let limit = limit.context("the limit was not prepared")?;
    let shop = Shop::new(layout, supervisor, &admin, &built)?;

    let mut figures = Vec::new();
    pause(REST_MILLIS);
    let idle: f64 = SERVICES.iter().filter_map(|name| shop.memory(name)).sum();
    figures.push(Figure::one("idle_memory_mib", "the three services at rest, MiB", idle));
    let sizes =
        SERVICES.iter().filter_map(|name| built.get(*name)).filter_map(|file| fs::metadata(file).ok());
    let largest = sizes.map(|meta| meta.len() as f64 / f64::from(1 << 20)).fold(0.0, f64::max);
    figures.push(Figure::one("binary_mib", "the largest service's program, MiB", largest));
    let commits = shop.commits()?;
    pause(REST_MILLIS);
    let idle = (shop.commits()? - commits) / (REST_MILLIS as f64 / 1000.0);
    figures.push(Figure::one("idle_transactions", "transactions a second of a shop that nobody uses", idle));

    let (many, capacity) = at_full_load(&shop, &limit, &mut figures)?;
    let bursts = bursts(&shop, &limit, &mut figures)?;
    let few = few(&shop, &mut figures)?;
    let half = at_half(&shop, &limit, capacity / 2.0, &mut figures)?;
    let hot = hot(&shop, &mut figures)?;
    let memory = SERVICES.iter().filter_map(|name| shop.memory(name)).fold(0.0, f64::max);
    figures.push(Figure::one("loaded_memory_mib", "the largest service after the load, MiB", memory));
    let deadlocks = shop.ask("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")?;
    figures.push(Figure::one("deadlocks", "deadlocks in the whole run", deadlocks));
    Ok((figures, json!({"many": many, "bursts": bursts, "few": few, "half": half, "hot": hot})))
}

fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

/// As many as the shop sees through, beside the limit. The second value is its median.
fn at_full_load(shop: &Shop, limit: &Limit, figures: &mut Vec<Figure>) -> Result<(Value, f64)> {
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        let most = limit.measure(CLIENTS, SECONDS)?;
        let orders = shop.buy(Buying::by(Pace::Users(CLIENTS)), || ())?;
        let done = format!(
            "{round} of {ROUNDS}: {:.0} of {most:.0} orders/s confirmed, {:.2} ms of CPU each",
            orders.confirmed_per_second, orders.cost.cpu_millis
        );
        step("full load", &done);
        rounds.push((most, orders));
    }
    let of = |value: fn(&(f64, Orders)) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
    let confirmed = of(|(_, orders)| orders.confirmed_per_second);
    let capacity = Figure::of("confirmed_per_second", "orders confirmed a second, 32 clients", confirmed);
    let median = capacity.median();
    figures.extend([
        Figure::of(
            "confirmed_to_limit",
            "orders confirmed a second, 32 clients / the limit",
            of(|(most, orders)| orders.confirmed_per_second / most),
        ),
        capacity,
        Figure::of("limit_per_second", "the limit: transactions a second, 32 clients", of(|(most, _)| *most)),
        Figure::of(
            "cpu_millis_per_order",
            "CPU of all processes for each confirmed order, ms, 32 clients",
            of(|(_, orders)| orders.cost.cpu_millis),
        ),
        Figure::of(
            "cpu_to_limit",
            "the same / the time of all cores for a transaction of the limit",
            of(|(most, orders)| orders.cost.cpu_millis * most / 1000.0 / cores()),
        ),
        Figure::of(
            "commits_per_order_many",
            "commits for each order, 32 clients",
            of(|(_, orders)| orders.cost.commits),
        ),
    ]);
    let rounds = rounds.iter().map(|(most, orders)| json!({"limit": most, "shop": orders.json()})).collect();
    Ok((rounds, median))
}

/// Orders that are accepted in a short burst from rest. They are seen through afterwards.
fn bursts(shop: &Shop, limit: &Limit, figures: &mut Vec<Figure>) -> Result<Value> {
    let mut rounds = Vec::new();
    for round in 1..=FEW_ROUNDS {
        let most = limit.measure(CLIENTS, BURST_SECONDS)?;
        let burst =
            Buying { seconds: BURST_SECONDS, warm_up: 0, follow: false, ..Buying::by(Pace::Users(CLIENTS)) };
        let orders = shop.buy(burst, || ())?;
        shop.settle()?;
        let done = format!(
            "{round} of {FEW_ROUNDS}: {:.0} of {most:.0} orders/s accepted, {} refused",
            orders.placed_per_second, orders.refused
        );
        step("burst", &done);
        rounds.push((most, orders));
    }
    let of = |value: fn(&(f64, Orders)) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
    figures.extend([
        Figure::of(
            "burst_to_limit",
            "orders accepted a second in a burst of 5 s from rest, 32 clients / the limit",
            of(|(most, orders)| orders.placed_per_second / most),
        ),
        Figure::one(
            "burst_refused",
            "orders refused in such bursts",
            of(|(_, orders)| orders.refused).iter().sum(),
        ),
    ]);
    Ok(rounds.iter().map(|(most, orders)| json!({"limit": most, "shop": orders.json()})).collect())
}

/// What an order costs when batches are small.
fn few(shop: &Shop, figures: &mut Vec<Figure>) -> Result<Value> {
    let eight = shop.buy(Buying::by(Pace::Users(8)), || ())?;
    let two = shop.buy(Buying::by(Pace::Users(2)), || ())?;
    figures.extend([
        Figure::one("commits_per_order", "commits for each order, 8 clients", eight.cost.commits),
        Figure::one("statements_per_order", "statements for each order, 8 clients", eight.cost.statements),
        Figure::one("wal_kib_per_order", "log written for each order, 8 clients, KiB", eight.cost.wal_kib),
        Figure::one("accept_millis", "placing an order, 8 clients, ms (median)", eight.accept_millis),
        Figure::one(
            "confirm_millis",
            "placed until it reads confirmed, 8 clients, ms (median)",
            eight.confirm_millis,
        ),
        Figure::one("accept_millis_of_two", "placing an order, 2 clients, ms (median)", two.accept_millis),
    ]);
    Ok(json!({"8": eight.json(), "2": two.json()}))
}

/// Shoppers who come at random times, half as many as the shop can see through. pgbench is given the same rate.
fn at_half(shop: &Shop, limit: &Limit, rate: f64, figures: &mut Vec<Figure>) -> Result<Value> {
    let mut rounds: Vec<(Latency, Orders)> = Vec::new();
    for round in 1..=FEW_ROUNDS {
        let least = limit.paced(rate, CLIENTS, SECONDS)?;
        let orders = shop.buy(Buying::by(Pace::Rate(rate)), || ())?;
        let done = format!(
            "{round} of {FEW_ROUNDS}: {rate:.0} orders/s, accepted in {:.1} ms (p50) and {:.1} ms (p99), \
             confirmed in {:.1} ms (p50)",
            orders.accept_millis, orders.accept_p99_millis, orders.confirm_millis
        );
        step("half load", &done);
        rounds.push((least, orders));
    }
    let of = |value: fn(&(Latency, Orders)) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
    figures.extend([
        Figure::of(
            "half_accept_p50",
            "placing an order at half of capacity, open loop, p50, ms",
            of(|(_, orders)| orders.accept_millis),
        ),
        Figure::of(
            "half_accept_p50_to_limit",
            "the same / pgbench at that rate",
            of(|(least, orders)| orders.accept_millis / least.p50),
        ),
        Figure::of("half_accept_p99", "the same, p99, ms", of(|(_, orders)| orders.accept_p99_millis)),
        Figure::of(
            "half_accept_p99_to_limit",
            "the same / pgbench at that rate",
            of(|(least, orders)| orders.accept_p99_millis / least.p99),
        ),
        Figure::of(
            "half_confirm_millis",
            "placed until it reads confirmed at half of capacity, p50, ms",
            of(|(_, orders)| orders.confirm_millis),
        ),
    ]);
    let json = |(least, orders): &(Latency, Orders)| json!({"limit": {"p50_millis": least.p50, "p99_millis": least.p99}, "shop": orders.json()});
    Ok(rounds.iter().map(json).collect())
}

/// Two products that everybody buys, beside a thousand.
fn hot(shop: &Shop, figures: &mut Vec<Figure>) -> Result<Value> {
    let mut rounds = Vec::new();
    for round in 1..=FEW_ROUNDS {
        let of = |products| shop.buy(Buying { products, ..Buying::by(Pace::Users(CLIENTS)) }, || ());
        // In turns, so that neither is always the one that comes later.
        let first = if round % 2 == 1 { of(HOT)? } else { of(SPREAD)? };
        shop.settle()?;
        let (hot, spread) = if round % 2 == 1 { (first, of(SPREAD)?) } else { (of(HOT)?, first) };
        let done = format!(
            "{round} of {FEW_ROUNDS}: {:.0} orders/s of {HOT} products, {:.0} of {SPREAD}",
            hot.confirmed_per_second, spread.confirmed_per_second
        );
        step("hot", &done);
        rounds.push((hot, spread));
    }
    let ratios = rounds.iter().map(|(hot, spread)| hot.confirmed_per_second / spread.confirmed_per_second);
    figures.push(Figure::of(
        "hot_to_spread",
        "orders confirmed a second of two products / of a thousand",
        ratios.collect(),
    ));
    Ok(rounds.iter().map(|(hot, spread)| json!({"hot": hot.json(), "spread": spread.json()})).collect())
}

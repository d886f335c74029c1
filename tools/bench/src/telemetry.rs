//! `bench telemetry`: what it costs to trace a tenth of all requests, to send metrics and to log each request.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use machine::layout::Layout;
use machine::net::{self, get};
use machine::process::pause;
use machine::supervisor::Supervisor;
use machine::{compile, console};
use serde_json::json;

use crate::floors::Figure;
use crate::measure::{CLIENTS, Measured, REST_MILLIS, ROUNDS, SERVICES, start};
use crate::shop::{Buying, Orders, Pace, Shop};

/// What one shop showed.
struct Shown {
    orders: Orders,
    /// Of the three services at rest, MiB.
    idle_mib: f64,
    /// The longest that a service took to answer with its metrics after the load, ms.
    metrics_millis: f64,
    /// The most series of a service.
    series: f64,
}

/// A collector that takes what it is sent, and keeps nothing. Ends with this.
struct Collector(Child);

impl Drop for Collector {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Shops with and without, in turns: a new one each time.
pub fn measure(layout: &Layout) -> Result<Measured> {
    let built = compile::measured(layout)?;
    let port = net::choose(None, &[]).context("no port is free")?;
    let address = format!("127.0.0.1:{port}");
    let program = built.get("collector").context("collector was not built")?;
    ensure!(
        std::env::vars_os().all(|(name, _)| !name.to_string_lossy().starts_with("OTEL_")),
        "unset the variables OTEL_*: a shop without telemetry is measured, too"
    );
    let collector = Command::new(program).arg(&address).stdin(Stdio::null()).spawn();
    let mut collector = Collector(collector.context("cannot start the collector")?);
    let on = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()),
        ("OTEL_TRACES_SAMPLER_ARG", "0.1".to_owned()),
    ];
    let off = [("RUST_LOG", "off".to_owned())];
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Who is first changes, as machines get slower and faster.
        for telemetry in [round % 2 == 0, round % 2 == 1] {
            let shown = one(layout, &built, if telemetry { &on } else { &off })?;
            ensure!(collector.0.try_wait()?.is_none() && !net::free(port), "the collector has ended");
            console::step(
                "telemetry",
                &format!(
                    "{}: {:.0} orders/s confirmed, {:.2} ms of CPU each",
                    if telemetry { "on" } else { "off" },
                    shown.orders.confirmed_per_second,
                    shown.orders.cost.cpu_millis
                ),
            );
            if telemetry { &mut with } else { &mut without }.push(shown);
        }
    }
    let ratio = |of: fn(&Shown) -> f64| with.iter().zip(&without).map(|(on, off)| of(on) / of(off)).collect();
    let of_with = |of: fn(&Shown) -> f64| with.iter().map(of).collect();
    let figures = vec![
        Figure::of(
            "confirmed_on_to_off",
            "orders confirmed a second, with telemetry / without",
            ratio(|shown| shown.orders.confirmed_per_second),
        ),
        Figure::of(
            "cpu_on_to_off",
            "CPU for each confirmed order, with telemetry / without",
            ratio(|shown| shown.orders.cost.cpu_millis),
        ),
        Figure::of(
            "idle_mib_more",
            "memory of the three services at rest that telemetry takes, MiB",
            with.iter().zip(&without).map(|(on, off)| on.idle_mib - off.idle_mib).collect(),
        ),
        Figure::of(
            "metrics_millis",
            "`/metrics`, slowest service, ms",
            of_with(|shown| shown.metrics_millis),
        ),
        Figure::of("series", "series of the service that has most", of_with(|shown| shown.series)),
    ];
    let orders = |all: &[Shown]| all.iter().map(|shown| shown.orders.json()).collect::<Vec<_>>();
    Ok((figures, json!({"on": orders(&with), "off": orders(&without)})))
}

fn one(
    layout: &Layout,
    built: &BTreeMap<String, PathBuf>,
    settings: &[(&'static str, String)],
) -> Result<Shown> {
    layout.forget_data()?;
    let supervisor = Supervisor::new(layout)?;
    let shown = show(layout, &supervisor, built, settings);
    supervisor.stop();
    shown
}

fn show(
    layout: &Layout,
    supervisor: &Supervisor,
    built: &BTreeMap<String, PathBuf>,
    settings: &[(&'static str, String)],
) -> Result<Shown> {
    let admin = start(layout, supervisor, built, 1, settings, |_| Ok(()))?;
    let shop = Shop::new(layout, supervisor, &admin, built)?;
    pause(REST_MILLIS);
    let idle_mib = SERVICES.iter().filter_map(|name| shop.memory(name)).sum();
    let orders = shop.buy(Buying::by(Pace::Users(CLIENTS)), || ())?;
    shop.settle()?;
    let (mut metrics_millis, mut series) = (0.0_f64, 0.0_f64);
    for process in supervisor.state().processes.iter().filter(|p| SERVICES.contains(&p.name.as_str())) {
        let admin = process.addresses.admin.as_ref().context("a service has no admin address")?;
        let asked = Instant::now();
        let answer = get(&format!("{admin}/metrics"))?;
        metrics_millis = metrics_millis.max(asked.elapsed().as_secs_f64() * 1000.0);
        ensure!(answer.status == 200, "{admin}/metrics answers {}", answer.status);
        let lines = answer.body.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        series = series.max(lines.count() as f64);
    }
    Ok(Shown { orders, idle_mib, metrics_millis, series })
}

//! `bench reads`: the product service beside a server that has one statement and nothing else.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use machine::console::step;
use machine::layout::Layout;
use machine::net::{self, Probe};
use machine::process::output;
use machine::servers::postgres::{DATABASE, psql};
use machine::spec::Spec;
use machine::state::Addresses;
use machine::supervisor::Supervisor;
use machine::{compile, signals};
use serde_json::{Value, json};

use crate::floors::Figure;
use crate::measure::{CLIENTS, Measured, ROUNDS, start};

/// Of each measurement.
const SECONDS: u32 = 5;
/// Products that are read in turns.
const PRODUCTS: u32 = 100;
const READY_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

const PAGE: &str = "/api/v1/products";

/// The figures, and all that was read in each round.
pub fn measure(layout: &Layout, supervisor: &Supervisor) -> Result<Measured> {
    let built = compile::measured(layout)?;
    let load = built.get("load-reads").context("load-reads was not built")?;
    let admin = start(layout, supervisor, &built, 1, &[], |_| Ok(()))?;
    let database = admin.with_database(DATABASE);
    let taken: Vec<u16> = supervisor.state().ports.values().copied().collect();
    let address = format!("127.0.0.1:{}", net::choose(None, &taken)?);
    let url = format!("http://{address}");
    supervisor.start(Spec {
        name: "bare".into(),
        program: built.get("bare").cloned().context("no program bare")?,
        args: vec![address.clone(), database.to_string()],
        env: Vec::new(),
        run_as: None,
        addresses: Addresses { http: Some(url.clone()), ..Addresses::default() },
        probe: Probe::Tcp { addr: address },
        hidden: false,
        container: None,
    })?;
    supervisor.wait_ready("bare", READY_WITHIN)?;
    let state = supervisor.state();
    let product = state.processes.iter().find(|process| process.name == "product");
    let product = product.and_then(|process| process.addresses.http.clone()).context("no product service")?;

    let ids =
        format!("SELECT id FROM products.products WHERE archived_at IS NULL ORDER BY id LIMIT {PRODUCTS}");
    let ids = psql(&database, &["-tA", "-c", &ids])?;
    let paths: Vec<String> = ids.split_whitespace().map(|id| format!("{PAGE}/{id}")).collect();
    let page = [PAGE.to_owned()];
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        let one = read(load, &product, &paths)?;
        let bare_one = read(load, &url, &paths)?;
        let list = read(load, &product, &page)?;
        let bare_list = read(load, &url, &page)?;
        let rates = [&one, &bare_one, &list, &bare_list].map(|answers| rate(answers).unwrap_or(f64::NAN));
        let [a, b, c, d] = rates;
        step(
            "round",
            &format!("{round} of {ROUNDS}: product {a:.0}/s, bare {b:.0}; page {c:.0}/s, bare {d:.0}"),
        );
        rounds.push((rates, json!({"product": one, "bare": bare_one, "page": list, "bare_page": bare_list})));
    }
    let of = |value: fn(&[f64; 4]) -> f64| rounds.iter().map(|(rates, _)| value(rates)).collect::<Vec<f64>>();
    let figures = vec![
        Figure::of(
            "product_to_bare",
            "GET /products/{id} a second / bare axum and sqlx",
            of(|r| r[0] / r[1]),
        ),
        Figure::of("product_per_second", "GET /products/{id} a second, 32 readers", of(|r| r[0])),
        Figure::of(
            "page_to_bare",
            "GET /products, 20 of them, a second / bare axum and sqlx",
            of(|r| r[2] / r[3]),
        ),
        Figure::of("page_per_second", "GET /products a second, 32 readers", of(|r| r[2])),
    ];
    Ok((figures, Value::Array(rounds.into_iter().map(|(_, answers)| answers).collect())))
}

/// What `load-reads` prints. A round in which an answer failed is no measurement.
fn read(load: &Path, url: &str, paths: &[String]) -> Result<Value> {
    signals::check()?;
    let mut command = Command::new(load);
    command.args(["--url", url, "--users", &CLIENTS.to_string(), "--seconds", &SECONDS.to_string()]);
    let said = output(command.args(paths).stdin(Stdio::null()))?;
    let answers: Value = serde_json::from_str(&said).context("load-reads prints no JSON")?;
    anyhow::ensure!(answers["failed"] == 0, "not every product could be read at {url}: {said}");
    Ok(answers)
}

fn rate(answers: &Value) -> Option<f64> {
    answers["per_second"].as_f64()
}

//! What became of the orders of a load: each is there, paid and sold exactly once, and there is no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::load::{Load, Placed};
use super::shop::{PROJECT, Shop, docker, wait};

/// A saga whose worker was stopped goes on once its lease of 15 s has run out.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// # Errors
/// naming the first order that is missing, doubled, or not paid and sold once.
pub fn check(shop: &Shop, load: &Load, placed: &[Placed]) -> Result<()> {
    ensure!(!placed.is_empty(), "no order was placed");
    let ids: BTreeSet<&str> = placed.iter().map(|p| p.id.as_str()).collect();
    ensure!(ids.len() == placed.len(), "two answers name the same order");
    confirmed(shop, load, placed)?;
    written_once(shop, load, placed)?;
    paid_once(shop, placed)
}

/// Each customer's list has the orders that were answered and no other, all of them confirmed.
fn confirmed(shop: &Shop, load: &Load, placed: &[Placed]) -> Result<()> {
    for (number, customer) in load.customers.iter().enumerate() {
        let mut orders = Vec::new();
        wait(SETTLED_WITHIN, || {
            orders = customer.orders(shop)?;
            Ok(orders.iter().all(|order| order["status"] != "pending"))
        })
        .context("waiting until no order is pending")?;
        let field = |order: &Value| -> Result<(String, (String, u64))> {
            let text = |name: &str| {
                order[name].as_str().map(str::to_owned).with_context(|| format!("no {name}: {order}"))
            };
            Ok((text("id")?, (text("status")?, order["total"]["amount"].as_u64().context("no total")?)))
        };
        let found = orders.iter().map(field).collect::<Result<BTreeMap<_, _>>>()?;
        ensure!(found.len() == orders.len(), "an order is listed twice");
        let mine: Vec<&Placed> = placed.iter().filter(|p| p.customer == number).collect();
        for p in &mine {
            let (status, total) = found.get(&p.id).with_context(|| format!("order {} is missing", p.id))?;
            ensure!(status == "confirmed" && *total == p.total, "order {} is {status}, {total}", p.id);
        }
        ensure!(found.len() == mine.len(), "{} orders are there, {} were answered", found.len(), mine.len());
    }
    Ok(())
}

/// In the database: one order for each key, confirmed once, its units taken from the stock once.
fn written_once(shop: &Shop, load: &Load, placed: &[Placed]) -> Result<()> {
    let rows = shop.query(&format!(
        "SELECT c.key, c.order_id,
                (SELECT count(*) FROM orders.orders o WHERE o.id = c.order_id),
                (SELECT count(*) FROM orders.order_history h WHERE h.order_id = c.order_id AND h.status = 'confirmed'),
                (SELECT sum(-delta) FROM products.stock_ledger l WHERE l.order_id = c.order_id)
         FROM orders.claims c WHERE c.key LIKE '{}-%' ORDER BY c.key",
        load.run
    ))?;
    let mut wanted: Vec<String> =
        placed.iter().map(|p| format!("{}|{}|1|1|{}", p.key, p.id, p.units)).collect();
    wanted.sort();
    let (mut rows, count) = (rows.clone(), rows.len());
    rows.sort();
    if let Some((row, wanted)) = rows.iter().zip(&wanted).find(|(row, wanted)| row != wanted) {
        bail!("the database has key|order|orders|confirmations|units {row}, not {wanted}");
    }
    ensure!(count == wanted.len(), "the database has {count} keys, {} were answered", wanted.len());
    Ok(())
}

/// In the provider's ledger: one capture of the whole total, nothing refunded or left open.
fn paid_once(shop: &Shop, placed: &[Placed]) -> Result<()> {
    let ledger = ledger(shop)?;
    for p in placed {
        let entry = ledger.get(&p.id).with_context(|| format!("the ledger has no order {}", p.id))?;
        let amount = |field: &str| entry[field].as_u64();
        let sums = ["captured", "captures", "refunded", "open"].map(amount);
        ensure!(
            sums == [Some(p.total), Some(1), Some(0), Some(0)],
            "the ledger has {entry}, not {} once",
            p.total
        );
    }
    Ok(())
}

/// The sandbox' ledger by order id, asked from inside its network, which nothing else reaches: the edge's image has curl.
pub fn ledger(shop: &Shop) -> Result<BTreeMap<String, Value>> {
    let image = super::shop::inspect(&shop.container("edge")?, "{{.Config.Image}}")?;
    let network = format!("--network={PROJECT}_services");
    let url = "http://payment-sandbox:8090/ledger";
    let text =
        docker(&["run", "--rm", &network, "--entrypoint=curl", &image, "-fsS", "--max-time", "30", url])?;
    let ledger: Value = serde_json::from_str(&text).context("the ledger is no JSON")?;
    let items = ledger["items"].as_array().context("a ledger without items")?;
    Ok(items.iter().filter_map(|i| Some((i["order_id"].as_str()?.to_owned(), i.clone()))).collect())
}

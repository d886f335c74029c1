//! What became of the orders of a load: each is there, paid and sold exactly once, and there is no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::load::{Load, Placed, Report};
use crate::shop::{Shop, docker, wait};

/// A saga whose worker was stopped goes on once its lease of 15 s has run out.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// Orders without an answer may be there or not, but not twice.
///
/// # Errors
/// naming the first order that is missing, doubled, or not paid and sold once.
pub fn check(shop: &Shop, load: &Load, report: &Report) -> Result<()> {
    let placed = &report.placed;
    ensure!(!placed.is_empty(), "no order was placed");
    let ids: BTreeSet<&str> = placed.iter().map(|p| p.id.as_str()).collect();
    ensure!(ids.len() == placed.len(), "two answers name the same order");
    let mut listed = confirmed(shop, load)?;
    for p in placed {
        let found = listed.remove(&p.id).with_context(|| format!("order {} is missing", p.id))?;
        let wanted = Listed { customer: p.customer, status: "confirmed".to_owned(), total: p.total };
        ensure!(found == wanted, "order {} is {found:?}, not {wanted:?}", p.id);
    }
    let unanswered = written_once(shop, load, report)?;
    if let Some(id) = listed.keys().find(|id| !unanswered.contains(*id)) {
        bail!("nobody was answered order {id}");
    }
    paid_once(shop, placed)
}

#[derive(Debug, PartialEq, Eq)]
struct Listed {
    customer: usize,
    status: String,
    total: u64,
}

/// What the customers' own lists have, once no order is pending.
fn confirmed(shop: &Shop, load: &Load) -> Result<BTreeMap<String, Listed>> {
    let mut listed = BTreeMap::new();
    for (number, customer) in load.customers.iter().enumerate() {
        let mut orders = Vec::new();
        wait(SETTLED_WITHIN, || {
            orders = customer.orders(shop)?;
            Ok(orders.iter().all(|order| order["status"] != "pending"))
        })
        .context("waiting until no order is pending")?;
        for order in &orders {
            let text =
                |name: &str| order[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
            let total = order["total"]["amount"].as_u64().context("no total")?;
            let entry = Listed { customer: number, status: text("status")?, total };
            ensure!(listed.insert(text("id")?, entry).is_none(), "an order is listed twice: {order}");
        }
    }
    Ok(listed)
}

/// In the database: one order for each key, confirmed once, its units taken from the stock once.
///
/// Returns the orders of the keys without an answer.
fn written_once(shop: &Shop, load: &Load, report: &Report) -> Result<BTreeSet<String>> {
    let rows = shop.query(&format!(
        "SELECT c.key, c.order_id,
                (SELECT count(*) FROM orders.orders o WHERE o.id = c.order_id),
                (SELECT count(*) FROM orders.order_history h WHERE h.order_id = c.order_id AND h.status = 'confirmed'),
                (SELECT sum(-delta) FROM products.stock_ledger l WHERE l.order_id = c.order_id)
         FROM orders.claims c WHERE c.key LIKE '{}-%'",
        load.run
    ))?;
    let lost: BTreeSet<&str> = report.lost.iter().filter_map(|l| l.key.as_deref()).collect();
    let key = |row: &str| row.split('|').next().unwrap_or_default().to_owned();
    let (unanswered, answered): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| lost.contains(&*key(row)));
    let placed = report.placed.iter().map(|p| format!("{}|{}|1|1|{}", p.key, p.id, p.units));
    let (answered, placed) = (answered.into_iter().collect::<BTreeSet<_>>(), placed.collect::<BTreeSet<_>>());
    if let Some(row) = answered.symmetric_difference(&placed).next() {
        let side = if placed.contains(row) { "does not have" } else { "has" };
        bail!("the database {side} key|order|orders|confirmations|units {row}");
    }
    Ok(unanswered.iter().filter_map(|row| Some(row.split('|').nth(1)?.to_owned())).collect())
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

/// The sandbox's ledger by order id, asked from inside its network, which nothing else reaches.
pub fn ledger(shop: &Shop) -> Result<BTreeMap<String, Value>> {
    let image = shop.tools()?;
    let network = format!("--network={}_services", shop.project);
    let url = "http://payment-sandbox:8090/ledger";
    let text =
        docker(&["run", "--rm", &network, "--entrypoint=curl", &image, "-fsS", "--max-time", "30", url])?;
    let ledger: Value = serde_json::from_str(&text).context("the ledger is no JSON")?;
    let items = ledger["items"].as_array().context("a ledger without items")?;
    Ok(items.iter().filter_map(|i| Some((i["order_id"].as_str()?.to_owned(), i.clone()))).collect())
}

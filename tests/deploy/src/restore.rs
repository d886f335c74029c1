//! Orders outlive the shop: by their dump, and by `down` and `up`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use machine::console::seconds;
use machine::signals;
use serde_json::Value;

use crate::books;
use crate::customers::{Customer, stocked};
use crate::shop::{Shop, docker, finish, wait};

const ORDERS: usize = 5;

pub fn restore(shop: &Shop) -> Result<String> {
    let text = fs::read_to_string(shop.layout.root.join("docs/deploy.md"))?;
    let kubectl = stand_in(shop)?;
    let mut found = Vec::new();
    // The secrets and the card provider are elsewhere; in a cluster, product images too.
    let places: [(_, &[_]); 2] =
        [("on a laptop", &["postgres", "rabbitmq", "product"]), ("in a cluster", &["postgres", "rabbitmq"])];
    for ((place, disks), commands) in places.into_iter().zip(documented(&text)) {
        let [back_up, bring_back, ..] = &commands[..] else {
            bail!("docs/deploy.md has not two commands under \"Back up and restore\" {place}");
        };
        let took = lose_and_restore(shop, &kubectl, disks, back_up, bring_back).context(place)?;
        found.push(format!("{place} {}", seconds(took)));
    }
    ensure!(found.len() == 2, "docs/deploy.md has not two sections \"Back up and restore\"");
    Ok(format!(
        "{ORDERS} orders and a picture as they were after the commands; {}; a new one is paid",
        found.join(", ")
    ))
}

/// Returns how long the way back took.
fn lose_and_restore(
    shop: &Shop,
    kubectl: &Path,
    disks: &[&str],
    back_up: &str,
    bring_back: &str,
) -> Result<Duration> {
    let before = Bought::new(shop)?;
    run(shop, kubectl, back_up)?;
    shop.compose(&["down"])?;
    for name in disks {
        docker(&["volume", "rm", &format!("{}_{name}-data", shop.project)])?;
    }
    shop.start()?;
    let nobody =
        before.customer.call(shop, "POST", "/auth/login", Some(&before.customer.credentials()), 401)?;
    ensure!(nobody["code"] == "invalid_credentials", "the wiped shop answers its customer {nobody}");
    let start = Instant::now();
    run(shop, kubectl, bring_back)?;
    let took = start.elapsed();
    before.check(shop)?;
    Ok(took)
}

/// The folder of a `kubectl` that does to this shop what the cluster's commands would do to theirs: the same database, made
/// by the same script, in the same image.
fn stand_in(shop: &Shop) -> Result<PathBuf> {
    let folder = shop.layout.dir.join("kubectl");
    fs::create_dir_all(&folder)?;
    let program = folder.join("kubectl");
    fs::write(&program, KUBECTL)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

const KUBECTL: &str = r#"#!/bin/sh
set -eu
case "$*" in
    "-n dockside exec postgres-0 -- "*) shift 5; exec docker compose exec -T postgres "$@" ;;
    "-n dockside exec -i postgres-0 -- "*) shift 6; exec docker compose exec -T postgres "$@" ;;
    "-n dockside scale deployment user product order --replicas=0") exec docker compose stop user product order ;;
    "-n dockside scale deployment user product order --replicas=2") exec docker compose up --detach --wait ;;
    "-n dockside patch cronjob reconcile --patch "*true*) exec docker compose stop reconcile ;;
    # `up` has started it.
    "-n dockside patch cronjob reconcile --patch "*false*) ;;
    # `stop` has waited.
    "-n dockside wait --for=delete pod -l app in (user, product, order) --timeout=120s") ;;
    *) echo "no stand-in for kubectl $*" >&2; exit 1 ;;
esac
"#;

pub fn keep(shop: &Shop) -> Result<String> {
    let before = Bought::new(shop)?;
    shop.compose(&["down"])?;
    shop.start()?;
    before.check(shop)?;
    Ok(format!("{ORDERS} orders and a picture as they were after down and up; a new one is paid"))
}

/// A customer with orders.
struct Bought {
    customer: Customer,
    product: String,
    orders: Vec<Value>,
    /// Units of the product on the shelf.
    left: u64,
    ledger: BTreeMap<String, Value>,
}

/// A PNG of one pixel, in base64.
const PICTURE: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// Gives a product its picture, by the edge's own curl.
fn show(shop: &Shop, product: &str) -> Result<()> {
    let bearer = Customer::staff(shop)?.bearer();
    in_edge(
        shop,
        &format!(
            "echo {PICTURE} | base64 -d | curl -fsS -o /dev/null -X PUT -H 'Authorization: {bearer}' \
             -H 'Content-Type: image/png' --data-binary @- {}",
            picture(product)
        ),
    )
    .map(drop)
}

fn picture(product: &str) -> String {
    format!("http://127.0.0.1:8080/api/v1/products/{product}/images/0")
}

fn in_edge(shop: &Shop, script: &str) -> Result<String> {
    shop.compose(&["exec", "-T", "edge", "bash", "-euo", "pipefail", "-c", script])
}

impl Bought {
    /// One of the orders is cancelled and its money given back.
    fn new(shop: &Shop) -> Result<Bought> {
        let product = stocked(shop, 1, 100)?.remove(0);
        let customer = Customer::new(shop)?;
        let units = stock(shop, &customer, &product)?;
        let orders = (0..ORDERS).map(|_| customer.buys(shop, &product)).collect::<Result<Vec<_>>>()?;
        let path = format!("/orders/{}", orders[0]["id"].as_str().context("no id")?);
        customer.call(shop, "POST", &format!("{path}/cancel"), None, 200)?;
        // Its units go back to the shelf after that.
        let left = units.saturating_sub(ORDERS as u64 - 1);
        show(shop, &product)?;
        wait(Duration::from_secs(30), || {
            let refunded = customer.call(shop, "GET", &path, None, 200)?["payment"]["status"] == "refunded";
            Ok(refunded && stock(shop, &customer, &product)? == left)
        })
        .context("waiting until a cancelled order is refunded and its units are back")?;
        let (orders, ledger) = (customer.orders(shop)?, books::ledger(shop)?);
        Ok(Bought { customer, product, orders, left, ledger })
    }

    /// # Errors
    /// when the customer cannot sign in, an order differs in anything, or a new one is not bought.
    fn check(&self, shop: &Shop) -> Result<()> {
        self.customer.sign_in(shop)?;
        let orders = self.customer.orders(shop)?;
        ensure!(orders.len() == ORDERS, "{} of {ORDERS} orders are there", orders.len());
        for (was, is) in self.orders.iter().zip(&orders) {
            ensure!(was == is, "an order was {was} and is {is}");
        }
        let left = stock(shop, &self.customer, &self.product)?;
        ensure!(left == self.left, "{} units were left and {left} are", self.left);
        let picture = in_edge(shop, &format!("curl -fsS {} | base64 -w 0", picture(&self.product)))?;
        ensure!(picture.trim() == PICTURE, "the product's picture was {PICTURE} and is {picture}");
        self.customer.buys(shop, &self.product)?;
        let ledger = books::ledger(shop)?;
        ensure!(
            self.ledger.iter().all(|(id, entry)| ledger.get(id) == Some(entry)),
            "payments were made again"
        );
        ensure!(
            ledger.len() == self.ledger.len() + 1,
            "{} payments for one order",
            ledger.len() - self.ledger.len()
        );
        Ok(())
    }
}

fn stock(shop: &Shop, customer: &Customer, product: &str) -> Result<u64> {
    let product = customer.call(shop, "GET", &format!("/products/{product}"), None, 200)?;
    product["stock"]["available"].as_u64().context("no stock")
}

/// The commands of each section "Back up and restore", as they stand there: the laptop's, the cluster's.
fn documented(text: &str) -> Vec<Vec<String>> {
    let commands = |section: &str| {
        let section = section.split("\n#").next().unwrap_or_default();
        let blocks = section.split("```sh\n").skip(1);
        blocks.filter_map(|block| Some(block.split_once("```")?.0.to_owned())).collect()
    };
    text.split("\n### Back up and restore\n").skip(1).map(commands).collect()
}

/// Runs commands as somebody would who pastes them, but stops at the first that fails.
fn run(shop: &Shop, kubectl: &Path, commands: &str) -> Result<()> {
    let commands = format!("PATH=\"$0:$PATH\"\n{commands}");
    finish(shop.command("sh").args(["-euc", &commands]).arg(kubectl), signals::stop_asked).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_each_section_are_read() {
        let section = "\n### Back up and restore\n\n```sh\na\n```\n\nor\n\n```sh\nb\nc\n```\n\n### X\n\n```sh\nd\n```\n";
        assert_eq!(documented(&section.repeat(2)), [["a\n", "b\nc\n"], ["a\n", "b\nc\n"]]);
    }
}

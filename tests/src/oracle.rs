//! What must be true of a shop that has come to rest, whatever was done to it before. Everything here is read
//! without the services: from the database, the provider's own ledger and the broker's queues.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Context;
use messaging::topology::Topology;
use operator::dlq;
use serde_json::Value;
use uuid::Uuid;

use crate::Shop;
use crate::chaos::inject::DeadLetter;
use crate::chaos::load::{Goods, Wish};

/// Who subscribes to what; written down a second time on purpose.
const SUBSCRIBERS: [(&str, &str, &[&str]); 4] = [
    (
        "orders",
        "users",
        &[
            "order.placed.v1",
            "order.confirmed.v1",
            "order.cancelled.v1",
            "order.shipped.v1",
            "order.delivered.v1",
            "order.refunded.v1",
        ],
    ),
    ("orders", "products", &["order.cancelled.v1", "order.refunded.v1"]),
    ("products", "orders", &["product.updated.v1"]),
    ("users", "orders", &["user.deleted.v1"]),
];

fn consumer(schema: &str) -> &str {
    schema.trim_end_matches('s')
}

/// Waits until nothing is under way any more. The error says what still is.
pub async fn at_rest(shop: &Shop, limit: Duration) -> Result<Duration, Vec<String>> {
    let begun = Instant::now();
    loop {
        let left = match tokio::time::timeout(Duration::from_secs(20), unfinished(shop)).await {
            Ok(Ok(left)) => left,
            Ok(Err(error)) => vec![format!("the database cannot be asked: {error:#}")],
            Err(_) => vec!["the database does not answer".to_owned()],
        };
        if left.is_empty() {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > limit {
            return Err(left);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn unfinished(shop: &Shop) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    let counts = [
        ("orders are pending", "SELECT count(*) FROM orders.orders WHERE status = 'pending'"),
        ("sagas have work to do", "SELECT count(*) FROM orders.sagas WHERE busy OR news > news_read"),
        ("refunds are pending", "SELECT count(*) FROM orders.refunds WHERE status = 'pending'"),
        ("reservations are open", "SELECT count(*) FROM products.reservations WHERE state = 'reserved'"),
        ("units are reserved", "SELECT COALESCE(sum(reserved), 0)::bigint FROM products.stock"),
        ("events of order wait", "SELECT count(*) FROM orders.outbox WHERE published_at IS NULL"),
        ("events of product wait", "SELECT count(*) FROM products.outbox WHERE published_at IS NULL"),
        ("events of user wait", "SELECT count(*) FROM users.outbox WHERE published_at IS NULL"),
    ];
    for (what, sql) in counts {
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&shop.database).await?;
        if count != 0 {
            left.push(format!("{count} {what}"));
        }
    }
    for (from, to, _) in SUBSCRIBERS {
        let lost = lacking(shop, from, to).await?;
        if lost != 0 {
            left.push(format!("{lost} events of {from} are not applied by {}", consumer(to)));
        }
    }
    Ok(left)
}

/// Published events that a subscriber has no inbox row of. Its key makes two rows of one impossible.
async fn lacking(shop: &Shop, from: &str, to: &str) -> sqlx::Result<i64> {
    let kinds = SUBSCRIBERS
        .iter()
        .find(|(f, t, _)| *f == from && *t == to)
        .map_or(&[] as &[&str], |(.., kinds)| kinds);
    let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let sql = format!(
        "SELECT count(*) FROM {from}.outbox o WHERE o.type = ANY($1) AND o.published_at IS NOT NULL
           AND NOT EXISTS (SELECT FROM {to}.inbox i WHERE i.consumer = $2 AND i.event_id = o.id)"
    );
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(kinds)
        .bind(consumer(to))
        .fetch_one(&shop.database)
        .await
}

/// Every promise that a shop at rest breaks, in words; empty when it keeps them all.
pub async fn broken(
    shop: &Shop,
    goods: &Goods,
    wishes: &[Wish],
    expected: &ExpectedDeadLetters,
) -> anyhow::Result<Vec<String>> {
    let mut broken = Vec::new();
    orders_of(shop, wishes, &mut broken).await.context("comparing the journal with the orders")?;
    money(shop, wishes, &mut broken).await.context("comparing the orders with the provider's ledger")?;
    stock(shop, goods, &mut broken).await.context("comparing the orders with the stock")?;
    dead_letters(shop, expected, &mut broken).await.context("reading the dead letters")?;
    Ok(broken)
}

/// No order that was answered for is missing, and none is there that nobody asked for.
async fn orders_of(shop: &Shop, wishes: &[Wish], broken: &mut Vec<String>) -> anyhow::Result<()> {
    let users: HashSet<Uuid> = wishes.iter().map(|wish| wish.user).collect();
    let users: Vec<Uuid> = users.into_iter().collect();
    let sql = "SELECT o.id, o.user_id, c.key, o.status FROM orders.orders o
               LEFT JOIN orders.claims c ON c.order_id = o.id WHERE o.user_id = ANY($1)";
    let rows: Vec<(Uuid, Uuid, Option<String>, String)> =
        sqlx::query_as(sql).bind(&users).fetch_all(&shop.database).await?;
    let mut placed: HashMap<(Uuid, String), Uuid> = HashMap::new();
    for (id, user, key, status) in &rows {
        match key {
            None => broken.push(format!("order {id} has no key")),
            Some(key) => {
                if let Some(other) = placed.insert((*user, key.clone()), *id) {
                    broken.push(format!("two orders under one key: {id} and {other}"));
                }
            }
        }
        if !["confirmed", "partially_shipped", "shipped", "delivered", "cancelled"].contains(&status.as_str())
        {
            broken.push(format!("order {id} is {status}"));
        }
    }
    for wish in wishes {
        let order = placed.remove(&(wish.user, wish.key.clone()));
        match (&wish.outcome, order) {
            (Some(Ok(answered)), Some(order)) if *answered == order => {}
            (Some(Ok(answered)), Some(order)) => {
                broken.push(format!("{}: answered {answered}, placed {order}", wish.key))
            }
            (Some(Ok(answered)), None) => broken.push(format!("{}: order {answered} is lost", wish.key)),
            (Some(Err(code)), Some(order)) => {
                broken.push(format!("{}: refused ({code}), and yet {order}", wish.key))
            }
            (None, _) => broken.push(format!("{}: nobody answered", wish.key)),
            (Some(Err(_)), None) => {}
        }
    }
    for ((_, key), order) in placed {
        broken.push(format!("order {order} under {key} is not in the journal"));
    }
    Ok(())
}

/// Events that a subscriber has applied and that nobody can have sent: of an abandoned timeline.
pub async fn phantoms(shop: &Shop) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for schema in ["orders", "products", "users"] {
        let sql = format!(
            "SELECT i.event_id FROM {schema}.inbox i
             WHERE NOT EXISTS (SELECT FROM orders.outbox o WHERE o.id = i.event_id)
               AND NOT EXISTS (SELECT FROM products.outbox o WHERE o.id = i.event_id)
               AND NOT EXISTS (SELECT FROM users.outbox o WHERE o.id = i.event_id)"
        );
        let ids: Vec<Uuid> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&shop.database).await?;
        let consumer = consumer(schema);
        all.extend(ids.iter().map(|id| format!("{consumer} has applied event {id}, which nobody sent")));
    }
    Ok(all)
}

#[derive(Default)]
struct Sums {
    captured: i64,
    refunded: i64,
    open: i64,
    captures: i64,
}

async fn money(shop: &Shop, wishes: &[Wish], broken: &mut Vec<String>) -> anyhow::Result<()> {
    let ledger: Value = shop
        .client
        .get(format!("{}/ledger", shop.sandbox))
        .timeout(Duration::from_secs(60))
        .send()
        .await?
        .json()
        .await?;
    let mut sums = BTreeMap::new();
    for item in ledger["items"].as_array().context("the ledger has items")? {
        let number = |name: &str| item[name].as_i64().unwrap_or(i64::MIN);
        let order = item["order_id"].as_str().and_then(|id| id.parse::<Uuid>().ok());
        let of = Sums {
            captured: number("captured"),
            refunded: number("refunded"),
            open: number("open"),
            captures: number("captures"),
        };
        sums.extend(order.map(|order| (order, of)));
    }
    let users: HashSet<Uuid> = wishes.iter().map(|wish| wish.user).collect();
    let users: Vec<Uuid> = users.into_iter().collect();
    let sql = "SELECT id, status, total, refunded FROM orders.orders WHERE user_id = ANY($1)";
    let orders: Vec<(Uuid, String, i64, i64)> =
        sqlx::query_as(sql).bind(&users).fetch_all(&shop.database).await?;
    for (id, status, total, refunded) in orders {
        let sums = sums.remove(&id).unwrap_or_default();
        let Sums { captured, refunded: back, open, captures } = sums;
        let right = match status.as_str() {
            "cancelled" => captured == back && captures <= 1,
            _ => captured == total && captures == i64::from(total > 0) && back == refunded,
        };
        if !right || open != 0 {
            broken.push(format!(
                "order {id} is {status}, total {total}, refunded {refunded}; the provider captured {captured} in {captures}, refunded {back}, holds {open}"
            ));
        }
    }
    // Those of others, of runs before this one, are settled all the same.
    for (id, sums) in sums {
        let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM orders.orders WHERE id = $1)")
            .bind(id)
            .fetch_one(&shop.database)
            .await?;
        if !known && (sums.captured != sums.refunded || sums.open != 0) {
            broken.push(format!("the provider has money of an order that is not there: {id}"));
        }
    }
    Ok(())
}

async fn stock(shop: &Shop, goods: &Goods, broken: &mut Vec<String>) -> anyhow::Result<()> {
    let sold = "SELECT i.product_id, sum(i.quantity)::bigint FROM orders.order_items i
                JOIN orders.orders o ON o.id = i.order_id WHERE o.status <> 'cancelled' GROUP BY 1";
    let sold: Vec<(Uuid, i64)> = sqlx::query_as(sold).fetch_all(&shop.database).await?;
    let sold: HashMap<Uuid, i64> = sold.into_iter().collect();
    // Units that refunds have put back.
    let restocked = "SELECT (line->>'product_id')::uuid, sum((line->>'quantity')::bigint)::bigint
                     FROM orders.refunds r JOIN orders.orders o ON o.id = r.order_id, jsonb_array_elements(r.restock) line
                     WHERE r.told AND o.status <> 'cancelled' GROUP BY 1";
    let restocked: Vec<(Uuid, i64)> = sqlx::query_as(restocked).fetch_all(&shop.database).await?;
    let restocked: HashMap<Uuid, i64> = restocked.into_iter().collect();
    let levels = "SELECT s.product_id, s.on_hand::bigint, s.reserved::bigint,
                         (SELECT COALESCE(sum(delta), 0)::bigint FROM products.stock_ledger l WHERE l.product_id = s.product_id)
                  FROM products.stock s";
    let levels: Vec<(Uuid, i64, i64, i64)> = sqlx::query_as(levels).fetch_all(&shop.database).await?;
    let initial: HashMap<Uuid, u32> = goods.all().collect();
    for (product, on_hand, reserved, ledger) in levels {
        if on_hand < 0 || reserved != 0 || on_hand != ledger {
            broken
                .push(format!("product {product}: on hand {on_hand}, reserved {reserved}, ledger {ledger}"));
        }
        let count = |of: &HashMap<Uuid, i64>| of.get(&product).copied().unwrap_or(0);
        if let Some(initial) = initial.get(&product).copied().map(i64::from) {
            let (sold, back) = (count(&sold), count(&restocked));
            if on_hand + sold - back != initial {
                broken.push(format!(
                    "product {product}: {initial} at first, {sold} sold, {back} back, {on_hand} on hand"
                ));
            }
        }
    }
    Ok(())
}

/// The dead letters that must be there, and those that may be.
#[derive(Clone, Debug, Default)]
pub struct ExpectedDeadLetters {
    pub must: BTreeSet<DeadLetter>,
    pub may: BTreeSet<DeadLetter>,
}

async fn dead_letters(
    shop: &Shop,
    expected: &ExpectedDeadLetters,
    broken: &mut Vec<String>,
) -> anyhow::Result<()> {
    let found = found_dead(shop).await?;
    let known = |dead: &DeadLetter| expected.may.contains(dead) || expected.must.contains(dead);
    for dead in found.iter().filter(|dead| !known(dead)) {
        broken.push(format!("{} has a dead letter that nobody injected: {}", dead.0, dead.1));
    }
    for dead in expected.must.difference(&found) {
        broken.push(format!("{} has lost a dead letter: {}", dead.0, dead.1));
    }
    Ok(())
}

/// All dead letters. They stay. One may be there twice: its consumer died before it acknowledged the
/// original.
pub async fn found_dead(shop: &Shop) -> anyhow::Result<BTreeSet<DeadLetter>> {
    let topology = Topology::new(&shop.broker_url, "dockside", proto::events::SUBSCRIPTIONS);
    let list = dlq::list(&topology, &["user", "product", "order"], usize::MAX);
    let list =
        tokio::time::timeout(Duration::from_secs(60), list).await.context("the broker does not answer")??;
    let named = |dead: dlq::DeadLetter| (dead.service.to_owned(), dead.id.parse().unwrap_or_default());
    Ok(list.dead_letters.into_iter().map(named).collect())
}

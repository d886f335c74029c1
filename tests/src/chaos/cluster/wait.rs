//! The trap of synchronous replication: a commit that is cancelled while it waits for the standby is committed, here
//! and nowhere else, and its client hears of a success with a warning.
//! <https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION>

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context;
use sqlx::{Connection as _, PgConnection};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::inject::Found;
use super::machines::{Cluster, DATABASE, Roles};
use crate::{Shop, send};

/// Longer than two statements of the services may take, 10 s each.
const WAIT: Duration = Duration::from_secs(25);
/// For an order that nobody has answered for to be found out about.
const PATIENCE: Duration = Duration::from_secs(60);

/// The standby gets nothing from the primary, so that commits wait. Then the primary dies for good and the
/// standby takes over. An order whose answer was "unknown" is repeated under its key, until there is an
/// answer; none that was answered may be lost.
pub async fn scene(shop: &Shop, cluster: &Cluster, roles: &Roles, found: &mut Found) -> anyhow::Result<()> {
    let primary = roles.primary.as_deref().context("no primary")?;
    let standby = roles.synchronous.as_deref().context("no standby confirms commits")?;
    let product = shop.product(1000).await;
    let buyer = shop.customer().await;
    let machine = cluster.machine(primary).context("no such machine")?;
    let mut here = PgConnection::connect(&cluster.url(&machine.address, DATABASE)).await?;
    // PostgreSQL's own time, which is longer than this cluster's.
    sqlx::query("ALTER SYSTEM SET wal_sender_timeout = '60s'").execute(&mut here).await?;
    sqlx::query("SELECT pg_reload_conf()").execute(&mut here).await?;
    sleep(Duration::from_millis(500)).await;

    // Not frozen: its kernel would take the log for it, and no commit would be lost.
    cluster.part(standby, primary)?;
    let key = Uuid::now_v7().to_string();
    let cancelled = cancel_one(cluster, &machine.address);
    let asked = async {
        let begun = Instant::now();
        let (mut answers, mut granted) = (Vec::new(), BTreeSet::new());
        while begun.elapsed() < WAIT {
            let order = buyer.order(&key, product, 1, "pm_card_visa");
            let answer = timeout(WAIT.saturating_sub(begun.elapsed()), send(order)).await;
            let answer = answer.ok().and_then(Result::ok);
            answers.push(answer.as_ref().map_or(0, |answer| answer.status.as_u16()));
            granted.extend(answer.filter(|answer| answer.status.as_u16() == 201).map(|answer| answer.id()));
            sleep(Duration::from_millis(500)).await;
        }
        (answers, granted)
    };
    let (cancelled, (answers, granted)) = tokio::join!(cancelled, asked);
    // The other standby has it all, and may not take over, as no commit has waited for it.
    let dead = cluster.power_off(primary);
    cluster.mend(&[standby])?;
    dead?;
    found.notes.push(format!("while commits waited, an order was answered by {answers:?} (0: nothing)"));

    let begun = Instant::now();
    let order = loop {
        let answer = send(buyer.order(&key, product, 1, "pm_card_visa")).await;
        match answer {
            Ok(answer) if answer.status.as_u16() == 201 => break Some(answer.id()),
            _ if begun.elapsed() > PATIENCE => break None,
            _ => sleep(Duration::from_millis(250)).await,
        }
    };
    match &order {
        Some(order) => {
            let seconds = begun.elapsed().as_secs_f64();
            found.notes.push(format!("its key found out after {seconds:.1} s that it is {order}"));
        }
        None => found.broken.push(format!("an order under key {key} never had an answer")),
    }
    // One key, one order, whenever it was answered.
    let granted: BTreeSet<String> = granted.into_iter().chain(order).collect();
    if granted.len() > 1 {
        found.broken.push(format!("key {key} had several orders: {granted:?}"));
    }
    for order in &granted {
        if !there(shop, order).await {
            found.broken.push(format!("order {order}, which was answered for, is lost"));
        }
    }
    match cancelled? {
        Some(id) if is_lost(shop, id).await => found.notes.push(
            "a commit that pg_cancel_backend ended was a success to its client, and is lost, as PostgreSQL says"
                .to_owned(),
        ),
        Some(_) => found.notes.push("a commit that pg_cancel_backend ended reached the standby".to_owned()),
        None => found.notes.push("no commit was there to be cancelled".to_owned()),
    }
    cluster.power_on(primary)?;
    reset(cluster, primary).await
}

/// A write of our own that waits, and is cancelled: its id, when its client was told of a success.
async fn cancel_one(cluster: &Cluster, address: &str) -> anyhow::Result<Option<Uuid>> {
    let url = cluster.url(address, DATABASE);
    let (mut writer, mut operator) = (PgConnection::connect(&url).await?, PgConnection::connect(&url).await?);
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut writer).await?;
    let id = Uuid::now_v7();
    let write = sqlx::query("INSERT INTO chaos.cancelled (id) VALUES ($1)").bind(id);
    let cancel = async {
        sleep(Duration::from_secs(3)).await;
        sqlx::query("SELECT pg_cancel_backend($1)").bind(pid).execute(&mut operator).await
    };
    let (written, cancelled) = tokio::join!(timeout(WAIT, write.execute(&mut writer)), cancel);
    cancelled?;
    Ok(matches!(written, Ok(Ok(_))).then_some(id))
}

async fn is_lost(shop: &Shop, id: Uuid) -> bool {
    let sql = "SELECT EXISTS (SELECT FROM chaos.cancelled WHERE id = $1)";
    let there = super::answer(async || sqlx::query_scalar(sql).bind(id).fetch_one(&shop.database).await);
    matches!(there.await, Ok(false))
}

async fn there(shop: &Shop, order: &str) -> bool {
    let Ok(id) = order.parse::<Uuid>() else { return false };
    let sql = "SELECT EXISTS (SELECT FROM orders.orders WHERE id = $1)";
    let there = super::answer(async || sqlx::query_scalar(sql).bind(id).fetch_one(&shop.database).await);
    matches!(there.await, Ok(true))
}

/// The cluster's own time again, on the machine that had PostgreSQL's.
async fn reset(cluster: &Cluster, machine: &str) -> anyhow::Result<()> {
    let machine = cluster.machine(machine).context("no such machine")?;
    let url = cluster.url(&machine.address, DATABASE);
    let begun = Instant::now();
    loop {
        let reset = async {
            let mut database = PgConnection::connect(&url).await?;
            sqlx::query("ALTER SYSTEM RESET wal_sender_timeout").execute(&mut database).await?;
            sqlx::query("SELECT pg_reload_conf()").execute(&mut database).await
        };
        match timeout(Duration::from_secs(2), reset).await {
            Ok(Ok(_)) => return Ok(()),
            other if begun.elapsed() > PATIENCE => {
                anyhow::bail!("{} cannot be reset: {other:?}", machine.name)
            }
            _ => sleep(Duration::from_millis(500)).await,
        }
    }
}

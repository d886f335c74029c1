//! Orders against what the payment provider has, and the other way round.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::orders::Order;
use super::{About, Difference, Options, Remedy};
use crate::provider::{Dispute, Money, Payment, Provider};

/// Questions under way at the same time.
const AT_ONCE: usize = 16;
/// Of a hundred payments each.
const MOST_PAGES: usize = 100_000;

/// How many payments were asked about, and what differs. `orders` are at rest.
pub(super) async fn compare(
    database: &PgPool,
    provider: &Provider,
    orders: &[Order],
) -> Result<(usize, Vec<Difference>)> {
    let paid = orders.iter().filter(|order| order.intent.is_some());
    let asked = paid.clone().count();
    let answers = stream::iter(paid).map(|order| async move {
        let intent = order.intent.as_deref().unwrap_or_default();
        let money = provider.money(intent).await?;
        Ok::<_, anyhow::Error>((order, difference(order, intent, money.as_ref())))
    });
    let answers: Vec<(&Order, Option<Difference>)> = answers.buffer_unordered(AT_ONCE).try_collect().await?;
    let mut found: Vec<(&Order, Difference)> =
        answers.into_iter().filter_map(|(order, difference)| Some((order, difference?))).collect();
    let unpaid = orders.iter().filter(|order| {
        // What costs nothing needs no payment.
        order.intent.is_none() && order.status != "cancelled" && order.total > 0
    });
    found.extend(unpaid.map(|order| {
        let remedy = Remedy::nothing("look for its id in the metadata of the provider's payments");
        (order, is(order, format!("is {} without a payment", order.status), remedy))
    }));
    // The provider's answer is newer than the orders: what moved meanwhile may well agree.
    let (ids, versions): (Vec<Uuid>, Vec<i64>) = found.iter().map(|(o, _)| (o.id, o.version)).unzip();
    let unmoved: Vec<Uuid> = sqlx::query_scalar(
        "SELECT o.id FROM UNNEST($1::uuid[], $2::bigint[]) AS seen (id, version)
         JOIN orders.orders o USING (id, version) JOIN orders.sagas s ON s.order_id = o.id
         WHERE NOT s.busy AND s.news <= s.news_read",
    )
    .bind(&ids)
    .bind(&versions)
    .fetch_all(database)
    .await?;
    let mut differences: Vec<Difference> = found.into_iter().map(|(_, difference)| difference).collect();
    differences.retain(|difference| unmoved.contains(&difference.id));
    differences.sort_by_key(|difference| difference.id);
    Ok((asked, differences))
}

fn difference(order: &Order, intent: &str, money: Option<&Money>) -> Option<Difference> {
    let at_provider = Remedy::nothing("look the payment up at the provider");
    let Some(money) = money else {
        return Some(is(order, format!("its payment {intent} is unknown to the provider"), at_provider));
    };
    let reschedule = Remedy::Reschedule { order: order.id };
    let Money { captured, refunded, held, .. } = *money;
    if !money.currency.eq_ignore_ascii_case(&order.currency) {
        let what = format!("is in {}, its payment {intent} in {}", order.currency, money.currency);
        return Some(is(order, what, at_provider));
    }
    if money.has_more_refunds {
        return Some(is(
            order,
            format!("its payment {intent} has more refunds than are read here"),
            at_provider,
        ));
    }
    if money.is_odd {
        let what = format!(
            "is for {}, and the provider has taken {captured} in its own units ({intent})",
            order.total
        );
        return Some(is(order, what, at_provider));
    }
    if order.status == "cancelled" {
        return match (captured - refunded, held) {
            (0, 0) => (refunded != order.refunded).then(|| {
                let what = format!("says {} went back, the provider {refunded} ({intent})", order.refunded);
                is(order, what, reschedule)
            }),
            (0, _) => {
                Some(is(order, format!("is cancelled, and {held} are still held ({intent})"), reschedule))
            }
            // Nothing can go back that the customer's bank has, or has given back itself.
            (kept, _) if matches!(order.dispute.as_deref(), Some("open" | "lost")) && kept > 0 => None,
            (kept, _) => Some(is(order, format!("is cancelled, and {kept} are kept ({intent})"), reschedule)),
        };
    }
    if captured != order.total {
        let what = format!(
            "is {} for {}, and the provider has captured {captured} ({intent} is {})",
            order.status, order.total, money.status
        );
        return Some(is(order, what, at_provider));
    }
    (refunded != order.refunded).then(|| {
        let what = format!("says {} went back, the provider {refunded} ({intent})", order.refunded);
        is(order, what, reschedule)
    })
}

fn is(order: &Order, what: String, remedy: Remedy) -> Difference {
    Difference { about: About::Money, id: order.id, what, remedy }
}

#[derive(FromRow)]
struct Ownerless {
    intent: String,
    order_id: Uuid,
    /// None: there is no such order.
    status: Option<String>,
    /// Of that order.
    own_intent: Option<String>,
}

/// Money at the provider that no order accounts for, of payments made within `since` and before the grace.
pub(super) async fn ownerless(
    database: &PgPool,
    provider: &Provider,
    options: &Options,
) -> Result<Vec<Difference>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let since = options.since.map(|since| now.saturating_sub(since.as_secs()));
    let until = now.saturating_sub(options.grace.as_secs());
    let (mut found, mut last) = (Vec::new(), None::<String>);
    for _ in 0..MOST_PAGES {
        let page = provider.payments(since, last.as_deref()).await?;
        let listed: Vec<Payment> = page.payments.into_iter().filter(|one| one.created <= until).collect();
        found.extend(without_order(database, &listed).await?);
        last = page.next;
        if last.is_none() {
            let answers = stream::iter(found).map(|one| one.difference(provider));
            let answers: Vec<_> = answers.buffer_unordered(AT_ONCE).try_collect().await?;
            let mut differences: Vec<Difference> = answers.into_iter().flatten().collect();
            differences.sort_by(|a, b| (a.id, &a.what).cmp(&(b.id, &b.what)));
            return Ok(differences);
        }
    }
    bail!("the provider has more payments than this reads")
}

/// Disputes at the provider, opened within `since` and before the grace, that their orders don't know as they are.
pub(super) async fn disputes(
    database: &PgPool,
    provider: &Provider,
    options: &Options,
) -> Result<Vec<Difference>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let since = options.since.map(|since| now.saturating_sub(since.as_secs()));
    let until = now.saturating_sub(options.grace.as_secs());
    let (mut differences, mut last) = (Vec::new(), None::<String>);
    for _ in 0..MOST_PAGES {
        let (page, next) = provider.disputes(since, last.as_deref()).await?;
        let listed: Vec<Dispute> = page.into_iter().filter(|one| one.created <= until).collect();
        let intents: Vec<&str> = listed.iter().filter_map(|one| one.payment_intent.as_deref()).collect();
        let known: Vec<(String, Uuid, Option<String>)> = sqlx::query_as(
            "SELECT s.intent_id, o.id, o.dispute FROM orders.sagas s JOIN orders.orders o ON o.id = s.order_id
             WHERE s.intent_id = ANY($1) AND s.news <= s.news_read",
        )
        .bind(&intents)
        .fetch_all(database)
        .await?;
        for (intent, order, dispute) in known {
            let mut of_order = listed.iter().filter(|one| one.payment_intent.as_ref() == Some(&intent));
            let open = of_order.clone().find(|one| is_open(&one.status));
            let Some(found) = open.or_else(|| of_order.next()) else { continue };
            // A decided one may be one of several; see `decided`.
            let agrees = dispute.as_deref().is_some_and(|dispute| open.is_none() || dispute == "open");
            if !agrees {
                let what = format!("its payment {intent} is disputed ({} is {})", found.id, found.status);
                let remedy = Remedy::Reschedule { order };
                differences.push(Difference { about: About::Money, id: order, what, remedy });
            }
        }
        last = next;
        if last.is_none() {
            differences.extend(decided(database, provider).await?);
            differences.sort_by_key(|difference| difference.id);
            return Ok(differences);
        }
    }
    bail!("the provider has more disputes than this reads")
}

/// Orders whose dispute is open, however old it is, and is decided at the provider: weeks go by until then.
async fn decided(database: &PgPool, provider: &Provider) -> Result<Vec<Difference>> {
    let open: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT o.id, s.intent_id FROM orders.orders o JOIN orders.sagas s ON s.order_id = o.id
         WHERE o.dispute = 'open' AND s.intent_id IS NOT NULL AND s.news <= s.news_read",
    )
    .fetch_all(database)
    .await?;
    let answers = stream::iter(open).map(|(order, intent)| async move {
        let disputes = provider.disputes_of(&intent).await?;
        let decided = disputes.first().filter(|_| disputes.iter().all(|one| !is_open(&one.status)));
        Ok::<_, anyhow::Error>(decided.map(|one| Difference {
            about: About::Money,
            id: order,
            what: format!("its dispute is open, and decided at the provider ({} is {})", one.id, one.status),
            remedy: Remedy::Reschedule { order },
        }))
    });
    let answers: Vec<_> = answers.buffer_unordered(AT_ONCE).try_collect().await?;
    let mut found: Vec<Difference> = answers.into_iter().flatten().collect();
    // The provider's answer is newer than the orders: its report may have come meanwhile.
    let ids: Vec<Uuid> = found.iter().map(|difference| difference.id).collect();
    let still: Vec<Uuid> = sqlx::query_scalar(
        "SELECT o.id FROM orders.orders o JOIN orders.sagas s ON s.order_id = o.id
         WHERE o.id = ANY($1) AND o.dispute = 'open' AND s.news <= s.news_read",
    )
    .bind(&ids)
    .fetch_all(database)
    .await?;
    found.retain(|difference| still.contains(&difference.id));
    Ok(found)
}

fn is_open(status: &str) -> bool {
    !matches!(status, "won" | "lost" | "warning_closed" | "prevented")
}

/// Those whose order is not there, or has another payment. The orders are read after the provider's list: it has no
/// payment of an order that is not committed.
async fn without_order(database: &PgPool, listed: &[Payment]) -> sqlx::Result<Vec<Ownerless>> {
    if listed.is_empty() {
        return Ok(Vec::new());
    }
    let (intents, orders): (Vec<&str>, Vec<Uuid>) =
        listed.iter().map(|one| (one.intent.as_str(), one.order)).unzip();
    // Left out: an order that a retry may place again under this id, as it may until its claim is swept, and one
    // whose saga is about to ask for its payment's id once more.
    sqlx::query_as(
        "SELECT p.intent, p.order_id, o.status, s.intent_id AS own_intent
         FROM UNNEST($1::text[], $2::uuid[]) AS p (intent, order_id)
         LEFT JOIN orders.orders o ON o.id = p.order_id
         LEFT JOIN orders.sagas s ON s.order_id = p.order_id
         LEFT JOIN orders.claims c ON c.order_id = p.order_id AND c.answer_status IS NULL AND NOT c.swept
         WHERE (o.id IS NULL AND c.order_id IS NULL)
            OR (o.id IS NOT NULL AND s.intent_id IS DISTINCT FROM p.intent
                AND NOT COALESCE(s.intent_id IS NULL AND (s.busy OR s.news > s.news_read), false))",
    )
    .bind(&intents)
    .bind(&orders)
    .fetch_all(database)
    .await
}

impl Ownerless {
    /// `None` when by now all of its money is back.
    async fn difference(self, provider: &Provider) -> Result<Option<Difference>> {
        let Self { intent, order_id, status, own_intent } = self;
        let Some(money) = provider.money(&intent).await? else { return Ok(None) };
        let Money { captured, refunded, held, .. } = money;
        let has = match (captured - refunded, held) {
            _ if money.has_more_refunds => "has more refunds than are read here".to_owned(),
            (0, 0) if money.status == "processing" => "may yet take money".to_owned(),
            (0, 0) => return Ok(None),
            (0, _) => format!("holds {held}"),
            (kept, _) => format!("keeps {kept}"),
        };
        let (whose, hint) = match (status, own_intent) {
            (None, _) => (
                "there is no such order".to_owned(),
                "look for the order, in a backup and in the logs; then refund or cancel the payment at the provider",
            ),
            (Some(status), Some(own)) => (
                format!("the order, which is {status}, has the payment {own}"),
                "look at both; refund or cancel at the provider what is one too many",
            ),
            (Some(status), None) => (
                format!("the order, which is {status}, has no payment"),
                "if it is the order's, write its id back to orders.sagas and reschedule the saga",
            ),
        };
        let what = format!("the provider's payment {intent} {has}, and {whose}");
        Ok(Some(Difference { about: About::Money, id: order_id, what, remedy: Remedy::nothing(hint) }))
    }
}

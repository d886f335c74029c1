//! Orders against what the payment provider has.

use anyhow::Result;
use futures_util::{StreamExt, TryStreamExt, stream};
use sqlx::PgPool;
use uuid::Uuid;

use super::orders::Order;
use super::{About, Difference, Remedy};
use crate::provider::{Money, Provider};

/// Questions under way at the same time.
const AT_ONCE: usize = 16;

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
    let unpaid = orders.iter().filter(|order| order.intent.is_none() && order.status != "cancelled");
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
    let nudge = Remedy::Nudge { order: order.id };
    let Money { captured, refunded, held, .. } = *money;
    if !money.currency.eq_ignore_ascii_case(&order.currency) {
        let what = format!("is in {}, its payment {intent} in {}", order.currency, money.currency);
        return Some(is(order, what, at_provider));
    }
    if order.status == "cancelled" {
        return match (captured - refunded, held) {
            (0, 0) => (refunded != order.refunded).then(|| {
                let what = format!("says {} went back, the provider {refunded} ({intent})", order.refunded);
                is(order, what, nudge)
            }),
            (0, _) => Some(is(order, format!("is cancelled, and {held} are still held ({intent})"), nudge)),
            (kept, _) => Some(is(order, format!("is cancelled, and {kept} are kept ({intent})"), nudge)),
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
        is(order, what, nudge)
    })
}

fn is(order: &Order, what: String, remedy: Remedy) -> Difference {
    Difference { about: About::Money, id: order.id, what, remedy }
}

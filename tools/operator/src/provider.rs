//! The payment provider's own view, over Stripe's API.
//! <https://docs.stripe.com/api/payment_intents/retrieve>
//! <https://docs.stripe.com/api/payment_intents/list>
//! <https://docs.stripe.com/api/refunds/list>
//! <https://docs.stripe.com/api/disputes/list>

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use service::money::Currency;
use uuid::Uuid;

const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// As the order service asks: <https://docs.stripe.com/upgrades>.
const API_VERSION: &str = "2025-08-27.basil";
/// Of one question, with pauses of 0.5 and 1 s between them.
const TRIES: u32 = 3;
/// Of a hundred refunds each, as in the order service.
const MOST_PAGES: usize = 100;

pub struct Provider {
    client: reqwest::Client,
    url: String,
    secret_key: String,
}

/// What the provider has of an order's money, in minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Money {
    /// As the provider names it, e.g. `succeeded`.
    pub status: String,
    /// ISO 4217, lower case.
    pub currency: String,
    pub captured: i64,
    /// Held, neither captured nor let go.
    pub held: i64,
    /// Gone back, of those refunds that succeeded.
    pub refunded: i64,
    /// It has more refunds than are read.
    pub has_more_refunds: bool,
    /// One of these is no whole number of minor units, so it is shown as the provider counts it.
    pub is_odd: bool,
}

/// A payment that had money when it was listed, or may yet take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    pub intent: String,
    /// Whose it is, by its `metadata.order_id`.
    pub order: Uuid,
    /// Unix seconds.
    pub created: u64,
}

/// Of the provider's list of payments.
#[derive(Clone, Debug)]
pub struct Page {
    pub payments: Vec<Payment>,
    /// What the next page starts after; `None`: this is the last.
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct Intent {
    id: String,
    status: String,
    currency: String,
    created: u64,
    #[serde(default)]
    metadata: HashMap<String, String>,
    #[serde(default)]
    amount_received: i64,
    #[serde(default)]
    amount_capturable: i64,
    /// The whole of it where that is asked for, else its id.
    #[serde(default, deserialize_with = "expanded")]
    latest_charge: Option<Charge>,
}

#[derive(Deserialize)]
struct Charge {
    id: String,
    status: String,
    created: u64,
}

fn expanded<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Charge>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(from)?).ok())
}

#[derive(Deserialize)]
struct Refund {
    id: String,
    amount: i64,
    status: String,
    #[serde(default)]
    created: u64,
}

/// A customer's complaint to their bank about a payment.
#[derive(Clone, Debug, Deserialize)]
pub struct Dispute {
    pub id: String,
    /// As the provider names it, e.g. `needs_response`.
    pub status: String,
    #[serde(default)]
    pub payment_intent: Option<String>,
    /// Unix seconds.
    pub created: u64,
}

#[derive(Deserialize)]
struct List<T> {
    data: Vec<T>,
    #[serde(default)]
    has_more: bool,
}

impl Intent {
    /// `None` without money, or where `metadata.order_id` is no order's id.
    fn payment(self) -> Option<Payment> {
        let takes = match self.status.as_str() {
            "processing" | "requires_capture" => true,
            "succeeded" => self.amount_received > 0,
            _ => false,
        };
        let order = self.metadata.get("order_id").and_then(|id| id.parse().ok())?;
        takes.then_some(Payment { intent: self.id, order, created: self.created })
    }
}

/// The provider counts some currencies in units of its own.
fn in_minor_units(amount: i64, currency: &str) -> Option<i64> {
    let currency = Currency::from_code(&currency.to_ascii_uppercase())?;
    Some(service::Money::from_cards(amount, currency)?.amount)
}

impl Provider {
    pub fn new(url: &str, secret_key: &str) -> Result<Self> {
        let client = service::socket::http_client(CALL_DEADLINE).build();
        let client = client.context("the payment client can't be built")?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), secret_key: secret_key.to_owned() })
    }

    /// What there is of an intent; `None` when the provider knows none of that id.
    pub async fn money(&self, intent: &str) -> Result<Option<Money>> {
        let found: Option<Intent> = self.ask(&format!("/v1/payment_intents/{intent}"), &[]).await?;
        let Some(found) = found else { return Ok(None) };
        let captured = if found.status == "succeeded" { found.amount_received } else { 0 };
        let held = if found.status == "requires_capture" { found.amount_capturable } else { 0 };
        let refunded = if captured > 0 { self.refunded(intent).await? } else { Some(0) };
        let has_more_refunds = refunded.is_none();
        let refunded = refunded.unwrap_or(0);
        let amounts = [captured, held, refunded];
        let minor = amounts.map(|amount| in_minor_units(amount, &found.currency));
        let is_odd = minor.contains(&None);
        let [captured, held, refunded] = [0, 1, 2].map(|at| minor[at].unwrap_or(amounts[at]));
        let (status, currency) = (found.status, found.currency);
        Ok(Some(Money { status, currency, captured, held, refunded, has_more_refunds, is_odd }))
    }

    /// When, in Unix seconds, an intent was created, charged and refunded. Nothing of one that it does not know.
    pub async fn moments(&self, intent: &str) -> Result<Vec<(f64, String)>> {
        let query = [("expand[]", "latest_charge")];
        let found: Option<Intent> = self.ask(&format!("/v1/payment_intents/{intent}"), &query).await?;
        let Some(found) = found else { return Ok(Vec::new()) };
        let mut moments =
            vec![(found.created as f64, format!("{intent} was created, {} by now", found.status))];
        if let Some(charge) = found.latest_charge {
            moments
                .push((charge.created as f64, format!("{} was made, {} by now", charge.id, charge.status)));
        }
        let query = [("payment_intent", intent), ("limit", "100")];
        let refunds: Option<List<Refund>> = self.ask("/v1/refunds", &query).await?;
        let refunds = refunds.map(|list| list.data).unwrap_or_default();
        moments.extend(refunds.into_iter().map(|refund| {
            (refund.created as f64, format!("{} was made, {} by now", refund.id, refund.status))
        }));
        Ok(moments)
    }

    /// Up to a hundred of the intents that were created `since` (Unix seconds; `None`: ever), newest first, without
    /// those that have no money or are no order's.
    pub async fn payments(&self, since: Option<u64>, after: Option<&str>) -> Result<Page> {
        let since = since.map(|since| since.to_string());
        let mut query = vec![("limit", "100")];
        query.extend(since.as_deref().map(|since| ("created[gte]", since)));
        query.extend(after.map(|after| ("starting_after", after)));
        let page: Option<List<Intent>> = self.ask("/v1/payment_intents", &query).await?;
        let List { data, has_more } = page.context("the provider has no list of its payments")?;
        let next = data.last().filter(|_| has_more).map(|last| last.id.clone());
        Ok(Page { payments: data.into_iter().filter_map(Intent::payment).collect(), next })
    }

    /// Up to a hundred of the disputes that were opened `since` (Unix seconds; `None`: ever), newest first, and what the
    /// next page starts after. A provider without disputes has none.
    pub async fn disputes(
        &self,
        since: Option<u64>,
        after: Option<&str>,
    ) -> Result<(Vec<Dispute>, Option<String>)> {
        let since = since.map(|since| since.to_string());
        let mut query = vec![("limit", "100")];
        query.extend(since.as_deref().map(|since| ("created[gte]", since)));
        query.extend(after.map(|after| ("starting_after", after)));
        let page: Option<List<Dispute>> = self.ask("/v1/disputes", &query).await?;
        let Some(List { data, has_more }) = page else { return Ok((Vec::new(), None)) };
        let next = data.last().filter(|_| has_more).map(|last| last.id.clone());
        Ok((data, next))
    }

    /// All disputes about an intent, a hundred at most.
    pub async fn disputes_of(&self, intent: &str) -> Result<Vec<Dispute>> {
        let query = [("payment_intent", intent), ("limit", "100")];
        let found: Option<List<Dispute>> = self.ask("/v1/disputes", &query).await?;
        Ok(found.map(|list| list.data).unwrap_or_default())
    }

    /// `None` when it has more refunds than this reads.
    async fn refunded(&self, intent: &str) -> Result<Option<i64>> {
        let (mut sum, mut last) = (0, None::<String>);
        for _ in 0..MOST_PAGES {
            let mut query = vec![("payment_intent", intent), ("limit", "100")];
            query.extend(last.as_deref().map(|last| ("starting_after", last)));
            let page: Option<List<Refund>> = self.ask("/v1/refunds", &query).await?;
            let page = page.with_context(|| format!("the provider has no refunds of {intent}"))?;
            let succeeded = page.data.iter().filter(|refund| refund.status == "succeeded");
            sum += succeeded.map(|refund| refund.amount).sum::<i64>();
            match page.data.last() {
                Some(refund) if page.has_more => last = Some(refund.id.clone()),
                _ => return Ok(Some(sum)),
            }
        }
        Ok(None)
    }

    /// An answer, or `None` for 404. What is too fast or broken over there is asked again.
    async fn ask<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<Option<T>> {
        let mut failure = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(250) * 2u32.pow(attempt)).await;
            }
            let request = self.client.get(format!("{}{path}", self.url)).query(query);
            let request = request.bearer_auth(&self.secret_key).header("Stripe-Version", API_VERSION);
            failure = match request.send().await {
                Err(error) => error.without_url().to_string(),
                Ok(answer) if answer.status() == StatusCode::NOT_FOUND => return Ok(None),
                Ok(answer) if answer.status().is_success() => match answer.json().await {
                    Ok(body) => return Ok(Some(body)),
                    Err(error) => error.without_url().to_string(),
                },
                Ok(answer) if matches!(answer.status().as_u16(), 401 | 403) => {
                    bail!("the payment provider answers {}: is PAYMENT_SECRET_KEY right?", answer.status())
                }
                Ok(answer) => format!("it answers {}", answer.status()),
            };
        }
        bail!("the payment provider at {} does not answer {path}: {failure}", self.url)
    }
}

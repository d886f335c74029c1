//! The payment provider's own view: what any that speaks Stripe's API tells.
//! <https://docs.stripe.com/api/payment_intents/retrieve>
//! <https://docs.stripe.com/api/refunds/list>

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// Of one question, with pauses of 0.5 and 1 s between them.
const TRIES: u32 = 3;
/// Of a hundred refunds each, as in the order service.
const MOST_PAGES: usize = 20;

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
}

#[derive(Deserialize)]
struct Intent {
    status: String,
    currency: String,
    #[serde(default)]
    amount_received: i64,
    #[serde(default)]
    amount_capturable: i64,
}

#[derive(Deserialize)]
struct Refund {
    id: String,
    amount: i64,
    status: String,
}

#[derive(Deserialize)]
struct List<T> {
    data: Vec<T>,
    #[serde(default)]
    has_more: bool,
}

impl Provider {
    pub fn new(url: &str, secret_key: &str) -> Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(CALL_DEADLINE)
            .connect_timeout(Duration::from_secs(2))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("the payment client can't be built")?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), secret_key: secret_key.to_owned() })
    }

    /// What there is of an intent; `None` when the provider knows none of that id.
    pub async fn money(&self, intent: &str) -> Result<Option<Money>> {
        let found: Option<Intent> = self.ask(&format!("/v1/payment_intents/{intent}"), &[]).await?;
        let Some(found) = found else { return Ok(None) };
        let captured = if found.status == "succeeded" { found.amount_received } else { 0 };
        let held = if found.status == "requires_capture" { found.amount_capturable } else { 0 };
        let refunded = if captured > 0 { self.refunded(intent).await? } else { 0 };
        Ok(Some(Money { status: found.status, currency: found.currency, captured, held, refunded }))
    }

    async fn refunded(&self, intent: &str) -> Result<i64> {
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
                _ => return Ok(sum),
            }
        }
        bail!("{intent} has more refunds than this reads")
    }

    /// An answer, or `None` for 404. What is too fast or broken over there is asked again.
    async fn ask<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<Option<T>> {
        let mut failure = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(250) * 2u32.pow(attempt)).await;
            }
            let request = self.client.get(format!("{}{path}", self.url)).query(query);
            failure = match request.bearer_auth(&self.secret_key).send().await {
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

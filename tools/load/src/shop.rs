//! The shop's API, as far as shoppers use it: typed answers, and refusals by their code.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderValue;
use serde::Deserialize;
use uuid::Uuid;

use crate::Refusal;
use crate::http::{Answer, Call, Client, Failure};

/// A request that did not bring what it is for, by the name that the report counts it under: the problem's code, or the
/// failure's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub name: Cow<'static, str>,
    /// 0 when there was no answer.
    pub status: u16,
    pub retry_after: Option<Duration>,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self { name: Cow::Borrowed(failure.name()), status: 0, retry_after: None }
    }
}

/// A product, as much of it as a shopper needs.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Product {
    pub id: Uuid,
    pub name: String,
    pub price: Money,
    pub stock: Stock,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Money {
    /// Minor units.
    pub amount: i64,
    pub currency: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Stock {
    pub available: i64,
}

#[derive(Debug, Deserialize)]
pub struct Page {
    pub items: Vec<Product>,
    pub next_cursor: Option<String>,
}

/// Of a page, only which products are on it.
#[derive(Debug, Deserialize)]
pub struct Ids {
    pub items: Vec<Id>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Id {
    pub id: Uuid,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Pending,
    Confirmed,
    PartiallyShipped,
    Shipped,
    Delivered,
    Cancelled,
}

#[derive(Debug, Deserialize)]
pub struct Order<'a> {
    pub id: Uuid,
    pub status: Status,
    #[serde(borrow)]
    pub cancel_reason: Option<Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
pub struct Tokens {
    pub access_token: String,
    pub refresh_token: String,
    /// Seconds.
    pub expires_in: u64,
}

#[derive(Deserialize)]
struct Problem<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
}

/// The answer when it is a success.
///
/// # Errors
/// with the problem's code, or `http_502` and the like where there is none.
pub fn succeeded(answer: Result<Answer, Failure>) -> Result<Answer, Error> {
    let answer = answer?;
    if answer.status.is_success() {
        return Ok(answer);
    }
    let status = answer.status.as_u16();
    let name = match serde_json::from_slice::<Problem>(&answer.body) {
        Ok(problem) => Cow::Owned(problem.code.into_owned()),
        Err(_) => Cow::Owned(format!("http_{status}")),
    };
    Err(Error { name, status, retry_after: answer.retry_after })
}

/// An answer's document.
///
/// # Errors
/// named `unexpected_answer` when it has another shape.
pub fn document<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T, Error> {
    serde_json::from_slice(&answer.body).map_err(|_| Error {
        name: Cow::Borrowed("unexpected_answer"),
        status: answer.status.as_u16(),
        retry_after: None,
    })
}

/// Checks whether a shop is at the address, before anything is sent that could change something.
///
/// # Errors
/// a sentence with what came back instead.
pub async fn is_a_shop(client: &Client, url: &str) -> Result<(), Refusal> {
    let path = "/api/v1/products?limit=1";
    let answer = client.send(Call::get(path)).await.map_err(|failure| {
        Refusal(format!("{url} is not a shop: GET {path} had no answer ({})", failure.name()))
    })?;
    if answer.status == 200 && serde_json::from_slice::<Page>(&answer.body).is_ok() {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&answer.body);
    let shown: String = body.chars().filter(|c| !c.is_control()).take(120).collect();
    let more = if body.chars().count() > 120 { "..." } else { "" };
    Err(Refusal(format!(
        "{url} is not a shop: GET {path} answered {}, {shown:?}{more}",
        answer.status.as_u16()
    )))
}

/// The value of `Authorization`.
///
/// # Errors
/// when the token has characters that no header may have.
pub fn bearer(token: &str) -> Result<HeaderValue, Refusal> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Refusal("the shop gave a token that no header can carry".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

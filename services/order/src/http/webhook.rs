//! `/payments/webhook`: the provider says that something about an intent has changed. The service then asks
//! the provider for the present state, unless the message only says what is known. The message itself is
//! never taken for the truth, so late, doubled and shuffled messages do no harm. Signature scheme:
//! <https://docs.stripe.com/webhooks/signature>

use aws_lc_rs::hmac;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use service::Problem;
use service::extract::{Body, shape};
use service::validate::Invalid;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, WebhookKey};
use crate::saga::runner::Sagas;
use crate::schema;

/// Seconds that a signature may be old, or ahead of our clock.
const TOLERANCE: i64 = 300;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(receive))
}

/// An event of Stripe's API; it has more fields, which do not matter here.
#[derive(Deserialize, ToSchema)]
#[schema(as = PaymentEvent)]
struct Event {
    #[serde(rename = "type")]
    #[schema(schema_with = schema::name)]
    kind: String,
    data: Data,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = PaymentEventData)]
struct Data {
    object: Subject,
}

/// An intent, something that names one, or something else, such as a balance.
#[derive(Deserialize, ToSchema)]
#[schema(as = PaymentEventSubject)]
struct Subject {
    #[serde(default)]
    #[schema(schema_with = schema::name_or_other)]
    id: Value,
    #[serde(default)]
    #[schema(schema_with = schema::name_or_other)]
    payment_intent: Value,
}

impl Event {
    /// Names are looked up and kept, so they must be text that can be.
    fn check(&self) -> Result<(), Problem> {
        let object = &self.data.object;
        let mut invalid = Invalid::new();
        for (pointer, name) in [
            ("/type", Some(self.kind.as_str())),
            ("/data/object/id", object.id.as_str()),
            ("/data/object/payment_intent", object.payment_intent.as_str()),
        ] {
            if let Some(name) = name.and_then(|name| invalid.text(pointer, name.to_owned(), 1, schema::NAME))
                && name.chars().any(char::is_control)
            {
                invalid.push(pointer, "control_character", "Control characters are not accepted.");
            }
        }
        invalid.check()
    }

    /// The intent that the event is about, if there is one.
    fn intent(&self) -> Option<&str> {
        let object = &self.data.object;
        object.payment_intent.as_str().or(object.id.as_str())
    }
}

/// Hear from the payment provider
///
/// What it tells of is asked of the provider afresh. The same event twice does no harm, and one about something else than
/// a payment changes nothing.
#[utoipa::path(
    post, path = "/api/v1/payments/webhook", operation_id = "receive_payment_event", tag = "payments",
    params(("Stripe-Signature" = String, Header, description = "`t=<Unix time>,v1=<hex HMAC-SHA-256>`, at most five minutes old: <https://docs.stripe.com/webhooks/signature>.")),
    request_body(content = Event, example = json!({"type": "payment_intent.succeeded", "data": {"object": {"id": "pi_3Qx1Y2"}}})),
    responses((status = 204, description = "It is taken note of.")),
    security(()),
    extensions(("x-problems" = json!({"400": ["invalid_signature"]}))),
)]
async fn receive(
    State(key): State<WebhookKey>,
    State(sagas): State<Sagas>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let refused = || Problem::bad_request("invalid_signature", "The signature is missing, wrong or too old.");
    let signature =
        headers.get("stripe-signature").and_then(|value| value.to_str().ok()).ok_or_else(refused)?;
    if !signed(&key.0, signature, body.bytes()?, OffsetDateTime::now_utc().unix_timestamp()) {
        return Err(refused());
    }
    let event: Event = shape(body.value(&["application/json"])?)?;
    event.check()?;
    if let Some(intent) = event.intent() {
        sagas.report(intent, &event.kind).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Whether one of the header's signatures is of this body, made about `now`.
fn signed(secret: &hmac::Key, header: &str, body: &[u8], now: i64) -> bool {
    let fields = || header.split(',').filter_map(|field| field.trim().split_once('='));
    let Some((_, time)) = fields().find(|(name, _)| *name == "t") else { return false };
    let Ok(signed_at) = time.parse::<i64>() else { return false };
    if now.abs_diff(signed_at) > TOLERANCE.unsigned_abs() {
        return false;
    }
    let signed = [time.as_bytes(), b".", body].concat();
    fields()
        .filter(|(name, _)| *name == "v1")
        .filter_map(|(_, digest)| hex::decode(digest).ok())
        .any(|digest| hmac::verify(secret, &signed, &digest).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fresh_signature_of_this_body_counts() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"whsec");
        let sign = |time: i64, body: &str| hex::encode(hmac::sign(&key, format!("{time}.{body}").as_bytes()));
        let header = format!("t=1000,v1={},v0=ff", sign(1000, "{}"));
        assert!(signed(&key, &header, b"{}", 1000));
        assert!(signed(&key, &header, b"{}", 1300));
        assert!(!signed(&key, &header, b"{}", 1301), "too old");
        assert!(!signed(&key, &header, b"{ }", 1000), "another body");
        assert!(!signed(&key, &format!("t=1001,v1={}", sign(1000, "{}")), b"{}", 1000), "another time");
        for nonsense in ["", "t=1000", "t=x,v1=ff", "v1=ff", "t=1000,v1=zz"] {
            assert!(!signed(&key, nonsense, b"{}", 1000), "{nonsense}");
        }
    }
}

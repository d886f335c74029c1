//! Payments as the API shows them.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::book::Book;
use crate::cards;
use crate::intents::{Dispute, Intent, Methods, Pairs, Refund, RefundStatus, Status};

/// How it was paid: <https://docs.stripe.com/api/charges/object#charge_object-payment_method_details>.
fn details(payment_method: &str) -> Value {
    let (brand, last4) = cards::face(payment_method);
    json!({ "card": { "brand": brand, "last4": last4 }, "type": "card" })
}

fn object(pairs: &Pairs) -> Value {
    pairs.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
}

impl Intent {
    pub fn view(&self) -> Value {
        let details = self.details.clone().unwrap_or_default();
        let automatic = match self.methods {
            Methods::Card => Value::Null,
            Methods::All => json!({ "enabled": true, "allow_redirects": "always" }),
            Methods::AllWithoutRedirects => json!({ "enabled": true, "allow_redirects": "never" }),
        };
        json!({
            "id": self.id,
            "object": "payment_intent",
            "amount": self.amount,
            "amount_capturable": self.capturable,
            "amount_received": self.received,
            "automatic_payment_methods": automatic,
            "cancellation_reason": self.cancellation_reason,
            "canceled_at": self.canceled.map(|at| at / 1000),
            "capture_method": self.capture_method,
            "client_secret": self.client_secret(),
            "confirmation_method": details.confirmation_method.unwrap_or_else(|| "automatic".into()),
            "created": self.created / 1000,
            "currency": self.currency,
            "customer": null,
            "description": details.description,
            "last_payment_error": self.last_error,
            "latest_charge": self.latest_charge,
            "livemode": false,
            "metadata": object(&self.metadata),
            "next_action": self.next_action(),
            "payment_method": self.payment_method,
            "payment_method_types": ["card"],
            "receipt_email": details.receipt_email,
            "statement_descriptor_suffix": details.statement_descriptor_suffix,
            "status": self.status,
        })
    }

    /// With `latest_charge` in full, if that is to be expanded.
    pub fn expanded(&self, expand: bool) -> Value {
        let mut view = self.view();
        if expand && self.latest_charge.is_some() {
            view["latest_charge"] = self.charge_view();
        }
        view
    }

    /// Proves the right to see the intent without the secret key. It stays the same.
    pub fn client_secret(&self) -> String {
        let hash = Sha256::digest(format!("the client secret of {}", self.id));
        format!("{}_secret_{}", self.id, hex::encode(&hash[..12]))
    }

    /// <https://docs.stripe.com/api/payment_intents/object#payment_intent_object-next_action>
    fn next_action(&self) -> Value {
        match &self.action {
            Some(action) if self.status == Status::RequiresAction => match &action.return_url {
                Some(back) => json!({
                    "type": "redirect_to_url",
                    "redirect_to_url": { "return_url": back, "url": action.page },
                }),
                None => json!({
                    "type": "use_stripe_sdk",
                    "use_stripe_sdk": {
                        "type": "three_d_secure_redirect", "source": action.id, "stripe_js": action.page,
                    },
                }),
            },
            _ => Value::Null,
        }
    }

    /// Its latest charge.
    pub fn charge_view(&self) -> Value {
        let paid = self.authorized > 0;
        let error = self.last_error.as_ref().filter(|_| !paid);
        json!({
            "id": self.latest_charge,
            "object": "charge",
            "amount": self.amount,
            "amount_captured": self.received,
            "amount_refunded": self.refunded,
            "captured": self.captures > 0,
            "created": self.created / 1000,
            "currency": self.currency,
            "disputed": self.dispute.is_some(),
            "failure_code": error.map(|error| &error.code),
            "failure_message": error.map(|error| &error.message),
            "livemode": false,
            "metadata": object(&self.metadata),
            "paid": paid,
            "payment_intent": self.id,
            "payment_method": self.payment_method,
            "payment_method_details": self.payment_method.as_deref().map(details),
            "refunded": self.received > 0 && self.refunded == self.received,
            "status": if paid { "succeeded" } else { "failed" },
        })
    }
}

impl Refund {
    pub fn view(&self) -> Value {
        json!({
            "id": self.id,
            "object": "refund",
            "amount": self.amount,
            "charge": self.charge,
            "created": self.created / 1000,
            "currency": self.currency,
            "metadata": object(&self.metadata),
            "payment_intent": self.intent,
            "reason": self.reason,
            "failure_reason": (self.status == RefundStatus::Failed).then_some("unknown"),
            "status": self.status,
        })
    }

    /// With `payment_intent` in full, if that is to be expanded.
    pub fn expanded(&self, book: &Book, expand: bool) -> Value {
        let mut view = self.view();
        if let (true, Some(intent)) = (expand, book.intent(&self.intent)) {
            view["payment_intent"] = intent.view();
        }
        view
    }
}

impl Dispute {
    pub fn view(&self) -> Value {
        json!({
            "id": self.id,
            "object": "dispute",
            "amount": self.amount,
            "charge": self.charge,
            "created": self.created / 1000,
            "currency": self.currency,
            "is_charge_refundable": self.status.is_inquiry(),
            "livemode": false,
            "metadata": {},
            "payment_intent": self.intent,
            "reason": self.reason,
            "status": self.status,
        })
    }
}

//! The provider's errors: which are about the order, which are ours, and why a card was declined.

use order_core::order::DeclineReason;
use serde::Deserialize;

use super::alarms::Alarm;
use super::bodies::IntentBody;

#[derive(Clone, Debug, Deserialize)]
pub struct ErrorBody {
    pub error: ProviderError,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ProviderError {
    /// Of the HTTP answer.
    #[serde(skip)]
    pub status: u16,
    #[serde(rename = "type", default)]
    pub kind: String,
    pub code: Option<String>,
    decline_code: Option<String>,
    param: Option<String>,
    message: Option<String>,
    pub payment_intent: Option<Box<IntentBody>>,
}

impl ProviderError {
    /// Whether a later try at the same order can't help: the card is invalid, or the amount is not accepted.
    /// Anything else is a mistake of ours that can be mended.
    pub fn is_about_the_order(&self) -> bool {
        let method = self.param.as_deref() == Some("payment_method");
        let code = self.code.as_deref().unwrap_or_default();
        self.kind == "card_error" || method || matches!(code, "amount_too_small" | "amount_too_large")
    }

    /// Whether this amount of the payment can't be refunded, now or later: it was refunded already.
    /// <https://docs.stripe.com/error-codes>
    pub fn ends_a_refund(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        matches!(code, "charge_already_refunded" | "amount_too_large")
            || self.param.as_deref() == Some("amount")
    }

    /// The customer's bank has the money until a dispute is decided.
    pub fn is_disputed(&self) -> bool {
        matches!(self.code.as_deref(), Some("charge_disputed" | "refund_disputed_payment"))
    }

    /// A mistake of ours, or of the provider: the request is kept, and tried again.
    pub fn alarm(&self) {
        let (code, param, message) = (&self.code, &self.param, &self.message);
        tracing::error!(code, param, detail = message, "payment.our_mistake");
        Alarm::OurMistake.count();
    }

    /// What the owner of a card may know. <https://docs.stripe.com/declines/codes>
    pub fn reason(&self) -> DeclineReason {
        let code = self.code.as_deref().unwrap_or_default();
        match self.decline_code.as_deref().unwrap_or(code) {
            "insufficient_funds" | "withdrawal_count_limit_exceeded" => DeclineReason::InsufficientFunds,
            "expired_card" => DeclineReason::ExpiredCard,
            "incorrect_number"
            | "invalid_number"
            | "incorrect_cvc"
            | "invalid_cvc"
            | "incorrect_zip"
            | "incorrect_address"
            | "incorrect_pin"
            | "invalid_pin"
            | "invalid_expiry_month"
            | "invalid_expiry_year"
            | "invalid_account"
            | "new_account_information_available" => DeclineReason::IncorrectDetails,
            "authentication_required"
            | "authentication_not_handled"
            | "mobile_device_authentication_required"
            | "offline_pin_required"
            | "online_or_offline_pin_required"
            | "payment_intent_authentication_failure" => DeclineReason::AuthenticationFailed,
            "card_not_supported"
            | "currency_not_supported"
            | "not_permitted"
            | "service_not_allowed"
            | "transaction_not_allowed" => DeclineReason::CardNotSupported,
            "card_velocity_exceeded" | "duplicate_transaction" | "pin_try_exceeded" => {
                DeclineReason::LimitExceeded
            }
            "amount_too_small" | "amount_too_large" | "invalid_amount" => DeclineReason::AmountNotAccepted,
            "approve_with_id"
            | "issuer_not_available"
            | "processing_error"
            | "reenter_transaction"
            | "try_again_later" => DeclineReason::TryAgainLater,
            _ => DeclineReason::Declined,
        }
    }
}

//! The test cards: Stripe's names, and a few of our own for faults that a real provider shows too rarely to test.

/// What happens to a payment made with a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Card {
    Succeeds,
    Declines {
        code: &'static str,
        decline_code: Option<&'static str>,
        message: &'static str,
    },
    /// Confirm is `processing` for a while, then succeeds.
    Slow,
    /// Confirm never answers, and nothing is ever authorised.
    Hangs,
    /// Authorises, then never answers.
    ConfirmLost,
    /// Authorises, then answers 500.
    ConfirmFails,
    /// Captures, then never answers.
    CaptureLost,
    /// Captures, then answers 500.
    CaptureFails,
    /// The authorisation is found to have expired when it is captured.
    CaptureRefused,
    /// Confirm is `processing` until the intent is cancelled; a while after that it is paid all the same.
    LateSuccess,
    /// Refunds succeed, and a while later have failed.
    RefundFails,
    /// Refunds are `pending` for a while, then succeed.
    RefundPending,
    /// The first refund fails at once, further ones succeed.
    RefundFailsOnce,
    /// Refunds, then never answers.
    RefundLost,
    /// Refunds, then answers 500.
    RefundErrs,
}

/// The card of that name, or None when there is none.
pub fn find(payment_method: &str) -> Option<Card> {
    Some(match payment_method {
        "pm_card_visa" | "pm_card_mastercard" | "pm_card_amex" => Card::Succeeds,
        "pm_card_chargeDeclined" | "pm_card_visa_chargeDeclined" => {
            declined("generic_decline", "Your card was declined.")
        }
        "pm_card_chargeDeclinedInsufficientFunds" => {
            declined("insufficient_funds", "Your card has insufficient funds.")
        }
        "pm_card_chargeDeclinedLostCard" => declined("lost_card", "Your card was declined."),
        "pm_card_chargeDeclinedExpiredCard" => {
            Card::Declines { code: "expired_card", decline_code: None, message: "Your card has expired." }
        }
        "pm_card_slow" => Card::Slow,
        "pm_card_hang" => Card::Hangs,
        "pm_card_confirm_lost" => Card::ConfirmLost,
        "pm_card_confirm_500" => Card::ConfirmFails,
        "pm_card_capture_lost" => Card::CaptureLost,
        "pm_card_capture_500" => Card::CaptureFails,
        "pm_card_capture_refused" => Card::CaptureRefused,
        "pm_card_late_success" => Card::LateSuccess,
        "pm_card_refundFail" => Card::RefundFails,
        "pm_card_pendingRefund" => Card::RefundPending,
        "pm_card_refund_fails_once" => Card::RefundFailsOnce,
        "pm_card_refund_lost" => Card::RefundLost,
        "pm_card_refund_500" => Card::RefundErrs,
        _ => return None,
    })
}

fn declined(decline_code: &'static str, message: &'static str) -> Card {
    Card::Declines { code: "card_declined", decline_code: Some(decline_code), message }
}

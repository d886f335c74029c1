//! The test cards: Stripe's names (<https://docs.stripe.com/testing>, with `PaymentMethods` chosen), and a few of our
//! own for faults that a real provider shows too rarely to test.

/// What happens to a payment made with a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Card {
    Succeeds,
    Declines(Decline),
    /// Wants its holder to prove who they are (3-D Secure) before it succeeds, or declines all the same.
    Authenticates {
        then: Option<Decline>,
        /// Set up so that it asks for nothing when its holder is not there.
        but_off_session: bool,
    },
    /// Succeeds, and a while after it is paid the money is disputed.
    Disputes {
        reason: &'static str,
        /// Only asked about: no money is withdrawn.
        inquiry: bool,
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

/// Why an issuer says no: <https://docs.stripe.com/declines/codes>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decline {
    pub code: &'static str,
    pub decline_code: Option<&'static str>,
    pub message: &'static str,
}

/// The holder would have to prove who they are, and is not there, or may not be asked.
pub const NOT_THERE: Decline = Decline {
    code: "authentication_required",
    decline_code: Some("authentication_required"),
    message: "Your card was declined. This transaction requires authentication.",
};
pub const NOT_HANDLED: Decline = Decline { decline_code: Some("authentication_not_handled"), ..NOT_THERE };

const PLAIN: [&str; 34] = [
    "visa",
    "visa_debit",
    "mastercard",
    "mastercard_debit",
    "mastercard_prepaid",
    "amex",
    "discover",
    "diners",
    "jcb",
    "unionpay",
    "us",
    "ca",
    "mx",
    "br",
    "at",
    "be",
    "ch",
    "de",
    "dk",
    "es",
    "fi",
    "fr",
    "gb",
    "ie",
    "it",
    "nl",
    "no",
    "pl",
    "pt",
    "se",
    "au",
    "jp",
    "nz",
    "sg",
];

/// Succeed like those, whatever else is said of them.
const PLAIN_NAMES: [&str; 13] = [
    "pm_card_bypassPending",
    "pm_card_bypassPendingInternational",
    "pm_card_domesticPricing",
    "pm_card_avsFail",
    "pm_card_avsLine1Fail",
    "pm_card_avsZipFail",
    "pm_card_avsUnchecked",
    "pm_card_cvcCheckFail",
    "pm_card_riskLevelElevated",
    "pm_card_riskLevelHighest",
    "pm_card_threeDSecureOptional",
    "pm_card_threeDSecureOptionalProcessingError",
    "pm_card_amex_threeDSecureNotSupported",
];

/// The card of that name, or None when there is none.
pub fn find(payment_method: &str) -> Option<Card> {
    let plain = payment_method.strip_prefix("pm_card_").is_some_and(|name| PLAIN.contains(&name));
    if plain || PLAIN_NAMES.contains(&payment_method) {
        return Some(Card::Succeeds);
    }
    Some(match payment_method {
        "pm_card_chargeDeclined" | "pm_card_visa_chargeDeclined" | "pm_card_chargeCustomerFail" => {
            Card::Declines(declined("generic_decline"))
        }
        "pm_card_chargeDeclinedInsufficientFunds" | "pm_card_visa_chargeDeclinedInsufficientFunds" => {
            Card::Declines(INSUFFICIENT_FUNDS)
        }
        "pm_card_chargeDeclinedLostCard" | "pm_card_visa_chargeDeclinedLostCard" => {
            Card::Declines(declined("lost_card"))
        }
        "pm_card_chargeDeclinedStolenCard" | "pm_card_visa_chargeDeclinedStolenCard" => {
            Card::Declines(declined("stolen_card"))
        }
        "pm_card_visa_chargeDeclinedVelocityLimitExceeded" => {
            Card::Declines(declined("card_velocity_exceeded"))
        }
        "pm_card_chargeDeclinedFraudulent" | "pm_card_radarBlock" => Card::Declines(declined("fraudulent")),
        "pm_card_chargeDeclinedExpiredCard" => failed("expired_card", "Your card has expired."),
        "pm_card_chargeDeclinedIncorrectCvc" => {
            failed("incorrect_cvc", "Your card's security code is incorrect.")
        }
        "pm_card_chargeDeclinedProcessingError" => failed(
            "processing_error",
            "An error occurred while processing your card. Try again in a little bit.",
        ),
        "pm_card_threeDSecureRequiredProcessingError" => Card::Declines(declined("generic_decline")),
        "pm_card_threeDSecure2Required"
        | "pm_card_threeDSecureRequired"
        | "pm_card_authenticationRequired"
        | "pm_card_authenticationRequiredOnSetup" => {
            Card::Authenticates { then: None, but_off_session: false }
        }
        "pm_card_authenticationRequiredSetupForOffSession" => {
            Card::Authenticates { then: None, but_off_session: true }
        }
        "pm_card_threeDSecureRequiredChargeDeclined" => {
            Card::Authenticates { then: Some(declined("generic_decline")), but_off_session: false }
        }
        "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds" => {
            Card::Authenticates { then: Some(INSUFFICIENT_FUNDS), but_off_session: false }
        }
        "pm_card_createDispute" => Card::Disputes { reason: "fraudulent", inquiry: false },
        "pm_card_createDisputeProductNotReceived" => {
            Card::Disputes { reason: "product_not_received", inquiry: false }
        }
        "pm_card_createDisputeInquiry" => Card::Disputes { reason: "fraudulent", inquiry: true },
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

/// Brand and last four digits of a card, as those of the card number that Stripe has for the name.
pub fn face(payment_method: &str) -> (&'static str, &'static str) {
    let name = payment_method.strip_prefix("pm_card_").unwrap_or_default();
    let last4 = match name {
        "visa_debit" => "5556",
        "mastercard" => return ("mastercard", "4444"),
        "mastercard_debit" => return ("mastercard", "8210"),
        "mastercard_prepaid" => return ("mastercard", "5100"),
        "amex" | "amex_threeDSecureNotSupported" => return ("amex", "0005"),
        "discover" => return ("discover", "1117"),
        "diners" => return ("diners", "0004"),
        "jcb" => return ("jcb", "0505"),
        "unionpay" => return ("unionpay", "0005"),
        "ca" | "gb" => "0000",
        "dk" | "fi" => "0001",
        "br" | "nl" => "0002",
        "mx" => "8001",
        "fr" | "jp" | "nz" => "0003",
        "be" => "0004",
        "ie" | "pl" => "0005",
        "au" => "0006",
        "es" | "no" | "pt" => "0007",
        "at" | "it" | "se" | "sg" => "0008",
        "ch" => "0009",
        "de" => "0016",
        "createDispute" => "0259",
        "createDisputeProductNotReceived" => "2685",
        "createDisputeInquiry" => "1976",
        "refundFail" => "5126",
        "pendingRefund" => "7726",
        "threeDSecure2Required" => "3220",
        "threeDSecureRequired" => "3063",
        "authenticationRequired" => "3184",
        "authenticationRequiredOnSetup" => "3155",
        "authenticationRequiredSetupForOffSession" => "0446",
        _ => "4242",
    };
    ("visa", last4)
}

const INSUFFICIENT_FUNDS: Decline = Decline {
    code: "card_declined",
    decline_code: Some("insufficient_funds"),
    message: "Your card has insufficient funds.",
};

const fn declined(decline_code: &'static str) -> Decline {
    Decline { code: "card_declined", decline_code: Some(decline_code), message: "Your card was declined." }
}

const fn failed(code: &'static str, message: &'static str) -> Card {
    Card::Declines(Decline { code, decline_code: None, message })
}

//! What the provider knows of payments, and the facts that it comes from. Pure: no clock, no I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub type Metadata = BTreeMap<String, String>;

/// Metadata as it is kept: a map takes 500 bytes for its first entry.
pub type Pairs = Box<[(String, String)]>;

/// A fact, one or more of them to a line of the log. Amounts are in minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    IntentCreated {
        id: String,
        amount: u64,
        currency: String,
        capture_method: CaptureMethod,
        payment_method: Option<String>,
        metadata: Metadata,
        #[serde(default)]
        methods: Methods,
        #[serde(default, skip_serializing_if = "Details::is_empty")]
        details: Details,
    },
    ConfirmationStarted {
        id: String,
        payment_method: String,
    },
    /// Its customer has to prove who they are before anything is held.
    ActionRequired {
        id: String,
        payment_method: String,
        action: Action,
    },
    AuthenticationFailed {
        id: String,
        error: PaymentError,
    },
    Authorized {
        id: String,
        payment_method: String,
        charge: String,
    },
    Declined {
        id: String,
        charge: String,
        error: PaymentError,
    },
    Captured {
        id: String,
        amount: u64,
    },
    Canceled {
        id: String,
        reason: Option<String>,
    },
    Refunded {
        id: String,
        intent: String,
        amount: u64,
        reason: Option<String>,
        metadata: Metadata,
        /// What it begins as.
        #[serde(default)]
        status: RefundStatus,
    },
    RefundEnded {
        id: String,
        status: RefundStatus,
    },
    Disputed {
        id: String,
        intent: String,
        reason: String,
        status: DisputeStatus,
    },
    DisputeChanged {
        id: String,
        status: DisputeStatus,
    },
}

/// Which payment methods an intent takes. There are only cards here, but the account has others that lead away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Methods {
    #[default]
    Card,
    All,
    /// All that do not lead the customer to another page.
    AllWithoutRedirects,
}

/// What an intent shows and nothing depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmation_method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt_email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement_descriptor_suffix: Option<String>,
}

impl Details {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a customer proves who they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Of this attempt: its page's address can't be guessed.
    pub id: String,
    pub page: String,
    /// Where the page leads back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_url: Option<String>,
}

/// <https://docs.stripe.com/api/disputes/object#dispute_object-status>
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisputeStatus {
    /// Those with `Warning` ask, and withdraw no money.
    WarningNeedsResponse,
    WarningUnderReview,
    WarningClosed,
    NeedsResponse,
    UnderReview,
    Won,
    Lost,
}

impl DisputeStatus {
    pub fn is_over(self) -> bool {
        matches!(self, Self::WarningClosed | Self::Won | Self::Lost)
    }

    pub fn is_inquiry(self) -> bool {
        matches!(self, Self::WarningNeedsResponse | Self::WarningUnderReview | Self::WarningClosed)
    }

    /// Whether the money is not the shop's.
    pub fn withholds(self) -> bool {
        matches!(self, Self::NeedsResponse | Self::UnderReview | Self::Lost)
    }
}

/// <https://docs.stripe.com/api/refunds/object#refund_object-status>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundStatus {
    Pending,
    #[default]
    Succeeded,
    /// The money stays with the shop, and can be refunded anew.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureMethod {
    Automatic,
    /// As that, for who does not look at fees.
    AutomaticAsync,
    Manual,
}

/// Why the last confirm failed, as an intent shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentError {
    #[serde(rename = "type")]
    pub kind: String,
    pub code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decline_code: Option<String>,
    pub message: String,
    /// None when it did not come to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    RequiresCapture,
    Succeeded,
    Canceled,
}

#[derive(Clone, Debug)]
pub struct Intent {
    pub id: String,
    pub amount: u64,
    pub currency: String,
    pub status: Status,
    pub capture_method: CaptureMethod,
    pub payment_method: Option<String>,
    pub methods: Methods,
    pub details: Option<Box<Details>>,
    pub metadata: Pairs,
    /// While its customer has to act.
    pub action: Option<Box<Action>>,
    /// Authorised now, neither captured nor given back.
    pub capturable: u64,
    pub received: u64,
    /// Given back, or about to be.
    pub refunded: u64,
    /// Of that, not yet given back.
    pub refunding: u64,
    pub last_error: Option<PaymentError>,
    pub latest_charge: Option<String>,
    pub cancellation_reason: Option<String>,
    /// Unix milliseconds.
    pub created: u64,
    pub canceled: Option<u64>,
    /// Ever authorised: what `capturable` was at first.
    pub authorized: u64,
    pub captures: u64,
    /// Its dispute's place among all.
    pub dispute: Option<usize>,
}

#[derive(Clone, Debug)]
pub struct Refund {
    pub id: String,
    pub intent: String,
    pub amount: u64,
    pub currency: String,
    pub charge: Option<String>,
    pub reason: Option<String>,
    pub metadata: Pairs,
    pub status: RefundStatus,
    /// Unix milliseconds.
    pub created: u64,
}

/// A customer's bank wants the money back, or asks about it.
#[derive(Clone, Debug)]
pub struct Dispute {
    pub id: String,
    pub intent: String,
    pub charge: Option<String>,
    pub amount: u64,
    pub currency: String,
    pub reason: String,
    pub status: DisputeStatus,
    /// Unix milliseconds.
    pub created: u64,
}

//! What a request changes: `decide` turns a command into events, or into a refusal. Pure, like `intents`.

use axum::http::StatusCode;

use crate::cards::{self, Card};
use crate::error::ApiError;
use crate::intents::{Book, CaptureMethod, Event, Intent, Metadata, PaymentError, RefundStatus, Status};

/// A request that has been parsed. New ids come with it, so that deciding stays pure.
#[derive(Clone, Debug)]
pub enum Command {
    Create(Create),
    Confirm {
        id: String,
        charge: String,
        payment_method: Option<String>,
    },
    /// The end of a slow confirmation.
    Settle {
        id: String,
        charge: String,
    },
    Capture {
        id: String,
        amount: Option<u64>,
    },
    Cancel {
        id: String,
        reason: Option<String>,
    },
    Refund {
        id: String,
        intent: String,
        amount: Option<u64>,
        reason: Option<String>,
        metadata: Metadata,
    },
    /// What a cancelled payment comes to all the same.
    Overtake {
        id: String,
        charge: String,
    },
    /// What a refund comes to in the end.
    EndRefund {
        id: String,
    },
}

impl Command {
    /// What ends this confirmation when it is a slow one.
    pub fn settle(&self) -> Option<Self> {
        match self {
            Self::Create(Create { id, charge, .. }) | Self::Confirm { id, charge, .. } => {
                Some(Self::Settle { id: id.clone(), charge: charge.clone() })
            }
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Create {
    pub id: String,
    pub charge: String,
    pub amount: u64,
    pub currency: String,
    pub capture_method: CaptureMethod,
    pub payment_method: Option<String>,
    pub metadata: Metadata,
    pub confirm: bool,
}

/// What becomes of a command: the events to log, what to answer, and what goes wrong on the way.
#[derive(Debug)]
pub struct Decision {
    pub events: Vec<Event>,
    pub outcome: Outcome,
    pub fault: Fault,
    /// What happens by itself a while later.
    pub then: Option<Command>,
}

#[derive(Debug)]
pub enum Outcome {
    /// 200 with the intent of that id.
    Intent(String),
    /// 200 with the refund of that id.
    Refund(String),
    /// The error, with the intent of that id as it is afterwards.
    Refused(ApiError, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The effect lasts, its answer gets lost.
    AnswerLost,
    /// The effect lasts, the answer is a 500.
    ServerError,
    /// The answer waits for a `Settle`.
    Slow,
    /// There is no answer and no effect but `processing`.
    Hangs,
}

/// Decides a command. An error is one that needs no record: the intent does not exist.
pub fn decide(book: &Book, command: &Command) -> Result<Decision, ApiError> {
    Ok(match command {
        Command::Create(new) => create(new)?,
        Command::Confirm { id, charge, payment_method } => {
            confirm(find(book, id, "intent")?, charge, payment_method.as_deref())
        }
        Command::Settle { id, charge } => settle(find(book, id, "intent")?, charge),
        Command::Capture { id, amount } => capture(find(book, id, "intent")?, *amount),
        Command::Cancel { id, reason } => cancel(find(book, id, "intent")?, reason.clone()),
        Command::Overtake { id, charge } => overtake(find(book, id, "intent")?, charge),
        Command::EndRefund { id } => end_refund(book, id)?,
        Command::Refund { id, intent, amount, reason, metadata } => {
            let intent = find(book, intent, "payment_intent")?;
            match refundable(intent, *amount) {
                Err(refused) => refuse(intent, refused),
                Ok(amount) => {
                    let first = book.refunds(Some(&intent.id)).next().is_none();
                    let (status, fault) = refunding(card_of(intent), first);
                    let refunded = Event::Refunded {
                        id: id.clone(),
                        intent: intent.id.clone(),
                        amount,
                        reason: reason.clone(),
                        metadata: metadata.clone(),
                        status,
                    };
                    let then = matches!(card_of(intent), Some(Card::RefundFails | Card::RefundPending))
                        .then(|| Command::EndRefund { id: id.clone() });
                    Decision { events: vec![refunded], outcome: Outcome::Refund(id.clone()), fault, then }
                }
            }
        }
    })
}

fn card_of(intent: &Intent) -> Option<Card> {
    intent.payment_method.as_deref().and_then(cards::find)
}

/// What a refund begins as.
fn refunding(card: Option<Card>, first: bool) -> (RefundStatus, Fault) {
    match card {
        Some(Card::RefundPending) => (RefundStatus::Pending, Fault::None),
        Some(Card::RefundFailsOnce) if first => (RefundStatus::Failed, Fault::None),
        Some(Card::RefundLost) => (RefundStatus::Succeeded, Fault::AnswerLost),
        Some(Card::RefundErrs) => (RefundStatus::Succeeded, Fault::ServerError),
        _ => (RefundStatus::Succeeded, Fault::None),
    }
}

/// A refund that waits succeeds, one that had succeeded fails.
fn end_refund(book: &Book, id: &str) -> Result<Decision, ApiError> {
    let refund = book.refund(id).ok_or_else(|| ApiError::not_found("refund", "id", id))?;
    let status = match refund.status {
        RefundStatus::Pending => Some(RefundStatus::Succeeded),
        RefundStatus::Succeeded => Some(RefundStatus::Failed),
        RefundStatus::Failed => None,
    };
    let events = status.map(|status| Event::RefundEnded { id: id.into(), status }).into_iter().collect();
    Ok(Decision { events, outcome: Outcome::Refund(id.into()), fault: Fault::None, then: None })
}

/// A payment that was cancelled too late: it is charged.
fn overtake(intent: &Intent, charge: &str) -> Decision {
    let (Status::Canceled, Some(name)) = (intent.status, &intent.payment_method) else {
        return unexpected_state(intent, "confirm");
    };
    let mut events = authorized(intent, name, charge);
    if intent.capture_method == CaptureMethod::Manual {
        events.push(Event::Captured { id: intent.id.clone(), amount: intent.amount });
    }
    accept(&intent.id, events)
}

fn find<'a>(book: &'a Book, id: &str, param: &'static str) -> Result<&'a Intent, ApiError> {
    book.intent(id).ok_or_else(|| ApiError::not_found("payment_intent", param, id))
}

fn create(new: &Create) -> Result<Decision, ApiError> {
    let created = Event::IntentCreated {
        id: new.id.clone(),
        amount: new.amount,
        currency: new.currency.clone(),
        capture_method: new.capture_method,
        payment_method: new.payment_method.clone(),
        metadata: new.metadata.clone(),
    };
    if !new.confirm {
        return Ok(accept(&new.id, vec![created]));
    }
    let mut alone = Book::default();
    alone.apply(&created, 0).map_err(|error| {
        ApiError::server(StatusCode::INTERNAL_SERVER_ERROR, format!("creating an intent: {error}"))
    })?;
    let mut decision = confirm(find(&alone, &new.id, "intent")?, &new.charge, None);
    decision.events.insert(0, created);
    Ok(decision)
}

fn confirm(intent: &Intent, charge: &str, payment_method: Option<&str>) -> Decision {
    if !matches!(intent.status, Status::RequiresPaymentMethod | Status::RequiresConfirmation) {
        return unexpected_state(intent, "confirm");
    }
    let Some(name) = payment_method.or(intent.payment_method.as_deref()) else {
        let message = "This PaymentIntent has no payment method to confirm it with.";
        return refuse(intent, ApiError::invalid("payment_intent_unexpected_state", message));
    };
    let Some(card) = cards::find(name) else {
        // Names are checked when they come in; this one is from a log of an older version.
        let message = format!("No such PaymentMethod: '{name}'");
        return refuse(intent, ApiError::param("resource_missing", "payment_method", message));
    };
    let fault = match card {
        Card::Declines { code, decline_code, message } => {
            let error = PaymentError {
                kind: "card_error".into(),
                code: code.into(),
                decline_code: decline_code.map(str::to_owned),
                message: message.into(),
                charge: charge.into(),
            };
            let declined = Event::Declined { id: intent.id.clone(), charge: charge.into(), error };
            let refusal = ApiError::declined(code, decline_code, message, charge);
            return Decision { events: vec![declined], ..refuse(intent, refusal) };
        }
        Card::Slow => Fault::Slow,
        Card::Hangs => Fault::Hangs,
        Card::ConfirmLost => Fault::AnswerLost,
        Card::ConfirmFails => Fault::ServerError,
        _ => Fault::None,
    };
    let events = match fault {
        _ if card == Card::LateSuccess => {
            vec![Event::ConfirmationStarted { id: intent.id.clone(), payment_method: name.into() }]
        }
        Fault::Slow | Fault::Hangs => {
            vec![Event::ConfirmationStarted { id: intent.id.clone(), payment_method: name.into() }]
        }
        _ => authorized(intent, name, charge),
    };
    Decision { fault, ..accept(&intent.id, events) }
}

/// A confirmation ends only if it is still under way: a cancelled intent stays cancelled.
fn settle(intent: &Intent, charge: &str) -> Decision {
    match (intent.status, &intent.payment_method) {
        (Status::Processing, Some(name)) => accept(&intent.id, authorized(intent, name, charge)),
        _ => unexpected_state(intent, "confirm"),
    }
}

fn authorized(intent: &Intent, payment_method: &str, charge: &str) -> Vec<Event> {
    let id = intent.id.clone();
    let mut events = vec![Event::Authorized {
        id: id.clone(),
        payment_method: payment_method.into(),
        charge: charge.into(),
    }];
    if intent.capture_method == CaptureMethod::Automatic {
        events.push(Event::Captured { id, amount: intent.amount });
    }
    events
}

fn capture(intent: &Intent, amount: Option<u64>) -> Decision {
    if intent.status != Status::RequiresCapture {
        return unexpected_state(intent, "capture");
    }
    let amount = amount.unwrap_or(intent.capturable);
    if amount > intent.capturable {
        let message =
            format!("The amount to capture ({amount}) is above the capturable one ({}).", intent.capturable);
        return refuse(intent, ApiError::param("amount_too_large", "amount_to_capture", message));
    }
    let fault = match card_of(intent) {
        Some(Card::CaptureRefused) => {
            let expired = Event::Canceled { id: intent.id.clone(), reason: Some("automatic".into()) };
            let message = "This PaymentIntent can't be captured: its authorization has expired.";
            let refusal = ApiError::invalid("payment_intent_unexpected_state", message);
            return Decision { events: vec![expired], ..refuse(intent, refusal) };
        }
        Some(Card::CaptureLost) => Fault::AnswerLost,
        Some(Card::CaptureFails) => Fault::ServerError,
        _ => Fault::None,
    };
    Decision { fault, ..accept(&intent.id, vec![Event::Captured { id: intent.id.clone(), amount }]) }
}

fn cancel(intent: &Intent, reason: Option<String>) -> Decision {
    match intent.status {
        Status::Succeeded | Status::Canceled => unexpected_state(intent, "cancel"),
        _ => {
            let late = card_of(intent) == Some(Card::LateSuccess) && intent.status == Status::Processing;
            let overtake =
                || Command::Overtake { id: intent.id.clone(), charge: format!("ch_late_{}", intent.id) };
            let canceled = accept(&intent.id, vec![Event::Canceled { id: intent.id.clone(), reason }]);
            Decision { then: late.then(overtake), ..canceled }
        }
    }
}

/// The amount to refund: never above what was captured and not yet refunded.
fn refundable(intent: &Intent, amount: Option<u64>) -> Result<u64, ApiError> {
    let left = intent.received - intent.refunded;
    if intent.received == 0 {
        let message = "This PaymentIntent does not have a successful charge to refund.";
        return Err(ApiError::invalid("payment_intent_unexpected_state", message));
    }
    if left == 0 {
        return Err(ApiError::invalid("charge_already_refunded", "The charge has already been refunded."));
    }
    match amount.unwrap_or(left) {
        amount if amount > left => {
            let message = format!("The refund's amount ({amount}) is above the unrefunded one ({left}).");
            Err(ApiError::param("amount_too_large", "amount", message))
        }
        amount => Ok(amount),
    }
}

fn accept(id: &str, events: Vec<Event>) -> Decision {
    Decision { events, outcome: Outcome::Intent(id.into()), fault: Fault::None, then: None }
}

fn refuse(intent: &Intent, error: ApiError) -> Decision {
    let outcome = Outcome::Refused(error, intent.id.clone());
    Decision { events: Vec::new(), outcome, fault: Fault::None, then: None }
}

fn unexpected_state(intent: &Intent, what: &str) -> Decision {
    let status = serde_json::json!(intent.status);
    let message = format!("You cannot {what} this PaymentIntent because it has a status of {status}.");
    refuse(intent, ApiError::invalid("payment_intent_unexpected_state", message))
}

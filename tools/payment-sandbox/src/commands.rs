//! What a request changes: `decide` turns a command into events, or into a refusal. Pure, like `book`.

mod confirm;
mod disputes;
mod money;
mod under_way;

pub use under_way::under_way;

use crate::book::Book;
use crate::cards::{self, Card};
use crate::error::ApiError;
use crate::intents::{CaptureMethod, Details, Event, Intent, Metadata, Methods};

/// A request that has been parsed. New ids come with it, so that deciding stays pure.
#[derive(Clone, Debug)]
pub enum Command {
    Create(Create),
    Confirm {
        id: String,
        payment_method: Option<String>,
        how: Confirmation,
    },
    /// The end of a slow confirmation.
    Settle {
        id: String,
        charge: String,
    },
    /// A customer has proved who they are, or has not.
    Authenticate {
        id: String,
        /// The attempt that this is of.
        action: String,
        charge: String,
        proved: bool,
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
    /// A customer's bank wants the money of an intent back.
    Dispute {
        id: String,
        intent: String,
    },
    /// The shop's evidence, which may win or lose a test dispute.
    SubmitEvidence {
        id: String,
        text: Option<String>,
    },
    /// The shop accepts a dispute.
    CloseDispute {
        id: String,
    },
}

impl Command {
    /// What ends this confirmation when it is a slow one.
    pub fn settle(&self) -> Option<Self> {
        let (id, how) = match self {
            Self::Create(Create { id, confirm, .. }) => (id, confirm.as_ref()?),
            Self::Confirm { id, how, .. } => (id, how),
            _ => return None,
        };
        Some(Self::Settle { id: id.clone(), charge: how.charge.clone() })
    }
}

#[derive(Clone, Debug)]
pub struct Create {
    pub id: String,
    pub amount: u64,
    pub currency: String,
    pub capture_method: CaptureMethod,
    pub payment_method: Option<String>,
    pub methods: Methods,
    pub details: Details,
    pub metadata: Metadata,
    pub confirm: Option<Confirmation>,
}

#[derive(Clone, Debug)]
pub struct Confirmation {
    pub charge: String,
    /// The id of an action that the customer may have to take.
    pub action: String,
    /// What addresses of the sandbox's pages begin with.
    pub pages: String,
    pub return_url: Option<String>,
    /// What to decline with instead of asking the customer to act.
    pub unattended: Option<Unattended>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unattended {
    OffSession,
    ErrorOnRequiresAction,
}

/// What becomes of a command: the events to log, what to answer, and what goes wrong on the way.
#[derive(Debug)]
pub struct Decision {
    pub events: Vec<Event>,
    pub outcome: Outcome,
    pub fault: Fault,
    /// What happens by itself later.
    pub then: Option<Then>,
}

#[derive(Debug)]
pub struct Then {
    pub command: Command,
    pub after: After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// As long as whatever is slow here takes.
    AWhile,
    /// As long as customers have to prove who they are.
    TimeToAct,
}

#[derive(Debug)]
pub enum Outcome {
    /// 200 with the intent of that id.
    Intent(String),
    /// 200 with the refund of that id.
    Refund(String),
    /// 200 with the dispute of that id.
    Dispute(String),
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
    let intent = |id: &str| find(book, id, "intent");
    Ok(match command {
        Command::Create(new) => confirm::create(new)?,
        Command::Confirm { id, payment_method, how } => {
            confirm::confirm(intent(id)?, payment_method.as_deref(), how)?
        }
        Command::Settle { id, charge } => confirm::settle(intent(id)?, charge),
        Command::Authenticate { id, action, charge, proved } => {
            confirm::authenticate(intent(id)?, action, charge, *proved)
        }
        Command::Overtake { id, charge } => confirm::overtake(intent(id)?, charge),
        Command::Capture { id, amount } => money::capture(intent(id)?, *amount)?,
        Command::Cancel { id, reason } => money::cancel(intent(id)?, reason.clone()),
        Command::Refund { id, intent, amount, reason, metadata } => {
            let intent = find(book, intent, "payment_intent")?;
            money::refund(book, intent, id, *amount, reason.as_ref(), metadata)?
        }
        Command::EndRefund { id } => money::end_refund(book, id)?,
        Command::Dispute { id, intent: of } => disputes::open(id, intent(of)?),
        Command::SubmitEvidence { id, text } => disputes::submit(book, id, text.as_deref())?,
        Command::CloseDispute { id } => disputes::close(book, id)?,
    })
}

fn find<'a>(book: &'a Book, id: &str, param: &'static str) -> Result<&'a Intent, ApiError> {
    book.intent(id).ok_or_else(|| ApiError::not_found("payment_intent", param, id))
}

fn card_of(intent: &Intent) -> Option<Card> {
    intent.payment_method.as_deref().and_then(cards::find)
}

fn accept(outcome: Outcome, events: Vec<Event>) -> Decision {
    Decision { events, outcome, fault: Fault::None, then: None }
}

fn accept_intent(id: &str, events: Vec<Event>) -> Decision {
    accept(Outcome::Intent(id.into()), events)
}

fn refuse(intent: &Intent, error: ApiError) -> Decision {
    accept(Outcome::Refused(error, intent.id.clone()), Vec::new())
}

fn unexpected_state(intent: &Intent, what: &str) -> Decision {
    let status = serde_json::json!(intent.status);
    let status = status.as_str().unwrap_or_default();
    let message = format!("You cannot {what} this PaymentIntent because it has a status of {status}.");
    refuse(intent, ApiError::invalid("payment_intent_unexpected_state", message))
}

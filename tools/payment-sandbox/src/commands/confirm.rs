//! From an intent to money that is held.

use axum::http::StatusCode;

use super::{
    After, Command, Confirmation, Create, Decision, Fault, Then, Unattended, accept_intent, card_of,
    disputes, find, refuse, unexpected_state,
};
use crate::book::Book;
use crate::cards::{self, Card, Decline};
use crate::error::ApiError;
use crate::intents::{Action, CaptureMethod, Event, Intent, Methods, PaymentError, Status};

pub fn create(new: &Create) -> Result<Decision, ApiError> {
    let created = Event::IntentCreated {
        id: new.id.clone(),
        amount: new.amount,
        currency: new.currency.clone(),
        capture_method: new.capture_method,
        payment_method: new.payment_method.clone(),
        metadata: new.metadata.clone(),
        methods: new.methods,
        details: new.details.clone(),
    };
    let Some(how) = &new.confirm else {
        return Ok(accept_intent(&new.id, vec![created]));
    };
    let mut alone = Book::default();
    alone.apply(&created, 0).map_err(|error| {
        ApiError::server(StatusCode::INTERNAL_SERVER_ERROR, format!("creating an intent: {error}"))
    })?;
    let mut decision = confirm(find(&alone, &new.id, "intent")?, None, how)?;
    decision.events.insert(0, created);
    Ok(decision)
}

/// An error is one that leaves no trace: the request was wrong, whatever the intent is.
pub fn confirm(
    intent: &Intent,
    payment_method: Option<&str>,
    how: &Confirmation,
) -> Result<Decision, ApiError> {
    let confirmable = [Status::RequiresPaymentMethod, Status::RequiresConfirmation, Status::RequiresAction];
    if !confirmable.contains(&intent.status) {
        return Ok(unexpected_state(intent, "confirm"));
    }
    if intent.methods == Methods::All && how.return_url.is_none() {
        let message = "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because \
                       some of these payment methods might redirect your customer off of your page, you must provide \
                       a `return_url`. If you don't want to accept redirect-based payment methods, set \
                       `automatic_payment_methods[enabled]` to `true` and `automatic_payment_methods[allow_redirects]` \
                       to `never` when creating it, or name the payment methods that it takes.";
        return Err(ApiError::bad("return_url", message));
    }
    let Some(name) = payment_method.or(intent.payment_method.as_deref()) else {
        let message = "You cannot confirm this PaymentIntent because it's missing a payment method.";
        return Ok(refuse(intent, ApiError::invalid("payment_intent_unexpected_state", message)));
    };
    let Some(card) = cards::find(name) else {
        // Names are checked when they come in; this one is from a log of an older version.
        let message = format!("No such PaymentMethod: '{name}'");
        return Ok(refuse(intent, ApiError::param("resource_missing", "payment_method", message)));
    };
    Ok(attempt(intent, name, card, how))
}

fn attempt(intent: &Intent, name: &str, card: Card, how: &Confirmation) -> Decision {
    let started = || {
        let id = intent.id.clone();
        accept_intent(&intent.id, vec![Event::ConfirmationStarted { id, payment_method: name.into() }])
    };
    let held = |fault| Decision { fault, ..hold(intent, name, &how.charge) };
    match card {
        Card::Declines(why) => decline(intent, why, &how.charge),
        Card::Authenticates { but_off_session, .. } => match how.unattended {
            Some(Unattended::OffSession) if but_off_session => held(Fault::None),
            Some(Unattended::OffSession) => decline(intent, cards::NOT_THERE, &how.charge),
            Some(Unattended::ErrorOnRequiresAction) => decline(intent, cards::NOT_HANDLED, &how.charge),
            None => ask(intent, name, how),
        },
        Card::LateSuccess => started(),
        Card::Slow => Decision { fault: Fault::Slow, ..started() },
        Card::Hangs => Decision { fault: Fault::Hangs, ..started() },
        Card::ConfirmLost => held(Fault::AnswerLost),
        Card::ConfirmFails => held(Fault::ServerError),
        _ => held(Fault::None),
    }
}

/// The customer has to act first.
fn ask(intent: &Intent, name: &str, how: &Confirmation) -> Decision {
    let (id, action) = (intent.id.clone(), how.action.clone());
    let page = format!("{}/3d_secure/{id}/{action}", how.pages);
    let asked = Event::ActionRequired {
        id: id.clone(),
        payment_method: name.into(),
        action: Action { id: action.clone(), page, return_url: how.return_url.clone() },
    };
    let timed_out = Command::Authenticate { id, action, charge: String::new(), proved: false };
    let then = Then { command: timed_out, after: After::TimeToAct };
    Decision { then: Some(then), ..accept_intent(&intent.id, vec![asked]) }
}

pub fn authenticate(intent: &Intent, action: &str, charge: &str, proved: bool) -> Decision {
    let current = intent.action.as_ref().is_some_and(|current| current.id == action);
    let (true, Some(name)) = (current, &intent.payment_method) else {
        return unexpected_state(intent, "authenticate");
    };
    if !proved {
        let error = PaymentError {
            kind: "invalid_request_error".into(),
            code: "payment_intent_authentication_failure".into(),
            decline_code: None,
            message: "The provided PaymentMethod has failed authentication. You can provide payment_method_data or a \
                      new PaymentMethod to attempt to fulfill this PaymentIntent again."
                .into(),
            charge: None,
        };
        return accept_intent(&intent.id, vec![Event::AuthenticationFailed { id: intent.id.clone(), error }]);
    }
    match card_of(intent) {
        Some(Card::Authenticates { then: Some(why), .. }) => decline(intent, why, charge),
        _ => hold(intent, name, charge),
    }
}

/// A confirmation ends only if it is still under way: a cancelled intent stays cancelled.
pub fn settle(intent: &Intent, charge: &str) -> Decision {
    match (intent.status, &intent.payment_method) {
        (Status::Processing, Some(name)) => hold(intent, name, charge),
        _ => unexpected_state(intent, "confirm"),
    }
}

/// A payment that was cancelled too late: it is charged.
pub fn overtake(intent: &Intent, charge: &str) -> Decision {
    let (Status::Canceled, Some(name)) = (intent.status, &intent.payment_method) else {
        return unexpected_state(intent, "confirm");
    };
    let mut held = hold(intent, name, charge);
    if intent.capture_method == CaptureMethod::Manual {
        held.events.push(Event::Captured { id: intent.id.clone(), amount: intent.amount });
    }
    held
}

fn decline(intent: &Intent, why: Decline, charge: &str) -> Decision {
    let error = PaymentError {
        kind: "card_error".into(),
        code: why.code.into(),
        decline_code: why.decline_code.map(str::to_owned),
        message: why.message.into(),
        charge: Some(charge.into()),
    };
    let declined = Event::Declined { id: intent.id.clone(), charge: charge.into(), error };
    Decision { events: vec![declined], ..refuse(intent, ApiError::declined(why, charge)) }
}

fn hold(intent: &Intent, payment_method: &str, charge: &str) -> Decision {
    let id = intent.id.clone();
    let mut events = vec![Event::Authorized {
        id: id.clone(),
        payment_method: payment_method.into(),
        charge: charge.into(),
    }];
    let mut then = None;
    if intent.capture_method != CaptureMethod::Manual {
        events.push(Event::Captured { id, amount: intent.amount });
        then = disputes::follow(cards::find(payment_method), intent);
    }
    Decision { then, ..accept_intent(&intent.id, events) }
}

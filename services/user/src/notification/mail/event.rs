//! The part of an event that its mail is about.

use anyhow::Context;
use prost::Message;
use proto::events;
use proto::order::v1::{
    self as order_events, Destination, Order, OrderCancelled, OrderConfirmed, OrderDelivered, OrderPlaced,
    OrderRefunded, OrderShipped, Restock,
};
use service::Money;
use service::money::Currency;

use super::super::account_mail::{
    ADDRESS_CHANGED, ADDRESS_KNOWN, CONFIRM_ADDRESS, CONFIRM_CHANGE, NEW_DEVICE,
};
use super::super::{PASSWORD_CHANGED, PASSWORD_RESET, Signed, Ticket};
use super::name::cleaned;

/// What happened to an order, or to the account.
pub(super) enum About {
    Placed {
        free: bool,
    },
    Confirmed {
        free: bool,
        card: Option<Card>,
        to: Option<Place>,
    },
    Cancelled {
        why: Why,
        money: Back,
    },
    Left {
        carrier: String,
        number: String,
        more_follows: bool,
        to: Option<Place>,
    },
    Corrected {
        carrier: String,
        number: String,
    },
    /// Fetched in the shop.
    Collected {
        more_follows: bool,
    },
    Delivered,
    Refunded {
        amount: String,
        card: Option<Card>,
    },
    /// Somebody asked for a new password.
    PasswordReset(Ticket),
    PasswordChanged,
    /// Somebody registered with this address.
    ConfirmAddress(Ticket),
    /// Somebody wants this address for their account.
    ConfirmChange(Ticket),
    AddressKnown,
    AddressChanged,
    /// Somebody signed in, with this, from a device that is not known.
    NewDevice(Option<String>),
}

/// The card that was charged.
pub(super) struct Card {
    /// None where its name is not known here.
    pub brand: Option<&'static str>,
    pub last4: String,
}

/// Where an order goes.
pub(super) struct Place {
    pub recipient: String,
    pub town: Option<String>,
}

/// Why an order was cancelled.
pub(super) enum Why {
    Declined(Decline),
    Late,
    OutOfStock,
    Customer,
    Other,
}

/// Why a card was declined, from `order.cancelled`.
pub(super) enum Decline {
    /// The event is from before it had a reason, or has a reason of a later release.
    Unknown,
    /// It is between the customer and their bank.
    Declined,
    InsufficientFunds,
    ExpiredCard,
    IncorrectDetails,
    AuthenticationFailed,
    CardNotSupported,
    LimitExceeded,
    AmountNotAccepted,
    TryAgainLater,
}

/// What goes back of a cancelled order.
pub(super) enum Back {
    Nothing,
    All {
        amount: String,
        card: Option<Card>,
    },
    /// The event is from before it had an amount.
    Unknown,
}

/// `None` of what is about an order.
pub(super) fn of_account(kind: &str, payload: &[u8]) -> anyhow::Result<Option<About>> {
    Ok(match kind {
        PASSWORD_RESET => Some(About::PasswordReset(serde_json::from_slice(payload)?)),
        PASSWORD_CHANGED => Some(About::PasswordChanged),
        CONFIRM_ADDRESS => Some(About::ConfirmAddress(serde_json::from_slice(payload)?)),
        CONFIRM_CHANGE => Some(About::ConfirmChange(serde_json::from_slice(payload)?)),
        ADDRESS_KNOWN => Some(About::AddressKnown),
        ADDRESS_CHANGED => Some(About::AddressChanged),
        NEW_DEVICE => {
            let Signed { user_agent } = serde_json::from_slice(payload)?;
            // The client chose this text.
            let user_agent = user_agent.map(|text| cleaned(&text)).filter(|text| !text.is_empty());
            Some(About::NewDevice(user_agent))
        }
        _ => None,
    })
}

pub(super) struct Notice {
    pub order: Order,
    pub about: About,
    /// What is in a parcel; empty: everything.
    pub contents: Vec<Restock>,
}

fn notice(order: Option<Order>, about: About) -> anyhow::Result<Notice> {
    let order = order.context("the event has no order")?;
    Ok(Notice { order, about, contents: vec![] })
}

pub(super) fn read(kind: &str, payload: &[u8]) -> anyhow::Result<Notice> {
    match kind {
        events::ORDER_PLACED => {
            let order = OrderPlaced::decode(payload)?.order;
            let free = is_free(order.as_ref());
            notice(order, About::Placed { free })
        }
        events::ORDER_CONFIRMED => {
            let OrderConfirmed { order, card: paid, ships_to } = OrderConfirmed::decode(payload)?;
            let free = is_free(order.as_ref());
            notice(order, About::Confirmed { free, card: paid.and_then(card), to: ships_to.and_then(place) })
        }
        events::ORDER_CANCELLED => {
            let event = OrderCancelled::decode(payload)?;
            let order = event.order.context("the event has no order")?;
            let money = match (event.returns, event.reason.as_str()) {
                (Some(0), _) | (None, "payment_declined") => Back::Nothing,
                (Some(amount), _) => Back::All {
                    amount: currency(&order)?(amount).to_string(),
                    card: event.card.and_then(card),
                },
                (None, _) => Back::Unknown,
            };
            let why = match event.reason.as_str() {
                "payment_declined" => Why::Declined(decline(event.decline_reason.as_deref())),
                "payment_timeout" => Why::Late,
                "out_of_stock" => Why::OutOfStock,
                "customer" => Why::Customer,
                _ => Why::Other,
            };
            notice(Some(order), About::Cancelled { why, money })
        }
        events::ORDER_SHIPPED => {
            let event = OrderShipped::decode(payload)?;
            let (carrier, number, more_follows) = (event.carrier, event.tracking_number, event.more_follows);
            let to = event.ships_to.and_then(place);
            let about = match (carrier.is_empty(), event.corrected) {
                (true, _) => About::Collected { more_follows },
                (false, true) => About::Corrected { carrier, number },
                (false, false) => About::Left { carrier, number, more_follows, to },
            };
            Ok(Notice { contents: event.contents, ..notice(event.order, about)? })
        }
        events::ORDER_DELIVERED => notice(OrderDelivered::decode(payload)?.order, About::Delivered),
        events::ORDER_REFUNDED => {
            let event = OrderRefunded::decode(payload)?;
            let order = event.order.context("the event has no order")?;
            let amount = currency(&order)?(event.amount).to_string();
            notice(Some(order), About::Refunded { amount, card: event.card.and_then(card) })
        }
        _ => anyhow::bail!("there is no mail about {kind}"),
    }
}

fn is_free(order: Option<&Order>) -> bool {
    order.is_some_and(|order| order.total == 0)
}

/// None of a card that is not named, as of orders from before.
fn card(card: order_events::Card) -> Option<Card> {
    let brand = match card.brand.as_str() {
        "amex" => Some("American Express"),
        "cartes_bancaires" => Some("Cartes Bancaires"),
        "diners" => Some("Diners Club"),
        "discover" => Some("Discover"),
        "eftpos_au" => Some("eftpos"),
        "jcb" => Some("JCB"),
        "mastercard" => Some("Mastercard"),
        "unionpay" => Some("UnionPay"),
        "visa" => Some("Visa"),
        _ => None,
    };
    (!card.last4.is_empty()).then_some(Card { brand, last4: card.last4 })
}

fn place(to: Destination) -> Option<Place> {
    let (recipient, town) = (cleaned(&to.recipient), cleaned(&to.town));
    (!recipient.is_empty()).then_some(Place { recipient, town: Some(town).filter(|town| !town.is_empty()) })
}

fn decline(reason: Option<&str>) -> Decline {
    match reason {
        Some("declined") => Decline::Declined,
        Some("insufficient_funds") => Decline::InsufficientFunds,
        Some("expired_card") => Decline::ExpiredCard,
        Some("incorrect_details") => Decline::IncorrectDetails,
        Some("authentication_failed") => Decline::AuthenticationFailed,
        Some("card_not_supported") => Decline::CardNotSupported,
        Some("limit_exceeded") => Decline::LimitExceeded,
        Some("amount_not_accepted") => Decline::AmountNotAccepted,
        Some("try_again_later") => Decline::TryAgainLater,
        _ => Decline::Unknown,
    }
}

/// What makes money of the order's minor units.
pub(super) fn currency(order: &Order) -> anyhow::Result<impl Fn(i64) -> Money + use<>> {
    let currency = Currency::from_code(&order.currency).context("the order's currency is unknown")?;
    Ok(move |amount| Money::new(amount, currency))
}

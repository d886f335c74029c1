//! What the walk goes over: an order, and the world around it.

mod provider;
mod steps;

use super::super::*;
use super::kept::{Kept, rule};

/// The order, and the world around it: what provider and stock really hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub order: Kept<State>,
    provider: Provider,
    stock: Stock,
    /// The refunds that the provider has made or tried.
    refunds: Kept<Vec<Made>>,
    /// The customer has complained to their bank.
    dispute: Option<Dispute>,
    /// The provider changed something by itself, and its message is not followed up.
    unread: bool,
    /// What is left of things that may happen once.
    left: Left,
    /// What a slow worker will still do, although another has taken over.
    late: Option<Late>,
    confirmed: u8,
    cancelled: u8,
    refunded: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Late {
    /// Write an answer that it has read.
    Answer(Kept<Input>),
    /// Make a call that it has decided on.
    Call(Call),
    /// Ask for a refund.
    Refund(Kept<Refund>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Made {
    ours: Option<RefundId>,
    amount: Money,
    status: RefundStatus,
}

/// What may happen once in a life, and how much of it; without bounds there would be
/// states without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Left {
    more: u8,
    staff_refund: bool,
    provider_refund: bool,
    failed_refund: bool,
    late_capture: bool,
    late_worker: bool,
    dispute: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Provider {
    None,
    Unconfirmed,
    Processing,
    /// It waits for the customer.
    Action,
    Declined,
    Authorised,
    Captured,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stock {
    Reserved,
    Sold,
    Ended,
}

impl World {
    pub fn start(total: Money) -> Self {
        Self {
            order: State::placed(total).into(),
            provider: Provider::None,
            stock: Stock::Reserved,
            refunds: vec![].into(),
            dispute: None,
            unread: false,
            left: Left {
                more: 5,
                staff_refund: true,
                provider_refund: true,
                failed_refund: true,
                late_capture: true,
                late_worker: true,
                dispute: true,
            },
            late: None,
            confirmed: 0,
            cancelled: 0,
            refunded: 0,
        }
    }

    fn apply(&self, input: impl Into<Kept<Input>>) -> Option<Self> {
        let (order, effects) = rule(self.order, input.into())?;
        let mut world = Self { order, ..*self };
        for effect in effects {
            match effect {
                Effect::Confirm => world.confirmed += 1,
                Effect::AskCustomer => {
                    assert!(world.order.action.is_some(), "asked for nothing: {self:?}");
                    assert!(!self.order.is_free(), "asked about money that nobody wants: {self:?}");
                }
                // `order.cancelled` releases or restocks, whichever it finds.
                Effect::Cancel(_) => (world.cancelled, world.stock) = (world.cancelled + 1, Stock::Ended),
                Effect::Refunded(_) => world.refunded += 1,
                Effect::Ship(_) | Effect::Correct(_) | Effect::Deliver => {
                    assert!(self.paid(), "sent unpaid: {self:?}");
                    assert_eq!(self.stock, Stock::Sold, "sent without stock: {self:?}");
                }
            }
        }
        Some(world)
    }

    /// What there is to pay is.
    fn paid(&self) -> bool {
        self.order.is_free() || self.provider == Provider::Captured
    }

    fn held(&self) -> i64 {
        let captured = if self.provider == Provider::Captured { TOTAL.amount } else { 0 };
        if self.dispute == Some(Dispute::Lost) {
            return 0;
        }
        let gone = self.refunds.iter().filter(|made| made.status != RefundStatus::Failed);
        captured - gone.map(|made| made.amount.amount).sum::<i64>()
    }

    pub fn rests(&self) -> bool {
        self.order.next_call().is_none() && self.late.is_none() && !self.unread
    }

    pub fn check(&self) {
        assert!(self.confirmed <= 1 && self.cancelled <= 1, "announced twice: {self:?}");
        assert!(self.refunded <= 2, "refunds announced twice: {self:?}");
        assert!(self.held() >= 0, "more went back than was taken: {self:?}");
        if !self.rests() {
            return;
        }
        let back = self.refunds.iter().filter(|made| made.status == RefundStatus::Succeeded);
        let back: i64 = back.map(|made| made.amount.amount).sum();
        assert_eq!(self.order.returned().amount, back, "not what the provider says: {self:?}");
        match self.order.status {
            Status::Confirmed | Status::PartiallyShipped | Status::Shipped | Status::Delivered => {
                assert!(self.paid(), "confirmed unpaid: {self:?}");
                assert_eq!(self.stock, Stock::Sold, "confirmed without stock: {self:?}");
                let refunded = self.order.payment == PaymentStatus::Refunded;
                assert_eq!(refunded, !self.order.is_free() && back == TOTAL.amount, "{self:?}");
            }
            Status::Cancelled => {
                let charges = matches!(self.provider, Provider::Processing | Provider::Authorised);
                // What is disputed goes back once that is decided.
                let held = charges || self.held() > 0 && self.dispute != Some(Dispute::Open);
                assert!(!held, "cancelled but money is held: {self:?}");
                assert_ne!(self.stock, Stock::Sold, "cancelled but stock is gone: {self:?}");
                assert!(self.order.cancel_reason.is_some(), "{self:?}");
            }
            Status::Pending => panic!("rests as pending: {self:?}"),
        }
    }
}

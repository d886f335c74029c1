//! What leaves for the customer, and what arrives.

use super::{Effect, Refusal, State};
use crate::order::{Dispute, Parcel, Status};

impl State {
    /// Whoever calls it knows that the parcel is a new one.
    pub(super) fn ship(&mut self, parcel: Parcel, last: bool) -> Result<Vec<Effect>, Refusal> {
        match self.status {
            Status::Confirmed | Status::PartiallyShipped if self.is_money_disputed() => {
                branch!();
                Err(Refusal::Disputed)
            }
            // What goes back whole is not sent.
            Status::Confirmed | Status::PartiallyShipped if !self.goes_back_whole() => {
                branch!();
                self.status = if last { Status::Shipped } else { Status::PartiallyShipped };
                self.tracking = parcel.tracking.clone().or(self.tracking.take());
                Ok(vec![Effect::Ship(parcel)])
            }
            _ => {
                branch!();
                Err(Refusal::NotShippable)
            }
        }
    }

    pub(super) fn correct(&mut self, parcel: Parcel, newest: bool) -> Result<Vec<Effect>, Refusal> {
        match self.status {
            Status::PartiallyShipped | Status::Shipped => {
                branch!();
                if newest {
                    branch!();
                    self.tracking = parcel.tracking.clone();
                }
                Ok(vec![Effect::Correct(parcel)])
            }
            _ => {
                branch!();
                Err(Refusal::NotShippable)
            }
        }
    }

    pub(super) fn delivered(&mut self, more: bool) -> Result<Vec<Effect>, Refusal> {
        match self.status {
            Status::Shipped => {
                branch!();
                self.status = Status::Delivered;
                Ok(vec![Effect::Deliver])
            }
            // The rest is in stock again, or nobody has paid for it any more.
            Status::PartiallyShipped
                if !more || self.goes_back_whole() || self.dispute == Some(Dispute::Lost) =>
            {
                branch!();
                self.status = Status::Delivered;
                Ok(vec![Effect::Deliver])
            }
            Status::Delivered => {
                branch!();
                Ok(vec![])
            }
            _ => {
                branch!();
                Err(Refusal::NotDeliverable)
            }
        }
    }
}

//! What can happen next.

use super::*;

impl World {
    /// Everything that can happen next.
    pub fn successors(&self) -> Vec<Self> {
        let mut next = Vec::new();
        if let Some(call) = self.order.next_call() {
            for (world, answer) in self.outcomes(call) {
                next.extend(world.apply(answer)); // the answer arrives
                next.extend(world.apply(Input::NoAnswer)); // done, but nobody knows
                next.push(world); // done, and the worker died
                next.extend(world.slow(Late::Answer(answer)));
            }
            next.extend(self.apply(Input::NoAnswer)); // not even done
            if call == Call::Refund {
                let open = self.order.open_refunds();
                next.extend(open.filter_map(|open| self.slow(Late::Refund(open.clone().into()))));
            } else {
                next.extend(self.slow(Late::Call(call)));
            }
        }
        if let Some(late) = self.late {
            let world = Self { late: None, ..*self };
            next.push(world); // it died after all
            let answered = match late {
                Late::Answer(answer) => vec![(world, answer)],
                Late::Call(call) => world.outcomes(call),
                Late::Refund(refund) => world.ask_refund(&refund),
            };
            for (world, answer) in answered {
                next.extend(world.apply(answer));
                next.push(world); // it died after its call
            }
        }
        next.extend(self.apply(Input::Cancel(CancelReason::Customer)));
        next.extend(self.apply(ship("1", false)));
        next.extend(self.apply(ship("1", true)));
        for newest in [false, true] {
            next.extend(self.apply(Input::Correct { parcel: parcel("2"), newest }));
        }
        for more in [false, true] {
            next.extend(self.apply(Input::Deliver { more }));
        }
        next.extend(self.apply(Input::Deadline));
        let refund = Input::Refund(id(100), Some(eur(1)));
        if !self.left.staff_refund {
            next.extend(self.apply(refund)); // again
        } else if self.left.more > 0 {
            let left = Left { more: self.left.more - 1, staff_refund: false, ..self.left };
            next.extend(Self { left, ..*self }.apply(refund));
        }
        next.extend(self.surprises());
        if self.unread && matches!(self.order.next_call(), None | Some(Call::Refund)) {
            next.extend(self.inquire());
            // What else was asked about was not answered.
            next.extend(self.dispute.and_then(|dispute| self.apply(Input::Disputed(dispute))));
            next.extend(self.slow(Late::Answer(self.intent())));
            next.extend(
                (0..self.refunds.len()).filter_map(|made| self.slow(Late::Answer(self.reported(made)))),
            );
        }
        if self.stock == Stock::Reserved {
            next.push(Self { stock: Stock::Ended, ..*self }); // the reservation ran out
        }
        next
    }

    /// The inquiry that follows a webhook.
    fn inquire(&self) -> Option<Self> {
        let world = self.apply(self.intent())?.refunds_reported()?;
        let world = match world.dispute {
            Some(dispute) => world.apply(Input::Disputed(dispute))?,
            None => world,
        };
        Some(Self { unread: false, ..world })
    }

    pub(super) fn refunds_reported(&self) -> Option<Self> {
        (0..self.refunds.len()).try_fold(*self, |world, index| world.apply(self.reported(index)))
    }

    /// The worker is slow, and another takes over.
    fn slow(&self, late: Late) -> Option<Self> {
        let more = self.left.more.checked_sub(1).filter(|_| self.left.late_worker)?;
        Some(Self { late: Some(late), left: Left { more, late_worker: false, ..self.left }, ..*self })
    }
}

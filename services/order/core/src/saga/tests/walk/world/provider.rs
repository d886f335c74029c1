//! What the provider and the stock answer, and what the provider does by itself.

use super::*;

impl World {
    pub(super) fn intent(&self) -> Kept<Input> {
        let status = match self.provider {
            Provider::Action => return Input::ActionRequired(action()).into(),
            Provider::None | Provider::Unconfirmed => IntentStatus::Unconfirmed,
            Provider::Processing => IntentStatus::Processing,
            Provider::Declined => IntentStatus::Declined(DeclineReason::Declined),
            Provider::Authorised => IntentStatus::Authorised,
            Provider::Captured => return Input::CapturedFrom(card()).into(),
            Provider::Cancelled => IntentStatus::Cancelled,
        };
        Input::IntentReported(status).into()
    }

    /// The worlds that the call may lead to with its effect done, and the answer.
    pub(super) fn outcomes(&self, call: Call) -> Vec<(Self, Kept<Input>)> {
        let with = |provider: Provider| {
            let world = Self { provider, ..*self };
            let intent = world.intent();
            (world, intent)
        };
        match (call, self.provider) {
            (Call::CreateIntent, Provider::None) => {
                let refused = (*self, Input::Refused(DeclineReason::Declined).into());
                vec![(with(Provider::Unconfirmed).0, created().into()), refused]
            }
            (Call::CreateIntent, _) => vec![(*self, created().into())],
            (Call::ConfirmIntent, Provider::Unconfirmed) => {
                let ends = [Provider::Authorised, Provider::Declined, Provider::Processing, Provider::Action];
                ends.map(with).to_vec()
            }
            (Call::CaptureIntent, Provider::Authorised) => {
                // Or the authorisation had run out, or the bank has changed its mind.
                vec![with(Provider::Captured), with(Provider::Cancelled), with(Provider::Declined)]
            }
            (
                Call::CancelIntent,
                Provider::Unconfirmed
                | Provider::Processing
                | Provider::Action
                | Provider::Declined
                | Provider::Authorised,
            ) => vec![with(Provider::Cancelled)],
            (Call::Refund, _) => {
                self.order.open_refunds().flat_map(|refund| self.ask_refund(refund)).collect()
            }
            (Call::CommitStock, _) => match self.stock {
                Stock::Reserved => vec![(Self { stock: Stock::Sold, ..*self }, Input::StockCommitted.into())],
                Stock::Sold => vec![(*self, Input::StockCommitted.into())],
                Stock::Ended => vec![(*self, Input::StockGone.into())],
            },
            (Call::ConfirmIntent | Call::RetrieveIntent | Call::CaptureIntent | Call::CancelIntent, _) => {
                vec![(*self, self.intent())]
            }
        }
    }

    fn change_refunds(&mut self, change: impl FnOnce(&mut Vec<Made>)) {
        let mut refunds = (*self.refunds).clone();
        change(&mut refunds);
        self.refunds = refunds.into();
    }

    pub(super) fn reported(&self, index: usize) -> Kept<Input> {
        let Made { ours, amount, status } = self.refunds[index];
        let provider_id = Some(format!("re_{index}").into());
        let fresh = id(200 + index);
        Input::RefundReported(RefundReport { ours, provider_id, amount, status, fresh }).into()
    }

    /// Reading what there is, then the refund: as the runner does it.
    pub(super) fn ask_refund(&self, refund: &Refund) -> Vec<(Self, Kept<Input>)> {
        self.refunds_reported().map_or(vec![], |listed| listed.refund(refund))
    }

    /// What may come of asking for a refund, under its id as the key.
    fn refund(&self, refund: &Refund) -> Vec<(Self, Kept<Input>)> {
        if let Some(index) = self.refunds.iter().position(|made| made.ours == Some(refund.id)) {
            return vec![(*self, self.reported(index))];
        }
        if refund.by == RefundBy::Provider {
            return vec![];
        }
        let (ours, amount) = (Some(refund.id), refund.amount);
        if matches!(self.dispute, Some(Dispute::Open | Dispute::Lost)) {
            // Refused for now: no answer for good.
            return vec![];
        }
        if amount.amount > self.held() {
            let status = RefundStatus::Failed;
            let refused = RefundReport { ours, provider_id: None, amount, status, fresh: refund.id };
            return vec![(*self, Input::RefundReported(refused).into())];
        }
        let mut outcomes = vec![RefundStatus::Succeeded, RefundStatus::Pending];
        if self.left.failed_refund && self.left.more > 0 {
            outcomes.push(RefundStatus::Failed);
        }
        let outcome = |status| {
            let mut world = *self;
            world.change_refunds(|refunds| refunds.push(Made { ours, amount, status }));
            if status == RefundStatus::Failed {
                world.left = Left { more: world.left.more - 1, failed_refund: false, ..world.left };
            }
            let report = world.reported(world.refunds.len() - 1);
            (world, report)
        };
        outcomes.into_iter().map(outcome).collect()
    }

    /// What the provider does by itself; a webhook reports it.
    pub(super) fn surprises(&self) -> Vec<Self> {
        let mut next = Vec::new();
        let mut surprise = |change: &dyn Fn(&mut Self)| {
            let mut world = Self { unread: true, ..*self };
            change(&mut world);
            next.push(world);
        };
        let more = self.left.more;
        if self.provider == Provider::Cancelled && self.left.late_capture && more > 0 {
            surprise(&|world| {
                world.provider = Provider::Captured;
                world.left = Left { more: more - 1, late_capture: false, ..world.left };
            });
        }
        if self.provider == Provider::Action {
            // The customer comes back, or does not prove who they are.
            surprise(&|world| world.provider = Provider::Processing);
        }
        if matches!(self.provider, Provider::Processing | Provider::Action) {
            surprise(&|world| world.provider = Provider::Authorised);
            surprise(&|world| world.provider = Provider::Declined);
        }
        if self.held() > 0 && self.left.dispute && more > 1 {
            surprise(&|world| {
                world.dispute = Some(Dispute::Open);
                world.left = Left { more: more - 2, dispute: false, ..world.left };
            });
        }
        if self.dispute == Some(Dispute::Open) {
            surprise(&|world| world.dispute = Some(Dispute::Won));
            surprise(&|world| world.dispute = Some(Dispute::Lost));
        }
        if self.held() > 0 && self.dispute != Some(Dispute::Open) && self.left.provider_refund && more > 0 {
            surprise(&|world| {
                let made = Made { ours: None, amount: eur(1), status: RefundStatus::Succeeded };
                world.change_refunds(|refunds| refunds.push(made));
                world.left = Left { more: more - 1, provider_refund: false, ..world.left };
            });
        }
        for (index, made) in self.refunds.iter().enumerate() {
            if made.status == RefundStatus::Pending {
                surprise(&|world| {
                    world.change_refunds(|refunds| refunds[index].status = RefundStatus::Succeeded);
                });
            }
            if made.status != RefundStatus::Failed && self.left.failed_refund && more > 0 {
                surprise(&|world| {
                    world.change_refunds(|refunds| refunds[index].status = RefundStatus::Failed);
                    world.left = Left { more: more - 1, failed_refund: false, ..world.left };
                });
            }
        }
        next
    }
}

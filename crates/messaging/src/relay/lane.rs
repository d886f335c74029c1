//! How many events of each type may be unconfirmed: more while they are confirmed, one at a time and with
//! pauses while they are not.

use std::collections::HashMap;
use std::time::Duration;

use service::back_off;
use service::batch::MAX_BATCH;
use tokio::time::Instant;

/// To begin with. RabbitMQ stops reading from a channel with 32 messages that a quorum queue does not take.
/// <https://www.rabbitmq.com/docs/quorum-queues#client-applications>
pub(super) const FIRST_WINDOW: usize = 16;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The broker's answers to events of one type.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) confirmed: usize,
    /// Refused, came back, or not confirmed in time.
    pub(super) failed: usize,
    /// Their connection ended: that says nothing about their type.
    pub(super) broken: usize,
}

#[derive(Default)]
pub(super) struct Lanes(HashMap<String, Lane>);

struct Lane {
    window: usize,
    unconfirmed: usize,
    /// In a row.
    failures: u32,
    pauses_until: Option<Instant>,
}

impl Default for Lane {
    fn default() -> Self {
        Self { window: FIRST_WINDOW, unconfirmed: 0, failures: 0, pauses_until: None }
    }
}

impl Lanes {
    pub(super) fn sent(&mut self, kind: &str) {
        self.0.entry(kind.to_owned()).or_default().unconfirmed += 1;
    }

    pub(super) fn unconfirmed(&self) -> usize {
        self.0.values().map(|lane| lane.unconfirmed).sum()
    }

    /// Each type that was ever sent, and how many more of it may be sent now.
    pub(super) fn credits(&self, now: Instant) -> impl Iterator<Item = (&str, usize)> {
        self.0.iter().map(move |(kind, lane)| {
            let pauses = lane.pauses_until.is_some_and(|until| now < until);
            (kind.as_str(), if pauses { 0 } else { lane.window.saturating_sub(lane.unconfirmed) })
        })
    }

    pub(super) fn record(&mut self, kind: &str, tally: Tally, now: Instant) {
        let lane = self.0.entry(kind.to_owned()).or_default();
        lane.unconfirmed = lane.unconfirmed.saturating_sub(tally.confirmed + tally.failed + tally.broken);
        match (tally.confirmed, tally.failed) {
            (0, 0) => {}
            (0, _) => {
                lane.failures = lane.failures.saturating_add(1);
                lane.window = 1;
                lane.pauses_until = Some(now + back_off(FIRST_PAUSE, lane.failures, LONGEST_PAUSE));
                if lane.failures == 1 {
                    tracing::warn!(event.action = kind, "relay.type_pauses");
                }
            }
            (_, 0) => {
                lane.window = (lane.window * 2).min(MAX_BATCH);
                lane.pauses_until = None;
                if std::mem::take(&mut lane.failures) > 0 {
                    tracing::info!(event.action = kind, "relay.type_flows_again");
                }
            }
            (_, _) => lane.window = (lane.window / 2).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_is_not_taken_is_tried_one_at_a_time_with_longer_pauses() {
        let (mut lanes, mut now) = (Lanes::default(), Instant::now());
        let credit = |lanes: &Lanes, now| lanes.credits(now).next().unwrap().1;
        let taken = Tally { confirmed: 1, ..Tally::default() };
        let refused = Tally { failed: 1, ..Tally::default() };
        lanes.sent("a");
        assert_eq!((credit(&lanes, now), lanes.unconfirmed()), (FIRST_WINDOW - 1, 1));
        for _ in 0..5 {
            lanes.record("a", taken, now);
        }
        assert_eq!((credit(&lanes, now), lanes.unconfirmed()), (MAX_BATCH, 0));
        for pause in [1, 2, 4, 8, 10, 10] {
            lanes.record("a", refused, now);
            now += Duration::from_secs(pause);
            assert_eq!((credit(&lanes, now - Duration::from_millis(1)), credit(&lanes, now)), (0, 1));
        }
        lanes.record("a", Tally { broken: 1, ..Tally::default() }, now);
        assert_eq!(credit(&lanes, now), 1);
        lanes.record("a", taken, now);
        assert_eq!(credit(&lanes, now), 2);
    }
}

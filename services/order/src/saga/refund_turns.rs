//! Which of an order's refunds are due now.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::State;
use super::refunds::{Refund, RefundBy, RefundStatus};

/// Before a refund is asked for again after many have failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The open refunds that may be asked for, or how long until there is one.
pub fn due(state: &State, now: SystemTime) -> Result<Vec<&Refund>, Duration> {
    let (mut due, mut wait) = (Vec::new(), None::<Duration>);
    for refund in state.open_refunds() {
        match pause(refund, state, now) {
            None => due.push(refund),
            Some(pause) => wait = Some(wait.map_or(pause, |wait| wait.min(pause))),
        }
    }
    match wait {
        Some(wait) if due.is_empty() => Err(wait),
        _ => Ok(due),
    }
}

/// How long a refund waits because earlier ones have failed: the provider may accept tomorrow what it refuses
/// today. A second, doubling up to an hour, counted from when the refund was opened (its id holds that time),
/// so that no report shortens it. Only the rest of a cancelled order is asked for again and again.
fn pause(refund: &Refund, state: &State, now: SystemTime) -> Option<Duration> {
    let failed = |refund: &&Refund| refund.by == RefundBy::Cancel && refund.status == RefundStatus::Failed;
    let failed = u32::try_from(state.refunds.iter().filter(failed).count()).unwrap_or(u32::MAX);
    let is_asked = refund.by != RefundBy::Cancel || refund.provider_id.is_some();
    if is_asked || failed == 0 {
        return None;
    }
    let pause = Duration::from_secs(2u64.pow((failed - 1).min(12))).min(LONGEST_PAUSE);
    let (seconds, nanos) = Uuid::from(refund.id).get_timestamp()?.to_unix();
    let due = Duration::new(seconds, nanos) + pause;
    // The clock of the replica that opened it may be fast.
    let left = due.saturating_sub(now.duration_since(UNIX_EPOCH).ok()?).min(pause);
    (!left.is_zero()).then_some(left)
}

#[cfg(test)]
mod tests {
    use service::Money;
    use uuid::Builder;

    use super::*;

    const OPENED: Duration = Duration::from_millis(1_800_000_000_123);

    fn refund(by: RefundBy, status: RefundStatus) -> Refund {
        Refund {
            id: Builder::from_unix_timestamp_millis(1_800_000_000_123, &[0; 10]).into_uuid().into(),
            amount: eur(),
            status,
            by,
            provider_id: None,
        }
    }

    fn eur() -> Money {
        Money::zero("EUR".parse().unwrap())
    }

    fn state(refunds: impl IntoIterator<Item = Refund>) -> State {
        State { refunds: refunds.into_iter().collect(), ..State::placed(eur()) }
    }

    fn after_failing(times: usize, next: Refund) -> State {
        state(std::iter::repeat_n(refund(RefundBy::Cancel, RefundStatus::Failed), times).chain([next]))
    }

    /// How many are due so long after all were opened.
    fn after(state: &State, millis: u64) -> Result<usize, Duration> {
        due(state, UNIX_EPOCH + OPENED + Duration::from_millis(millis)).map(|due| due.len())
    }

    #[test]
    fn each_refund_that_failed_doubles_the_pause_before_the_next() {
        let waiting = || refund(RefundBy::Cancel, RefundStatus::Pending);
        assert_eq!(after(&after_failing(0, waiting()), 0), Ok(1));
        for (failed, seconds) in [(1, 1), (2, 2), (5, 16), (12, 2048), (13, 3600), (5000, 3600)] {
            let state = after_failing(failed, waiting());
            assert_eq!(after(&state, 0), Err(Duration::from_secs(seconds)), "{failed}");
            assert_eq!(after(&state, seconds * 1000 - 1), Err(Duration::from_millis(1)));
            assert_eq!(after(&state, seconds * 1000), Ok(1));
        }
        // A clock that is an hour behind.
        let slow = UNIX_EPOCH + OPENED - Duration::from_secs(3600);
        assert_eq!(due(&after_failing(2, waiting()), slow), Err(Duration::from_secs(2)));
        // An id without a time.
        let other = Refund { id: Uuid::from_u128(7).into(), ..waiting() };
        assert_eq!(after(&after_failing(2, other), 0), Ok(1));
        assert_eq!(after(&state([]), 0), Ok(0));
    }

    #[test]
    fn one_that_waits_holds_up_no_other_and_none_takes_its_turn() {
        let waiting = refund(RefundBy::Cancel, RefundStatus::Pending);
        // A refund of staff is due at once, and so is a question about one that was asked for.
        assert_eq!(after(&after_failing(3, refund(RefundBy::Staff, RefundStatus::Pending)), 0), Ok(1));
        let asked = Refund { provider_id: Some("re_1".to_owned().into()), ..waiting.clone() };
        assert_eq!(after(&after_failing(3, asked.clone()), 0), Ok(1));
        let staff = Refund { by: RefundBy::Staff, ..asked };
        let failed = refund(RefundBy::Cancel, RefundStatus::Failed);
        for order in [[&staff, &failed, &waiting], [&failed, &waiting, &staff]] {
            let state = state(order.into_iter().cloned());
            assert_eq!(due(&state, UNIX_EPOCH + OPENED), Ok(vec![&staff]));
            assert_eq!(after(&state, 1000), Ok(2));
        }
    }
}

//! Every time limit of the order's path, in one place.

use std::time::Duration;

/// Limits that depend on each other; see [`Times::check`].
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A request that places an order holds its Idempotency-Key for this long.
    pub claim_lease: Duration,
    /// An unpaid order is cancelled after this.
    pub payment_deadline: Duration,
    /// An order whose customer has to prove who they are to their bank is cancelled after this.
    pub action_deadline: Duration,
    /// How long the product service keeps a reservation (its `RESERVATION_LIFE_SECONDS`).
    pub reservation_life: Duration,
    /// A replica works on an order for this long without a sign of life.
    pub saga_lease: Duration,
    /// One call to the payment provider.
    pub provider_call: Duration,
    /// One call to the product service that reserves, commits or releases.
    pub product_call: Duration,
    /// One question to the user service.
    pub user_call: Duration,
    /// One call for the catalogue, which has a copy to fall back to.
    pub catalogue_call: Duration,
    /// How long an Idempotency-Key is kept.
    pub key_life: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            claim_lease: Duration::from_secs(30),
            payment_deadline: Duration::from_secs(5 * 60),
            action_deadline: Duration::from_secs(15 * 60),
            reservation_life: Duration::from_secs(20 * 60),
            saga_lease: Duration::from_secs(15),
            provider_call: Duration::from_secs(10),
            product_call: Duration::from_secs(3),
            user_call: Duration::from_secs(2),
            catalogue_call: Duration::from_secs(1),
            key_life: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl Times {
    /// Refuses limits that would break a promise.
    pub fn check(&self) -> Result<(), String> {
        let order = [
            ("one provider call", self.provider_call, "the saga's lease", self.saga_lease),
            ("one product call", self.product_call, "the claim's lease", self.claim_lease),
            ("the claim's lease", self.claim_lease, "a reservation's life", self.reservation_life),
            ("the payment deadline", self.payment_deadline, "a reservation's life", self.reservation_life),
            (
                "the deadline of customers' actions",
                self.action_deadline,
                "a reservation's life",
                self.reservation_life,
            ),
            ("a reservation's life", self.reservation_life, "a key's life", self.key_life),
        ];
        for (short, a, long, b) in order {
            if a >= b {
                return Err(format!("{short} ({a:?}) must be shorter than {long} ({b:?})"));
            }
        }
        if self.provider_call.is_zero() {
            return Err("one provider call takes some time".to_owned());
        }
        Ok(())
    }

    /// Between two sweeps of lapsed claims. Until then their clients can come back by themselves.
    pub fn sweep_every(&self) -> Duration {
        self.claim_lease / 6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_keep_each_other() {
        assert_eq!(Times::default().check(), Ok(()));
    }

    #[test]
    fn a_deadline_beyond_the_reservation_is_refused() {
        let late = Times { payment_deadline: Duration::from_secs(1201), ..Times::default() };
        assert!(late.check().unwrap_err().contains("payment deadline"));
        let late = Times { action_deadline: Duration::from_secs(1200), ..Times::default() };
        assert!(late.check().unwrap_err().contains("customers' actions"));
    }

    #[test]
    fn a_lease_no_longer_than_the_calls_made_under_it_is_refused() {
        let short = Times { saga_lease: Duration::from_secs(10), ..Times::default() };
        assert!(short.check().unwrap_err().contains("saga's lease"));
        let short = Times { claim_lease: Duration::from_secs(3), ..Times::default() };
        assert!(short.check().unwrap_err().contains("claim's lease"));
    }
}

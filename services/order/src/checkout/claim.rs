//! The first step: claim the key for this request, or find the answer that it has already.

use order_core::ids::{AddressId, UserId};
use service::failpoint;

use super::request::Wanted;
use super::{Checkout, CheckoutError};
use crate::address::Address;
use crate::cart;
use crate::idempotency::{self, Key, Lookup, Record, StoredAnswer};
use crate::order::{Line, Lines};

/// A key after a request has asked for it.
pub enum Claimed {
    /// This request works on it.
    Mine(Box<Record>),
    Answered(StoredAnswer),
}

impl Checkout {
    /// The key's record, or the answer that it already has.
    pub(super) async fn claim(&self, key: &Key, wanted: &Wanted) -> Result<Claimed, CheckoutError> {
        // Most keys are new. If the user service has to be asked for an address, the key is looked up first.
        if wanted.address_id.is_none() {
            let lines = self.lines(key, wanted).await?;
            if let Ok(lines) = Lines::try_from(lines)
                && let Some(record) = self.claim_new(key, lines, None).await?
            {
                return Ok(Claimed::Mine(Box::new(record)));
            }
        }
        let existing = {
            let mut connection = self.pool.acquire().await?;
            idempotency::find_or_take_over(&mut connection, key, &self.times).await?
        };
        match existing {
            Lookup::TakenOver(record) => {
                failpoint::hit("order.place.taken_over").await?;
                return Ok(Claimed::Mine(record));
            }
            Lookup::Answered(answer) => return Ok(Claimed::Answered(answer)),
            Lookup::None => {}
        }
        // No connection is held here: this asks another service.
        let address = match wanted.address_id {
            Some(id) => Some(self.address(key.user_id, id).await?),
            None => None,
        };
        let lines = self.lines(key, wanted).await?.try_into()?;
        match self.claim_new(key, lines, address).await? {
            Some(record) => Ok(Claimed::Mine(Box::new(record))),
            None => Err(idempotency::taken(&mut *self.pool.acquire().await?, key).await.into()),
        }
    }

    /// What is to be bought. A cart may be empty.
    async fn lines(&self, key: &Key, wanted: &Wanted) -> sqlx::Result<Vec<Line>> {
        match &wanted.lines {
            Some(lines) => Ok(lines.clone().into()),
            None => cart::store::lines(&mut *self.pool.acquire().await?, key.user_id).await,
        }
    }

    /// A record of a new key; `None` when the key is not new, or its user was erased.
    async fn claim_new(
        &self,
        key: &Key,
        lines: Lines,
        address: Option<Address>,
    ) -> Result<Option<Record>, CheckoutError> {
        let record = Record::new(lines.into(), address);
        let made = self.claims.run((key.clone(), record.clone())).await??;
        Ok(made.then_some(record))
    }

    async fn address(&self, user: UserId, id: AddressId) -> Result<Address, CheckoutError> {
        match self.users.address(user, id).await {
            Ok(Some(address)) => Ok(address),
            Ok(None) => Err(CheckoutError::UnknownAddress),
            Err(error) => {
                tracing::warn!(%error, "place.user_away");
                Err(CheckoutError::UserAway)
            }
        }
    }
}

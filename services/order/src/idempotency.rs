//! Idempotency records, one for each Idempotency-Key. One request at a time works on a key. A retry gets the
//! first answer. A record that a dead request left is taken over.

pub mod store;

use std::time::Duration;

use order_core::ids::UserId;
use service::db::Connection;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::address::Address;
use crate::erasure;
use crate::order::Line;
use crate::times::Times;

/// A fencing token: which record, and who holds it. A record that is taken over keeps its id, so the id alone
/// does not say who may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    pub id: Uuid,
    pub owner: Uuid,
}

/// A record that this request holds.
#[derive(Clone, Debug)]
pub struct Record {
    /// Of what is to be made: an order or a refund.
    pub id: Uuid,
    /// Changes with each takeover; every write checks it.
    pub owner: Uuid,
    pub lines: Vec<Line>,
    /// What the request's `address_id` meant when the key was claimed.
    pub address: Option<Address>,
    /// The reservation may still be released by a call that was delayed or not answered: the call of a
    /// sweeper, or of a request whose cart had changed.
    pub sweeping: bool,
}

impl Record {
    /// Under an id of its own.
    pub fn new(lines: Vec<Line>, address: Option<Address>) -> Self {
        Self { id: Uuid::now_v7(), owner: Uuid::now_v7(), lines, address, sweeping: false }
    }

    pub fn fence(&self) -> Fence {
        Fence { id: self.id, owner: self.owner }
    }
}

/// An answer as it is stored with its key.
#[derive(Clone, Debug)]
pub struct StoredAnswer {
    /// Of what was made: an order or a refund.
    pub id: Uuid,
    pub status: u16,
    pub body: String,
}

/// A record in the store.
#[derive(Debug)]
pub struct Stored {
    pub body_hash: Vec<u8>,
    pub answer: Option<StoredAnswer>,
}

/// Whose key it is.
#[derive(Clone, Debug)]
pub struct Key {
    pub user_id: UserId,
    pub operation: &'static str,
    pub key: String,
    pub body_hash: Vec<u8>,
}

impl Key {
    /// `body` is hashed in its parsed form, so that white space doesn't matter.
    pub fn new(
        user_id: UserId,
        operation: &'static str,
        key: String,
        body: &impl serde::Serialize,
    ) -> serde_json::Result<Self> {
        let body = serde_json::to_vec(body)?;
        Ok(Self { user_id, operation, key, body_hash: Sha256::digest(body).to_vec() })
    }
}

/// Why a request does not get to work on its key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key was used with another body")]
    Reused,
    #[error("another request works on the key")]
    InProgress,
    #[error("the user of the key was erased")]
    UserGone,
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

pub enum Lookup {
    /// Nobody has used this key.
    None,
    /// Somebody claimed it and did not come back for the answer.
    TakenOver(Box<Record>),
    Answered(StoredAnswer),
}

/// Looks the key up: it has an answer, a lapsed record (now taken over), or nothing yet.
pub async fn find_or_take_over(
    connection: &mut Connection,
    key: &Key,
    times: &Times,
) -> Result<Lookup, KeyError> {
    if let Some(record) = store::take_over(connection, key, times.claim_lease).await? {
        return Ok(Lookup::TakenOver(Box::new(record)));
    }
    let Some(stored) = store::read(connection, key).await? else { return Ok(Lookup::None) };
    if stored.body_hash != key.body_hash {
        return Err(KeyError::Reused);
    }
    stored.answer.map(Lookup::Answered).ok_or(KeyError::InProgress)
}

/// A record for a key that [`find_or_take_over`] did not find. None if its user was erased or another request
/// was faster.
pub async fn make(
    connection: &mut Connection,
    key: &Key,
    lines: Vec<Line>,
    address: Option<Address>,
    lease: Duration,
) -> Result<Record, KeyError> {
    let record = Record::new(lines, address);
    match store::insert(connection, &[(key.clone(), record.clone())], lease).await?[..] {
        [true] => Ok(record),
        _ => Err(taken(connection, key).await),
    }
}

/// Why a key could not be claimed.
pub async fn taken(connection: &mut Connection, key: &Key) -> KeyError {
    match erasure::store::is_deleted(connection, key.user_id).await {
        Ok(true) => KeyError::UserGone,
        Ok(false) => KeyError::InProgress,
        Err(error) => error.into(),
    }
}

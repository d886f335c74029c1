//! The search of staff among all orders.

use order_core::ids::UserId;
use service::money::Currency;
use time::OffsetDateTime;

use super::{OrderNumber, Status};

/// An order has to meet every filter that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    pub users: Option<Vec<UserId>>,
    pub status: Option<Status>,
    pub number: Option<OrderNumber>,
    /// The beginnings of words of the name on the parcel, or the parcel's number.
    pub q: Option<String>,
    pub currency: Option<Currency>,
    /// Minor units.
    pub min_total: Option<i64>,
    pub max_total: Option<i64>,
    /// The first moment.
    pub placed_from: Option<OffsetDateTime>,
    /// The first moment after.
    pub placed_to: Option<OffsetDateTime>,
}

impl Search {
    /// Whether the order's user and status are all that is asked for.
    pub fn is_plain(&self) -> bool {
        let rest = Self { users: None, status: None, ..self.clone() };
        rest == Self::default() && self.users.as_ref().is_none_or(|users| users.len() == 1)
    }
}

//! Stock: how much is on hand, how much of it is reserved, and for which order.
//!
//! A reservation goes `reserved` -> `committed` | `released` | `expired`; an ended one never revives.
//! Operations take slices and decide a whole batch in one transaction, in a handful of statements whatever
//! its size.
//!
//! Locks are taken in one order everywhere, so that no two transactions wait
//! for each other: all reservations in one statement, sorted by order id, then
//! all stock rows in one statement, sorted by product id.

mod adjust;
mod commit;
mod ledger;
mod release;
mod reserve;
mod set;
mod store;

use service::Money;
use uuid::Uuid;

pub use adjust::{AdjustError, MAX_ON_HAND, adjust, open};
pub use commit::{Committed, commit};
pub use ledger::Entry;
pub use ledger::store::page as ledger_page;
pub use release::{Released, Return, expire_until, release, restock};
pub use reserve::reserve;
pub use set::{SetError, Wanted, set};
pub use store::forget;

/// Most units that one adjustment adds or takes, and a new product starts with.
pub const MAX_DELTA: i64 = 1_000_000;

/// How long reservations last.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// A reservation that was not committed is released after this.
    pub open_seconds: u32,
    /// An ended one is deleted after this, counted from when its order's id was made.
    pub ended_days: i32,
}

/// What an order asks for. A product may be on several lines.
#[derive(Clone, Debug)]
pub struct Reservation {
    pub order_id: Uuid,
    pub lines: Vec<Line>,
}

#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub product_id: Uuid,
    pub quantity: u32,
}

/// The outcome of a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All lines are reserved, in the order asked for. A repeated request gets the same answer, prices
    /// included.
    Reserved { lines: Vec<ReservedLine>, remaining_ms: i64 },
    /// Nothing was reserved; every short product is named.
    OutOfStock(Vec<Short>),
    /// Nothing was reserved: these don't exist or are archived.
    UnknownProducts(Vec<Uuid>),
    /// The order id is known with other lines.
    Conflict,
    /// The reservation was released or ran out.
    Ended,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedLine {
    pub product_id: Uuid,
    pub sku: String,
    pub name: String,
    pub unit_price: Money,
    pub quantity: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    pub product_id: Uuid,
    pub requested: u32,
    pub available: u32,
}

/// A reservation's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum State {
    Reserved,
    Committed,
    Released,
    Expired,
}

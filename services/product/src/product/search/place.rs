//! The place in a search where a page ended, and its form as a cursor.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Filters, Sort, spelling};

/// The place of a page's last item, and the search that it is a place in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cursor {
    pub filters: Filters,
    /// The text that was searched for in place of a misspelt `q`.
    pub respelt: Option<Vec<String>>,
    pub place: Place,
    pub id: Uuid,
}

/// A product's place in a sort, but for its id.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Microseconds since the Unix epoch.
    Newest(i64),
    /// Where the words were found, then the time as above.
    Relevance(Tier, i64),
    Price(i64),
    Name(String),
}

/// Where a product contains the words, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// They are its name or SKU.
    Exact,
    /// All in its name or SKU.
    Name,
    /// All there, some as the beginnings of others.
    Beginning,
    /// All there or in its attributes, some within others.
    Facts,
    /// Some only in its description.
    Description,
}

impl Cursor {
    /// A client may change a cursor, so what the database could not take (a NUL, a year that no calendar has)
    /// is refused here.
    pub fn fits(&self, filters: &Filters) -> bool {
        let time = |micros: i64| from_micros(micros).is_some();
        let place = match (&self.place, filters.sort) {
            (Place::Newest(micros), Sort::Newest) => time(*micros),
            (Place::Relevance(_, micros), Sort::Relevance) => time(*micros),
            (Place::Price(_), Sort::Price | Sort::PriceDown) => true,
            (Place::Name(name), Sort::Name) => !name.chars().any(char::is_control),
            _ => false,
        };
        place && self.filters == *filters && self.respelt.as_deref().is_none_or(spelling::is_sane)
    }
}

pub fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

pub fn from_micros(micros: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000)
        .ok()
        .filter(|time| (0..=9999).contains(&time.year()))
}

//! The addresses that a customer keeps for the next order.

mod store;

use serde::Serialize;
use service::Problem;
use service::db::Connection;
use service::validate::Invalid;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use crate::schema;

pub(crate) use store::{find, list, remove, replace};

/// Most addresses of one account.
const MOST: i64 = 50;

/// Where somebody can be reached by post.
pub(crate) use postal::Address as Place;

/// The address as it is kept. 422 naming each part that the country's rules do not allow.
pub(crate) fn checked(place: Place) -> Result<Place, Problem> {
    place.checked().map_err(|faults| {
        let mut invalid = Invalid::new();
        for fault in faults {
            invalid.push(format!("/{}", fault.field), fault.code, fault.detail);
        }
        match invalid.check() {
            Err(problem) => problem,
            Ok(()) => Problem::internal(),
        }
    })
}

#[derive(Debug, Serialize)]
pub(crate) struct Address {
    pub id: Uuid,
    #[serde(flatten)]
    pub place: Place,
}

/// A place and its id. Not put together of the two, since a place takes no
/// other fields.
impl PartialSchema for Address {
    fn schema() -> RefOr<Schema> {
        let mut schema = Place::schema();
        if let RefOr::T(Schema::Object(place)) = &mut schema {
            place.properties.insert("id".to_owned(), schema::id().into());
            place.required.push("id".to_owned());
            place.additional_properties = None;
        }
        schema
    }
}

impl ToSchema for Address {}

/// Keeps an address; `None` when the account has gone. 409 `too_many_addresses`
/// when it has 50.
pub(crate) async fn add(
    connection: &mut Connection,
    account: Uuid,
    place: Place,
) -> Result<Option<Address>, Problem> {
    let Some(kept) = store::lock_and_count(connection, account).await? else {
        return Ok(None);
    };
    if kept >= MOST {
        let detail = "There are 50 addresses already: remove one first.";
        return Err(Problem::conflict("too_many_addresses", detail));
    }
    Ok(Some(store::insert(connection, account, place).await?))
}

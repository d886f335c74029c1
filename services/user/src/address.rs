//! The addresses that a customer keeps for the next order.

mod store;

use serde::{Deserialize, Serialize};
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
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    #[schema(schema_with = schema::up_to_100)]
    pub name: String,
    #[schema(schema_with = schema::up_to_200)]
    pub line1: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    pub line2: Option<String>,
    #[schema(schema_with = schema::up_to_100)]
    pub city: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    pub region: Option<String>,
    #[schema(schema_with = schema::up_to_20)]
    pub postal_code: String,
    /// ISO 3166-1 alpha-2.
    #[schema(schema_with = schema::country)]
    pub country: String,
}

impl Place {
    /// 422 naming each field that is not acceptable. As for the address of an order.
    pub fn check(&self) -> Result<(), Problem> {
        let mut invalid = Invalid::new();
        let mut text = |pointer: &str, value: &str, min: usize, max: usize| {
            invalid.text(pointer, value.to_owned(), min, max);
        };
        text("/name", &self.name, 1, 100);
        text("/line1", &self.line1, 1, 200);
        text("/line2", self.line2.as_deref().unwrap_or_default(), 0, 200);
        text("/city", &self.city, 1, 100);
        text("/region", self.region.as_deref().unwrap_or_default(), 0, 200);
        text("/postal_code", &self.postal_code, 1, 20);
        invalid.country("/country", &self.country);
        invalid.check()
    }
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

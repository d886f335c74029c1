//! Where an order goes.

use serde::{Deserialize, Serialize};
use service::validate::Invalid;
use utoipa::ToSchema;

use crate::schema;

/// Where a parcel goes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ShippingAddress)]
pub struct Address {
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

impl Address {
    pub fn check(&self, at: &str, invalid: &mut Invalid) {
        let mut text = |field: &str, value: &str, min: usize, max: usize| {
            invalid.text(&format!("{at}/{field}"), value.to_owned(), min, max);
        };
        text("name", &self.name, 1, 100);
        text("line1", &self.line1, 1, 200);
        text("city", &self.city, 1, 100);
        text("postal_code", &self.postal_code, 1, 20);
        for (field, value) in [("line2", &self.line2), ("region", &self.region)] {
            if let Some(value) = value {
                text(field, value, 0, 200);
            }
        }
        invalid.country(&format!("{at}/country"), &self.country);
    }
}

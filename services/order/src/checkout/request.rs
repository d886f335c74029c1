//! What a customer asks for.

use order_core::ids::AddressId;
use serde::{Deserialize, Serialize};
use service::Money;
use service::extract::not_null;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType};
use utoipa::{PartialSchema, ToSchema};

use crate::address::Address;
use crate::order::{Line, LineBody, Lines};

/// What a customer asks for. Without items the cart is bought.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, min_items = 1, max_items = 100, value_type = Option<Vec<Line>>)]
    pub items: Option<Vec<LineBody>>,
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub shipping_address: Option<Address>,
    /// One of the user's own addresses instead.
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<uuid::Uuid>)]
    pub address_id: Option<AddressId>,
    /// What the customer has agreed to pay. When the order comes to something else, it is refused with 409 `price_changed`.
    /// Without it an order of `items` is placed at the prices of now, and one of the cart at those that the cart last showed.
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub expected_total: Option<Money>,
    /// What the customer has seen, in any order. When the order would be of something else, as the cart has changed, it is
    /// refused with 409 `cart_changed`; when the cart is empty, with 422 `cart_empty`.
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_items = 1, max_items = 100, value_type = Option<Vec<Line>>)]
    pub expected_items: Option<Vec<LineBody>>,
    /// The name of one of the provider's test cards.
    #[schema(pattern = "^pm_[A-Za-z0-9_]+$", max_length = 100)]
    pub payment_method: String,
}

/// A [`Request`] in which nothing is wrong.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// None: the cart is bought.
    pub lines: Option<Lines>,
    pub shipping_address: Option<Address>,
    pub address_id: Option<AddressId>,
    pub expected_total: Option<Money>,
    /// What the order has to be of.
    pub expected_items: Option<Lines>,
    pub payment_method: String,
}

/// [`Request`] in the OpenAPI document: with one of the two addresses.
pub struct Described;

impl PartialSchema for Described {
    fn schema() -> RefOr<Schema> {
        let with = |field: &str| ObjectBuilder::new().schema_type(SchemaType::AnyValue).required(field);
        let one = OneOfBuilder::new().item(with("shipping_address")).item(with("address_id"));
        AllOfBuilder::new().item(Request::schema()).item(one).into()
    }
}

impl ToSchema for Described {
    fn name() -> std::borrow::Cow<'static, str> {
        "OrderRequest".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Request::schemas(schemas);
    }
}

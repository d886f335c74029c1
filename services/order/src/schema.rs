//! Schemas of values in the OpenAPI document, in line with what is accepted.

pub use service::openapi::schema::{lines_up_to_500, up_to_100, words};
use service::openapi::schema::{string, visible};
use utoipa::openapi::schema::{AdditionalProperties, Object, ObjectBuilder, Schema, SchemaType, Type};

/// Most characters of a name that the payment provider gives.
pub const NAME: usize = 255;

pub fn name() -> Object {
    visible(1, NAME)
}

/// A [`name`], or something that is no text.
pub fn name_or_other() -> Object {
    ObjectBuilder::from(name()).schema_type(SchemaType::AnyValue).build()
}

/// [`Money`] that can be paid back: more than nothing.
pub fn refund_amount() -> Object {
    let amount = ObjectBuilder::new().schema_type(Type::Integer);
    let amount = amount.minimum(Some(1));
    ObjectBuilder::new()
        .description(Some("All that is left when it is left out. In the order's currency."))
        .property("amount", amount)
        .property("currency", string("^[A-Z]{3}$").description(Some("ISO 4217.")))
        .required("amount")
        .required("currency")
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
        .build()
}

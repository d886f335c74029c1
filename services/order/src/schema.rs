//! Text and amounts as the OpenAPI document describes them, in line with what is accepted.

use service::Money;
use utoipa::openapi::schema::{AdditionalProperties, Object, ObjectBuilder, Schema, Type};

/// No control characters, and something to see.
const VISIBLE: &str = concat!(
    r"^[^\u0000-\u001f\u007f-\u009f]*",
    r"[^\s\u0000-\u001f\u007f-\u009f]",
    r"[^\u0000-\u001f\u007f-\u009f]*$"
);

fn visible(max: usize) -> Object {
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(VISIBLE));
    text.min_length(Some(1)).max_length(Some(max)).build()
}

pub fn up_to_20() -> Object {
    visible(20)
}

pub fn up_to_100() -> Object {
    visible(100)
}

pub fn up_to_200() -> Object {
    visible(200)
}

pub fn up_to_500() -> Object {
    visible(500)
}

/// ISO 3166-1 alpha-2.
pub fn country() -> Object {
    words(service::validate::COUNTRIES.split(' '))
}

/// Text that is one of these words.
pub fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build()
}

/// [`Money`] that can be paid back: more than nothing.
pub fn refund_amount() -> Object {
    let amount = ObjectBuilder::new().schema_type(Type::Integer);
    let amount = amount.minimum(Some(1)).maximum(Some(Money::MAX_AMOUNT));
    let currency = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Z]{3}$"));
    ObjectBuilder::new()
        .description(Some("All that is left when it is left out. In the order's currency."))
        .property("amount", amount)
        .property("currency", currency.description(Some("ISO 4217.")))
        .required("amount")
        .required("currency")
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
        .build()
}

//! Text as the OpenAPI document describes it, in line with what is accepted.

use utoipa::openapi::schema::{KnownFormat, Object, ObjectBuilder, SchemaFormat, Type};

/// No control characters, and something to see.
const VISIBLE: &str = concat!(
    r"^[^\u0000-\u001f\u007f-\u009f]*",
    r"[^\s\u0000-\u001f\u007f-\u009f]",
    r"[^\u0000-\u001f\u007f-\u009f]*$"
);

const NO_CONTROLS: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

fn visible(min: usize, max: usize) -> Object {
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(VISIBLE));
    text.min_length(Some(min)).max_length(Some(max)).build()
}

pub(crate) fn up_to_20() -> Object {
    visible(1, 20)
}

pub(crate) fn up_to_100() -> Object {
    visible(1, 100)
}

pub(crate) fn up_to_200() -> Object {
    visible(1, 200)
}

pub(crate) fn new_password() -> Object {
    visible(8, 128)
}

/// Any text, as it may be wrong but not malformed.
pub(crate) fn text() -> Object {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(NO_CONTROLS)).build()
}

/// ISO 3166-1 alpha-2.
pub(crate) fn country() -> Object {
    let codes = service::validate::COUNTRIES.split(' ');
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes)).build()
}

pub(crate) fn id() -> Object {
    let uuid = SchemaFormat::KnownFormat(KnownFormat::Uuid);
    ObjectBuilder::new().schema_type(Type::String).format(Some(uuid)).build()
}

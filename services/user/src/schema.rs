//! Values as the OpenAPI document describes them, in line with what is accepted.

use service::openapi::schema::visible;
pub(crate) use service::openapi::schema::{text, up_to_100};
use utoipa::openapi::schema::{KnownFormat, Object, ObjectBuilder, SchemaFormat, Type};

pub(crate) fn new_password() -> Object {
    visible(8, 128)
}

pub(crate) fn id() -> Object {
    let uuid = SchemaFormat::KnownFormat(KnownFormat::Uuid);
    ObjectBuilder::new().schema_type(Type::String).format(Some(uuid)).build()
}

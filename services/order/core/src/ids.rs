//! A type for each kind of id, so that none is taken for another.
//!
//! The macro is our own: the crate `newtype-uuid` maps neither to columns nor to OpenAPI, and the orphan rule
//! does not let us add that here. A reservation has no id of its own: it has the id of its order.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[cfg(feature = "openapi")]
mod format {
    use utoipa::openapi::schema::{KnownFormat, SchemaFormat};

    pub const UUID: SchemaFormat = SchemaFormat::KnownFormat(KnownFormat::Uuid);
}

/// An id that is a UUID or a text. It is parsed, displayed and written in JSON in one place; with the feature
/// `sqlx` it can be a column, with `openapi` it has a schema.
macro_rules! id {
    ($(#[$meta:meta])* $name:ident($inner:ident $(in the format $format:ident)?): $error:ty) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(transparent))]
        pub struct $name($inner);

        impl From<$inner> for $name {
            fn from(id: $inner) -> Self {
                Self(id)
            }
        }

        impl From<$name> for $inner {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                use utoipa::openapi::schema::{ObjectBuilder, Type};
                ObjectBuilder::new().schema_type(Type::String)$(.format(Some(format::$format)))?.into()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}
    };
}

id! {
    /// An order's, and that of its reservation at the product service.
    #[derive(Copy)]
    OrderId(Uuid in the format UUID): uuid::Error
}

id! {
    /// A customer's, or that of somebody who works here.
    #[derive(Copy)]
    UserId(Uuid in the format UUID): uuid::Error
}

id! {
    /// One of a user's addresses.
    #[derive(Copy)]
    AddressId(Uuid in the format UUID): uuid::Error
}

id! {
    #[derive(Copy)]
    ProductId(Uuid in the format UUID): uuid::Error
}

id! {
    /// Our own id of a refund. The provider gets it as the key of the call.
    #[derive(Copy)]
    RefundId(Uuid in the format UUID): uuid::Error
}

id! {
    /// Of a parcel, or of what a customer fetched. The only parcel of an order from when there was but one has its order's.
    #[derive(Copy)]
    ParcelId(Uuid in the format UUID): uuid::Error
}

id! {
    /// Of a note that staff wrote.
    #[derive(Copy)]
    NoteId(Uuid in the format UUID): uuid::Error
}

id! {
    /// A payment intent's, as the provider names it.
    IntentId(String): Infallible
}

id! {
    /// A refund's, as the provider names it.
    ProviderRefundId(String): Infallible
}

impl IntentId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// So that a map can be asked for a text that may be one.
impl std::borrow::Borrow<str> for IntentId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_as_what_it_is() {
        let text = "018f5c3e-7a00-7000-8000-000000000001";
        let order: OrderId = text.parse().unwrap();
        assert_eq!(order.to_string(), text);
        assert_eq!(serde_json::to_string(&order).unwrap(), format!("\"{text}\""));
        assert_eq!(Uuid::from(order).to_string(), text);
        assert!("018f5c3e".parse::<OrderId>().is_err());
        assert_eq!(IntentId::from("pi_1".to_owned()).to_string(), "pi_1");
    }
}

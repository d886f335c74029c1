//! Enums that are words: in the database, in JSON and in the code.

/// An enum with one word for each variant: `as_str`, `FromStr` and serde's `Serialize`. With the feature `sqlx` it is
/// read from columns, with `openapi` it has a schema, under another name if need be.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident $(as $shown:ident)? { $($(#[$attribute:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$attribute])* $variant),+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
                    .ok_or_else(|| format!("{word:?} is not a {}", stringify!($name)))
            }
        }

        #[cfg(feature = "sqlx")]
        impl TryFrom<String> for $name {
            type Error = sqlx::Error;

            /// A column that holds no such word is a corrupt row.
            fn try_from(word: String) -> Result<Self, sqlx::Error> {
                word.parse().map_err(|error: String| sqlx::Error::Decode(error.into()))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::schema::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .enum_values(Some(Self::ALL.iter().map(|value| value.as_str())))
                    .into()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                [$(stringify!($shown),)? stringify!($name)][0].into()
            }
        }
    };
}

pub(crate) use words;

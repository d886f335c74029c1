//! The languages that mails are written in.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// ISO 639-1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Language {
    #[default]
    En,
    Zh,
}

impl Language {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }

    /// An account's. One that a later release knows is English here.
    pub fn stored(text: &str) -> Self {
        if text == "zh" { Self::Zh } else { Self::En }
    }
}

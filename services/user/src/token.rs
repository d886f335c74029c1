//! Opaque tokens: 32 random bytes in base64url, of which only the hash is kept.

use std::sync::Arc;

use anyhow::ensure;
use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

#[derive(PartialEq, Eq)]
pub(crate) struct Token([u8; 32]);

impl Token {
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// `None` for what can't be one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }

    pub fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Its SHA-256.
    pub fn hash(&self) -> Vec<u8> {
        digest::digest(&digest::SHA256, &self.0).as_ref().to_vec()
    }
}

/// The placeholder of the token in a setting.
const PLACE: &str = "{token}";

/// The address that a mail's link leads to.
#[derive(Clone)]
pub(crate) struct Link(Arc<str>);

impl Link {
    /// Fails when the `setting` is no address with `{token}` in it. An empty variable is how compose files leave one out.
    pub fn parse(setting: &str, url: Option<&str>) -> anyhow::Result<Option<Self>> {
        let Some(url) = url.filter(|url| !url.is_empty()) else {
            return Ok(None);
        };
        ensure!(is_link(url), "{setting} is not an http(s) address with {PLACE} in it");
        Ok(Some(Self(Arc::from(url))))
    }

    pub fn with(&self, token: &Token) -> String {
        self.0.replace(PLACE, &token.encode())
    }
}

fn is_link(url: &str) -> bool {
    (url.starts_with("https://") || url.starts_with("http://"))
        && url.contains(PLACE)
        && !url.chars().any(|character| character.is_whitespace() || character.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_form_and_nothing_else_is_one() {
        let token = Token::generate();
        assert_eq!(token.encode().len(), 43);
        assert!(Token::parse(&token.encode()) == Some(token));
        for bad in ["", "x", "!!!!", &"A".repeat(42), &"A".repeat(44), &"é".repeat(43)] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_link_has_a_place_for_the_token() {
        assert!(is_link("https://shop.example.com/new-password#{token}"));
        assert!(is_link("http://localhost:3000/?token={token}"));
        for bad in ["https://shop.example.com/", "{token}", "javascript:{token}", "https://a b/{token}"] {
            assert!(!is_link(bad), "{bad}");
        }
    }
}

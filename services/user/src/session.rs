//! Sign-ins: a session is a family of refresh tokens, each spent to get the
//! next (RFC 9700, section 4.14.2).
//!
//! A spent token that comes again was stolen, from us or from the thief, so the family ends. One exception:
//! an answer may get lost. So the same token gets the same successor until that is used, and for a minute at
//! most. Only hashes are stored, so the successor is derived: HMAC-SHA256(key = the presented token, message
//! = a random salt in its row). Neither the row nor an old token alone yields it.

mod store;

use audit::{Actor, Entry};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use identity::Role;
use serde::Serialize;
use service::db::Connection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

pub(crate) use store::{current_role, list, revoke_all, revoke_others, revoke_own, sweep};

/// A sign-in, as the account's owner sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Session {
    pub id: Uuid,
    /// Whether the request came from it.
    pub current: bool,
    /// Such as `Firefox on Linux`; null when the client did not say.
    #[schema(required)]
    pub user_agent: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// The sign-in or the last refresh.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub last_used_at: OffsetDateTime,
}

/// An opaque bearer token; only its hash is kept.
#[derive(PartialEq, Eq)]
pub(crate) struct RefreshToken([u8; 32]);

impl RefreshToken {
    fn generate() -> Self {
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

    fn hash(&self) -> Vec<u8> {
        digest::digest(&digest::SHA256, &self.0).as_ref().to_vec()
    }

    fn successor(&self, salt: &[u8]) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), salt);
        let mut token = [0; 32];
        token.copy_from_slice(tag.as_ref()); // SHA-256's output is 32 bytes
        Self(token)
    }
}

/// The values that a sign-in is checked against.
pub(crate) struct Credentials {
    pub id: Uuid,
    pub password_hash: String,
    pub disabled: bool,
}

/// The values of a new access token, and the refresh token that goes with it.
pub(crate) struct SignedIn {
    pub account: Uuid,
    pub role: Role,
    pub session: Uuid,
    pub refresh_token: RefreshToken,
}

/// Opens a session; `None` when the account has gone, was disabled or got
/// another password meanwhile.
pub(crate) async fn open(
    connection: &mut Connection,
    account: &Credentials,
    user_agent: Option<&str>,
    from_known_device: bool,
) -> sqlx::Result<Option<SignedIn>> {
    let refresh_token = RefreshToken::generate();
    let family = store::insert(connection, account, &refresh_token.hash(), user_agent).await?;
    if let Some(family) = &family {
        let who = Actor { id: family.account, role: family.role.as_str() };
        let entry = Entry::new(who, "sign_in.succeeded", "account", family.account);
        let entry = entry.field("session", (), family.session);
        let entry = entry.field("new_device", false, !from_known_device);
        audit::record(connection, entry).await?;
    }
    Ok(family.map(|family| SignedIn {
        account: family.account,
        role: family.role,
        session: family.session,
        refresh_token,
    }))
}

/// The successor of a presented token; `None` when it is unknown, has run out,
/// or is spent. Commit either way: a reused token ends its family.
pub(crate) async fn refresh(
    connection: &mut Connection,
    presented: &RefreshToken,
) -> sqlx::Result<Option<SignedIn>> {
    let hash = presented.hash();
    let Some(family) = store::lock_family(&mut *connection, &hash).await? else {
        return Ok(None);
    };
    let successor = match store::token(&mut *connection, &hash).await? {
        Some(token) if !token.spent => {
            let salt: [u8; 32] = rand::random();
            let successor = presented.successor(&salt);
            store::rotate(connection, family.session, &hash, &salt, &successor.hash()).await?;
            successor
        }
        Some(store::Token { grace_salt: Some(salt), .. }) => presented.successor(&salt),
        _ => {
            tracing::warn!(session.id = %family.session, user.id = %family.account, "session.token_reused");
            store::revoke(connection, family.session).await?;
            let account = Some(family.account.to_string());
            let entry = Entry::by_nobody("session.token_reused", "account", account);
            audit::record(connection, entry.field("session", (), family.session)).await?;
            return Ok(None);
        }
    };
    Ok(Some(SignedIn {
        account: family.account,
        role: family.role,
        session: family.session,
        refresh_token: successor,
    }))
}

/// Ends the session that the token belongs to, if there is one.
pub(crate) async fn close(connection: &mut Connection, presented: &RefreshToken) -> sqlx::Result<()> {
    store::revoke_by_token(connection, &presented.hash()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_form() {
        let token = RefreshToken::generate();
        assert_eq!(token.encode().len(), 43);
        assert!(RefreshToken::parse(&token.encode()) == Some(token));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for bad in ["", "x", "!!!!", &"A".repeat(42), &"A".repeat(44), &"é".repeat(43)] {
            assert!(RefreshToken::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_successor_needs_both_token_and_salt() {
        let token = RefreshToken([1; 32]);
        assert!(token.successor(&[7; 32]) == token.successor(&[7; 32]));
        assert!(token.successor(&[7; 32]) != token.successor(&[8; 32]));
        assert!(token.successor(&[7; 32]) != RefreshToken([2; 32]).successor(&[7; 32]));
    }
}

//! Devices that somebody has signed in from. Each gets a token, which it sends with its next sign-in. Then
//! failures from elsewhere don't slow it
//! (<https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies>), and the owner
//! gets a mail about a sign-in from another device.
//!
//! The token is random and its hash is stored; OWASP describes a signed one. So it is deleted with the
//! account, and by a new password, and there is no key to keep.

mod store;

use axum::http::HeaderMap;
use service::db::Connection;
use uuid::Uuid;

use crate::token::Token;

pub(crate) use store::{find, forget_others, sweep};

/// Tokens of one request that are read: a browser may have been used for several accounts.
const MOST_SENT: usize = 4;

/// What a client sends with a sign-in: one token or several, with commas between.
pub(crate) const HEADER: &str = "x-device-token";

/// A device that an account was signed in from.
#[derive(Clone, Copy)]
pub(crate) struct Device {
    pub id: Uuid,
    pub account: Uuid,
}

/// The hashes of the tokens that a request has.
pub(crate) fn presented(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let text = headers.get(HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(',').take(MOST_SENT).filter_map(|one| Token::parse(one.trim())).map(|one| one.hash()).collect()
}

/// A new device of the account.
pub(crate) struct New {
    pub token: Token,
    /// The account was signed in from others before.
    pub is_another: bool,
}

/// Records a sign-in from this device; without one, from a new one.
pub(crate) async fn signed_in(
    connection: &mut Connection,
    account: Uuid,
    device: Option<Device>,
) -> sqlx::Result<Option<New>> {
    if let Some(device) = device {
        store::used(connection, device.id).await?;
        return Ok(None);
    }
    let token = Token::generate();
    let is_another = store::insert(connection, account, &token.hash()).await?;
    Ok(Some(New { token, is_another }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_few_tokens_and_what_is_none_is_passed_over() {
        let of = |value: &str| {
            presented(&HeaderMap::from_iter([(HEADER.parse().unwrap(), value.parse().unwrap())])).len()
        };
        let token = Token::generate().encode();
        assert_eq!((of(""), of("x"), of(&token), of(&format!("x, {token},{token}"))), (0, 0, 1, 2));
        assert_eq!(of(&vec![token; 9].join(",")), MOST_SENT);
        assert!(presented(&HeaderMap::new()).is_empty());
    }
}

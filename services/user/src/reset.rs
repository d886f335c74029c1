//! A new password for who has forgotten the old one: a token comes by mail, and is good once and for an hour.
//!
//! Whoever asks for a token gets the same answer in the same time, whether or not the address has an account: the
//! account is looked for only after the answer. What is kept of a token is its hash. The token itself is in the mail's
//! row until the mail has left. A request that is lost with its process is made again by who waits for the mail.

mod store;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use anyhow::ensure;
use aws_lc_rs::digest;
use axum::http::StatusCode;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use service::Problem;
use service::db::{Connection, Pool};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::account::{self, Email};
use crate::config::Config;
use crate::{notification, session};

pub(crate) use store::{end_all, sweep};

/// Seconds that a token is good for. The statements and the mails say it too.
pub(crate) const LIFETIME: i64 = 3600;

/// Tokens that an account gets within an hour.
const MOST_AN_HOUR: i64 = 3;

/// Tokens that are made at the same time; more are refused.
const AT_ONCE: usize = 32;

/// Of those, how many hold a connection.
const TURNS: usize = 2;

/// What stands for the token in `PASSWORD_RESET_URL`.
const PLACE: &str = "{token}";

/// What a mail carries; only its hash is kept.
#[derive(PartialEq, Eq)]
pub(crate) struct Token([u8; 32]);

impl Token {
    fn generate() -> Self {
        Self(rand::random())
    }

    /// `None` for what can't be one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }

    fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    fn hash(&self) -> Vec<u8> {
        digest::digest(&digest::SHA256, &self.0).as_ref().to_vec()
    }
}

/// Where tokens are asked for.
#[derive(Clone)]
pub(crate) struct Desk {
    pool: Pool,
    places: Arc<Semaphore>,
    /// Held while a token is made, so that a burst leaves the pool to others.
    turns: Arc<Semaphore>,
    /// Where the mail's link leads to, with a place for the token.
    link: Option<Arc<str>>,
    /// Requests of one client address within an hour.
    per_caller: i32,
    /// Whether mails leave at all. Without them there are no tokens: nobody could get one.
    mails: bool,
}

impl Desk {
    /// Fails when `PASSWORD_RESET_URL` is no address with `{token}` in it.
    pub fn new(config: &Config, pool: Pool, mails: bool) -> anyhow::Result<Self> {
        // An empty variable is how compose files leave one out.
        let link = config.password_reset_url.as_deref().filter(|url| !url.is_empty());
        if let Some(url) = link {
            ensure!(is_link(url), "PASSWORD_RESET_URL is not an http(s) address with {PLACE} in it");
        }
        Ok(Self {
            pool,
            places: Arc::new(Semaphore::new(AT_ONCE)),
            turns: Arc::new(Semaphore::new(TURNS)),
            link: link.map(Arc::from),
            per_caller: config.password_resets_an_hour,
            mails,
        })
    }

    /// Takes a request. What comes of it shows in the mail alone. 429 `too_many_resets` when `caller` has asked too often,
    /// whatever for; 503 when too much is under way.
    pub async fn receive(&self, email: Email, caller: Option<IpAddr>) -> Result<(), Problem> {
        if let Some(caller) = caller {
            let mut connection = self.pool.acquire().await?;
            let (asked, left) = store::count(&mut connection, &network(caller)).await?;
            if asked > self.per_caller {
                return Err(too_many(left));
            }
        }
        if !self.mails {
            return Ok(());
        }
        let busy = || Problem::unavailable("Too many requests at once; try again.");
        let place = self.places.clone().try_acquire_owned().map_err(|_| busy())?;
        let desk = self.clone();
        // After the answer, whose time then tells nothing of the account.
        tokio::spawn(async move {
            if let Err(error) = desk.grant(&email).await {
                tracing::warn!(%error, "password_reset.not_granted");
            }
            drop(place);
        });
        Ok(())
    }

    /// Makes a token and its mail, if there is such an account that may sign in and has not had too many.
    async fn grant(&self, email: &Email) -> sqlx::Result<()> {
        let _turn = self.turns.acquire().await;
        let mut transaction = service::db::begin(&self.pool).await?;
        let Some(account) = account::credentials(&mut transaction, email).await? else {
            return Ok(());
        };
        // One after the other, so that what is counted stays true.
        if !store::lock_account(&mut transaction, account.id).await? {
            return Ok(());
        }
        if store::lately(&mut transaction, account.id).await? >= MOST_AN_HOUR {
            tracing::info!(user.id = %account.id, "password_reset.too_many");
            return Ok(());
        }
        let token = Token::generate();
        store::end_all(&mut transaction, account.id).await?;
        store::insert(&mut transaction, account.id, &token.hash()).await?;
        let token = token.encode();
        let link = self.link.as_deref().map(|link| link.replace(PLACE, &token));
        notification::tell_of_reset(&mut transaction, account.id, token, link).await?;
        transaction.commit().await
    }
}

/// Whose token this is, while it is good.
pub(crate) async fn account_of(connection: &mut Connection, token: &Token) -> sqlx::Result<Option<Uuid>> {
    store::account_of(connection, &token.hash()).await
}

/// Gives the account the password, ends its sessions and the token, and tells its owner. False when the token is not good
/// any more: roll back then.
pub(crate) async fn redeem(
    connection: &mut Connection,
    account: Uuid,
    token: &Token,
    password_hash: &str,
    mails: bool,
) -> sqlx::Result<bool> {
    // Before the account is locked, as sign-ins do.
    account::forget_failures(connection, account).await?;
    // Of two with the same token the second waits here, and then finds the token used.
    if !store::lock_account(connection, account).await? || !store::spend(connection, &token.hash()).await? {
        return Ok(false);
    }
    account::set_password(connection, account, password_hash).await?;
    session::revoke_all(connection, account).await?;
    notification::tell_of_new_password(connection, account, mails).await?;
    Ok(true)
}

fn is_link(url: &str) -> bool {
    (url.starts_with("https://") || url.starts_with("http://"))
        && url.contains(PLACE)
        && !url.chars().any(|character| character.is_whitespace() || character.is_control())
}

/// Whoever has an IPv6 address has all of its network.
fn network(caller: IpAddr) -> String {
    match caller.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).to_string()
        }
    }
}

/// `left` are the seconds until the caller's hour is over.
fn too_many(left: f64) -> Problem {
    #[expect(clippy::cast_possible_truncation, reason = "at most an hour")]
    #[expect(clippy::cast_sign_loss, reason = "at least one second")]
    let seconds = left.ceil().clamp(1.0, 3600.0) as u32;
    let detail = "Too many requests for a new password from this network; wait a little.";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_resets", detail).with_retry_after(seconds)
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
    fn callers_are_counted_by_network() {
        for (caller, counted) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            assert_eq!(network(caller.parse().unwrap()), counted);
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

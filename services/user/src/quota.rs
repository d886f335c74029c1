//! How many mails with a token may be asked for within an hour: by a client address, for whatever reason, and
//! for an e-mail address.

mod store;

use std::net::{IpAddr, Ipv6Addr};

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use service::Problem;
use service::db::Connection;
use uuid::Uuid;

use crate::account::Email;

pub(crate) use store::sweep;

/// Mails that an e-mail address gets within an hour on behalf of one client network, and those about new devices.
const TO_ONE_ADDRESS: i32 = 3;

/// Mails that an e-mail address gets within an hour whoever asks for them. More than one network has, so that a stranger
/// does not use up the mails of an address's owner.
const TO_ONE_ADDRESS_IN_ALL: i32 = 12;

/// The client's address as the edge says it; nobody else can set it. None for a client that comes past the
/// edge.
pub(crate) fn caller(headers: &HeaderMap) -> Option<IpAddr> {
    headers.get("x-forwarded-for")?.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
}

/// What the client's address is counted as.
pub(crate) fn caller_network(headers: &HeaderMap) -> Option<String> {
    caller(headers).map(network)
}

/// Counts a request of a client; 429 with `code` when there were more than `most` within its hour.
pub(crate) async fn ask(
    connection: &mut Connection,
    caller: IpAddr,
    most: i32,
    code: &'static str,
) -> Result<(), Problem> {
    let (asked, left) = store::count(connection, &network(caller)).await?;
    if asked > most { Err(too_many(code, left)) } else { Ok(()) }
}

/// Counts a mail to this address that somebody in `network` asks for; false when it has had enough within its hour.
/// Whoever counts the next one waits until the transaction ends.
pub(crate) async fn mail_to(
    connection: &mut Connection,
    email: &Email,
    network: Option<&str>,
) -> sqlx::Result<bool> {
    let address = address_hash(email);
    let (asked, _) = store::count(connection, &format!("{address} {}", network.unwrap_or("-"))).await?;
    if asked > TO_ONE_ADDRESS {
        return Ok(false);
    }
    let (in_all, _) = store::count(connection, &address).await?;
    Ok(in_all <= TO_ONE_ADDRESS_IN_ALL)
}

/// What an e-mail address is counted as: an address that is forgotten meanwhile is not kept here.
fn address_hash(email: &Email) -> String {
    format!("mail {}", BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, email.key().as_bytes())))
}

/// Counts a mail about a new device of the account; false when there were enough within an hour.
pub(crate) async fn mail_of_device(connection: &mut Connection, account: Uuid) -> sqlx::Result<bool> {
    let (asked, _) = store::count(connection, &format!("account {account}")).await?;
    Ok(asked <= TO_ONE_ADDRESS)
}

/// Whoever has an IPv6 address has all of its network.
pub(crate) fn network(caller: IpAddr) -> String {
    match caller.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).to_string()
        }
    }
}

/// `left` are the seconds until the caller's hour is over.
fn too_many(code: &'static str, left: f64) -> Problem {
    #[expect(clippy::cast_possible_truncation, reason = "at most an hour")]
    #[expect(clippy::cast_sign_loss, reason = "at least one second")]
    let seconds = left.ceil().clamp(1.0, 3600.0) as u32;
    let detail = "Too many requests for mails from this network; wait a little.";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, code, detail).with_retry_after(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_caller_is_who_the_edge_says() {
        let of = |value: &'static str| {
            caller(&HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), value.parse().unwrap())]))
        };
        assert_eq!(of("192.0.2.7"), "192.0.2.7".parse().ok());
        assert_eq!(of("198.51.100.1, 2001:db8::1"), "2001:db8::1".parse().ok());
        assert_eq!((of("unknown"), of(""), caller(&HeaderMap::new())), (None, None, None));
    }
}

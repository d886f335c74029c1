//! How many mails with a token somebody may ask for within an hour: a client address, whatever for, and whoever
//! asks for an e-mail address.

mod store;

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, StatusCode};
use service::Problem;
use service::db::Connection;
use uuid::Uuid;

use crate::account::Email;

pub(crate) use store::sweep;

/// Mails that an e-mail address gets within an hour.
const TO_ONE_ADDRESS: i32 = 3;

/// The client's address as the edge says it, which lets nobody else say it. None of who asks past the edge.
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

/// Counts a mail to this address; false when it has had enough within its hour. Whoever counts the next one waits until
/// the transaction ends.
pub(crate) async fn mail_to(connection: &mut Connection, email: &Email) -> sqlx::Result<bool> {
    // It has an `@`, which no client's address has.
    let (asked, _) = store::count(connection, &email.key()).await?;
    Ok(asked <= TO_ONE_ADDRESS)
}

/// Counts a mail about a new device of the account; false when there were enough within an hour.
pub(crate) async fn mail_of_device(connection: &mut Connection, account: Uuid) -> sqlx::Result<bool> {
    let (asked, _) = store::count(connection, &format!("account {account}")).await?;
    Ok(asked <= TO_ONE_ADDRESS)
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

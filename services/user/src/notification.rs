//! Notifications of customers: about an order, a row for each event and a mail for each row, which leaves
//! later and by itself. Notifications about an account leave the same way; their rows have no order. A mail
//! to an address that the account may not have yet, or any more, has the address in its row
//! ([`AccountMail`]).
//!
//! The consumer only writes the row, so that a mail server that is away or slow holds up no event. The sender
//! claims rows that are due (`SKIP LOCKED`, a lease of a minute), talks to the server outside any
//! transaction, and marks them. So there is one mail for each event, with one exception: a process or its
//! database dies between handing a mail over and marking it, or the server's last answer is lost. Then the
//! mail leaves again with the same Message-ID.

mod account_mail;
mod again;
mod mail;
mod sender;
mod store;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::back_off;
use service::db::Connection;
use uuid::Uuid;

use crate::mailer::Failure;
use crate::token::{Link, Token};

pub(crate) use account_mail::{AccountMail, Recipient, Signed, write_to};
pub(crate) use again::{Again, send_again};
pub(crate) use sender::start;
pub(crate) use store::{Mail, NewNotification, insert, sweep};

/// After this many permanent refusals by a server a mail fails.
const MOST_REFUSALS: i32 = 3;

/// After a server was away for this long its mails fail. RFC 5321, section 4.5.4.1 asks for four or five
/// days; by then an order has arrived.
const FAIL_AFTER: Duration = Duration::from_secs(3 * 24 * 3600);

/// Kinds of notifications about an account.
const PASSWORD_RESET: &str = "account.password_reset";
const PASSWORD_CHANGED: &str = "account.password_changed";

/// How long the token in a mail is good for; `None` of a mail without one.
fn lifetime(kind: &str) -> Option<Duration> {
    match kind {
        PASSWORD_RESET => Some(Duration::from_secs(3600)),
        account_mail::CONFIRM_ADDRESS | account_mail::CONFIRM_CHANGE => Some(Duration::from_secs(24 * 3600)),
        _ => None,
    }
}

const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// The values of a mail with a token, as JSON. They are kept until the mail has left or has failed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ticket {
    token: String,
    /// With the token in it.
    link: Option<String>,
}

impl Ticket {
    pub fn new(token: &Token, link: Option<&Link>) -> Self {
        Self { token: token.encode(), link: link.map(|link| link.with(token)) }
    }
}

/// Sends the account's owner the token for a new password, and the link with it, if there is one.
pub(crate) async fn send_reset(
    connection: &mut Connection,
    account: Uuid,
    ticket: Ticket,
) -> sqlx::Result<()> {
    let payload = serde_json::to_vec(&ticket).map_err(|error| sqlx::Error::Encode(error.into()))?;
    store::insert_of_account(connection, account, PASSWORD_RESET, &payload, true).await
}

/// Sends the account's owner a mail that the password was changed. Without `mails` that is only recorded.
pub(crate) async fn send_password_changed(
    connection: &mut Connection,
    account: Uuid,
    mails: bool,
) -> sqlx::Result<()> {
    store::insert_of_account(connection, account, PASSWORD_CHANGED, b"", mails).await
}

/// The pause before the next try of a mail that failed now, for the `attempts`-th time; `None` when it has
/// failed for good. `refusals` are those before this one.
fn pause_after(failure: &Failure, attempts: i32, refusals: i32, age: Duration) -> Option<Duration> {
    let hopeless = match failure {
        Failure::Refused(_) => refusals + 1 >= MOST_REFUSALS,
        Failure::Later(_) | Failure::Unreachable(_) => age >= FAIL_AFTER,
    };
    (!hopeless).then(|| back_off(FIRST_PAUSE, u32::try_from(attempts).unwrap_or(0), LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_quarter_of_an_hour() {
        let pause = |attempts| {
            let failure = Failure::Later(String::new());
            pause_after(&failure, attempts, 0, Duration::ZERO).unwrap().as_secs()
        };
        assert_eq!([1, 2, 3, 4, 5, 6, 7, i32::MAX].map(pause), [30, 60, 120, 240, 480, 900, 900, 900]);
    }

    #[test]
    fn a_refusal_is_believed_the_third_time_and_an_absence_after_three_days() {
        let refused = Failure::Refused(String::new());
        assert!(pause_after(&refused, 9, 1, FAIL_AFTER).is_some());
        assert!(pause_after(&refused, 3, 2, Duration::ZERO).is_none());
        for failure in [Failure::Later(String::new()), Failure::Unreachable(String::new())] {
            let almost = FAIL_AFTER - Duration::from_secs(1);
            assert!(pause_after(&failure, 500, 2, almost).is_some());
            assert!(pause_after(&failure, 2, 0, FAIL_AFTER).is_none());
        }
    }
}

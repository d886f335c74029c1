//! A new password for customers who have forgotten the old one: a token comes by mail, and is good once and
//! for an hour.
//!
//! Every request gets the same answer in the same time, whether or not the address has an account: the
//! account is looked up only after the answer (`mail_requests`). Only the token's hash is stored. The token
//! itself is in the mail's row until the mail has left. If the process dies after the answer, the customer
//! gets no mail and asks again.

mod store;

use audit::Entry;
use service::db::Connection;
use uuid::Uuid;

use crate::account::{self, Email};
use crate::notification::Ticket;
use crate::token::{Link, Token};
use crate::{device, notification, session};

pub(crate) use store::{end_all, sweep};

/// Seconds that a token is good for. The statements and the mails say it too.
pub(crate) const LIFETIME: i64 = 3600;

/// Tokens that an account gets within an hour.
const MOST_AN_HOUR: i64 = 3;

/// Makes a token and its mail, if there is such an account that may sign in and has not had too many.
pub(crate) async fn grant(
    connection: &mut Connection,
    email: &Email,
    link: Option<&Link>,
) -> sqlx::Result<()> {
    let Some(account) = account::credentials(connection, email).await? else {
        return Ok(());
    };
    // One after the other, so that the count stays true.
    if !store::lock_account(connection, account.id).await? {
        return Ok(());
    }
    if store::lately(connection, account.id).await? >= MOST_AN_HOUR {
        tracing::info!(user.id = %account.id, "password_reset.too_many");
        return Ok(());
    }
    let token = Token::generate();
    store::end_all(connection, account.id).await?;
    store::insert(connection, account.id, &token.hash()).await?;
    notification::send_reset(connection, account.id, Ticket::new(&token, link)).await?;
    let entry = Entry::by_nobody("password.reset_asked", "account", Some(account.id.to_string()));
    audit::record(connection, entry).await
}

/// The owner of this token, while it is good.
pub(crate) async fn account_of(connection: &mut Connection, token: &Token) -> sqlx::Result<Option<Uuid>> {
    store::account_of(connection, &token.hash()).await
}

/// Gives the account the password, ends its sessions and the token, and sends its owner a mail. False when
/// the token is no longer good: roll back then.
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
    device::forget_others(connection, account, &[]).await?;
    notification::send_password_changed(connection, account, mails).await?;
    let entry = Entry::by_nobody("password.reset", "account", Some(account.to_string()));
    audit::record(connection, entry.named("password")).await?;
    Ok(true)
}

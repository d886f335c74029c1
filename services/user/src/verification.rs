//! Verifies that an e-mail address belongs to its owner: a token goes there, and the address counts once the
//! token has come back with the password. It is good once and for 24 hours.
//!
//! Before that there is no account, so that nobody can take a stranger's address, sign in with it, or have
//! mails sent to it. The password is needed because a stranger may register somebody's address with a
//! password of their own: if the owner only follows the link in that mail, no account may open to which the
//! stranger has the password.
//!
//! A known and an unknown address run the same statements and get one mail each. For a known one nobody gets the token.

mod store;

use audit::{Actor, Entry};
use identity::Role;
use serde_json::json;
use service::Problem;
use service::db::Connection;
use uuid::Uuid;

use crate::account::{self, Account, Email, Language};
use crate::notification::{AccountMail, Recipient, Ticket, write_to};
use crate::token::{Link, Token};
use crate::{quota, reset, session};

pub(crate) use store::{find, forget, newest_hash, others, sweep};

/// Seconds that a token is good for. The statements and the mails say it too.
pub(crate) const LIFETIME: i64 = 24 * 3600;

/// An account that is to be opened.
pub(crate) struct Opening {
    pub name: String,
    pub language: Language,
    pub password_hash: String,
}

/// The change that a token verifies.
pub(crate) enum Pending {
    Opening(Email, Opening),
    Change { account: Uuid, email: Email },
}

/// Keeps a registration until its address is verified, and sends the token there. An address that has an account
/// gets a mail about the attempt instead. An address that got its mails of this hour gets none, and may get one
/// later ([`again`]).
pub(crate) async fn register(
    connection: &mut Connection,
    email: &Email,
    new: &Opening,
    network: Option<&str>,
    link: Option<&Link>,
) -> sqlx::Result<()> {
    let token = Token::generate();
    let may = may_mail(connection, email, network).await?;
    store::insert_opening(connection, email, new, &token.hash()).await?;
    if !may {
        return Ok(());
    }
    let stranger = Recipient::stranger(email, new.language);
    let mail = AccountMail::ConfirmAddress(Ticket::new(&token, link));
    send(connection, email, &stranger, mail).await
}

/// Keeps an account's new address until it is verified, and sends the token there, as [`register`] does.
pub(crate) async fn change(
    connection: &mut Connection,
    account: &Account,
    email: &Email,
    network: Option<&str>,
    link: Option<&Link>,
) -> sqlx::Result<()> {
    let entry = Entry::new(
        Actor { id: account.id, role: account.role.as_str() },
        "email.change_asked",
        "account",
        account.id,
    );
    let (old, new) = (json!({"email": account.email}), json!({"email": email.as_str()}));
    audit::record(connection, entry.personal(account.id, &old, &new)).await?;
    if !may_mail(connection, email, network).await? {
        return Ok(());
    }
    let token = Token::generate();
    store::insert_change(connection, account.id, email, &token.hash()).await?;
    let new = Recipient { account: Some(account.id), ..Recipient::stranger(email, account.language) };
    send(connection, email, &new, AccountMail::ConfirmChange(Ticket::new(&token, link))).await
}

/// Sends another token for this address, if somebody has registered with it and it has no account.
pub(crate) async fn again(
    connection: &mut Connection,
    email: &Email,
    network: Option<&str>,
    link: Option<&Link>,
) -> sqlx::Result<()> {
    if !may_mail(connection, email, network).await? || account::of_address(connection, email).await?.is_some()
    {
        return Ok(());
    }
    let token = Token::generate();
    let Some(language) = store::repeat(connection, email, &token.hash()).await? else {
        return Ok(());
    };
    let mail = AccountMail::ConfirmAddress(Ticket::new(&token, link));
    write_to(connection, &Recipient::stranger(email, language), &mail).await
}

async fn may_mail(connection: &mut Connection, email: &Email, network: Option<&str>) -> sqlx::Result<bool> {
    let may = quota::mail_to(connection, email, network).await?;
    if !may {
        tracing::info!("verification.too_many");
    }
    Ok(may)
}

/// Sends the mail to the address, unless an account has it: then its owner gets a mail that somebody tried.
async fn send(
    connection: &mut Connection,
    email: &Email,
    recipient: &Recipient,
    mail: AccountMail,
) -> sqlx::Result<()> {
    match account::of_address(connection, email).await? {
        Some(known) => write_to(connection, &Recipient::owner(&known), &AccountMail::AddressKnown).await,
        None => write_to(connection, recipient, &mail).await,
    }
}

/// Opens the account, or gives the account its new address, and ends the token. `None` when the token is not good any
/// more, or `current` is no longer the hash of the account's password: roll back then. 409 `email_taken` when another
/// account has the address.
pub(crate) async fn redeem(
    connection: &mut Connection,
    token: &Token,
    pending: &Pending,
    current: &str,
) -> Result<Option<Account>, Problem> {
    match pending {
        Pending::Opening(email, new) => {
            // Of two with the same token the second waits here, and then finds the token used.
            if !store::spend(connection, &token.hash()).await? {
                return Ok(None);
            }
            let Opening { name, language, password_hash } = new;
            account::register(connection, email, name, Role::Customer, *language, password_hash)
                .await
                .map(Some)
        }
        Pending::Change { account, email } => {
            // The account first, in the same order as an erasure.
            let Some((before, after)) = account::change_email(connection, *account, current, email).await?
            else {
                return Ok(None);
            };
            if !store::spend(connection, &token.hash()).await? {
                return Ok(None);
            }
            session::revoke_all(connection, *account).await?;
            // A token may have gone to the old address.
            reset::end_all(connection, *account).await?;
            write_to(connection, &Recipient::owner(&before), &AccountMail::AddressChanged).await?;
            let (old, new) = (json!({"email": before.email}), json!({"email": after.email}));
            let who = Actor { id: after.id, role: after.role.as_str() };
            let entry = Entry::new(who, "email.changed", "account", after.id).personal(after.id, &old, &new);
            audit::record(connection, entry).await?;
            Ok(Some(after))
        }
    }
}

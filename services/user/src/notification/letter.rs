//! Letters about an account: to an address that it may not have yet, or any more.

use serde::{Deserialize, Serialize};
use service::db::Connection;
use uuid::Uuid;

use super::{Ticket, store};
use crate::account::{Account, Email, Language};

pub(super) const CONFIRM_ADDRESS: &str = "account.confirm_address";
pub(super) const CONFIRM_CHANGE: &str = "account.confirm_change";
pub(super) const ADDRESS_KNOWN: &str = "account.address_known";
pub(super) const ADDRESS_CHANGED: &str = "account.address_changed";
pub(super) const NEW_DEVICE: &str = "account.new_device";

/// Who a letter goes to, whatever becomes of the account until it leaves.
pub(crate) struct Recipient {
    /// With it the letter goes.
    pub account: Option<Uuid>,
    pub email: String,
    /// Empty for who is not to be named.
    pub name: String,
    pub language: Language,
}

impl Recipient {
    /// An address that nobody has shown to be theirs. A stranger may have chosen the name: none is said there.
    pub fn stranger(email: &Email, language: Language) -> Self {
        Self { account: None, email: email.as_str().to_owned(), name: String::new(), language }
    }

    /// Whom the account belongs to, at the address that it has there.
    pub fn owner(account: &Account) -> Self {
        let Account { id, email, name, language, .. } = account;
        Self { account: Some(*id), email: email.clone(), name: name.clone(), language: *language }
    }
}

pub(crate) enum Letter {
    /// An account waits for it.
    ConfirmAddress(Ticket),
    /// An account is to get this address.
    ConfirmChange(Ticket),
    /// Somebody tried to register with this address, or to change to it.
    AddressKnown,
    /// The account has another address now.
    AddressChanged,
    /// Somebody signed in from a device that the account was not signed in from before.
    NewDevice(Signed),
}

/// What a sign-in was made with.
#[derive(Serialize, Deserialize)]
pub(crate) struct Signed {
    /// Such as `Firefox on Linux`.
    pub user_agent: Option<String>,
}

/// Has the letter sent.
pub(crate) async fn write_to(
    connection: &mut Connection,
    recipient: &Recipient,
    letter: &Letter,
) -> sqlx::Result<()> {
    let (kind, payload) = match letter {
        Letter::ConfirmAddress(ticket) => (CONFIRM_ADDRESS, serde_json::to_vec(ticket)),
        Letter::ConfirmChange(ticket) => (CONFIRM_CHANGE, serde_json::to_vec(ticket)),
        Letter::AddressKnown => (ADDRESS_KNOWN, Ok(Vec::new())),
        Letter::AddressChanged => (ADDRESS_CHANGED, Ok(Vec::new())),
        Letter::NewDevice(signed) => (NEW_DEVICE, serde_json::to_vec(signed)),
    };
    let payload = payload.map_err(|error| sqlx::Error::Encode(error.into()))?;
    store::insert_letter(connection, recipient, kind, &payload).await
}

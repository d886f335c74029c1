//! Mails about an account: to an address that it may not have yet, or any more.

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

/// Who a mail goes to. A change of the account before it leaves makes no difference.
pub(crate) struct Recipient {
    /// The mail is deleted with this account.
    pub account: Option<Uuid>,
    pub email: String,
    /// Empty if the mail is to have no name.
    pub name: String,
    pub language: Language,
}

impl Recipient {
    /// An address that is not verified. A stranger may have chosen the name, so the mail has none.
    pub fn stranger(email: &Email, language: Language) -> Self {
        Self { account: None, email: email.as_str().to_owned(), name: String::new(), language }
    }

    /// The owner of the account, at the address that it has there.
    pub fn owner(account: &Account) -> Self {
        let Account { id, email, name, language, .. } = account;
        Self { account: Some(*id), email: email.clone(), name: name.clone(), language: *language }
    }
}

pub(crate) enum AccountMail {
    /// An account is opened once it is verified.
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

/// Queues the mail.
pub(crate) async fn write_to(
    connection: &mut Connection,
    recipient: &Recipient,
    mail: &AccountMail,
) -> sqlx::Result<()> {
    let (kind, payload) = match mail {
        AccountMail::ConfirmAddress(ticket) => (CONFIRM_ADDRESS, serde_json::to_vec(ticket)),
        AccountMail::ConfirmChange(ticket) => (CONFIRM_CHANGE, serde_json::to_vec(ticket)),
        AccountMail::AddressKnown => (ADDRESS_KNOWN, Ok(Vec::new())),
        AccountMail::AddressChanged => (ADDRESS_CHANGED, Ok(Vec::new())),
        AccountMail::NewDevice(signed) => (NEW_DEVICE, serde_json::to_vec(signed)),
    };
    let payload = payload.map_err(|error| sqlx::Error::Encode(error.into()))?;
    store::insert_account_mail(connection, recipient, kind, &payload).await
}

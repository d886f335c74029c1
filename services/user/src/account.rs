//! Accounts: which are valid, opening, changing and erasing one.

mod administration;
mod email;
mod language;
mod store;

use identity::Role;
use messaging::{NewEvent, outbox};
use proto::events;
use proto::user::v1::{UserDeleted, UserRegistered};
use serde::Serialize;
use service::db::Connection;
use service::validate::Invalid;
use service::{Problem, db};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::password::NewPassword;

pub(crate) use administration::{Change, Managed, administer};
pub(crate) use email::Email;
pub(crate) use language::Language;
pub(crate) use store::{
    Customer, change_password, credentials, customers, edit, find, forget_failures, list, managed,
    own_password, renew_hash, set_password, with_email,
};

/// An account as its owner sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Account {
    pub id: Uuid,
    pub email: String,
    pub name: String,
    pub role: Role,
    /// What mails are written in.
    pub language: Language,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

/// A form that passed all checks.
pub(crate) struct NewAccount {
    pub email: Email,
    pub name: String,
    pub password: NewPassword,
    pub language: Language,
}

impl NewAccount {
    /// 422 naming each field that is not acceptable.
    pub fn parse(email: String, name: String, password: String, language: Language) -> Result<Self, Problem> {
        let mut invalid = Invalid::new();
        let email = Email::parse(&mut invalid, &email);
        let password = NewPassword::parse(&mut invalid, "/password", password);
        let name = parse_name(&mut invalid, name);
        invalid.check()?;
        match (email, name, password) {
            (Some(email), Some(name), Some(password)) => Ok(Self { email, name, password, language }),
            _ => Err(Problem::internal()),
        }
    }
}

/// Records what is wrong at `/name` when it is not 1 to 100 characters.
pub(crate) fn parse_name(invalid: &mut Invalid, text: String) -> Option<String> {
    invalid.text("/name", text, 1, 100)
}

/// Opens an account and writes its event. 409 `email_taken` when the address has one.
pub(crate) async fn register(
    connection: &mut Connection,
    email: &Email,
    name: &str,
    role: Role,
    language: Language,
    password_hash: &str,
) -> Result<Account, Problem> {
    let taken = || Problem::conflict("email_taken", "There is an account with this e-mail address.");
    let inserted = store::insert(&mut *connection, email, name, role, language, password_hash).await;
    let account = inserted
        .map_err(|error| match db::violated_constraint(&error) {
            Some("accounts_email_key") => taken(),
            _ => error.into(),
        })?
        .ok_or_else(taken)?;
    let registered = UserRegistered { user_id: account.id.to_string() };
    let event = NewEvent::new(events::USER_REGISTERED, account.id, 1, &registered);
    outbox::enqueue(connection, &[event]).await?;
    Ok(account)
}

/// The account that has this address.
pub(crate) async fn of_address(connection: &mut Connection, email: &Email) -> sqlx::Result<Option<Account>> {
    Ok(store::with_email(connection, email, None).await?.pop().map(|managed| managed.account))
}

/// Gives the account another address, and returns it as it was and as it is. `None` when it has gone, is
/// disabled, or its password is no longer `current`. 409 `email_taken` when another account has the address.
pub(crate) async fn change_email(
    connection: &mut Connection,
    id: Uuid,
    current: &str,
    email: &Email,
) -> Result<Option<(Account, Account)>, Problem> {
    let taken = || Problem::conflict("email_taken", "There is an account with this e-mail address.");
    let Some((before, hash)) = store::lock(&mut *connection, id).await? else {
        return Ok(None);
    };
    if hash != current {
        return Ok(None);
    }
    let changed = store::change_email(connection, id, email).await;
    let after = changed.map_err(|error| match db::violated_constraint(&error) {
        Some("accounts_email_key") => taken(),
        _ => error.into(),
    })?;
    Ok(Some((before, after.ok_or_else(taken)?)))
}

/// Removes the account with everything that is kept of its owner, and writes the event by which other
/// services erase them, too. False when it has gone already; 409 `last_admin` when nobody could administer
/// the shop afterwards.
pub(crate) async fn erase(connection: &mut Connection, id: Uuid) -> Result<bool, Problem> {
    // Before the account is locked, as sign-ins do.
    store::forget_failures(connection, id).await?;
    let Some(account) = administration::lock(connection, id).await? else {
        return Ok(false);
    };
    account.may_leave()?;
    store::delete(connection, id).await?;
    let deleted = UserDeleted { user_id: id.to_string() };
    let event = NewEvent::new(events::USER_DELETED, id, account.version + 1, &deleted);
    outbox::enqueue(connection, &[event]).await?;
    Ok(true)
}

//! Accounts: what may be one, opening and changing one, erasing it.

mod administration;
mod store;

use messaging::{NewEvent, outbox};
use proto::events;
use proto::user::v1::{UserDeleted, UserRegistered};
use serde::Serialize;
use service::auth::Role;
use service::db::Connection;
use service::validate::Invalid;
use service::{Problem, db};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::password::NewPassword;

pub(crate) use administration::{Change, Managed, administer};
pub(crate) use store::{change_password, credentials, find, list, managed, own_password, rename, with_email};

/// RFC 5321, section 4.5.3.1.3 allows a path of 256 octets, brackets included.
const MAX_EMAIL_OCTETS: usize = 254;

/// An account as its owner sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Account {
    pub id: Uuid,
    pub email: String,
    pub name: String,
    pub role: Role,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

/// An e-mail address that mail could be sent to, as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Email(String);

impl Email {
    /// Records `invalid_email` at `/email` when `text` is no address.
    pub fn parse(invalid: &mut Invalid, text: String) -> Option<Self> {
        if is_email(&text) {
            return Some(Self(text));
        }
        let detail = "An e-mail address of at most 254 bytes, such as name@example.com.";
        invalid.push("/email", "invalid_email", detail);
        None
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What addresses are compared by. Servers may tell case apart in front of
    /// the `@`; none that people use does.
    pub fn key(&self) -> String {
        self.0.to_lowercase()
    }
}

/// The dot-atom form of RFC 5322 with RFC 6531's Unicode; quoted local parts
/// and address literals are left out.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let atom = |character: char| match character {
        character if character.is_ascii() => {
            character.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(character)
        }
        character => !character.is_whitespace() && !character.is_control(),
    };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|character| character.is_alphanumeric() || character == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= MAX_EMAIL_OCTETS
        && local.split('.').all(|part| !part.is_empty() && part.chars().all(atom))
        && domain.split('.').all(label)
}

/// A form that passed all checks.
pub(crate) struct NewAccount {
    pub email: Email,
    pub name: String,
    pub password: NewPassword,
}

impl NewAccount {
    /// 422 naming each field that is not acceptable.
    pub fn parse(email: String, name: String, password: String) -> Result<Self, Problem> {
        let mut invalid = Invalid::new();
        let email = Email::parse(&mut invalid, email);
        let password = NewPassword::parse(&mut invalid, "/password", password);
        let name = parse_name(&mut invalid, name);
        invalid.check()?;
        match (email, name, password) {
            (Some(email), Some(name), Some(password)) => Ok(Self { email, name, password }),
            _ => Err(Problem::internal()),
        }
    }
}

/// Records what is wrong at `/name` when it is not 1 to 100 characters.
pub(crate) fn parse_name(invalid: &mut Invalid, text: String) -> Option<String> {
    invalid.text("/name", text, 1, 100)
}

/// Opens an account and tells of it. 409 `email_taken` when the address has one.
pub(crate) async fn register(
    connection: &mut Connection,
    email: &Email,
    name: &str,
    role: Role,
    password_hash: &str,
) -> Result<Account, Problem> {
    let account =
        store::insert(&mut *connection, email, name, role, password_hash).await.map_err(|error| {
            match db::violated_constraint(&error) {
                Some("accounts_email_key") => {
                    Problem::conflict("email_taken", "There is an account with this e-mail address.")
                }
                _ => error.into(),
            }
        })?;
    let registered = UserRegistered { user_id: account.id.to_string() };
    let event = NewEvent::new(events::USER_REGISTERED, account.id, 1, &registered);
    outbox::enqueue(connection, &[event]).await?;
    Ok(account)
}

/// Removes the account with everything that is kept of its owner, and tells
/// the others to forget them too. False when it has gone already; 409
/// `last_admin` when nobody could administer the shop afterwards.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_mail_reaches_are_accepted() {
        for good in [
            "demo@dockside.test",
            "a@localhost",
            "first.last+tag@sub.example.co.uk",
            "o'brien@example.com",
            "用户@例え.jp",
            "ünï@bücher.example",
        ] {
            assert!(is_email(good), "{good}");
        }
        assert!(is_email(&format!("{}@example.com", "a".repeat(242))));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "@",
            "a",
            "a@",
            "@b",
            "a@@b",
            "a@b@c",
            "a b@c.de",
            "a@b c",
            "a@b..c",
            ".a@b.c",
            "a.@b.c",
            "a..b@c.de",
            "a@-b.c",
            "a@b-.c",
            "a@b.",
            "a@.b",
            "<a@b.c>",
            "a@[127.0.0.1]",
            "a\n@b.c",
            "a\u{2003}b@c.de",
            "a@b_c.de",
            "a,b@c.de",
        ] {
            assert!(!is_email(bad), "{bad:?}");
        }
        assert!(!is_email(&format!("{}@example.com", "a".repeat(243))));
        assert!(!is_email(&format!("a@{}.com", "b".repeat(64))));
    }

    #[test]
    fn addresses_are_compared_without_case() {
        assert_eq!(Email("DeMo@Dockside.TEST".into()).key(), "demo@dockside.test");
        assert_eq!(Email("ÄÖ@x.test".into()).key(), "äö@x.test");
    }
}

//! What admins see and change.
//!
//! An admin changes neither the own role nor the own state: somebody else would have to undo a mistake. Every
//! change locks all admins, so two admins who demote each other at the same time can't both succeed.

use audit::Entry;
use identity::{Role, User};
use serde::Serialize;
use service::Problem;
use service::db::Connection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Account, store};
use crate::session;

/// An account as admins see it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Managed {
    #[serde(flatten)]
    pub account: Account,
    /// Nobody can sign in.
    pub disabled: bool,
}

impl Managed {
    pub fn id(&self) -> Uuid {
        self.account.id
    }
}

/// What is to become of an account.
pub(crate) struct Change {
    pub role: Option<Role>,
    pub disabled: Option<bool>,
}

/// A locked account, with all admins' locked too.
pub(super) struct Held {
    role: Role,
    disabled: bool,
    pub version: i64,
    /// Admins who could sign in, other than this account.
    other_admins: usize,
}

impl Held {
    /// 409 `last_admin` when nobody could administer the shop without this account.
    pub fn may_leave(&self) -> Result<(), Problem> {
        if self.role == Role::Admin && !self.disabled && self.other_admins == 0 {
            let detail = "This is the last admin: make somebody else one first.";
            return Err(Problem::conflict("last_admin", detail));
        }
        Ok(())
    }
}

/// `None` when there is no such account.
pub(super) async fn lock(connection: &mut Connection, id: Uuid) -> sqlx::Result<Option<Held>> {
    let locked = store::lock_with_admins(connection, id).await?;
    let other_admins =
        locked.iter().filter(|one| one.id != id && one.role == Role::Admin && !one.disabled).count();
    let own = locked.into_iter().find(|one| one.id == id);
    Ok(own.map(|one| Held { role: one.role, disabled: one.disabled, version: one.version, other_admins }))
}

/// Changes an account and ends its sessions; `None` when it has gone. 409
/// `own_account` when an admin would change the own one, 409 `last_admin` when
/// nobody could administer the shop afterwards.
pub(crate) async fn administer(
    connection: &mut Connection,
    admin: User,
    id: Uuid,
    change: Change,
) -> Result<Option<Managed>, Problem> {
    let Some(held) = lock(connection, id).await? else {
        return Ok(None);
    };
    let role = change.role.unwrap_or(held.role);
    let disabled = change.disabled.unwrap_or(held.disabled);
    if (role, disabled) != (held.role, held.disabled) {
        if id == admin.id {
            let detail = "Another admin has to change this account.";
            return Err(Problem::conflict("own_account", detail));
        }
        if role != Role::Admin || disabled {
            held.may_leave()?;
        }
        store::administer(connection, id, role, disabled).await?;
        session::revoke_all(connection, id).await?;
        let entry = Entry::new(admin, "account.changed", "account", id).field("role", held.role, role);
        audit::record(connection, entry.field("disabled", held.disabled, disabled)).await?;
    }
    Ok(store::managed(connection, id).await?)
}

//! The demo accounts: created once, never reset, and only when asked for.

use identity::Role;
use service::Problem;
use service::db::Pool;
use service::validate::Invalid;

use crate::account::{self, Email, Language, NewAccount};
use crate::admin::open_account;
use crate::password::{Asker, Hasher};

const ACCOUNTS: [(&str, &str, &str, Role); 3] = [
    ("demo@dockside.test", "dockside-demo", "Demo Customer", Role::Customer),
    ("staff@dockside.test", "dockside-staff", "Demo Staff", Role::Staff),
    ("admin@dockside.test", "dockside-admin", "Demo Admin", Role::Admin),
];

/// Creates the accounts that are missing.
pub(crate) async fn load(pool: &Pool, hasher: &Hasher) -> anyhow::Result<()> {
    for (email, password, name, role) in ACCOUNTS {
        let form = NewAccount::parse(email.to_owned(), name.to_owned(), password.to_owned(), Language::En);
        let opened = match form {
            Ok(form) => open_account(pool, hasher, form, role).await.map(drop),
            Err(problem) => Err(problem),
        };
        opened.map_err(|problem| failed(email, &problem))?;
    }
    Ok(())
}

/// Logs which of them are open to anybody, those of an earlier start too, which no setting asks for any more.
/// An error here stops no start.
pub(crate) async fn warn(pool: &Pool, hasher: &Hasher, asked_for: bool) {
    let mut open = Vec::new();
    for (email, password, _, role) in ACCOUNTS {
        if opens(pool, hasher, email, password).await.unwrap_or(false) {
            open.push(role.as_str());
        }
    }
    if !open.is_empty() {
        tracing::warn!(demo.accounts = open.join(" "), demo.asked_for = asked_for, "demo.accounts_open");
    }
}

async fn opens(pool: &Pool, hasher: &Hasher, email: &str, password: &str) -> Result<bool, Problem> {
    let Some(email) = Email::parse(&mut Invalid::new(), email) else {
        return Err(Problem::internal());
    };
    let mut connection = pool.acquire().await?;
    let known = account::credentials(&mut connection, &email).await?;
    drop(connection);
    let Some(known) = known.filter(|known| !known.disabled) else {
        return Ok(false);
    };
    Ok(hasher.verify(password.to_owned(), Some(known.password_hash), &Asker::default()).await?.is_some())
}

fn failed(email: &str, problem: &Problem) -> anyhow::Error {
    anyhow::anyhow!("demo account {email}: {}", problem.detail)
}

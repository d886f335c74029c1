//! The demo accounts: created once, never reset, and only when asked for.

use identity::Role;
use service::Problem;
use service::validate::Invalid;

use crate::account::{self, Email, Language};
use crate::http::App;
use crate::password::NewPassword;

const ACCOUNTS: [(&str, &str, &str, Role); 3] = [
    ("demo@dockside.test", "dockside-demo", "Demo Customer", Role::Customer),
    ("staff@dockside.test", "dockside-staff", "Demo Staff", Role::Staff),
    ("admin@dockside.test", "dockside-admin", "Demo Admin", Role::Admin),
];

/// Creates the accounts that are missing.
pub(crate) async fn load(app: &App) -> anyhow::Result<()> {
    for (email, password, name, role) in ACCOUNTS {
        let created = create(app, email, password, name, role).await;
        created.map_err(|problem| anyhow::anyhow!("demo account {email}: {}", problem.detail))?;
    }
    Ok(())
}

async fn create(app: &App, email: &str, password: &str, name: &str, role: Role) -> Result<(), Problem> {
    let mut invalid = Invalid::new();
    let email = Email::parse(&mut invalid, email);
    let password = NewPassword::parse(&mut invalid, "/password", password.to_owned());
    invalid.check()?;
    let (Some(email), Some(password)) = (email, password) else {
        return Err(Problem::internal());
    };
    let mut connection = app.pool.acquire().await?;
    if account::credentials(&mut connection, &email).await?.is_some() {
        return Ok(());
    }
    drop(connection);

    let hash = app.hasher.hash(password).await?;
    let mut transaction = service::db::begin(&app.pool).await?;
    match account::register(&mut transaction, &email, name, role, Language::En, &hash).await {
        // Another replica was faster.
        Err(problem) if problem.code == "email_taken" => return Ok(()),
        outcome => outcome?,
    };
    transaction.commit().await?;
    app.outbox.wake();
    Ok(())
}

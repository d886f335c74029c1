//! `user admin create`: the first admin, created by the operator of the shop.
//!
//! All others are made by an admin, over the API. The command needs only the database: the running service
//! publishes the event.

use std::ffi::OsString;
use std::io::BufRead;
use std::process::ExitCode;

use anyhow::{Context, bail};
use audit::Entry;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Parser;
use identity::Role;
use service::Problem;
use service::config::Backends;
use service::db::Pool;

use crate::account::{self, Email, Language, NewAccount};
use crate::password::{Asker, Hasher};

/// Characters of a generated password: 144 bits.
const PASSWORD_BYTES: usize = 18;

/// Makes an account that may administer the shop. Where the address has an admin's account nothing is changed.
#[derive(Parser)]
#[command(name = "user admin create")]
struct Create {
    /// The address to sign in with.
    email: String,
    /// What the admin is called.
    #[arg(long, default_value = "Admin")]
    name: String,
    /// Reads the password from standard input, its first line. Without it one is made, and printed once.
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    backends: Backends,
}

/// What the address has now.
pub(crate) enum Opened {
    New,
    /// An account that was there before, with its role; `None` when it is disabled.
    Known(Option<Role>),
}

/// Does what `user admin create ...` asks for; `None` when the command line asks for something else.
pub fn asked() -> Option<ExitCode> {
    let mut given: Vec<OsString> = std::env::args_os().collect();
    if given.get(1)? != "admin" {
        return None;
    }
    if given.get(2).is_none_or(|word| word != "create") {
        eprintln!("usage: user admin create EMAIL [--name NAME] [--password-stdin]");
        return Some(ExitCode::from(2));
    }
    given.drain(1..3);
    let run = || {
        let create: Create = service::config::load_from(given)?;
        let runtime = tokio::runtime::Runtime::new().context("can't start the async runtime")?;
        runtime.block_on(create.run())
    };
    Some(match run() {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("user admin create: {error:#}");
            ExitCode::FAILURE
        }
    })
}

impl Create {
    async fn run(self) -> anyhow::Result<String> {
        let Self { email, name, password_stdin, backends } = self;
        let (password, made) = match password_stdin {
            true => (first_line(std::io::stdin().lock())?, None),
            false => {
                let made = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; PASSWORD_BYTES]>());
                (made.clone(), Some(made))
            }
        };
        let form = NewAccount::parse(email.clone(), name, password, Language::En).map_err(|p| refused(&p))?;
        service::plaintext::refuse_all(&backends, &[])?;
        let pool = service::db::open(&backends, "users", &crate::MIGRATIONS).await?;
        let opened = open_account(&pool, &Hasher::new(None), form, Role::Admin).await;
        match (opened.map_err(|problem| refused(&problem))?, made) {
            (Opened::New, None) => Ok(format!("{email} is an admin now.")),
            (Opened::New, Some(password)) => Ok(format!(
                "{email} is an admin now, with a password that is shown here and nowhere else:\n{password}"
            )),
            (Opened::Known(Some(Role::Admin)), _) => {
                Ok(format!("{email} is an admin already. Nothing was changed, the password neither."))
            }
            // The person who opened it may be somebody else.
            (Opened::Known(Some(_)), _) => bail!(
                "{email} has an account, which is no admin's. Nothing was changed: take another address, \
                 and have that admin give this account its role."
            ),
            (Opened::Known(None), _) => {
                bail!("{email} has an account that is disabled. Nothing was changed.")
            }
        }
    }
}

fn first_line(mut input: impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    input.read_line(&mut line).context("can't read the password from standard input")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn refused(problem: &Problem) -> anyhow::Error {
    let errors = problem.errors.iter().map(|error| format!("; {}: {}", error.pointer, error.detail));
    anyhow::anyhow!("{}{}", problem.detail, errors.collect::<String>())
}

/// Opens the account, unless its address has one. If two do that at once, one gets the other's account.
pub(crate) async fn open_account(
    pool: &Pool,
    hasher: &Hasher,
    form: NewAccount,
    role: Role,
) -> Result<Opened, Problem> {
    let NewAccount { email, name, password, language } = form;
    if let Some(known) = known(pool, &email).await? {
        return Ok(known);
    }
    let hash = hasher.hash(password, &Asker::default()).await?;
    let mut transaction = service::db::begin(pool).await?;
    let account = match account::register(&mut transaction, &email, &name, role, language, &hash).await {
        Err(problem) if problem.code == "email_taken" => {
            drop(transaction);
            return known(pool, &email).await?.ok_or_else(Problem::internal);
        }
        outcome => outcome?,
    };
    // By whoever runs the program: nobody is signed in.
    let entry = Entry::by_nobody("account.opened", "account", Some(account.id.to_string()));
    audit::record(&mut transaction, entry.field("role", (), role)).await?;
    transaction.commit().await?;
    Ok(Opened::New)
}

async fn known(pool: &Pool, email: &Email) -> Result<Option<Opened>, Problem> {
    let mut connection = pool.acquire().await?;
    let Some(known) = account::credentials(&mut connection, email).await? else {
        return Ok(None);
    };
    let account = account::find(&mut connection, known.id).await?;
    Ok(Some(Opened::Known(account.map(|account| account.role))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_without_its_end() {
        for (typed, password) in [("a b \n", "a b "), ("a\r\nb\n", "a"), ("a", "a"), ("", "")] {
            assert_eq!(first_line(typed.as_bytes()).unwrap(), password);
        }
    }

    #[test]
    fn what_is_wrong_with_the_form_is_said() {
        let wrong = NewAccount::parse("ada".into(), "Ada".into(), "short".into(), Language::En);
        let said = refused(&wrong.err().unwrap()).to_string();
        assert!(said.contains("/email: ") && said.contains("/password: "), "{said}");
    }
}

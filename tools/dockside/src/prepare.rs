//! `prepare`: keeps the committed query metadata (`.sqlx`) in step with the code and the migrations.
//!
//! sqlx's macros, given a database address, check every query against it; given `SQLX_OFFLINE_DIR` too, they
//! write there what they learnt. So a `cargo check` against a scratch database with all migrations makes the
//! metadata that builds without a database read.

mod metadata;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use machine::compile::{cargo, cargo_missing};
use machine::console::{line, step};
use machine::install::Need;
use machine::layout::{Layout, Lock};
use machine::servers::{postgres, start};
use machine::state::{Secrets, State};
use machine::supervisor::{self, Supervisor};
use machine::url::Url;
use machine::{install, signals};

use self::metadata::{differences, read, replace};

/// A crate with checked queries. Its `sqlx.toml` names the variable.
struct Checked {
    package: &'static str,
    folder: &'static str,
    schema: &'static str,
    /// What unqualified names mean, percent-encoded for an address.
    search_path: &'static str,
    variable: &'static str,
}

/// `messaging` and `audit` first: the services' check reads their metadata.
const CRATES: [Checked; 5] = [
    Checked {
        package: "messaging",
        folder: MESSAGING,
        schema: "messaging",
        search_path: "messaging",
        variable: "MESSAGING_DATABASE_URL",
    },
    Checked {
        package: "audit",
        folder: AUDIT,
        schema: "audit",
        search_path: "audit",
        variable: "AUDIT_DATABASE_URL",
    },
    Checked {
        package: "user",
        folder: "services/user",
        schema: "users",
        search_path: "users",
        variable: "USER_DATABASE_URL",
    },
    Checked {
        package: "product",
        folder: "services/product",
        schema: "products",
        search_path: "products%2Cextensions",
        variable: "PRODUCT_DATABASE_URL",
    },
    Checked {
        package: "order",
        folder: "services/order",
        schema: "orders",
        search_path: "orders",
        variable: "ORDER_DATABASE_URL",
    },
];
const MESSAGING: &str = "crates/messaging";
const AUDIT: &str = "crates/audit";

pub fn run(layout: &Layout, only: &[String]) -> Result<ExitCode> {
    if let Some(unknown) = only.iter().find(|name| CRATES.iter().all(|c| c.package != *name)) {
        bail!("no crate {unknown} with checked queries: messaging, audit, user, product or order");
    }
    layout.prepare()?;
    signals::install()?;
    let running = State::load(layout);
    match running.postgres.as_ref().filter(|_| running.running()) {
        Some(admin) => all(layout, &Url::parse(admin)?, only),
        None => {
            let Some(_lock) = Lock::acquire(layout)? else {
                bail!(
                    "another `cargo dockside` is at work in {}: try again when it is done",
                    layout.dir.display()
                );
            };
            supervisor::stop_stale(layout);
            let contained = install::postgres(layout)?.contains(&Need::Postgres);
            let supervisor = Supervisor::new(layout)?;
            let secrets = Secrets::load_or_create(layout)?;
            let result = start::postgres(layout, &supervisor, &secrets, None, contained)
                .and_then(|admin| all(layout, &admin, only));
            supervisor.stop();
            result
        }
    }
}

/// Works on a scratch database of this server.
fn all(layout: &Layout, admin: &Url, only: &[String]) -> Result<ExitCode> {
    let database = format!("prepare_{}", std::process::id());
    postgres::psql(admin, &["-q", "-c", &format!("CREATE DATABASE {database}")])?;
    let scratch = layout.dir.join(&database);
    let result = each(layout, &admin.with_database(&database), &scratch, only);
    fs::remove_dir_all(&scratch).ok();
    postgres::psql(admin, &["-q", "-c", &format!("DROP DATABASE {database} WITH (FORCE)")])?;
    result.map(|()| ExitCode::SUCCESS)
}

fn each(layout: &Layout, database: &Url, scratch: &Path, only: &[String]) -> Result<()> {
    let secrets = Secrets::load_or_create(layout)?;
    postgres::init_database(layout, database, &secrets)?;
    for c in CRATES.iter().filter(|c| only.is_empty() || only.iter().any(|o| o == c.package)) {
        let url = Url { query: format!("?options=-csearch_path%3D{}", c.search_path), ..database.clone() };
        migrate(layout, &url, c)?;
        let fresh = scratch.join(c.package);
        fs::create_dir_all(&fresh)?;
        describe(layout, c, &url, &fresh)?;
        let committed = layout.root.join(c.folder).join(".sqlx");
        let (old, new) = (read(&committed)?, read(&fresh)?);
        let changes = differences(&old, &new);
        let summary =
            if changes.is_empty() { "current".to_owned() } else { format!("{} changed", changes.len()) };
        step(c.package, &format!("{} queries, {summary}", new.len()));
        changes.iter().for_each(|change| line(&format!("         {change}")));
        if !changes.is_empty() {
            replace(&committed, &old, &new)?;
        }
    }
    Ok(())
}

/// Applies the migrations of `messaging` and `audit`, which every service has in its schema, and the crate's own.
fn migrate(layout: &Layout, url: &Url, c: &Checked) -> Result<()> {
    postgres::psql(url, &["-q", "-c", &format!("CREATE SCHEMA IF NOT EXISTS {}", c.schema)])?;
    let mut folders = vec![MESSAGING, AUDIT];
    folders.extend((!folders.contains(&c.folder)).then_some(c.folder));
    for folder in folders {
        let folder = layout.root.join(folder).join("migrations");
        let mut files: Vec<PathBuf> =
            fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        files
            .retain(|f| f.to_string_lossy().ends_with(".sql") && !f.to_string_lossy().ends_with(".down.sql"));
        files.sort();
        for file in files {
            postgres::psql_file(url, &file).with_context(|| format!("migration {}", file.display()))?;
        }
    }
    Ok(())
}

/// Compiles the crate with its queries checked against the database; the metadata lands in `fresh`.
fn describe(layout: &Layout, c: &Checked, url: &Url, fresh: &Path) -> Result<()> {
    let folder = layout.root.join(c.folder);
    let source = folder.join("src/lib.rs");
    let file = File::options().append(true).open(&source).with_context(|| source.display().to_string())?;
    let before = file.metadata()?.modified()?;
    // Cargo compiles anew what is newer than its last compilation. The time is put back afterwards, so that
    // neither `up` nor `test` compiles the crate again; not when someone has edited the file meanwhile.
    file.set_modified(std::time::SystemTime::now())?;
    let touched = file.metadata()?.modified()?;
    let mut command = cargo(layout);
    // Alone: others may wait for metadata of their own.
    command.args(["check", "--quiet", "-p", c.package]);
    if uses_macros(&folder.join("tests")) {
        command.arg("--tests");
    }
    let status = command.env(c.variable, url.to_string()).env("SQLX_OFFLINE_DIR", fresh).status();
    if fs::metadata(&source)?.modified()? == touched {
        file.set_modified(before)?;
    }
    signals::check()?;
    if !status.map_err(cargo_missing)?.success() {
        bail!("{} does not compile against its schema: see cargo's messages above", c.package);
    }
    Ok(())
}

/// Whether tests have checked queries of their own. If not they need not compile for `prepare` to work.
fn uses_macros(folder: &Path) -> bool {
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        ["query!(", "query_as!(", "query_scalar!("].iter().any(|name| text.contains(name))
            || uses_macros(&path)
    })
}

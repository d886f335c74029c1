//! A private PostgreSQL: its own cluster, on loopback, with one role and schema per service.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::docker;
use crate::layout::Layout;
use crate::net::Probe;
use crate::process::output;
use crate::servers::tls;
use crate::spec::Spec;
use crate::state::{Addresses, Secrets};
use crate::system::{User, data_dir, find, server_user, write_for};
use crate::url::Url;

/// The database that the services share, each in its own schema.
pub const DATABASE: &str = "dockside";

/// The folder of PostgreSQL's programs; the newest version when there are several.
pub fn find_bin() -> Option<PathBuf> {
    let mut found = Vec::new();
    let debian = "/usr/lib/postgresql"; // <version>/bin
    let fedora_alpine = ["/usr/pgsql", "/usr/libexec"]; // pgsql-<version>/bin, postgresql<version>
    for parent in [debian].into_iter().chain(fedora_alpine).chain(["/opt/homebrew/opt", "/usr/local/opt"]) {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            found.extend([entry.path().join("bin"), entry.path()]);
        }
    }
    found.retain(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file());
    found.sort_by_key(|dir| version_of(dir));
    if let Some(dir) = found.pop() {
        return Some(dir);
    }
    if let Some(config) = find("pg_config", &[]) {
        let dir = PathBuf::from(output(Command::new(config).arg("--bindir")).ok()?.trim());
        if dir.join("initdb").is_file() {
            return Some(dir);
        }
    }
    find("initdb", &[])?.parent().map(Path::to_path_buf)
}

/// The number in a folder's path, e.g. 17 in `/usr/lib/postgresql/17/bin`.
fn version_of(dir: &Path) -> u32 {
    let text = dir.to_string_lossy();
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).max().unwrap_or(0)
}

/// Proving a password to PostgreSQL takes an unoptimised program 20 ms: tests, which connect thousands of times as the
/// administrator, send it as it is.
const ADMIN_RULE: &str = "host all postgres 127.0.0.1/32 password\n";

/// Prepares the cluster (once) and says how to run it on `port`: with the programs in `bin`, else as a container.
pub fn spec(layout: &Layout, bin: Option<&Path>, secrets: &Secrets, port: u16) -> Result<Spec> {
    let user = server_user("postgres")?;
    // Apart, since a cluster is for one major version of PostgreSQL.
    let name = if bin.is_some() { "postgres" } else { "docker-postgres" };
    let home = data_dir(layout, name, user.as_ref())?;
    let data = home.join("data");
    // Written last by initdb; a folder without it is what an interrupted one left.
    if !data.join("dockside-initialised").exists() {
        fs::remove_dir_all(&data).ok();
        init(bin, &home, &data, user.as_ref(), secrets)?;
        if layout.passing {
            let file = data.join("pg_hba.conf");
            let rules = fs::read_to_string(&file).context("cannot read pg_hba.conf")?;
            write_for(user.as_ref(), &file, &format!("{ADMIN_RULE}{rules}"))?;
        }
        write_for(user.as_ref(), &data.join("dockside-initialised"), "")?;
    }
    let mut settings = vec![
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        // Socket paths are limited to 107 bytes; loopback serves everyone here.
        "unix_socket_directories=".to_owned(),
        // What the death of a process could lose is not lost either way; the machine's is not tested, and
        // a slow disk would make tests wait for nothing.
        format!("fsync={}", if layout.passing { "off" } else { "on" }),
        "synchronous_commit=on".to_owned(),
        "max_connections=400".to_owned(),
        "shared_buffers=64MB".to_owned(),
        "log_line_prefix=%m [%p] %u@%d ".to_owned(),
    ];
    if let Some(shown) = tls::shown(layout, &home, user.as_ref())? {
        settings.extend([
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", shown.certificate.display()),
            format!("ssl_key_file={}", shown.key.display()),
        ]);
    }
    if layout.measured {
        settings.push("shared_preload_libraries=pg_stat_statements".to_owned());
    }
    let mut args = vec!["-D".to_owned(), data.display().to_string()];
    args.extend(settings.into_iter().flat_map(|s| ["-c".to_owned(), s]));
    let spec = Spec {
        name: "postgres".into(),
        program: bin.unwrap_or(Path::new("")).join("postgres"),
        args,
        env: vec![("LC_ALL".into(), "C".into())],
        run_as: user,
        addresses: Addresses::default(),
        probe: Probe::Postgres { addr: format!("127.0.0.1:{port}") },
        hidden: false,
        container: None,
    };
    if bin.is_some() { Ok(spec) } else { docker::contain(layout, spec, docker::POSTGRES, &home) }
}

fn init(bin: Option<&Path>, home: &Path, data: &Path, user: Option<&User>, secrets: &Secrets) -> Result<()> {
    let password = home.join("password");
    write_for(user, &password, &secrets.postgres_admin)?;
    // An UTF-8 locale: with plain C, pg_trgm would drop every letter outside ASCII.
    let locale = if cfg!(target_os = "macos") { "en_US.UTF-8" } else { "C.UTF-8" };
    let mut initdb = match bin {
        Some(bin) => Command::new(bin.join("initdb")),
        None => docker::once(docker::POSTGRES, "initdb", home, user)?,
    };
    initdb
        .arg("-D")
        .arg(data)
        .args(["-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--locale", locale])
        .arg(format!("--pwfile={}", password.display()))
        .current_dir(home)
        .stdin(Stdio::null());
    if let Some(user) = user.filter(|_| bin.is_some()) {
        initdb.uid(user.uid).gid(user.gid);
    }
    let result = output(&mut initdb).context("cannot create the PostgreSQL cluster");
    fs::remove_file(password).ok();
    result.map(drop)
}

/// The administrator's address of a database of the private server.
pub fn admin_url(secrets: &Secrets, port: u16, database: &str) -> String {
    format!("postgres://postgres:{}@127.0.0.1:{port}/{database}", secrets.postgres_admin)
}

/// Creates the services' database and what they need in it; safe to repeat.
pub fn provision(layout: &Layout, admin: &Url, secrets: &Secrets) -> Result<()> {
    let server = admin.with_database("postgres");
    let exists = format!("SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'");
    if psql(&server, &["-tA", "-c", &exists])?.trim().is_empty() {
        psql(&server, &["-c", &format!("CREATE DATABASE {DATABASE}")])?;
    }
    init_database(layout, &admin.with_database(DATABASE), secrets)
}

/// Creates the roles, their schemas and the extensions in this database; safe to repeat.
pub fn init_database(layout: &Layout, database: &Url, secrets: &Secrets) -> Result<()> {
    let script = layout.root.join("docker/postgres/init.sql");
    // In the environment, not on the command line, where every account could read them.
    let passwords = [
        ("USER_SERVICE_PASSWORD", &secrets.user),
        ("PRODUCT_SERVICE_PASSWORD", &secrets.product),
        ("ORDER_SERVICE_PASSWORD", &secrets.order),
        ("RECONCILE_PASSWORD", &secrets.reconcile),
    ];
    let mut command = psql_command(database, &passwords.map(|(name, _)| name))?;
    command.args(["-q", "-f", "-"]).stdin(open(&script)?).envs(passwords);
    output(&mut command).context("cannot create the services' roles and schemas").map(drop)
}

/// Runs a file of statements in one transaction.
pub fn psql_file(url: &Url, file: &Path) -> Result<()> {
    // As its input: psql in a container sees no files of this machine.
    output(psql_command(url, &[])?.args(["-q", "-1", "-f", "-"]).stdin(open(file)?)).map(drop)
}

fn open(file: &Path) -> Result<File> {
    File::open(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Runs psql, which stops at the first error, and returns what it printed.
pub fn psql(url: &Url, args: &[&str]) -> Result<String> {
    output(psql_command(url, &[])?.args(args))
}

/// psql, found here or in a container, to which `variables` of the environment are passed on.
fn psql_command(url: &Url, variables: &[&str]) -> Result<Command> {
    let beside = find_bin().map(|dir| vec![dir]).unwrap_or_default();
    let variables = [&["PGPASSWORD", "PGCONNECT_TIMEOUT", "PGOPTIONS"], variables].concat();
    let mut command = find("psql", &beside).map(Command::new).or_else(|| docker::psql(&variables)).context(
        "psql is needed to set the database up: install PostgreSQL's client (Debian: postgresql-client)",
    )?;
    command
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-d", &url.without_password()])
        .env("PGPASSWORD", &url.password)
        .env("PGCONNECT_TIMEOUT", "10")
        .env("PGOPTIONS", "-c client_min_messages=warning")
        .stdin(Stdio::null());
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_counts_highest() {
        assert_eq!(version_of(Path::new("/usr/lib/postgresql/17/bin")), 17);
        assert!(
            version_of(Path::new("/usr/libexec/postgresql9"))
                < version_of(Path::new("/usr/lib/postgresql/15/bin"))
        );
    }
}

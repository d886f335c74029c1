//! A PgBouncer of a test's own, in front of a database.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use reqwest::Url;
use uuid::Uuid;

/// Which PgBouncer: `cargo dockside test` gets both from Debian's packages where it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 1.24, of Debian 13; knows `max_prepared_statements`.
    Current,
    /// 1.18, of Debian 12; knows no prepared statements outside session mode.
    Old,
}

impl Version {
    /// The variable with the path of its program.
    fn variable(self) -> &'static str {
        match self {
            Version::Current => "TEST_PGBOUNCER",
            Version::Old => "TEST_PGBOUNCER_OLD",
        }
    }
}

/// How long a client keeps its connection to the server.
/// <https://www.pgbouncer.org/config.html#pool_mode>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    Session,
    Transaction,
    Statement,
}

/// How a PgBouncer is set up.
#[derive(Debug, Clone, Copy)]
pub struct Mode {
    pub version: Version,
    pub pool_mode: PoolMode,
    /// 0 turns prepared statements off; [`Version::Old`] has no such setting.
    pub max_prepared_statements: u32,
    /// `ignore_startup_parameters`, with commas: what clients may send and have no effect.
    pub ignored: &'static str,
    /// Connections to the server for each role and database.
    pub pool_size: u32,
}

impl Mode {
    /// As CloudNativePG's `Pooler` of this repository: transaction mode with prepared statements.
    pub const TRANSACTION: Mode = Mode {
        version: Version::Current,
        pool_mode: PoolMode::Transaction,
        max_prepared_statements: 200,
        ignored: "",
        pool_size: 20,
    };
}

/// A running PgBouncer; it is killed when this is dropped.
pub struct PgBouncer {
    process: Child,
    folder: PathBuf,
    url: Url,
}

impl PgBouncer {
    /// The database's address by way of the pooler, with the same account. With the path `/pgbouncer`
    /// it is that of PgBouncer's own console.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// Starts a PgBouncer in front of the database of `database_url`, a superuser's address. Every role of that server may
/// connect with its own password. `None`, and a line on standard error, where there is no PgBouncer.
///
/// # Panics
/// when there is one and it does not start.
pub fn start(database_url: &str, mode: Mode) -> Option<PgBouncer> {
    let Some(program) = program(mode.version) else {
        // Not by a macro, whose output a test that passes keeps to itself.
        let message = format!(
            "\nSKIPPED, no PgBouncer: {} is not set. `cargo dockside test` gets it on Debian.\n",
            mode.version.variable()
        );
        std::io::stderr().write_all(message.as_bytes()).ok();
        return None;
    };
    let url: Url = database_url.parse().expect("a database's address is a URL");
    // A port that was free can be taken before PgBouncer has it.
    (0..3).find_map(|_| try_start(&program, &url, mode)).or_else(|| panic!("PgBouncer does not start"))
}

fn program(version: Version) -> Option<PathBuf> {
    std::env::var_os(version.variable()).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn try_start(program: &PathBuf, database: &Url, mode: Mode) -> Option<PgBouncer> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("a bound port has an address");
    drop(listener);
    let folder = std::env::temp_dir().join(format!("pgbouncer-{}", Uuid::now_v7().simple()));
    fs::create_dir(&folder).expect("a temporary folder can be made");
    let settings = folder.join("pgbouncer.ini");
    let users = folder.join("users.txt");
    let (user, password) = (database.username(), database.password().unwrap_or_default());
    fs::write(&users, format!("\"{user}\" \"{password}\"\n")).expect("the accounts can be written");
    fs::write(&settings, ini(database, mode, address, &users.display().to_string()))
        .expect("the settings can be written");

    let mut command = Command::new(program);
    if runs_as_root() {
        // It refuses to run as root, and then reads its files as somebody else.
        command.args(["-u", "nobody"]);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("the folder can be opened");
    }
    let log = fs::File::create(folder.join("log")).expect("a log can be written");
    let process = command
        .arg(&settings)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("PgBouncer can be run");
    let mut url = database.clone();
    url.set_host(Some("127.0.0.1")).expect("a database's address has a host");
    url.set_port(Some(address.port())).expect("a database's address has a port");
    let mut started = PgBouncer { process, folder, url };
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(exit) = started.process.try_wait().expect("a child can be waited for") {
            eprintln!("PgBouncer ended ({exit}): {}", started.log());
            return None;
        }
        if TcpStream::connect(address).is_ok() {
            return Some(started);
        }
        assert!(Instant::now() < deadline, "PgBouncer does not listen: {}", started.log());
        #[expect(clippy::disallowed_methods, reason = "some milliseconds, in a test's set-up")]
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whoever owns `/proc/self` runs this process.
fn runs_as_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Roles prove their password to PgBouncer, which looks the secret up as the superuser and passes the proof on.
fn ini(database: &Url, mode: Mode, address: SocketAddr, users: &str) -> String {
    let host = database.host_str().unwrap_or("127.0.0.1");
    let server = database.port().unwrap_or(5432);
    let user = database.username();
    let (port, size) = (address.port(), mode.pool_size);
    let pool_mode = match mode.pool_mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    };
    let mut text = format!(
        "[databases]\n* = host={host} port={server}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\npool_mode = {pool_mode}\nauth_type = scram-sha-256\nauth_file = {users}\nauth_user = {user}\n\
         auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1\nadmin_users = {user}\n\
         max_client_conn = 500\ndefault_pool_size = {size}\n",
    );
    if !mode.ignored.is_empty() {
        text.push_str(&format!("ignore_startup_parameters = {}\n", mode.ignored));
    }
    if mode.version == Version::Current {
        text.push_str(&format!("max_prepared_statements = {}\n", mode.max_prepared_statements));
    }
    text
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::{PgConnectOptions, PgConnection};
    use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

    use super::*;

    async fn connect(url: &str) -> sqlx::Result<PgConnection> {
        let options: PgConnectOptions = url.parse().expect("a URL");
        PgConnection::connect_with(&options).await
    }

    /// The server's process behind each of a few statements.
    async fn backend(connection: &mut PgConnection) -> i32 {
        let backend: Result<i32, _> =
            sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await;
        backend.expect("the pooler answers")
    }

    #[tokio::test]
    async fn two_clients_share_a_connection_in_transaction_mode_and_none_in_session_mode() {
        let database = crate::database("pooled").await;
        for version in [Version::Current, Version::Old] {
            for pool_mode in [PoolMode::Transaction, PoolMode::Session] {
                let ignored = "extra_float_digits";
                let mode = Mode { version, pool_mode, ignored, pool_size: 2, ..Mode::TRANSACTION };
                let Some(pooler) = start(&database, mode) else { continue };
                let mut one = connect(&pooler.url()).await.expect("the pooler takes clients");
                let mut two = connect(&pooler.url()).await.expect("the pooler takes clients");
                // sqlx's own prepared statements are what 1.18 has not.
                let shared = match (version, pool_mode) {
                    (Version::Old, PoolMode::Transaction) => {
                        one.execute("SELECT 1").await.expect("a plain statement is answered");
                        continue;
                    }
                    _ => backend(&mut one).await == backend(&mut two).await,
                };
                assert_eq!(shared, pool_mode == PoolMode::Transaction, "{mode:?}");
            }
        }
    }

    #[tokio::test]
    async fn statement_mode_takes_no_transactions() {
        let database = crate::database("pooled").await;
        let mode =
            Mode { pool_mode: PoolMode::Statement, ignored: "extra_float_digits", ..Mode::TRANSACTION };
        let Some(pooler) = start(&database, mode) else { return };
        let mut client = connect(&pooler.url()).await.expect("the pooler takes clients");
        assert!(client.execute("BEGIN; SELECT 1").await.is_err());
    }

    #[tokio::test]
    async fn a_role_connects_with_its_own_password() {
        let database = crate::database("pooled").await;
        let Some(pooler) = start(&database, Mode { ignored: "extra_float_digits", ..Mode::TRANSACTION })
        else {
            return;
        };
        let role = format!("role_{}", Uuid::now_v7().simple());
        let mut admin = connect(&database).await.expect("PostgreSQL answers");
        admin
            .execute(AssertSqlSafe(format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")))
            .await
            .expect("a role can be made");
        let mut url: Url = pooler.url().parse().expect("a URL");
        url.set_username(&role).expect("a name");
        url.set_password(Some("secret")).expect("a password");
        let mut client = connect(url.as_str()).await.expect("the role is let in");
        let name: String =
            sqlx::query_scalar("SELECT current_user::text").fetch_one(&mut client).await.expect("an answer");
        assert_eq!(name, role);
        url.set_password(Some("wrong")).expect("a password");
        assert!(connect(url.as_str()).await.is_err(), "a wrong password is refused");
        client.close().await.ok();
        drop(pooler);
        admin.execute(AssertSqlSafe(format!("DROP ROLE {role}"))).await.expect("the role can be dropped");
    }
}

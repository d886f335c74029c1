//! PostgreSQL over TLS: what `sslmode` and `sslrootcert` of an address mean to everything that a service opens.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use machine::layout::Layout;
use machine::servers::start;
use machine::state::Secrets;
use machine::supervisor::Supervisor;
use machine::system::{server_user, write_for};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use service::config::Backends;
use service::db::Pool;
use sqlx::{Connection as _, Executor as _, PgConnection};
use testing::{eventually, within};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

/// One at a time: a server that starts takes a core for a while.
static TURN: Mutex<()> = Mutex::const_new(());

/// A server with a certificate for `localhost`, and not for 127.0.0.1, of an authority of its own.
struct Server {
    #[expect(dead_code, reason = "it is there to be dropped")]
    turn: MutexGuard<'static, ()>,
    layout: Layout,
    supervisor: Arc<Supervisor>,
    /// An administrator's, without a query.
    url: reqwest::Url,
    authority: PathBuf,
    /// Another authority's certificate.
    stranger: PathBuf,
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Server {
    async fn start() -> Self {
        let turn = TURN.lock().await;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let dir = std::env::temp_dir().join(format!("postgres-tls-{}", Uuid::now_v7().simple()));
        let layout = Layout { root, dir, passing: true, measured: false, observed: false, tls: false };
        layout.prepare().unwrap();
        let secrets = Secrets::load_or_create(&layout).unwrap();
        let supervisor = Supervisor::new(&layout).unwrap();
        let url = start::postgres(&layout, &supervisor, &secrets, None, false).unwrap().to_string();

        let (trusted, key) = (authority("ours"), KeyPair::generate().unwrap());
        let names = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = names.signed_by(&key, &trusted).unwrap().pem();
        let user = server_user("postgres").unwrap();
        let write = |name: &str, text: &str| {
            let path = layout.dir.join(name);
            write_for(user.as_ref(), &path, text).unwrap();
            path
        };
        let certificate = write("server.pem", &certificate);
        let key = write("server.key", &key.serialize_pem());
        let (authority, stranger) =
            (write("ca.pem", &trusted.pem()), write("other.pem", &authority("another").pem()));
        let mut admin = PgConnection::connect(&url).await.unwrap();
        for (setting, path) in [("ssl_cert_file", &certificate), ("ssl_key_file", &key)] {
            let set = format!("ALTER SYSTEM SET {setting} = '{}'", path.display());
            admin.execute(sqlx::AssertSqlSafe(set)).await.unwrap();
        }
        admin.execute("ALTER SYSTEM SET ssl = on").await.unwrap();
        admin.execute("SELECT pg_reload_conf()").await.unwrap();
        let mut url: reqwest::Url = url.parse().unwrap();
        url.set_query(None);
        let server = Self { turn, layout, supervisor, url, authority, stranger };
        let on = || async {
            let url = server.address("localhost", "sslmode=require");
            PgConnection::connect(&url).await.ok()
        };
        eventually("the server to speak TLS", on).await;
        server
    }

    fn address(&self, host: &str, query: &str) -> String {
        let mut url = self.url.clone();
        url.set_host(Some(host)).unwrap();
        url.set_query(Some(query));
        url.to_string()
    }

    fn verified(&self, host: &str, authority: &Path) -> String {
        self.address(host, &format!("sslmode=verify-full&sslrootcert={}", authority.display()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.supervisor.stop();
        std::fs::remove_dir_all(&self.layout.dir).ok();
    }
}

#[tokio::test]
async fn all_that_a_service_opens_is_encrypted_to_the_server_that_the_authority_names() {
    let server = Server::start().await;
    let migrations = server.layout.dir.join("migrations");
    std::fs::create_dir(&migrations).unwrap();
    std::fs::write(migrations.join("1_one.sql"), "CREATE TABLE one (id int)").unwrap();
    let migrator = sqlx::migrate::Migrator::new(migrations).await.unwrap();
    let url = server.verified("localhost", &server.authority);
    let backends = Backends::new(url, 3, testing::NO_BROKER.to_owned());
    let migrators: &[&sqlx::migrate::Migrator] = &[&migrator];
    let pool = service::db::open(&backends, "public", migrators).await.unwrap();
    let mut listener = pool.listener().await.unwrap();
    listener.listen("changes").await.unwrap();
    sqlx::query("INSERT INTO one VALUES (1)").execute(&pool).await.unwrap();
    sqlx::query("NOTIFY changes").execute(&pool).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), listener.recv())
        .await
        .expect("the notification comes")
        .unwrap();
    // Three of the pool, the listener and what follows the server.
    let sessions = || async {
        let count = "SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_ssl
                     JOIN pg_stat_activity USING (pid) WHERE application_name = 'public'";
        let (all, encrypted): (i64, i64) = sqlx::query_as(count).fetch_one(&pool).await.unwrap();
        assert_eq!(all, encrypted);
        (all >= 5).then_some(())
    };
    within(Duration::from_secs(60), "all sessions", sessions).await;
}

#[tokio::test]
async fn a_server_that_cannot_prove_its_identity_gets_no_password() {
    let server = Server::start().await;
    let refused = |url: String| async move {
        let pool = Pool::lazy(&url, "public", 1).unwrap();
        let refused =
            || async { pool.acquire().await.err().filter(|e| !e.to_string().contains("timed out")) };
        eventually("a connection to be refused", refused).await.to_string()
    };
    for (url, why) in [
        (server.verified("localhost", &server.stranger), "UnknownIssuer"),
        (server.verified("127.0.0.1", &server.authority), "not valid for name"),
    ] {
        let said = refused(url).await;
        assert!(said.contains(why), "{said}");
    }
    // Only who is spoken to is open to `verify-ca`, and all of it to `require`.
    let unnamed = format!("sslmode=verify-ca&sslrootcert={}", server.authority.display());
    for query in [unnamed.as_str(), "sslmode=require"] {
        let pool = Pool::lazy(&server.address("127.0.0.1", query), "public", 1).unwrap();
        let open = || async { pool.acquire().await.ok() };
        drop(eventually("a connection", open).await);
    }
    // And from one without TLS nothing is taken instead.
    let mut admin = PgConnection::connect(server.url.as_str()).await.unwrap();
    admin.execute("ALTER SYSTEM SET ssl = off").await.unwrap();
    admin.execute("SELECT pg_reload_conf()").await.unwrap();
    let off = || async {
        let url = server.address("localhost", "sslmode=require");
        PgConnection::connect(&url).await.err()
    };
    drop(eventually("the server to speak no TLS", off).await);
    let said = refused(server.verified("localhost", &server.authority)).await;
    assert!(said.contains("does not support TLS"), "{said}");
}

//! What the services' tests share: a database each on a real PostgreSQL, a pooler in front of it, a namespace
//! of their own on a real broker, an issuer of access tokens, and checks of plans and routes.

pub mod metadata;
pub mod pgbouncer;
pub mod plans;
pub mod proxy;
pub mod routes;
mod servers;
pub mod statements;

pub use arrows;

use std::future::Future;
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::Ed25519KeyPair;
use identity::{AUDIENCE, Claims, ISSUER, Role, TOKEN_TYPE};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

/// The URL of a new database with an empty `schema`. It stays until another test program starts after this one.
pub async fn database(schema: &str) -> String {
    static FIRST: Once = Once::new();
    let admin = servers::database();
    let name = format!("test_{}_{}", std::process::id(), Uuid::now_v7().simple());
    let mut connection = PgConnection::connect(&admin).await.expect("PostgreSQL for tests answers");
    let mut first = false;
    FIRST.call_once(|| first = true);
    if first {
        drop_left_over(&mut connection).await;
    }
    let create = format!("CREATE DATABASE {name}");
    connection.execute(AssertSqlSafe(create)).await.expect("a database can be created");
    connection.close().await.ok();

    let mut url: reqwest::Url = admin.parse().expect("the address of PostgreSQL is a URL");
    url.set_path(&name);
    let mut connection = PgConnection::connect(url.as_str()).await.expect("the new database answers");
    let prepare = format!(
        "CREATE SCHEMA {schema}; CREATE SCHEMA extensions; CREATE EXTENSION pg_trgm SCHEMA extensions;"
    );
    connection.execute(AssertSqlSafe(prepare)).await.expect("the new database can be prepared");
    connection.close().await.ok();
    url.to_string()
}

/// Drops the databases of test programs that have ended: hundreds of them would fill a disk.
async fn drop_left_over(connection: &mut PgConnection) {
    if !Path::new("/proc/self").exists() {
        return; // Nothing says which have ended.
    }
    let all = "SELECT datname FROM pg_database WHERE datname ~ '^test_[0-9]+_[0-9a-f]{32}$'";
    let names: Vec<String> = sqlx::query_scalar(all).fetch_all(&mut *connection).await.expect("a catalogue");
    for name in names {
        let process = name.split('_').nth(1).unwrap_or_default();
        if !Path::new("/proc").join(process).exists() {
            // Fails while somebody is connected to it.
            connection.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name}"))).await.ok();
        }
    }
}

/// For a test that holds locks, or watches what a service does with the database.
pub async fn begin(pool: &PgPool) -> Transaction<'static, Postgres> {
    #[expect(clippy::disallowed_methods, reason = "a test sees it through")]
    pool.begin().await.expect("a transaction begins")
}

/// The test broker's URL.
pub fn amqp_url() -> String {
    servers::broker()
}

/// The address of no broker, for tests that need none: what a client waits for works without it.
pub const NO_BROKER: &str = "amqp://127.0.0.1:1/%2f";

/// An `AMQP_NAMESPACE` that no other test uses.
pub fn namespace() -> String {
    format!("test-{}", Uuid::now_v7().simple())
}

/// Polls until `condition` gives something; panics with `what` after half a minute, which is no speed that anybody
/// promised: a busy machine takes its time.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, condition: impl Fn() -> F) -> T {
    within(Duration::from_secs(30), what, condition).await
}

/// As [`eventually`], for what takes a time of its own.
pub async fn within<T, F: Future<Output = Option<T>>>(
    limit: Duration,
    what: &str,
    condition: impl Fn() -> F,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Signs access tokens as the user service would, and serves the keys.
pub struct Issuer {
    key: EncodingKey,
    key_id: String,
    pub jwks_url: String,
}

impl Issuer {
    pub async fn start() -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key can be made");
        let key = EncodingKey::from_ed_der(pair.to_pkcs8v1().expect("a key can be encoded").as_ref());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA).expect("a key has a public half");
        let key_id = Uuid::now_v7().to_string();
        jwk.common.key_id = Some(key_id.clone());
        let set = JwkSet { keys: vec![jwk] };

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a bound port has an address");
        let serve = move || {
            let set = set.clone();
            async move { axum::Json(set) }
        };
        let router = axum::Router::new().route("/.well-known/jwks.json", axum::routing::get(serve));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { key, key_id, jwks_url: format!("http://{address}/.well-known/jwks.json") }
    }

    /// An access token for the next 15 minutes.
    pub fn token(&self, user: Uuid, role: Role) -> String {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        self.sign(
            TOKEN_TYPE,
            &Claims {
                iss: ISSUER.to_owned(),
                aud: AUDIENCE.to_owned(),
                sub: user,
                sid: Uuid::now_v7(),
                role,
                iat: now,
                exp: now + 900,
                jti: Uuid::now_v7(),
            },
        )
    }

    /// A token with any claims, for tests of what is refused.
    pub fn sign(&self, typ: &str, claims: &Claims) -> String {
        let header = Header {
            typ: Some(typ.to_owned()),
            kid: Some(self.key_id.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        jsonwebtoken::encode(&header, claims, &self.key).expect("claims can be signed")
    }
}

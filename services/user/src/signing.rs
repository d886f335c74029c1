//! The keys that access tokens are signed with: Ed25519, in the database, so
//! that all replicas share them. Where there is a key for that, they are sealed.
//!
//! Keys rotate by themselves: a month-old key gets a successor, which is
//! published at once but signs only when every verifier has had time to fetch
//! it; the old key stays published until the last token it signed has run out.

mod seal;
mod store;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use aws_lc_rs::signature::Ed25519KeyPair;
use identity::{AUDIENCE, Claims, ISSUER, Role, TOKEN_TYPE, Verifier};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use service::db::{Connection, Pool};
use service::{Lifecycle, Problem};
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

/// Seconds that an access token lives.
pub(crate) const TOKEN_LIFETIME: i64 = 15 * 60;

/// How often a replica looks for keys that another one made.
const RELOAD_EVERY: Duration = Duration::from_secs(60);

/// How long a replica leaves stored keys as they are. During an update, replicas of the version before can't
/// read what this one seals. They would go on with the keys that they have, but none could start.
const SEAL_AFTER: Duration = Duration::from_secs(15 * 60);

pub(crate) use seal::Seals;

/// The current keys, in the database's order of use.
pub(crate) struct SigningKeys {
    current: RwLock<Arc<KeySet>>,
    verifier: Arc<Verifier>,
}

struct KeySet {
    kid: String,
    key: EncodingKey,
    published: JwkSet,
}

impl SigningKeys {
    /// Loads the keys, creating the first if there is none, and keeps them
    /// current until `lifecycle` stops.
    pub async fn start(pool: &Pool, seals: Seals, lifecycle: &Lifecycle) -> anyhow::Result<Arc<Self>> {
        let started = Instant::now();
        let current = load(pool, &seals, Stored::AsTheyAre).await.context("can't load the signing keys")?;
        let keys = Arc::new(Self {
            verifier: Verifier::with_keys(&current.published),
            current: RwLock::new(Arc::new(current)),
        });
        let (pool, reloaded, stop) = (pool.clone(), keys.clone(), lifecycle.stopping());
        lifecycle.spawn_worker("signing_keys", |pulse| async move {
            while pulse.rest(stop.run_until_cancelled(tokio::time::sleep(RELOAD_EVERY))).await.is_some() {
                let stored = if started.elapsed() < SEAL_AFTER { Stored::AsTheyAre } else { Stored::Renewed };
                match load(&pool, &seals, stored).await {
                    Ok(current) => reloaded.replace(current),
                    Err(error) => tracing::warn!(error = format!("{error:#}"), "signing_keys.reload_failed"),
                }
            }
        });
        Ok(keys)
    }

    pub fn verifier(&self) -> Arc<Verifier> {
        self.verifier.clone()
    }

    /// The public halves, for verifiers.
    pub fn published(&self) -> JwkSet {
        self.current().published.clone()
    }

    /// An access token for the next 15 minutes.
    pub fn sign(&self, account: Uuid, role: Role, session: Uuid) -> Result<String, Problem> {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: account,
            sid: session,
            role,
            iat: now,
            exp: now + TOKEN_LIFETIME,
            jti: Uuid::now_v7(),
        };
        let current = self.current();
        let header = Header {
            typ: Some(TOKEN_TYPE.to_owned()),
            kid: Some(current.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        jsonwebtoken::encode(&header, &claims, &current.key).map_err(|error| {
            tracing::error!(%error, "token.signing_failed");
            Problem::internal()
        })
    }

    fn current(&self) -> Arc<KeySet> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, keys: KeySet) {
        self.verifier.set_keys(&keys.published);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }
}

/// What is done with keys that are not stored as a new one would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    AsTheyAre,
    Renewed,
}

/// Reads the keys, first adding one that is due and removing those that are
/// done. One replica at a time: a lock of the transaction sees to it.
async fn load(pool: &Pool, seals: &Seals, stored: Stored) -> anyhow::Result<KeySet> {
    let mut transaction = service::db::begin(pool).await?;
    store::lock(&mut transaction).await?;
    store::remove_superseded(&mut transaction).await?;
    if store::is_one_due(&mut transaction).await? {
        let (kid, private_key) = generate()?;
        // As long as replicas of the version before may run, which read no sealed key, none is made for them to fail at.
        let known = store::all(&mut transaction).await?;
        let plain = stored == Stored::AsTheyAre
            && !known.is_empty()
            && known.iter().all(|row| seal::is_plain(&row.private_key));
        let private_key = if plain { private_key } else { seals.seal(&kid, &private_key)? };
        store::add(&mut transaction, &kid, &private_key).await?;
        tracing::info!(key.id = kid, "signing_keys.added");
    }
    let rows = opened(&mut transaction, seals, stored).await?;
    transaction.commit().await?;

    let signing = rows.iter().rfind(|row| row.active).or(rows.first()).context("there is no signing key")?;
    Ok(KeySet {
        kid: signing.kid.clone(),
        key: EncodingKey::from_ed_der(&signing.private_key),
        published: JwkSet {
            keys: rows.iter().map(|row| public_half(&row.private_key)).collect::<Result<_, _>>()?,
        },
    })
}

/// The keys in their plain form, after storing those anew that are to be.
async fn opened(
    connection: &mut Connection,
    seals: &Seals,
    stored: Stored,
) -> anyhow::Result<Vec<store::Row>> {
    let mut rows = store::all(connection).await?;
    for row in &mut rows {
        let private_key = seals.open(&row.kid, &row.private_key)?;
        if stored == Stored::Renewed && !seals.is_current(&row.private_key) {
            store::replace(connection, &row.kid, &seals.seal(&row.kid, &private_key)?).await?;
            tracing::info!(key.id = row.kid, "signing_keys.stored_anew");
        }
        row.private_key = private_key;
    }
    Ok(rows)
}

/// A new key's id and its PKCS#8 v1 form, the one that [`Jwk`] can read.
fn generate() -> anyhow::Result<(String, Vec<u8>)> {
    let pair = Ed25519KeyPair::generate().context("no key could be generated")?;
    let private_key = pair.to_pkcs8v1().context("the key could not be encoded")?.as_ref().to_vec();
    let kid = public_half(&private_key)?.common.key_id.context("a key has an id")?;
    Ok((kid, private_key))
}

/// With RFC 7638's thumbprint as its id.
fn public_half(private_key: &[u8]) -> anyhow::Result<Jwk> {
    let mut jwk = Jwk::from_encoding_key(&EncodingKey::from_ed_der(private_key), Algorithm::EdDSA)
        .context("a signing key is not Ed25519 in PKCS#8 v1")?;
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256)?);
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok(jwk)
}

//! Access tokens (RFC 9068 JWTs, EdDSA) checked locally with the user service's
//! published keys.
//!
//! Keys are refreshed every five minutes, and at most once a second for a key
//! id not seen before; the last good set is kept while the user service is
//! away.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use opentelemetry::metrics::Counter;
use service::tls::{self, Identity};
use service::{Lifecycle, Problem, socket, telemetry};
use tokio::sync::Mutex;

use crate::{AUDIENCE, Claims, ISSUER, TOKEN_TYPE, User};

const REFRESH_EVERY: Duration = Duration::from_secs(300);
const REFRESH_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// Until there are any keys: the user service may be ready a moment later.
const FIRST_KEYS_EVERY: Duration = Duration::from_millis(100);
const FETCH_DEADLINE: Duration = Duration::from_secs(2);

/// Checks access tokens.
pub struct Verifier {
    keys: RwLock<HashMap<String, DecodingKey>>,
    remote: Option<Remote>,
}

struct Remote {
    url: String,
    client: reqwest::Client,
    identity: Option<Identity>,
    /// When the keys were last asked for; held while they are.
    asked: Mutex<Option<Instant>>,
    refreshes: Counter<u64>,
}

impl Remote {
    /// With an identity one for each fetch, as its files may have changed.
    fn client(&self) -> reqwest::Result<reqwest::Client> {
        let Some(identity) = &self.identity else { return Ok(self.client.clone()) };
        let tls = identity.client(tls::HTTP_1);
        socket::http_client(FETCH_DEADLINE).tls_backend_preconfigured(tls).build()
    }
}

impl Verifier {
    /// With the keys that `url` serves, kept fresh until `lifecycle` stops. With an `identity` its server has to show a
    /// certificate of the same authority.
    pub fn fetching(
        url: &str,
        identity: Option<Identity>,
        lifecycle: &Lifecycle,
    ) -> anyhow::Result<Arc<Self>> {
        let client = socket::http_client(FETCH_DEADLINE).build()?;
        let description = "Fetches of the keys that access tokens are checked with.";
        let refreshes = telemetry::counter("jwks.refreshes", "{refresh}", description);
        for outcome in ["fetched", "failed"] {
            refreshes.add(0, &[telemetry::label("outcome", outcome)]);
        }
        let remote = Remote { url: url.to_owned(), client, identity, asked: Mutex::new(None), refreshes };
        let verifier = Arc::new(Self { keys: RwLock::default(), remote: Some(remote) });
        let (refreshed, stop) = (verifier.clone(), lifecycle.stopping());
        lifecycle.spawn_worker("jwks", |pulse| async move {
            loop {
                let pause = if refreshed.refresh().await { REFRESH_EVERY } else { refreshed.at_most_every() };
                if pulse.rest(stop.run_until_cancelled(tokio::time::sleep(pause))).await.is_none() {
                    return;
                }
            }
        });
        Ok(verifier)
    }

    /// With a fixed set of keys.
    pub fn with_keys(keys: &JwkSet) -> Arc<Self> {
        let verifier = Self { keys: RwLock::default(), remote: None };
        verifier.set_keys(keys);
        Arc::new(verifier)
    }

    /// Replaces the keys. Only Ed25519 keys with an id are taken.
    pub fn set_keys(&self, set: &JwkSet) {
        let usable = set.keys.iter().filter_map(|jwk| {
            let id = jwk.common.key_id.clone()?;
            Some((id, DecodingKey::from_jwk(jwk).ok()?))
        });
        let usable = usable.collect();
        *self.keys.write().unwrap_or_else(std::sync::PoisonError::into_inner) = usable;
    }

    /// Who the token speaks for; 401 `invalid_token` when it is not one of ours
    /// or has run out, 503 when no key could be had yet.
    pub async fn verify(&self, token: &str) -> Result<User, Problem> {
        let invalid = |detail: &str| Problem::unauthorized("invalid_token", detail);
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid("The token is not a JWT."))?;
        // Nothing that a header may call critical is understood here (RFC 7515, section 4.1.11).
        let plain = header.alg == Algorithm::EdDSA && header.crit.is_none();
        let ours = plain && header.typ.as_deref() == Some(TOKEN_TYPE);
        let id = header.kid.filter(|_| ours).ok_or_else(|| invalid("Not an access token of this shop."))?;
        let key = match self.key(&id) {
            Some(key) => key,
            None => {
                self.refresh().await;
                if self.has_no_keys() {
                    return Err(Problem::unavailable("Tokens can't be checked at the moment; try again."));
                }
                self.key(&id).ok_or_else(|| invalid("The token's key is not known."))?
            }
        };
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = 5;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation)
            .map_err(|_| invalid("The token is not valid or has run out."))?
            .claims;
        Ok(User { id: claims.sub, role: claims.role, session: claims.sid, until: claims.exp })
    }

    /// Who sent a request with these headers; 401 `missing_token` without a token, otherwise as [`Self::verify`].
    pub async fn caller(&self, headers: &HeaderMap) -> Result<User, Problem> {
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let missing = || Problem::unauthorized("missing_token", "Send Authorization: Bearer <access token>.");
        self.verify(token.ok_or_else(missing)?).await
    }

    fn key(&self, id: &str) -> Option<DecodingKey> {
        self.keys.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(id).cloned()
    }

    fn has_no_keys(&self) -> bool {
        self.keys.read().unwrap_or_else(std::sync::PoisonError::into_inner).is_empty()
    }

    fn at_most_every(&self) -> Duration {
        if self.has_no_keys() { FIRST_KEYS_EVERY } else { REFRESH_AT_MOST_EVERY }
    }

    /// Fetches the keys, unless that was just done; the old ones stay when it
    /// fails. Everybody waits for one fetch, so that none is turned away during it.
    async fn refresh(&self) -> bool {
        let Some(remote) = &self.remote else { return true };
        let mut asked = remote.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < self.at_most_every()) {
            return !self.has_no_keys();
        }
        let fetched = async {
            let asked = remote.client()?.get(&remote.url).send().await?;
            asked.error_for_status()?.json::<JwkSet>().await
        };
        let fetched = fetched.await;
        *asked = Some(Instant::now());
        let good = fetched.as_ref().is_ok_and(|set| !set.keys.is_empty());
        let outcome = if good { "fetched" } else { "failed" };
        remote.refreshes.add(1, &[telemetry::label("outcome", outcome)]);
        match fetched {
            // An empty answer is a fault, not a revocation of everything.
            Ok(set) if set.keys.is_empty() => false,
            Ok(set) => {
                self.set_keys(&set);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "jwks.refresh_failed");
                false
            }
        }
    }
}

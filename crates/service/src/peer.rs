//! Which service is calling: a short-lived token, signed with the caller's own
//! Ed25519 key, made for one callee. The callee's settings name whom it trusts.

use std::collections::HashMap;

use anyhow::Context;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use tonic::{Code, Request, Status};

use crate::grpc::refusal;

const TOKEN_TYPE: &str = "dockside-service+jwt";

/// Seconds that a token lives: longer than any call's deadline.
const LIFETIME: i64 = 60;

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    exp: i64,
}

/// A service's own key, to call others with.
#[derive(Clone)]
pub struct ServiceKey {
    name: &'static str,
    key: EncodingKey,
}

impl ServiceKey {
    /// From a PKCS#8 PEM, as [`generate`] makes it.
    pub fn from_pem(name: &'static str, pem: &str) -> anyhow::Result<Self> {
        let key = EncodingKey::from_ed_pem(pem.as_bytes()).context("SERVICE_KEY is not an Ed25519 PEM")?;
        Ok(Self { name, key })
    }

    /// A token that `audience` accepts for the next minute.
    pub fn token(&self, audience: &str) -> Result<String, Status> {
        let header = Header { typ: Some(TOKEN_TYPE.to_owned()), ..Header::new(Algorithm::EdDSA) };
        let claims = Claims {
            iss: self.name.to_owned(),
            aud: audience.to_owned(),
            sub: self.name.to_owned(),
            exp: time::OffsetDateTime::now_utc().unix_timestamp() + LIFETIME,
        };
        jsonwebtoken::encode(&header, &claims, &self.key)
            .map_err(|_| Status::internal("the service token could not be signed"))
    }
}

/// The services that a callee trusts.
pub struct Callers {
    audience: &'static str,
    keys: HashMap<String, DecodingKey>,
}

impl Callers {
    /// From `name=key,name=key`; a key as [`Generated::public_key`] has it.
    pub fn parse(audience: &'static str, list: &str) -> anyhow::Result<Self> {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(|entry| {
            let (name, key) = entry.split_once('=').context("TRUSTED_CALLERS takes name=key,name=key")?;
            let key = DecodingKey::from_ed_components(key)
                .with_context(|| format!("TRUSTED_CALLERS: the key of {name} is not Ed25519 in base64url"))?;
            Ok((name.to_owned(), key))
        });
        Ok(Self { audience, keys: entries.collect::<anyhow::Result<_>>()? })
    }

    /// Refuses a call that is not from one of `allowed`: `unauthenticated`
    /// without a good token, `permission_denied` for anybody else.
    pub fn require<T>(&self, request: &Request<T>, allowed: &[&str]) -> Result<(), Status> {
        let refused = || refusal(Code::Unauthenticated, "invalid_token", "a service token is needed");
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(refused)?;
        let header = jsonwebtoken::decode_header(token).map_err(|_| refused())?;
        // Nothing that a header may call critical is understood here (RFC 7515, section 4.1.11).
        if header.typ.as_deref() != Some(TOKEN_TYPE) || header.crit.is_some() {
            return Err(refused());
        }
        // Which key to check with is what the unchecked token claims; the check then decides.
        let claimed =
            jsonwebtoken::dangerous::insecure_decode_claims::<Claims>(token).map_err(|_| refused())?;
        let key = self.keys.get(&claimed.iss).ok_or_else(refused)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&claimed.iss]);
        validation.set_audience(&[self.audience]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = 10;
        jsonwebtoken::decode::<Claims>(token, key, &validation).map_err(|_| refused())?;
        if allowed.contains(&claimed.iss.as_str()) {
            Ok(())
        } else {
            Err(refusal(Code::PermissionDenied, "forbidden", "this service may not call this"))
        }
    }
}

/// A new key pair for a service.
#[derive(Serialize)]
pub struct Generated {
    /// PKCS#8 PEM: the caller's `SERVICE_KEY`.
    pub private_key_pem: String,
    /// Base64url: goes into the callee's `TRUSTED_CALLERS`.
    pub public_key: String,
}

pub fn generate() -> anyhow::Result<Generated> {
    let pair = Ed25519KeyPair::generate().context("no key could be generated")?;
    let document = pair.to_pkcs8v1().context("the key could not be encoded")?;
    let body = BASE64_STANDARD.encode(document.as_ref());
    Ok(Generated {
        private_key_pem: format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"),
        public_key: BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(token: &str) -> Request<()> {
        let mut request = Request::new(());
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    }

    #[test]
    fn only_a_trusted_and_allowed_caller_gets_through() {
        let (order, stranger) = (generate().unwrap(), generate().unwrap());
        let callers = Callers::parse("product", &format!("order={}", order.public_key)).unwrap();
        let key = ServiceKey::from_pem("order", &order.private_key_pem).unwrap();
        let forged = ServiceKey::from_pem("order", &stranger.private_key_pem).unwrap();

        let good = request(&key.token("product").unwrap());
        assert!(callers.require(&good, &["order"]).is_ok());
        let refused =
            |request: &Request<()>, allowed: &[&str]| callers.require(request, allowed).unwrap_err().code();
        assert_eq!(refused(&good, &["user"]), tonic::Code::PermissionDenied);
        assert_eq!(refused(&request(&key.token("user").unwrap()), &["order"]), tonic::Code::Unauthenticated);
        assert_eq!(
            refused(&request(&forged.token("product").unwrap()), &["order"]),
            tonic::Code::Unauthenticated
        );
        assert_eq!(refused(&Request::new(()), &["order"]), tonic::Code::Unauthenticated);
    }
}

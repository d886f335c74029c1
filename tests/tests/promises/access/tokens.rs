//! Tokens that are good for nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use system_tests::Shop;

/// Signs any claims.
pub struct Mint {
    key: EncodingKey,
    kid: String,
    public: Vec<u8>,
}

pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// `base` with the members of `change`; those that are null are left out.
fn changed(base: &Value, change: &Value) -> Value {
    let mut claims = base.as_object().unwrap().clone();
    claims.extend(change.as_object().unwrap().clone());
    claims.retain(|_, value| !value.is_null());
    claims.into()
}

impl Mint {
    /// With the user service's own key.
    pub async fn of_the_shop(shop: &Shop) -> Self {
        let newest = "SELECT kid, private_key FROM users.signing_keys WHERE active_from <= now() ORDER BY active_from DESC";
        let (kid, der): (String, Vec<u8>) = sqlx::query_as(newest).fetch_one(&shop.database).await.unwrap();
        Self::with(kid, &der)
    }

    /// With a new key, under this id.
    pub fn of_a_stranger(kid: &str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        Self::with(kid.to_owned(), pair.to_pkcs8v1().unwrap().as_ref())
    }

    fn with(kid: String, der: &[u8]) -> Self {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).unwrap();
        Self { key: EncodingKey::from_ed_der(der), kid, public: pair.public_key().as_ref().to_vec() }
    }

    /// The shop's order service's key, to make calls with.
    pub fn of_order(shop: &Shop) -> EncodingKey {
        EncodingKey::from_ed_pem(shop.file("order.key.pem").as_bytes()).unwrap()
    }

    pub fn sign(&self, typ: &str, claims: &Value) -> String {
        let header =
            Header { typ: Some(typ.into()), kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

/// A call's token, signed with `key`.
pub fn service_token(key: &EncodingKey, typ: &str, change: &Value) -> String {
    let good = json!({"iss": "order", "aud": "product", "sub": "order", "exp": now() + 60});
    let header = Header { typ: Some(typ.into()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, &changed(&good, change), key).unwrap()
}

/// Access tokens for a user's session, as an admin, each wrong in one way.
pub async fn wrong(shop: &Shop, user: &str, session: &str, good: &str) -> Vec<(&'static str, String)> {
    let mint = Mint::of_the_shop(shop).await;
    let base = json!({"iss": "dockside", "aud": "dockside-api", "sub": user, "sid": session, "role": "admin",
        "iat": now(), "exp": now() + 600, "jti": session});
    let signed = |change: Value| mint.sign("at+jwt", &changed(&base, &change));

    let (header, rest) = good.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let promoted = BASE64.encode(base.to_string());
    let none = BASE64.encode(json!({"alg": "none", "typ": "at+jwt", "kid": mint.kid}).to_string());
    let hs256 = |secret: &[u8]| {
        let header = Header {
            typ: Some("at+jwt".into()),
            kid: Some(mint.kid.clone()),
            ..Header::new(Algorithm::HS256)
        };
        jsonwebtoken::encode(&header, &base, &EncodingKey::from_secret(secret)).unwrap()
    };
    let critical = Header {
        typ: Some("at+jwt".into()),
        kid: Some(mint.kid.clone()),
        crit: Some(vec!["b64".into()]),
        ..Header::new(Algorithm::EdDSA)
    };
    vec![
        ("a malformed token", "x.y.z".into()),
        ("a token of another audience", signed(json!({"aud": "product"}))),
        ("a token of no audience", signed(json!({"aud": null}))),
        ("a token of another issuer", signed(json!({"iss": "order"}))),
        ("a token that has run out", signed(json!({"exp": now() - 60}))),
        ("a token that never runs out", signed(json!({"exp": null}))),
        ("a token that is not yet good", signed(json!({"nbf": now() + 300}))),
        ("a token of nobody", signed(json!({"sub": null}))),
        ("a token of an unknown role", signed(json!({"role": "root"}))),
        ("a token of another type", mint.sign("JWT", &base)),
        (
            "a token with a critical header that nobody knows",
            jsonwebtoken::encode(&critical, &base, &mint.key).unwrap(),
        ),
        ("a token of an unknown key", Mint::of_a_stranger("no-such-key").sign("at+jwt", &base)),
        (
            "a token of a stranger's key under a known id",
            Mint::of_a_stranger(&mint.kid).sign("at+jwt", &base),
        ),
        ("an unsigned token", format!("{none}.{promoted}.")),
        ("a token without its signature", format!("{header}.{payload}.")),
        ("a token with a better role under its signature", format!("{header}.{promoted}.{signature}")),
        ("a token signed with the public key as a secret", hs256(&mint.public)),
        (
            "a token signed with the public key's text as a secret",
            hs256(BASE64.encode(&mint.public).as_bytes()),
        ),
        (
            "a service's token",
            service_token(&Mint::of_order(shop), "dockside-service+jwt", &json!({"aud": "user"})),
        ),
        ("a service's token made up as a user's", {
            let claims = changed(&base, &json!({"iss": "order"}));
            jsonwebtoken::encode(
                &Header {
                    typ: Some("at+jwt".into()),
                    kid: Some(mint.kid.clone()),
                    ..Header::new(Algorithm::EdDSA)
                },
                &claims,
                &Mint::of_order(shop),
            )
            .unwrap()
        }),
    ]
}

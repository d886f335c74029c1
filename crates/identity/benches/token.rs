//! An access token is checked with every request.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use criterion::{Criterion, criterion_group, criterion_main};
use identity::{AUDIENCE, Claims, ISSUER, Role, TOKEN_TYPE, Verifier};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use uuid::Uuid;

fn token(criterion: &mut Criterion) {
    let pair = service::peer::generate().unwrap();
    let keys = serde_json::json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "k1", "x": pair.public_key}
    ]});
    let verifier = Verifier::with_keys(&serde_json::from_value::<JwkSet>(keys).unwrap());
    let header = Header {
        typ: Some(TOKEN_TYPE.to_owned()),
        kid: Some("k1".to_owned()),
        ..Header::new(Algorithm::EdDSA)
    };
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: Uuid::now_v7(),
        sid: Uuid::now_v7(),
        role: Role::Customer,
        iat: now,
        exp: now + 900,
        jti: Uuid::now_v7(),
    };
    let key = EncodingKey::from_ed_pem(pair.private_key_pem.as_bytes()).unwrap();
    let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(runtime.block_on(verifier.verify(&token)).is_ok());
    criterion.bench_function("token: checked", |b| {
        b.iter(|| runtime.block_on(verifier.verify(&token)).unwrap());
    });
}

criterion_group!(benches, token);
criterion_main!(benches);

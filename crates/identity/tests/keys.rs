//! Tokens name the key that signed them; a name that nobody knows is no way to make the service work.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use identity::{AUDIENCE, Claims, ISSUER, Role, TOKEN_TYPE, Verifier};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use service::Lifecycle;
use testing::Issuer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Serves what the issuer does, and counts how often it is asked.
async fn counted(issuer: &Issuer) -> (String, Arc<AtomicUsize>) {
    let keys: serde_json::Value = reqwest::get(&issuer.jwks_url).await.unwrap().json().await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let count = asked.clone();
    let serve = move || {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready(axum::Json(keys.clone()))
    };
    let router = axum::Router::new().route("/keys", axum::routing::get(serve));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

/// By a key of the caller's own, which the header says where to get.
fn forged() -> String {
    let pair = service::peer::generate().unwrap();
    let key = EncodingKey::from_ed_pem(pair.private_key_pem.as_bytes()).unwrap();
    let header = Header {
        typ: Some(TOKEN_TYPE.to_owned()),
        kid: Some(Uuid::now_v7().to_string()),
        jku: Some("http://127.0.0.1:1/keys".to_owned()),
        x5u: Some("http://127.0.0.1:1/chain".to_owned()),
        ..Header::new(Algorithm::EdDSA)
    };
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: Uuid::now_v7(),
        sid: Uuid::now_v7(),
        role: Role::Admin,
        iat: now,
        exp: now + 900,
        jti: Uuid::now_v7(),
    };
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_are_asked_for_once_a_second_at_most_however_many_there_are() {
    let issuer = Issuer::start().await;
    let (url, asked) = counted(&issuer).await;
    let lifecycle = Lifecycle::new();
    let verifier = Verifier::fetching(&url, None, &lifecycle).unwrap();
    let good = issuer.token(Uuid::now_v7(), Role::Customer);
    testing::eventually("the keys to be there", async || verifier.verify(&good).await.ok()).await;

    let (before, started) = (asked.load(Ordering::SeqCst), Instant::now());
    let mut tries = JoinSet::new();
    for _ in 0..200 {
        let verifier = verifier.clone();
        tries.spawn(async move { verifier.verify(&forged()).await.unwrap_err().code });
    }
    assert!(tries.join_all().await.iter().all(|code| code == "invalid_token"));
    let seconds = started.elapsed().as_secs() as usize;
    assert!(asked.load(Ordering::SeqCst) - before <= 1 + seconds, "{}", asked.load(Ordering::SeqCst));
    assert!(verifier.verify(&good).await.is_ok());
    assert!(lifecycle.shutdown(Duration::from_secs(5)).await);
}

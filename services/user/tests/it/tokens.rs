//! Access tokens and the keys that they are checked with.

use crate::app::{App, NO_BROKER};
use identity::Claims;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

async fn published(app: &App) -> JwkSet {
    let answer = app.get("/.well-known/jwks.json", "none").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("cache-control"), "public, max-age=300");
    serde_json::from_value(answer.body).expect("a set of keys")
}

#[tokio::test]
async fn a_token_verifies_with_the_published_key() {
    let app = App::start().await;
    let id = app.register("ada@example.com").await.body["id"].clone();
    let token = app.login("ada@example.com", crate::app::PASSWORD).await.tokens().access;
    let header = jsonwebtoken::decode_header(&token).unwrap();
    assert_eq!((header.alg, header.typ.as_deref()), (Algorithm::EdDSA, Some("at+jwt")));

    let keys = published(&app).await;
    let key = keys.find(&header.kid.unwrap()).expect("the token's key is published");
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["dockside-api"]);
    validation.set_issuer(&["dockside"]);
    let claims = jsonwebtoken::decode::<Claims>(&token, &DecodingKey::from_jwk(key).unwrap(), &validation);
    let claims = claims.unwrap().claims;
    assert_eq!(json!(claims.sub), id);
    assert_eq!(claims.role, identity::Role::Customer);
    assert_eq!(claims.exp - claims.iat, 900);
}

#[tokio::test]
async fn nothing_private_is_published() {
    let app = App::start().await;
    let answer = app.get("/.well-known/jwks.json", "none").await;
    let keys = answer.body["keys"].as_array().unwrap();
    let mut fields: Vec<_> = keys[0].as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["alg", "crv", "kid", "kty", "use", "x"]);
}

#[tokio::test]
async fn a_token_that_is_not_quite_right_is_refused() {
    let app = App::start().await;
    let id: Uuid = app.register("ada@example.com").await.body["id"].as_str().unwrap().parse().unwrap();
    let good = app.login("ada@example.com", crate::app::PASSWORD).await.tokens().access;
    let (kid, der): (String, Vec<u8>) =
        sqlx::query_as("SELECT kid, private_key FROM users.signing_keys").fetch_one(&app.pool).await.unwrap();
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let session: Uuid =
        sqlx::query_scalar("SELECT id FROM users.sessions").fetch_one(&app.pool).await.unwrap();
    // What the service itself would sign, but for `change`.
    let signed = |typ: &str, change: Value| {
        let mut claims = json!({"iss": "dockside", "aud": "dockside-api", "sub": id, "sid": session,
            "role": "customer", "iat": now, "exp": now + 900, "jti": id});
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header =
            Header { typ: Some(typ.into()), kid: Some(kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&der)).unwrap()
    };
    assert_eq!(app.get("/api/v1/me", &signed("at+jwt", json!({}))).await.status, StatusCode::OK);

    let (rest, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = rest.split_once('.').unwrap();
    let (_, others) = signed("at+jwt", json!({"role": "admin"})).split_once('.').map(owned).unwrap();
    let admin = others.split_once('.').unwrap().0.to_owned();
    let stranger = testing::Issuer::start().await.token(id, identity::Role::Admin);
    // {"alg":"none","typ":"at+jwt"} and the same with a kid of no key
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0";
    for (what, token) in [
        ("no token", "x".to_owned()),
        ("other claims under the same signature", format!("{header}.{admin}.{signature}")),
        ("no signature", format!("{header}.{payload}.")),
        ("alg none", format!("{none}.{payload}.")),
        ("alg none, signed", format!("{none}.{payload}.{signature}")),
        ("another type", signed("JWT", json!({}))),
        ("run out", signed("at+jwt", json!({"exp": now - 60}))),
        ("not yet good", signed("at+jwt", json!({"nbf": now + 60}))),
        ("another audience", signed("at+jwt", json!({"aud": "product"}))),
        ("another issuer", signed("at+jwt", json!({"iss": "somebody"}))),
        ("an unknown role", signed("at+jwt", json!({"role": "root"}))),
        ("a stranger's key", stranger),
        ("a session that has ended", signed("at+jwt", json!({"sid": id}))),
    ] {
        let answer = app.get("/api/v1/me", &token).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}");
        answer.is_problem(401, "invalid_token");
        assert!(answer.header("www-authenticate").contains("invalid_token"), "{what}");
    }
    let without = app.request(Method::GET, "/api/v1/me").send().await.unwrap();
    crate::app::Answer::of(without).await.is_problem(401, "missing_token");
}

#[tokio::test]
async fn a_token_comes_as_a_bearer_token_in_any_case() {
    let app = App::start().await;
    let ada = app.signed_in("ada@example.com").await.access;
    let send = |header: String| {
        let request = app.request(Method::GET, "/api/v1/me").header("authorization", header);
        async move { crate::app::Answer::of(request.send().await.unwrap()).await }
    };
    for scheme in ["Bearer", "bearer", "BEARER"] {
        assert_eq!(send(format!("{scheme} {ada}")).await.status, StatusCode::OK, "{scheme}");
    }
    for header in [format!("Basic {ada}"), ada.clone(), "Bearer".to_owned(), String::new()] {
        send(header).await.is_problem(401, "missing_token");
    }
}

#[tokio::test]
async fn public_operations_ignore_a_token() {
    let app = App::start().await;
    let post = |path: &'static str, body: Value| app.call(Method::POST, path, "not a token", body);
    let form = json!({"email": "ada@example.com", "password": crate::app::PASSWORD, "name": "Ada"});
    assert_eq!(post("/api/v1/auth/register", form).await.status, StatusCode::CREATED);
    let credentials = json!({"email": "ada@example.com", "password": crate::app::PASSWORD});
    let refresh = post("/api/v1/auth/login", credentials).await.tokens().refresh;
    let refresh = post("/api/v1/auth/refresh", json!({ "refresh_token": refresh })).await.tokens().refresh;
    let signed_out = post("/api/v1/auth/logout", json!({ "refresh_token": refresh })).await;
    assert_eq!(signed_out.status, StatusCode::NO_CONTENT);
    assert_eq!(app.get("/.well-known/jwks.json", "not a token").await.status, StatusCode::OK);
}

fn owned((left, right): (&str, &str)) -> (String, String) {
    (left.to_owned(), right.to_owned())
}

#[tokio::test]
async fn replicas_started_at_once_share_one_key() {
    let first = App::start().await;
    first.sql("DELETE FROM users.signing_keys").await;
    let start = || App::start_with(&first.database_url, NO_BROKER, "dockside", &[]);
    let held = first.hold("LOCK TABLE users.signing_keys IN EXCLUSIVE MODE").await;
    let (a, b, ()) = tokio::join!(start(), start(), first.release(held, 2));
    assert_eq!(first.count("SELECT count(*) FROM users.signing_keys").await, 1);
    assert_eq!(published(&a).await, published(&b).await);
    let ada = a.signed_in("ada@example.com").await;
    assert_eq!(b.get("/api/v1/me", &ada.access).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_new_key_is_published_before_it_signs_and_an_old_one_after() {
    let app = App::start().await;
    let restart = || App::start_with(&app.database_url, NO_BROKER, "dockside", &[]);
    let kid = |token: &str| jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let old = app.signed_in("ada@example.com").await;

    app.sql(
        "UPDATE users.signing_keys SET created_at = created_at - interval '31 days',
             active_from = active_from - interval '31 days'",
    )
    .await;
    let due = restart().await;
    assert_eq!(published(&due).await.keys.len(), 2);
    let still = due.login("ada@example.com", crate::app::PASSWORD).await.tokens();
    assert_eq!(kid(&still.access), kid(&old.access));

    app.sql(
        "UPDATE users.signing_keys SET active_from = now() - interval '1 minute'
             WHERE active_from > now()",
    )
    .await;
    let rotated = restart().await;
    let new = rotated.login("ada@example.com", crate::app::PASSWORD).await.tokens();
    assert_ne!(kid(&new.access), kid(&old.access));
    for token in [&old.access, &new.access] {
        assert_eq!(rotated.get("/api/v1/me", token).await.status, StatusCode::OK);
        // The replica from before the rotation has known the key since it was published.
        assert_eq!(due.get("/api/v1/me", token).await.status, StatusCode::OK);
    }

    app.sql("UPDATE users.signing_keys SET active_from = active_from - interval '2 hours'").await;
    let done = restart().await;
    let kids: Vec<_> = published(&done).await.keys.into_iter().map(|key| key.common.key_id).collect();
    assert_eq!(kids, [Some(kid(&new.access))]);
}

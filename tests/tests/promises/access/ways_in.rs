//! What is open to anybody, and has something else than an access token to be opened with.

use aws_lc_rs::hmac;
use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Answer, Shop, send};

use super::tokens::now;
use super::world::World;

pub fn webhook_secret(shop: &Shop) -> String {
    let secrets: Value = serde_json::from_str(&shop.file("secrets.json")).unwrap();
    secrets["payment_webhook_secret"].as_str().unwrap().to_owned()
}

/// Of an event that was sent so many seconds ago.
pub fn signature(secret: &str, age: i64, body: &str) -> String {
    let at = now() - age;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{at}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at},v1={hex}")
}

#[tokio::test]
async fn p9_the_webhook_takes_only_the_provider() {
    let shop = Shop::open().await;
    let secret = webhook_secret(&shop);
    let event = |id: &str| {
        json!({"type": "charge.refunded", "data": {"object": {"id": "ch_1", "payment_intent": id}}})
            .to_string()
    };
    let body = event("pi_nobodys");
    let good = signature(&secret, 0, &body);
    let post = async |signature: Option<&str>| {
        let request =
            shop.request(Method::POST, "/payments/webhook").header("Content-Type", "application/json");
        let request =
            signature.into_iter().fold(request, |request, one| request.header("Stripe-Signature", one));
        send(request.body(body.clone())).await.unwrap()
    };
    let (time, digest) = good.split_once(',').unwrap();
    for (what, wrong) in [
        ("no signature", None),
        ("an empty one", Some(String::new())),
        ("a time alone", Some(time.to_owned())),
        ("a digest alone", Some(digest.to_owned())),
        ("another time", Some(format!("t={},{digest}", now() + 1))),
        ("another scheme", Some(good.replace("v1=", "v0="))),
        ("half a digest", Some(good[..good.len() - 32].to_owned())),
        ("another secret", Some(signature("whsec_guessed", 0, &body))),
        ("another body", Some(signature(&secret, 0, &event("pi_mine")))),
        ("an old one", Some(signature(&secret, 400, &body))),
        ("one from the future", Some(signature(&secret, -400, &body))),
    ] {
        let answer = post(wrong.as_deref()).await;
        assert_eq!(answer.problem(), (400, "invalid_signature"), "{what}: {}", answer.body);
    }
    assert_eq!(post(Some(&good)).await.status, 204);
}

#[tokio::test]
async fn p9_only_a_refresh_token_refreshes_and_only_its_own_session() {
    let shop = Shop::open().await;
    let world = World::new(&shop).await;
    let before = world.seen().await;
    let post = async |path: &str, token: &str| -> Answer {
        send(shop.request(Method::POST, path).json(&json!({"refresh_token": token}))).await.unwrap()
    };
    let mut wrong: Vec<&str> = world.wrong.iter().map(|(_, token)| token.as_str()).collect();
    wrong.retain(|token| *token != world.me.refresh);
    let cut = &world.me.refresh[..42];
    let long = format!("{}A", world.me.refresh);
    wrong.extend([world.me.token.as_str(), &world.me.session, cut, &long, "", "AAAA"]);
    for token in wrong {
        let answer = post("/auth/refresh", token).await;
        assert_eq!(answer.status, 401, "{token}: {}", answer.body);
        assert_eq!(answer.problem().1, "invalid_refresh_token");
        // It says nothing of whether there is such a session, and ends none.
        assert_eq!(post("/auth/logout", token).await.status, 204);
    }
    let stranger = world.stranger().await;
    let theirs = post("/auth/refresh", &stranger.refresh).await;
    assert_eq!(theirs.status, 200, "{}", theirs.body);
    assert_eq!(theirs.headers["cache-control"], "no-store");
    assert_eq!(post("/auth/logout", theirs.body["refresh_token"].as_str().unwrap()).await.status, 204);
    assert_eq!(world.seen().await, before);
    assert_eq!(post("/auth/refresh", &world.me.refresh).await.status, 200);
}

#[tokio::test]
async fn p9_a_cursor_of_somebody_elses_list_shows_nothing_of_theirs() {
    let shop = Shop::open().await;
    let world = World::new(&shop).await;
    let stranger = world.stranger().await;
    for path in ["/orders", "/me/addresses", "/me/sessions"] {
        let get = async |query: &str, token: &str| {
            send(shop.request(Method::GET, &format!("{path}{query}")).bearer_auth(token)).await.unwrap()
        };
        let mine = get("?limit=1", &world.me.token).await;
        assert_eq!(mine.status, 200, "{path}: {}", mine.body);
        let last = mine.body["items"][0]["id"].as_str().unwrap();
        let above = base64(&json!("ffffffff-ffff-ffff-ffff-ffffffffffff"));
        for cursor in
            [mine.body["next_cursor"].as_str().map(str::to_owned), Some(base64(&json!(last))), Some(above)]
        {
            let Some(cursor) = cursor else { continue };
            let theirs = get(&format!("?limit=100&cursor={cursor}"), &stranger.token).await;
            assert_eq!(theirs.status, 200, "{path}: {}", theirs.body);
            assert!(!world.reveals_mine(&theirs.body), "{path}: {}", theirs.body);
        }
    }
    // What a filter says does not widen it either.
    let path = format!("/orders?user_id={}", world.me.id);
    let theirs = send(shop.request(Method::GET, &path).bearer_auth(&stranger.token)).await.unwrap();
    assert!(!world.reveals_mine(&theirs.body), "{}", theirs.body);
}

fn base64(value: &Value) -> String {
    use base64::Engine;
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

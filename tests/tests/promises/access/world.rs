//! Me, what is mine, and the others.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Shop, address, send};
use uuid::Uuid;

use super::tokens;

const PASSWORD: &str = "correct horse battery";

/// Somebody who has signed in.
#[derive(Clone)]
pub struct Account {
    pub email: String,
    pub id: String,
    pub session: String,
    pub token: String,
    pub refresh: String,
}

impl Account {
    pub fn credentials(&self) -> Value {
        json!({"email": self.email, "password": PASSWORD})
    }
}

pub struct World<'a> {
    pub shop: &'a Shop,
    pub me: Account,
    pub staff: String,
    pub admin: String,
    /// Tokens for me that are no good.
    pub wrong: Vec<(&'static str, String)>,
    /// Tokens that were good until their session ended, their account was disabled or got another role.
    pub ended: Vec<(&'static str, String)>,
    pub address: String,
    /// Another sign-in of mine.
    pub session: String,
    /// One to cancel, one to ship and refund, one on its way.
    pub orders: [String; 3],
    /// Staff's, and in my cart. There is an import with this id too.
    pub product: String,
    /// An account for admins to change.
    pub managed: String,
    /// A category without products.
    pub category: String,
    /// With it somebody who has forgotten the password sets a new one.
    pub reset_token: String,
    /// With it and the password somebody gets another address.
    pub verification_token: String,
}

impl<'a> World<'a> {
    pub async fn new(shop: &'a Shop) -> Self {
        let staff = shop.staff().await;
        let admin = shop.sign_in("admin@dockside.test", "dockside-admin").await;
        let me = registered(shop).await;
        let session = sign_in(shop, &me.email).await.session;
        let buyer = shop.sign_in(&me.email, PASSWORD).await;

        let product = shop.product(50).await;
        let category = format!("p9-{}", Uuid::now_v7());
        let made = staff.post("/categories", &json!({"slug": category, "name": "For tests"})).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let png = [b"\x89PNG\r\n\x1a\n".as_slice(), &[0; 60]].concat();
        let image = staff.request(Method::PUT, &format!("/products/{product}/images/0"));
        let image = send(image.header("Content-Type", "image/png").body(png)).await.unwrap();
        assert_eq!(image.status, 201, "{}", image.body);
        let import = staff.request(Method::POST, &format!("/product-imports?id={product}"));
        let import = send(import.header("Content-Type", "application/x-ndjson").body("")).await.unwrap();
        assert_eq!(import.status, 200, "{}", import.body);
        let mut orders = Vec::new();
        for _ in 0..3 {
            orders.push(buyer.place(product, 2, "pm_card_visa").await);
        }
        for order in &orders {
            assert_eq!(buyer.ended(order).await["status"], "confirmed");
        }
        let parcel = json!({"carrier": "Tern", "tracking_number": "T-1"});
        assert_eq!(staff.post(&format!("/orders/{}/ship", orders[2]), &parcel).await.status, 200);
        let address = buyer.post("/me/addresses", &address()).await.id();
        let cart =
            buyer.request(Method::PUT, &format!("/cart/items/{product}")).json(&json!({"quantity": 3}));
        assert_eq!(send(cart).await.unwrap().status, 200);

        let administer = async |who: &Account, change: Value| {
            let request = admin.request(Method::PATCH, &format!("/users/{}", who.id)).json(&change);
            let answer = send(request).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.body);
        };
        let disabled = registered(shop).await;
        administer(&disabled, json!({"disabled": true})).await;
        let demoted = registered(shop).await;
        administer(&demoted, json!({"role": "admin"})).await;
        let demoted = sign_in(shop, &demoted.email).await;
        administer(&demoted, json!({"role": "customer"})).await;
        let signed_out = sign_in(shop, &me.email).await;
        let out =
            shop.request(Method::POST, "/auth/logout").json(&json!({"refresh_token": signed_out.refresh}));
        assert_eq!(send(out).await.unwrap().status, 204);

        let forgetful: Uuid = registered(shop).await.id.parse().unwrap();
        let reset_token = [Uuid::now_v7().into_bytes(), Uuid::now_v7().into_bytes()].concat();
        let reset =
            sqlx::query("INSERT INTO users.password_resets (token_hash, account_id) VALUES (sha256($1), $2)");
        reset.bind(&reset_token).bind(forgetful).execute(&shop.database).await.unwrap();

        let moving: Uuid = registered(shop).await.id.parse().unwrap();
        let verification_token = [Uuid::now_v7().into_bytes(), Uuid::now_v7().into_bytes()].concat();
        let verification = sqlx::query(
            "INSERT INTO users.email_verifications (token_hash, account_id, email, email_key)
             VALUES (sha256($1), $2, $3, $3)",
        );
        let verification = verification.bind(&verification_token).bind(moving);
        let verification = verification.bind(format!("{}@example.test", Uuid::now_v7()));
        verification.execute(&shop.database).await.unwrap();

        let mut wrong = tokens::wrong(shop, &me.id, &me.session, &me.token).await;
        wrong.push(("a refresh token", me.refresh.clone()));
        Self {
            shop,
            wrong,
            ended: vec![
                ("a session that was signed out", signed_out.token),
                ("an account that was disabled", disabled.token),
                ("an admin who is none any more", demoted.token),
            ],
            staff: staff.token.clone(),
            admin: admin.token.clone(),
            address,
            session,
            orders: orders.try_into().unwrap(),
            product: product.to_string(),
            category,
            managed: registered(shop).await.id,
            reset_token: BASE64.encode(reset_token),
            verification_token: BASE64.encode(verification_token),
            me,
        }
    }

    pub async fn stranger(&self) -> Account {
        registered(self.shop).await
    }

    pub async fn sign_in(&self, who: &Account) -> Account {
        sign_in(self.shop, &who.email).await
    }

    /// Whether a body names me or what is mine.
    pub fn reveals_mine(&self, body: &Value) -> bool {
        let text = body.to_string();
        let ids = [&self.me.id, &self.me.email, &self.me.session, &self.session, &self.address];
        // A problem's `instance` is the path that was asked for.
        let instance = body["instance"].as_str().unwrap_or_default();
        let text = text.replace(instance, "");
        ids.into_iter().chain(&self.orders).any(|id| text.contains(id.as_str()))
    }

    /// All that could have been changed: as I see it, and staff and admins.
    pub async fn seen(&self) -> Vec<(String, Value)> {
        let mut seen = Vec::new();
        let mut read = async |path: String, token: &str| {
            let answer = send(self.shop.request(Method::GET, &path).bearer_auth(token)).await.unwrap();
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            seen.push((path, answer.body));
        };
        for path in ["/me", "/me/addresses", "/me/sessions", "/cart", "/orders"] {
            read(path.to_owned(), &self.me.token).await;
        }
        for order in &self.orders {
            read(format!("/orders/{order}"), &self.me.token).await;
            read(format!("/orders/{order}/refunds"), &self.me.token).await;
        }
        read(format!("/products/{}", self.product), &self.staff).await;
        read(format!("/products/{}/stock-adjustments", self.product), &self.staff).await;
        read(format!("/users/{}", self.managed), &self.admin).await;
        let products = sqlx::query_scalar("SELECT count(*) FROM products.products");
        let products: i64 = products.fetch_one(&self.shop.database).await.unwrap();
        seen.push(("products".to_owned(), products.into()));
        seen
    }
}

/// A new customer, signed in.
async fn registered(shop: &Shop) -> Account {
    let email = format!("{}@example.test", Uuid::now_v7());
    let body = json!({"email": email, "password": PASSWORD, "name": "Ada"});
    let answer = send(shop.request(Method::POST, "/auth/register").json(&body)).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.body);
    sign_in(shop, &email).await
}

async fn sign_in(shop: &Shop, email: &str) -> Account {
    let body = json!({"email": email, "password": PASSWORD});
    let answer = send(shop.request(Method::POST, "/auth/login").json(&body)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let token = text(&answer.body["access_token"]);
    let claims = BASE64.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    Account {
        email: email.to_owned(),
        id: text(&claims["sub"]),
        session: text(&claims["sid"]),
        refresh: text(&answer.body["refresh_token"]),
        token,
    }
}

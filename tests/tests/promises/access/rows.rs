//! A row for each operation: a request that would do something, to something of mine where there can be.

use serde_json::{Value, json};
use system_tests::address;
use uuid::Uuid;

use super::world::World;
use super::{Operation, ways_in};

pub struct Row {
    /// From the root.
    pub path: String,
    /// It names something that belongs to me, which to others is not there.
    pub mine: bool,
    pub headers: Vec<(&'static str, String)>,
    pub body: Option<Vec<u8>>,
}

impl Row {
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn typed(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.with("Content-Type", kind)
    }

    fn json(self, body: &Value) -> Self {
        self.typed("application/json", body.to_string())
    }
}

impl World<'_> {
    /// Of an operation that has no row here, nobody has said how it is called, and on what of mine.
    pub fn row(&self, operation: &Operation) -> Row {
        let (path, shop) = (&operation.path, self.shop);
        let row = |id: &str| Row {
            path: path
                .replace("{id}", id)
                .replace("{slug}", id)
                .replace("{product_id}", id)
                .replace("{n}", "0"),
            mine: false,
            headers: Vec::new(),
            body: None,
        };
        let mine = |id: &str| Row { mine: true, ..row(id) };
        let [to_cancel, to_ship, shipped] = &self.orders;
        let new = Uuid::now_v7();
        let product = json!({"sku": format!("P9-{new}"), "name": "Lantern", "description": "For tests.",
            "price": {"amount": 100, "currency": "EUR"}, "category": "lighting", "stock": 1});
        let png = || [b"\x89PNG\r\n\x1a\n".as_slice(), new.as_bytes(), &[0; 60]].concat();
        match operation.name.as_str() {
            "GET /.well-known/jwks.json"
            | "GET /api/v1/admin/orders"
            | "GET /api/v1/audit/orders"
            | "GET /api/v1/audit/orders/export"
            | "GET /api/v1/audit/products"
            | "GET /api/v1/audit/products/export"
            | "GET /api/v1/audit/users"
            | "GET /api/v1/audit/users/export"
            | "DELETE /api/v1/cart"
            | "GET /api/v1/cart"
            | "GET /api/v1/categories"
            | "DELETE /api/v1/me"
            | "GET /api/v1/me"
            | "GET /api/v1/me/addresses"
            | "DELETE /api/v1/me/sessions"
            | "GET /api/v1/me/sessions"
            | "GET /api/v1/orders"
            | "GET /api/v1/products"
            | "GET /api/v1/users" => row(""),

            "POST /api/v1/auth/login" => row("").json(&self.me.credentials()),
            "POST /api/v1/auth/register" => row("").json(&json!({
                "email": format!("{new}@example.test"), "password": "correct horse battery", "name": "Ada",
            })),
            "POST /api/v1/auth/refresh" => row("").json(&json!({"refresh_token": self.me.refresh})),
            "POST /api/v1/auth/logout" => row("").json(&json!({"refresh_token": "AAAA"})),
            "POST /api/v1/password-resets" => row("").json(&json!({"email": self.me.email})),
            // Good once, and somebody else's.
            "POST /api/v1/password-resets/confirm" => row("").json(&json!({
                "token": self.reset_token, "password": self.me.credentials()["password"],
            })),
            "POST /api/v1/email-verifications" => row("").json(&json!({"email": self.me.email})),
            // Good once, and somebody else's.
            "POST /api/v1/email-verifications/confirm" => row("").json(&json!({
                "token": self.verification_token, "password": self.me.credentials()["password"],
            })),
            "POST /api/v1/payments/webhook" => {
                let body =
                    json!({"type": "payment_intent.succeeded", "data": {"object": {"id": "pi_nobodys"}}});
                let body = body.to_string();
                let signature = ways_in::signature(&ways_in::webhook_secret(shop), 0, &body);
                row("").with("Stripe-Signature", signature).typed("application/json", body)
            }

            "PATCH /api/v1/me" => row("").json(&json!({"name": "Mallory"})),
            // To the same one: it ends the other sessions all the same.
            "POST /api/v1/me/password" => row("").json(&json!({
                "current_password": self.me.credentials()["password"],
                "new_password": self.me.credentials()["password"],
            })),
            "POST /api/v1/me/email" => row("").json(&json!({
                "current_password": self.me.credentials()["password"], "email": format!("{new}@example.test"),
            })),
            "POST /api/v1/me/addresses" => row("").json(&address()),
            "GET /api/v1/me/addresses/{id}" | "DELETE /api/v1/me/addresses/{id}" => mine(&self.address),
            "PUT /api/v1/me/addresses/{id}" => {
                let mut moved = address();
                moved["city"] = json!("Leeds");
                mine(&self.address).json(&moved)
            }
            "DELETE /api/v1/me/sessions/{id}" => mine(&self.session),
            "GET /api/v1/users/{id}" => row(&self.managed),
            // To whom it goes, not to whom it belongs.
            "POST /api/v1/users/{id}/mails" => row(&self.me.id).json(&json!({"order_id": shipped})),
            "PATCH /api/v1/users/{id}" => row(&self.managed).json(&json!({"role": "staff"})),

            "DELETE /api/v1/cart/items/{product_id}" => row(&self.product),
            "PUT /api/v1/cart/items/{product_id}" => row(&self.product).json(&json!({"quantity": 1})),
            // Of the cart.
            "POST /api/v1/orders" => row("")
                .with("Idempotency-Key", new.to_string())
                .json(&json!({"shipping_address": address(), "payment_method": "pm_card_visa"})),
            "GET /api/v1/orders/{id}"
            | "GET /api/v1/orders/{id}/events"
            | "POST /api/v1/orders/{id}/event-tickets"
            | "GET /api/v1/orders/{id}/notes"
            | "GET /api/v1/orders/{id}/refunds" => mine(to_ship),
            // To staff, whosever it is.
            "GET /api/v1/admin/orders/{id}/saga" => row(to_ship),
            "POST /api/v1/orders/{id}/notes" => mine(to_ship).json(&json!({"text": "A good customer."})),
            "PUT /api/v1/orders/{id}/shipping-address" => mine(to_ship).json(&address()),
            "POST /api/v1/orders/{id}/cancel" => mine(to_cancel),
            "POST /api/v1/orders/{id}/ship" => {
                mine(to_ship).json(&json!({"carrier": "Tern", "tracking_number": "T-2"}))
            }
            "POST /api/v1/orders/{id}/deliver" => mine(shipped),
            "POST /api/v1/orders/{id}/refunds" => mine(shipped)
                .with("Idempotency-Key", new.to_string())
                .json(&json!({"reason": "Greed", "amount": {"amount": 1, "currency": "EUR"}})),

            "POST /api/v1/products" => row("").json(&product),
            "POST /api/v1/product-imports" => row("").typed("application/x-ndjson", format!("{product}\n")),
            "GET /api/v1/product-exports" => row(""),
            "GET /api/v1/product-imports/{id}"
            | "GET /api/v1/products/{id}"
            | "GET /api/v1/products/{id}/stock-adjustments"
            | "GET /api/v1/products/{id}/images/{n}"
            | "DELETE /api/v1/products/{id}/images/{n}" => row(&self.product),
            "DELETE /api/v1/products/{id}" => row(&self.product).with("If-Match", "*"),
            "PATCH /api/v1/products/{id}" => {
                row(&self.product).with("If-Match", "*").json(&json!({"name": "Cheaper"}))
            }
            "PUT /api/v1/products/{id}/images/{n}" => row(&self.product).typed("image/png", png()),
            "POST /api/v1/products/{id}/restore" => row(&self.product),
            "POST /api/v1/categories" => row("").json(&json!({"name": format!("Loot {new}")})),
            "GET /api/v1/categories/{slug}" | "DELETE /api/v1/categories/{slug}" => row(&self.category),
            "PATCH /api/v1/categories/{slug}" => row(&self.category).json(&json!({"name": "Darkness"})),
            "POST /api/v1/products/{id}/stock-adjustments" => {
                row(&self.product).json(&json!({"delta": 1, "reason": "Found"}))
            }
            unknown => {
                panic!("{unknown} has no row in access/rows.rs: how is it called, and on what of mine?")
            }
        }
    }
}

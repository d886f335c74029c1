//! What leads to a failpoint, and what must hold afterwards.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Process;
use crate::{Answer, Buyer, Shop, eventually, oracle, send};

const MINUTE: Duration = Duration::from_secs(60);
const STOCK: i64 = 900;

/// Customers' ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plot {
    /// Two units with this card; the order ends so.
    Buy(&'static str, &'static str),
    /// More than there is.
    BuyTooMany,
    /// A sum that no order may come to: what was reserved is released.
    BuyTooDear,
    /// The first try of a request fails, its retry takes over.
    TryAgain,
    /// The same, but the customer comes back only when the stock has been released.
    Abandon,
    /// A paid order is cancelled: money and stock go back.
    Cancel,
    /// Staff refund a part, and put a unit back on the shelf.
    Refund,
    /// The card never answers, and the reservation runs out.
    Outstay,
    /// An account is erased.
    Erase,
    /// Staff change a product.
    Edit,
    /// An event of this schema's outbox that nobody can read.
    Poison(&'static str),
}

impl Plot {
    pub fn leading_to(service: &str, failpoint: &str) -> Self {
        let (buy, decline) =
            (Self::Buy("pm_card_visa", "confirmed"), Self::Buy("pm_card_chargeDeclined", "cancelled"));
        match (service, failpoint) {
            (_, "order.place.taken_over") => Self::TryAgain,
            (_, "order.place.refused") => Self::BuyTooMany,
            (_, "order.place.claimed" | "order.place.reserved") => buy,
            (_, "order.place.written" | "order.place.committed") => buy,
            (_, "order.saga.leased" | "order.saga.written" | "order.saga.committed") => buy,
            (_, "order.saga.create.before" | "order.saga.create.after") => buy,
            (_, "order.saga.confirm.before" | "order.saga.confirm.after") => buy,
            (_, "order.saga.commit.before" | "order.saga.commit.after") => buy,
            (_, "order.saga.capture.before" | "order.saga.capture.after") => buy,
            (_, "order.saga.retrieve.before") => Self::Buy("pm_card_confirm_lost", "confirmed"),
            (_, "order.saga.retrieve.after") => Self::Buy("pm_card_capture_lost", "confirmed"),
            (_, "order.saga.cancel.before" | "order.saga.cancel.after") => decline,
            (_, "order.saga.refund.before" | "order.saga.refund.after") => Self::Cancel,
            (_, "order.saga.inquire.before" | "order.saga.inquire.after") => Self::Refund,
            (_, "order.refund.written" | "order.refund.committed") => Self::Refund,
            (_, "order.sweep.taken" | "order.sweep.released") => Self::Abandon,
            (_, "order.erasure.written" | "user.erasure.written" | "user.erasure.committed") => Self::Erase,
            (_, "product.reserve.written" | "product.reserve.committed") => buy,
            (_, "product.commit.written" | "product.commit.committed") => buy,
            (_, "product.release.written" | "product.release.committed") => Self::BuyTooDear,
            (_, "product.expiry.written" | "product.expiry.committed") => Self::Outstay,
            (_, "product.restock.written") => Self::Cancel,
            ("order", "consumer.put_aside") => Self::Poison("products"),
            (_, "consumer.put_aside") => Self::Poison("orders"),
            ("order", "relay.claimed" | "relay.published" | "relay.marked") => buy,
            ("product", "relay.claimed" | "relay.published" | "relay.marked") => Self::Edit,
            ("user", "relay.claimed" | "relay.published" | "relay.marked") => Self::Erase,
            ("user", "consumer.received" | "consumer.applied" | "consumer.committed") => buy,
            ("product", "consumer.received" | "consumer.applied" | "consumer.committed") => decline,
            ("order", "consumer.received" | "consumer.applied" | "consumer.committed") => Self::Edit,
            _ => panic!("no plot leads to {failpoint} in {service}: write one"),
        }
    }
}

/// A shop with people in it.
pub(super) struct Scenes {
    pub shop: Arc<Shop>,
    customer: String,
    staff: String,
    order: Process,
}

impl Scenes {
    pub async fn open(shop: Arc<Shop>) -> Self {
        let customer = shop.customer().await.token;
        let staff = shop.staff().await.token;
        let order = Process::of(shop.clone(), "order");
        Self { shop, customer, staff, order }
    }

    fn staff(&self) -> Buyer<'_> {
        Buyer { shop: &self.shop, token: self.staff.clone() }
    }

    /// Everything that goes before the fault.
    pub async fn prepare(self: &Arc<Self>, plot: Plot) -> Scene {
        let price = if plot == Plot::BuyTooDear { 2_000_000_000 } else { 1_250 };
        let mut scene = Scene {
            scenes: self.clone(),
            plot,
            token: self.customer.clone(),
            product: self.product(price).await,
            orders: Vec::new(),
        };
        match plot {
            Plot::Cancel | Plot::Refund => {
                scene.place(&Scene::key(), "pm_card_visa").await;
                assert_eq!(scene.buyer().ended(&scene.orders[0]).await["status"], "confirmed");
            }
            Plot::Erase => {
                scene.token = self.account().await;
                // Its address is kept until it has ended, and no longer.
                scene.place(&Scene::key(), "pm_card_chargeDeclined").await;
            }
            _ => {}
        }
        scene
    }

    async fn product(&self, price: i64) -> Uuid {
        let request = || {
            let body = json!({
                "sku": format!("F-{}", Uuid::now_v7()), "name": "Fault Lamp", "description": "For tests.",
                "price": {"amount": price, "currency": "EUR"}, "category": "lighting", "stock": STOCK,
            });
            self.staff().request(Method::POST, "/products").json(&body)
        };
        let answer = answered("a product", request).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.id().parse().expect("an id is a UUID")
    }

    /// A new customer's token.
    async fn account(&self) -> String {
        let email = format!("{}@example.test", Uuid::now_v7());
        let credentials = json!({"email": email, "password": "correct horse battery", "name": "Ada"});
        let register = || self.shop.request(Method::POST, "/auth/register").json(&credentials);
        let answer = answered("an account", register).await;
        assert!(answer.status == 201 || answer.status == 409, "{}", answer.body); // a retry finds its own
        let sign_in = json!({"email": email, "password": "correct horse battery"});
        let answer =
            answered("a token", || self.shop.request(Method::POST, "/auth/login").json(&sign_in)).await;
        answer.body["access_token"].as_str().unwrap_or_else(|| panic!("{}", answer.body)).to_owned()
    }
}

/// Sends a request until it has an answer that stays: a fault is no answer, and
/// neither is "try again".
async fn answered(what: &str, request: impl Fn() -> RequestBuilder) -> Answer {
    let answer = || async {
        let answer = send(request()).await.ok()?;
        assert_ne!(answer.status, 500, "{}", answer.body);
        let passing = answer.status.is_server_error() || answer.status == 429;
        (!passing && answer.problem() != (409, "idempotency_in_progress")).then_some(answer)
    };
    eventually(&format!("an answer to {what}"), MINUTE, answer).await
}

/// One plot, with a product of its own so that stock can be counted.
pub(super) struct Scene {
    scenes: Arc<Scenes>,
    plot: Plot,
    token: String,
    product: Uuid,
    orders: Vec<String>,
}

impl Scene {
    fn shop(&self) -> &Shop {
        &self.scenes.shop
    }

    fn buyer(&self) -> Buyer<'_> {
        Buyer { shop: self.shop(), token: self.token.clone() }
    }

    fn key() -> String {
        Uuid::now_v7().to_string()
    }

    /// Places an order under `key`, as often as it takes, and once more.
    async fn place(&mut self, key: &str, card: &str) {
        let request = || self.buyer().order(key, self.product, 2, card);
        let answer = answered("an order", request).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let again = answered("the order again", request).await;
        assert_eq!((again.status.as_u16(), again.id()), (201, answer.id()), "a key has one order");
        self.orders.push(answer.id());
    }

    /// A request that fails at `failpoint` and leaves its claim behind, with or without a
    /// reservation; the keys that were used.
    async fn fail_at(&self, failpoint: &str, reserved: i64) -> Vec<String> {
        let keys = std::sync::Mutex::new(Vec::new());
        let failed = || async {
            let key = Self::key();
            keys.lock().expect("no panic").push(key.clone());
            // Another order may take the fault, or a service be dead.
            self.scenes.order.arm(failpoint, "fail").await;
            let answer = send(self.buyer().order(&key, self.product, 2, "pm_card_visa")).await.ok()?;
            let left = "SELECT count(*) FROM orders.claims WHERE key = $1 AND answer_status IS NULL";
            let left = sqlx::query_scalar(left).bind(&key).fetch_one(&self.shop().database);
            let left: i64 = left.await.expect("PostgreSQL answers");
            let held = self.shop().stock(self.product).await.1 >= reserved;
            (answer.status == 503 && left == 1 && held).then_some(())
        };
        eventually("a request to fail", MINUTE, failed).await;
        keys.into_inner().expect("no panic")
    }

    /// Everything from the fault to the last check.
    pub async fn play(mut self, failpoint: String) {
        let _reporting = Reporting(failpoint, self.plot);
        match self.plot {
            Plot::Buy(card, status) => {
                self.place(&Self::key(), card).await;
                self.ended(status).await;
            }
            Plot::BuyTooMany | Plot::BuyTooDear => {
                let dear = self.plot == Plot::BuyTooDear;
                let (quantity, code) = if dear { (800, "validation_failed") } else { (901, "out_of_stock") };
                self.refused(quantity, code).await;
            }
            Plot::TryAgain => {
                for key in self.fail_at("order.place.claimed", 0).await {
                    self.place(&key, "pm_card_visa").await;
                }
                self.ended("confirmed").await;
            }
            Plot::Abandon => {
                let keys = self.fail_at("order.place.reserved", 2).await;
                self.stock_is("reserved", 0).await;
                for key in keys {
                    self.place(&key, "pm_card_visa").await;
                }
                self.ended("confirmed").await;
            }
            Plot::Cancel => {
                self.cancel().await;
                self.ended("cancelled").await;
            }
            Plot::Refund => self.refund().await,
            Plot::Outstay => {
                self.place(&Self::key(), "pm_card_hang").await;
                let sql = "UPDATE products.reservations SET expires_at = now() - interval '1 second' WHERE order_id = $1";
                let order: Uuid = self.orders[0].parse().expect("an id is a UUID");
                sqlx::query(sql)
                    .bind(order)
                    .execute(&self.shop().database)
                    .await
                    .expect("PostgreSQL answers");
                self.stock_is("reserved", 0).await;
                self.cancel().await;
                self.ended("cancelled").await;
            }
            Plot::Erase => self.erase().await,
            Plot::Edit => self.edit().await,
            Plot::Poison(schema) => self.poison(schema).await,
        }
    }

    async fn refused(&self, quantity: u32, code: &str) {
        let key = Self::key();
        let request = || self.buyer().order(&key, self.product, quantity, "pm_card_visa");
        let answer = answered("a refusal", request).await;
        assert_eq!(answer.problem().1, code, "{}", answer.body);
        let again = answered("the refusal again", request).await;
        assert_eq!(again.problem(), answer.problem(), "a key has one answer");
        self.books(0).await;
    }

    async fn cancel(&self) {
        let path = format!("/orders/{}/cancel", self.orders[0]);
        let request = || self.buyer().request(Method::POST, &path).json(&json!({}));
        let answer = answered("a cancellation", request).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    async fn refund(&self) {
        let order = &self.orders[0];
        let body = json!({
            "amount": {"amount": 500, "currency": "EUR"}, "reason": "a scratch",
            "restock": [{"product_id": self.product, "quantity": 1}],
        });
        let (staff, key) = (self.scenes.staff(), Self::key());
        let path = format!("/orders/{order}/refunds");
        let request = || staff.request(Method::POST, &path).header("Idempotency-Key", &key).json(&body);
        let answer = answered("a refund", request).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let refunded = || async {
            let order = send(self.buyer().request(Method::GET, &format!("/orders/{order}"))).await.ok()?;
            (order.body["refunded"]["amount"] == 500).then_some(())
        };
        eventually("the refund to succeed", MINUTE, refunded).await;
        let ledger = self.shop().ledger(order).await;
        assert_eq!((&ledger["captured"], &ledger["refunded"]), (&json!(2500), &json!(500)), "{ledger}");
        self.books(1).await;
    }

    async fn erase(&self) {
        let user = "SELECT user_id FROM orders.orders WHERE id = $1";
        let order: Uuid = self.orders[0].parse().expect("an id is a UUID");
        let user: Uuid =
            sqlx::query_scalar(user).bind(order).fetch_one(&self.shop().database).await.expect("an order");
        let answer = answered("an erasure", || self.buyer().request(Method::DELETE, "/me")).await;
        // A repetition after a lost answer: the account is gone.
        assert!([204, 401].contains(&answer.status.as_u16()), "{}", answer.body);
        self.comes_to("SELECT count(*) FROM orders.deleted_users WHERE user_id = $1", user, 1).await;
        self.comes_to("SELECT count(*) FROM orders.claims WHERE user_id = $1", user, 0).await;
        let address =
            "SELECT count(*) FROM orders.orders WHERE user_id = $1 AND shipping_address IS NOT NULL";
        self.comes_to(address, user, 0).await;
        self.comes_to(
            "SELECT count(*) FROM users.outbox WHERE aggregate_id = $1 AND published_at IS NULL",
            user,
            0,
        )
        .await;
        let applied = "SELECT count(*) FROM users.outbox o JOIN orders.inbox i ON i.event_id = o.id
                       WHERE o.aggregate_id = $1 AND o.type = 'user.deleted.v1'";
        self.comes_to(applied, user, 1).await;
    }

    async fn edit(&self) {
        let (staff, name) = (self.scenes.staff(), format!("Lamp {}", Self::key()));
        let path = format!("/products/{}", self.product);
        let body = json!({"name": name});
        let request = || staff.request(Method::PATCH, &path).header("If-Match", "*").json(&body);
        let answer = answered("a change", request).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let missing =
            "SELECT count(*) FROM products.outbox o WHERE o.aggregate_id = $1 AND (o.published_at IS NULL
                           OR NOT EXISTS (SELECT FROM orders.inbox i WHERE i.event_id = o.id))";
        self.comes_to(missing, self.product, 0).await;
        let copied = "SELECT count(*) FROM orders.products c JOIN products.products p ON p.id = c.id
                      WHERE p.id = $1 AND c.name = p.name";
        self.comes_to(copied, self.product, 1).await;
    }

    /// Goes to the dead letters of its subscribers, and holds up nothing.
    async fn poison(&self, schema: &str) {
        let (kind, subscribers): (&str, &[&str]) = match schema {
            "orders" => ("order.cancelled.v1", &["user", "product"]),
            _ => ("product.updated.v1", &["order"]),
        };
        let insert = format!(
            "INSERT INTO {schema}.outbox (id, type, aggregate_id, aggregate_version, payload)
             VALUES ($1, '{kind}', $1, 1, '\\xffffff')"
        );
        let (id, database) = (Uuid::now_v7(), &self.shop().database);
        let insert = sqlx::query(sqlx::AssertSqlSafe(insert)).bind(id);
        insert.execute(database).await.expect("PostgreSQL answers");
        let (waiting, delete) = if schema == "orders" {
            (
                "SELECT count(*) FROM orders.outbox WHERE id = $1 AND published_at IS NULL",
                "DELETE FROM orders.outbox WHERE id = $1",
            )
        } else {
            (
                "SELECT count(*) FROM products.outbox WHERE id = $1 AND published_at IS NULL",
                "DELETE FROM products.outbox WHERE id = $1",
            )
        };
        self.comes_to(waiting, id, 0).await;
        let dead = || async {
            let found = oracle::found_dead(self.shop()).await.ok()?;
            let theirs = |subscriber: &&str| found.contains(&((*subscriber).to_owned(), id));
            if subscribers.iter().all(theirs) {
                return Some(());
            }
            // A reader takes all dead letters out meanwhile.
            tokio::time::sleep(Duration::from_millis(500)).await;
            None
        };
        eventually("the poison to be a dead letter", MINUTE, dead).await;
        for inbox in ["users", "products", "orders"] {
            let applied = format!("SELECT count(*) FROM {inbox}.inbox WHERE event_id = $1");
            let applied = sqlx::query_scalar(sqlx::AssertSqlSafe(applied)).bind(id);
            let applied: i64 = applied.fetch_one(database).await.expect("PostgreSQL answers");
            assert_eq!(applied, 0, "{inbox} cannot have applied it");
        }
        // So that the books of all events still agree.
        sqlx::query(delete).bind(id).execute(database).await.expect("PostgreSQL answers");
    }

    /// Every order has ended so, its money is settled, and the books agree.
    async fn ended(&self, status: &str) {
        for order in &self.orders {
            let ended = self.buyer().ended(order).await;
            assert_eq!(ended["status"], status, "{ended}");
            let ledger = self.shop().ledger(order).await;
            if status == "confirmed" {
                assert_eq!((&ledger["captured"], &ledger["captures"]), (&json!(2500), &json!(1)), "{ledger}");
                assert_eq!((&ledger["refunded"], &ledger["open"]), (&json!(0), &json!(0)), "{ledger}");
            } else if ledger != Value::Null {
                assert_eq!(
                    (&ledger["refunded"], &ledger["open"]),
                    (&ledger["captured"], &json!(0)),
                    "{ledger}"
                );
                assert!(ledger["captures"].as_i64().is_some_and(|captures| captures <= 1), "{ledger}");
            }
        }
        self.books(0).await;
    }

    /// Stock on hand is what was there less what was sold, and `returned`; nothing is
    /// reserved; every order is known; each of its events was published, and applied once.
    async fn books(&self, returned: i64) {
        let orders = "SELECT count(DISTINCT order_id) FROM orders.order_items WHERE product_id = $1";
        let placed: i64 = sqlx::query_scalar(orders)
            .bind(self.product)
            .fetch_one(&self.shop().database)
            .await
            .expect("SQL");
        assert_eq!(placed as usize, self.orders.len(), "orders without an answer");
        let sold = "SELECT COALESCE(sum(i.quantity), 0)::bigint FROM orders.order_items i
                    JOIN orders.orders o ON o.id = i.order_id WHERE i.product_id = $1 AND o.status = 'confirmed'";
        let sold: i64 =
            sqlx::query_scalar(sold).bind(self.product).fetch_one(&self.shop().database).await.expect("SQL");
        self.stock_is("reserved", 0).await;
        self.stock_is("on_hand", STOCK - sold + returned).await;
        for order in &self.orders {
            let order = order.parse().expect("an id is a UUID");
            let missing =
                "SELECT count(*) FROM orders.outbox o WHERE o.aggregate_id = $1 AND (o.published_at IS NULL
                     OR NOT EXISTS (SELECT FROM users.inbox i WHERE i.event_id = o.id)
                     OR (o.type IN ('order.cancelled.v1', 'order.refunded.v1')
                         AND NOT EXISTS (SELECT FROM products.inbox i WHERE i.event_id = o.id)))";
            self.comes_to(missing, order, 0).await;
            let doubled = "SELECT count(*) - count(DISTINCT type) FROM orders.outbox WHERE aggregate_id = $1";
            self.comes_to(doubled, order, 0).await;
            let unannounced = "SELECT (SELECT count(*) FROM orders.outbox WHERE aggregate_id = $1)
                               - (SELECT count(*) FROM users.notifications WHERE order_id = $1)";
            self.comes_to(unannounced, order, 0).await;
        }
    }

    async fn stock_is(&self, column: &'static str, units: i64) {
        let what = format!("{column} of {} to be {units}", self.product);
        let matches = || async {
            let (on_hand, reserved) = self.shop().stock(self.product).await;
            (units == if column == "reserved" { reserved } else { on_hand }).then_some(())
        };
        eventually(&what, MINUTE, matches).await;
    }

    async fn comes_to(&self, sql: &'static str, id: Uuid, wanted: i64) {
        let matches = || async {
            let count: i64 = sqlx::query_scalar(sql).bind(id).fetch_one(&self.shop().database).await.ok()?;
            (count == wanted).then_some(())
        };
        eventually(&format!("{sql} to be {wanted} for {id}"), MINUTE, matches).await;
    }
}

/// Names the way that failed.
struct Reporting(String, Plot);

impl Drop for Reporting {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("that was on the way to {}: {:?}", self.0, self.1);
        }
    }
}

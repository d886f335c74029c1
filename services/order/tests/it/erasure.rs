//! What stays of a user who was deleted.

use crate::common::{Buyer, Shop, order_of, send};
use proto::user::v1::UserDeleted;
use reqwest::Method;
use serde_json::{Value, json};

impl Shop {
    /// Sends `user.deleted` as the user service would, and waits until it is applied.
    pub async fn delete(&self, buyer: &Buyer<'_>) {
        let body = UserDeleted { user_id: buyer.id.to_string() };
        let event = messaging::NewEvent::new(proto::events::USER_DELETED, buyer.id, 1, &body);
        let mut connection = self.outbox.acquire().await.expect("the database answers");
        messaging::outbox::enqueue(&mut connection, &[event]).await.expect("the database answers");
        drop(connection);
        let applied = || async {
            let query = "SELECT count(*) FROM orders.outbox WHERE type = 'user.deleted.v1'
                         AND id NOT IN (SELECT event_id FROM orders.inbox)";
            let left: i64 =
                sqlx::query_scalar(query).fetch_one(&self.pool).await.expect("the database answers");
            (left == 0).then_some(())
        };
        testing::eventually("the deletion to be applied", applied).await;
    }

    async fn rows_of(&self, buyer: &Buyer<'_>) -> i64 {
        let query = "SELECT (SELECT count(*) FROM orders.claims WHERE user_id = $1)
                          + (SELECT count(*) FROM orders.cart_items WHERE user_id = $1)
                          + (SELECT count(*) FROM orders.idempotency_keys WHERE user_id = $1)";
        sqlx::query_scalar(query).bind(buyer.id).fetch_one(&self.pool).await.expect("the database answers")
    }
}

#[tokio::test]
async fn orders_lose_their_address_when_they_have_ended_and_stay_for_staff() {
    let shop = Shop::open_with_broker().await;
    let thing = shop.stock.add(1000, 100);
    let (buyer, other, staff) = (shop.customer(), shop.customer(), shop.staff());
    let delivered = buyer.buy(thing, 1).await;
    let parcel = json!({"carrier": "Tern", "tracking_number": "T-1"});
    staff.post_json(&format!("/orders/{delivered}/ship"), parcel.clone()).await;
    staff.post(&format!("/orders/{delivered}/deliver")).await;
    let cancelled = buyer.place(&order_of(thing, 1, "pm_card_chargeDeclined")).await.id();
    buyer.until(&cancelled, "cancelled", "declined").await;
    let (sent, stopped) = (buyer.buy(thing, 1).await, buyer.buy(thing, 1).await);
    let theirs = other.buy(thing, 1).await;
    let keyed = buyer.request(Method::PUT, &format!("/cart/items/{thing}")).header("Idempotency-Key", "k");
    assert_eq!(send(keyed.json(&json!({"quantity": 1}))).await.status, 200);
    other.put(&format!("/cart/items/{thing}"), json!({"quantity": 1})).await;
    assert!(shop.rows_of(&buyer).await > 5);

    for _ in 0..2 {
        shop.delete(&buyer).await;
        assert_eq!(shop.rows_of(&buyer).await, 0);
    }
    let address = async |id: &str| staff.get(&format!("/orders/{id}")).await.body["shipping_address"].clone();
    assert_eq!(address(&delivered).await, Value::Null);
    assert_eq!(staff.get(&format!("/orders/{delivered}")).await.body["tracking"], Value::Null);
    assert_eq!(address(&cancelled).await, Value::Null);
    // Open ones still have to arrive somewhere.
    assert_eq!(address(&sent).await["city"], "Hull");
    let shipped = staff.post_json(&format!("/orders/{sent}/ship"), parcel).await.body;
    assert_eq!(
        (&shipped["shipping_address"]["city"], &shipped["tracking"]["carrier"]),
        (&json!("Hull"), &json!("Tern"))
    );
    let order = staff.post(&format!("/orders/{sent}/deliver")).await.body;
    assert_eq!((&order["shipping_address"], &order["tracking"]), (&Value::Null, &Value::Null));
    assert_eq!(order["items"][0]["quantity"], 1);
    let order = staff.post(&format!("/orders/{stopped}/cancel")).await.body;
    assert_eq!((&order["status"], &order["shipping_address"]), (&json!("cancelled"), &Value::Null));
    staff.until(&stopped, "cancelled", "refunded").await;
    let cards: Vec<String> = sqlx::query_scalar("SELECT id::text FROM orders.orders WHERE card_last4 <> ''")
        .fetch_all(&shop.pool)
        .await
        .expect("the database answers");
    assert_eq!(cards, [theirs.as_str()], "the cards go with the addresses");

    assert_eq!(address(&theirs).await["city"], "Hull");
    assert_eq!(shop.rows_of(&other).await, 2);
}

#[tokio::test]
async fn a_paid_order_that_was_refunded_whole_loses_its_address_and_staffs_words() {
    let shop = Shop::open_with_broker().await;
    let thing = shop.stock.add(1000, 100);
    let (buyer, other, staff) = (shop.customer(), shop.customer(), shop.staff());
    let (before, after, part) =
        (buyer.buy(thing, 1).await, buyer.buy(thing, 1).await, buyer.buy(thing, 1).await);
    let theirs = other.buy(thing, 1).await;
    let all = json!({"reason": "Ada has moved to Leith"});
    let some = json!({"reason": "Ada has a dent", "amount": {"amount": 400, "currency": "EUR"}});
    for id in [&before, &theirs] {
        assert_eq!(staff.refund(id, &all).await.status, 201);
        staff.until(id, "confirmed", "refunded").await;
    }
    assert_eq!(staff.refund(&part, &some).await.status, 201);
    staff.until_refunded(&part, 400).await;
    shop.delete(&buyer).await;

    let kept = async |id: &str| {
        let order = staff.get(&format!("/orders/{id}")).await.body;
        let refunds = staff.get(&format!("/orders/{id}/refunds")).await.body;
        let reason = refunds["items"][0]["reason"].as_str().map(str::to_owned);
        (order["shipping_address"]["city"].as_str().map(str::to_owned), reason)
    };
    let said =
        |city: Option<&str>, reason: Option<&str>| (city.map(str::to_owned), reason.map(str::to_owned));
    assert_eq!(kept(&before).await, said(None, Some("")));
    assert_eq!(kept(&after).await, said(Some("Hull"), None));
    assert_eq!(staff.refund(&after, &all).await.status, 201);
    staff.until(&after, "confirmed", "refunded").await;
    assert_eq!(kept(&after).await, said(None, Some("")));
    // What may still be shipped needs both, until it is.
    assert_eq!(kept(&part).await, said(Some("Hull"), Some("Ada has a dent")));
    staff.post(&format!("/orders/{part}/cancel")).await;
    staff.until(&part, "cancelled", "refunded").await;
    let words: i64 = sqlx::query_scalar("SELECT count(*) FROM orders.refunds WHERE reason LIKE 'Ada%'")
        .fetch_one(&shop.pool)
        .await
        .unwrap();
    assert_eq!(words, 1, "of the one who is still here");
    assert_eq!(kept(&theirs).await, said(Some("Hull"), Some("Ada has moved to Leith")));
}

#[tokio::test]
async fn a_parcel_that_nobody_reports_delivered_is_forgotten_after_a_while() {
    let shop = Shop::open_with_broker().await;
    let thing = shop.stock.add(1000, 100);
    let (buyer, other, staff) = (shop.customer(), shop.customer(), shop.staff());
    let (long_ago, lately, theirs) =
        (buyer.buy(thing, 1).await, buyer.buy(thing, 1).await, other.buy(thing, 1).await);
    for (id, days) in [(&long_ago, 91), (&lately, 89), (&theirs, 91)] {
        let parcel = json!({"carrier": "Tern", "tracking_number": "T-1"});
        assert_eq!(staff.post_json(&format!("/orders/{id}/ship"), parcel).await.status, 200);
        let aged = "UPDATE orders.order_history SET at = now() - make_interval(days => $2)
                    WHERE order_id = $1 AND status = 'shipped'";
        let aged = sqlx::query(aged).bind(id.parse::<uuid::Uuid>().unwrap()).bind(days);
        assert_eq!(aged.execute(&shop.pool).await.unwrap().rows_affected(), 1);
    }
    shop.delete(&buyer).await;
    // This runs when a replica starts, and every hour.
    let _replica = shop.replica().await;
    let gone = async || {
        let order = staff.get(&format!("/orders/{long_ago}")).await.body;
        (order["shipping_address"].is_null() && order["tracking"].is_null()).then_some(())
    };
    testing::within(std::time::Duration::from_secs(30), "the address to be forgotten", gone).await;
    for id in [&lately, &theirs] {
        assert_eq!(staff.get(&format!("/orders/{id}")).await.body["shipping_address"]["city"], "Hull");
    }
    // As a replica of a release before cards leaves it.
    let left = "UPDATE orders.orders SET card_brand = 'visa', card_last4 = '4242' WHERE id = $1";
    let id: uuid::Uuid = long_ago.parse().unwrap();
    sqlx::query(left).bind(id).execute(&shop.pool).await.unwrap();
    let _replica = shop.replica().await;
    let gone = async || {
        let card = "SELECT card_last4 IS NULL AND card_brand IS NULL FROM orders.orders WHERE id = $1";
        let gone: bool = sqlx::query_scalar(card).bind(id).fetch_one(&shop.pool).await.unwrap();
        gone.then_some(())
    };
    testing::eventually("the card to be forgotten", gone).await;
    let order = staff.post(&format!("/orders/{long_ago}/deliver")).await.body;
    assert_eq!((&order["status"], &order["tracking"]), (&json!("delivered"), &Value::Null));
}

#[tokio::test]
async fn an_erased_user_places_no_order_whatever_comes_first() {
    let shop = Shop::open_with_broker().await;
    let thing = shop.stock.add(1000, 100);
    let buyer = shop.customer();
    shop.delete(&buyer).await;
    let body = order_of(thing, 1, "pm_card_visa");
    assert_eq!(buyer.order("k", &body).await.problem(), (401, "invalid_token"));
    assert_eq!(shop.rows_of(&buyer).await, 0);

    // Erased between the claim and the placing.
    let late = shop.customer();
    let mut gate = testing::begin(&shop.pool).await;
    sqlx::query("LOCK TABLE orders.orders IN SHARE MODE").execute(&mut *gate).await.unwrap();
    sqlx::query("INSERT INTO orders.deleted_users (user_id) VALUES ($1)")
        .bind(late.id)
        .execute(&mut *gate)
        .await
        .unwrap();
    let request = late.request(reqwest::Method::POST, "/orders").header("Idempotency-Key", "k").json(&body);
    let request = tokio::spawn(crate::common::send(request));
    let waits = || async {
        let query = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(query).fetch_one(&shop.pool).await.unwrap();
        (waiting > 0).then_some(())
    };
    testing::eventually("the order to wait for the gate", waits).await;
    gate.commit().await.unwrap();
    // It saw no tombstone, so it is an open order: it loses its address at its end.
    let placed = request.await.unwrap();
    assert_eq!(placed.status, 201);
    let staff = shop.staff();
    staff.until(&placed.id(), "confirmed", "captured").await;
    let order = staff.post(&format!("/orders/{}/cancel", placed.id())).await.body;
    assert_eq!((&order["status"], &order["shipping_address"]), (&json!("cancelled"), &Value::Null));
    // And what it left of its claim goes with the next sweep.
    let swept = || async { (shop.rows_of(&late).await == 0).then_some(()) };
    testing::eventually("the claim to be swept", swept).await;
}

#[tokio::test]
async fn staff_who_were_erased_refund_nothing() {
    let shop = Shop::open_with_broker().await;
    let thing = shop.stock.add(1000, 100);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 1).await;
    shop.delete(&staff).await;
    assert_eq!(staff.refund(&id, &json!({"reason": "r"})).await.problem(), (401, "invalid_token"));
    assert_eq!(shop.rows_of(&staff).await, 0);
    assert_eq!(buyer.get(&format!("/orders/{id}/refunds")).await.body["items"], json!([]));
}

//! One effect per Idempotency-Key, and nothing left behind by failures.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use crate::common::product::State;
use crate::common::{Buyer, Shop, address, order_of};
use reqwest::Method;
use serde_json::{Value, json};
use testing::eventually;
use uuid::Uuid;

#[tokio::test]
async fn the_same_request_gets_the_first_answer_again() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 10);
    let buyer = shop.customer();
    let body = order_of(thing, 1, "pm_card_visa");
    let (first, second) = (buyer.order("k", &body).await, buyer.order("k", &body).await);
    assert_eq!((first.status.as_u16(), first.replayed()), (201, false));
    assert_eq!((second.status.as_u16(), second.replayed()), (201, true));
    assert_eq!(first.body, second.body);
    assert_eq!(second.headers["location"], first.headers["location"]);

    let other = buyer.order("k", &order_of(thing, 2, "pm_card_visa")).await;
    assert_eq!(other.problem(), (422, "idempotency_key_reused"));
    let stranger = shop.customer().order("k", &body).await;
    assert_ne!(stranger.id(), first.id(), "keys belong to one user");
}

#[tokio::test]
async fn a_refusal_is_repeated_too() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 1);
    let buyer = shop.customer();
    let body = order_of(thing, 2, "pm_card_visa");
    let first = buyer.order("k", &body).await;
    assert_eq!(first.problem(), (409, "out_of_stock"));
    assert_eq!(first.body["errors"][0]["pointer"], "/items/0");
    shop.stock.lock().products.get_mut(&thing.to_string()).unwrap().available = 5;
    let second = buyer.order("k", &body).await;
    assert_eq!((second.problem(), second.replayed()), ((409, "out_of_stock"), true));
    assert_eq!(buyer.order("k2", &body).await.status, 201);
}

#[tokio::test]
async fn many_requests_at_once_with_one_key_place_one_order() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 1000);
    let buyer = shop.customer();
    let body = order_of(thing, 1, "pm_card_visa");
    for round in 0..5 {
        let key = format!("round-{round}");
        let requests = (0..32).map(|_| {
            let request = buyer.request(Method::POST, "/orders").header("Idempotency-Key", &key).json(&body);
            tokio::spawn(crate::common::send(request))
        });
        let mut ids = std::collections::HashSet::new();
        for request in requests.collect::<Vec<_>>() {
            let answer = request.await.unwrap();
            if answer.status == 201 {
                ids.insert(answer.id());
            } else {
                assert_eq!(answer.problem(), (409, "idempotency_in_progress"));
                assert!(answer.headers.contains_key("retry-after"));
            }
        }
        assert_eq!(ids.len(), 1);
    }
    let orders: i64 =
        sqlx::query_scalar("SELECT count(*) FROM orders.orders").fetch_one(&shop.pool).await.unwrap();
    assert_eq!(orders, 5);
    assert_eq!(shop.stock.lock().products[&thing.to_string()].available, 995);
}

#[tokio::test]
async fn an_outage_of_the_product_service_is_a_503_and_the_same_key_works_afterwards() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 1);
    let buyer = shop.customer();
    let body = order_of(thing, 1, "pm_card_visa");
    shop.stock.lock().away = true;
    let answer = buyer.order("k", &body).await;
    assert_eq!(answer.problem(), (503, "service_unavailable"));
    assert!(answer.headers.contains_key("retry-after"));
    shop.stock.lock().away = false;
    let answer = buyer.order("k", &body).await;
    assert_eq!((answer.status.as_u16(), answer.replayed()), (201, false));
}

/// What a process leaves that dies between reservation and order.
async fn a_lapsed_claim(shop: &Shop, key: &str, user: Uuid) {
    sqlx::query(
        "UPDATE orders.claims SET answer_status = NULL, answer_body = NULL,
                lease_until = now() - interval '1 minute'
         WHERE key = $1 AND user_id = $2",
    )
    .bind(key)
    .bind(user)
    .execute(&shop.pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_reservation_without_an_order_is_released_and_never_revives() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 1);
    let buyer = shop.customer();
    // A refused order has a claim and no order; give it a reservation, as a crash would leave it.
    let body = order_of(thing, 2, "pm_card_visa");
    assert_eq!(buyer.order("k", &body).await.status, 409);
    let order: Uuid = sqlx::query_scalar("SELECT order_id FROM orders.claims WHERE key = 'k'")
        .fetch_one(&shop.pool)
        .await
        .unwrap();
    shop.stock.lock().products.get_mut(&thing.to_string()).unwrap().available = 9;
    let line = proto::product::v1::Line { product_id: thing.to_string(), quantity: 2 };
    shop.stock.lock().reservations.insert(order.to_string(), (State::Reserved, vec![line]));
    a_lapsed_claim(&shop, "k", buyer.id).await;

    eventually("the sweeper to release", || async {
        (shop.stock.reservation(&order.to_string()) == Some(State::Ended)).then_some(())
    })
    .await;
    let swept = || async {
        sqlx::query_scalar::<_, bool>("SELECT swept FROM orders.claims WHERE key = 'k'")
            .fetch_one(&shop.pool)
            .await
            .unwrap()
            .then_some(())
    };
    eventually("the claim to be swept", swept).await;
    let answer = buyer.order("k", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_ne!(answer.id(), order.to_string());
}

#[tokio::test]
async fn orders_that_cannot_be_released_do_not_keep_back_the_others() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 1);
    let body = order_of(thing, 2, "pm_card_visa");
    let mut claims = Vec::new();
    for _ in 0..6 {
        let buyer = shop.customer();
        assert_eq!(buyer.order("k", &body).await.status, 409);
        let query = "SELECT order_id FROM orders.claims WHERE user_id = $1";
        let order: Uuid = sqlx::query_scalar(query).bind(buyer.id).fetch_one(&shop.pool).await.unwrap();
        let line = proto::product::v1::Line { product_id: thing.to_string(), quantity: 2 };
        shop.stock.lock().reservations.insert(order.to_string(), (State::Reserved, vec![line]));
        claims.push((buyer.id, order));
    }
    // As many as a sweep tries in a row, and older than the others.
    let bad: Vec<Uuid> = claims[..3].iter().map(|(_, order)| *order).collect();
    shop.stock.lock().keeps_orders.clone_from(&bad);
    for (buyer, _) in &claims {
        a_lapsed_claim(&shop, "k", *buyer).await;
    }
    let state = |order: &Uuid| shop.stock.reservation(&order.to_string());
    eventually("the others to be released", || async {
        claims[3..].iter().all(|(_, order)| state(order) == Some(State::Ended)).then_some(())
    })
    .await;
    assert!(bad.iter().all(|order| state(order) == Some(State::Reserved)));
    shop.stock.lock().keeps_orders.clear();
    eventually("the last to be released", || async {
        bad.iter().all(|order| state(order) == Some(State::Ended)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_retry_takes_over_the_claim_of_a_dead_request_with_the_same_lines() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 1);
    let buyer = shop.customer();
    let body = order_of(thing, 2, "pm_card_visa");
    assert_eq!(buyer.order("k", &body).await.status, 409);
    let order: Uuid = sqlx::query_scalar("SELECT order_id FROM orders.claims WHERE key = 'k'")
        .fetch_one(&shop.pool)
        .await
        .unwrap();
    shop.stock.lock().products.get_mut(&thing.to_string()).unwrap().available = 9;
    a_lapsed_claim(&shop, "k", buyer.id).await;
    let answer = buyer.order("k", &body).await;
    assert_eq!((answer.status.as_u16(), answer.id()), (201, order.to_string()));
}

/// A claim of `buyer` on the key `k` as a sweeper leaves it that was stopped before its call; the order id that it has.
async fn a_claim_being_swept(shop: &Shop, buyer: &Buyer<'_>, thing: Uuid, body: &Value) -> Uuid {
    assert_eq!(buyer.order("k", body).await.status, 409);
    shop.stock.lock().products.get_mut(&thing.to_string()).unwrap().available = 9;
    let order: Uuid = sqlx::query_scalar(
        "UPDATE orders.claims SET answer_status = NULL, answer_body = NULL, sweeping = true,
                lease_until = now() - interval '1 millisecond'
         WHERE key = 'k' RETURNING order_id",
    )
    .fetch_one(&shop.pool)
    .await
    .unwrap();
    let line = proto::product::v1::Line { product_id: thing.to_string(), quantity: 2 };
    shop.stock.lock().reservations.insert(order.to_string(), (State::Reserved, vec![line]));
    order
}

#[tokio::test]
async fn a_claim_that_a_sweeper_may_still_release_is_taken_over_under_another_order_id() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 1);
    let buyer = shop.customer();
    let body = order_of(thing, 2, "pm_card_visa");
    let order = a_claim_being_swept(&shop, &buyer, thing, &body).await;
    let answer = buyer.order("k", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_ne!(answer.id(), order.to_string());
    assert_eq!(shop.stock.reservation(&order.to_string()), Some(State::Ended));
    assert_eq!(buyer.order("k", &body).await.id(), answer.id());
}

#[tokio::test]
async fn a_claim_with_another_order_id_is_let_go_too_when_the_stock_is_away() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 1);
    let buyer = shop.customer();
    let body = order_of(thing, 2, "pm_card_visa");
    let order = a_claim_being_swept(&shop, &buyer, thing, &body).await;
    // It gives back what was reserved, and then says no more.
    shop.stock.lock().reserves = Some(0);
    assert_eq!(buyer.order("k", &body).await.problem(), (503, "service_unavailable"));
    shop.stock.lock().reserves = None;
    let answer = buyer.order("k", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_ne!(answer.id(), order.to_string());
}

#[tokio::test]
async fn no_order_is_placed_on_stock_that_is_being_released_as_the_cart_had_changed() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 1);
    let buyer = shop.customer();
    let put = async |quantity: u32| {
        buyer.put(&format!("/cart/items/{thing}"), json!({"quantity": quantity})).await;
    };
    let body = json!({"shipping_address": address(), "payment_method": "pm_card_visa"});
    put(2).await;
    assert_eq!(buyer.order("k", &body).await.status, 409);
    shop.stock.lock().products.get_mut(&thing.to_string()).unwrap().available = 9;
    a_lapsed_claim(&shop, "k", buyer.id).await;
    put(1).await;
    shop.stock.lock().keeps = true;
    assert_eq!(buyer.order("k", &body).await.problem(), (503, "service_unavailable"));
    let released: Uuid = sqlx::query_scalar("SELECT order_id FROM orders.claims WHERE key = 'k'")
        .fetch_one(&shop.pool)
        .await
        .unwrap();
    // The call may be on its way yet when the cart is as it was, and the customer asks again.
    put(2).await;
    shop.stock.lock().keeps = false;
    let answer = buyer.order("k", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_ne!(answer.id(), released.to_string());
    assert_eq!(shop.stock.reservation(&released.to_string()), Some(State::Ended));
}

#[tokio::test]
async fn buying_the_cart_empties_it_once() {
    let shop = Shop::open().await;
    let (thing, other) = (shop.stock.add(100, 10), shop.stock.add(250, 10));
    let buyer = shop.customer();
    buyer.put(&format!("/cart/items/{thing}"), json!({"quantity": 2})).await;
    buyer.put(&format!("/cart/items/{other}"), json!({"quantity": 1})).await;
    let body = json!({"shipping_address": address(), "payment_method": "pm_card_visa"});
    let first = buyer.order("k", &body).await;
    assert_eq!((first.status.as_u16(), &first.body["total"]["amount"]), (201, &json!(450)));
    assert_eq!(buyer.get("/cart").await.body["items"], json!([]));
    let again = buyer.order("k", &body).await;
    assert_eq!((again.id(), again.replayed()), (first.id(), true));
    assert_eq!(buyer.order("k2", &body).await.problem(), (422, "cart_empty"));
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_cut_the_work_short() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 1000);
    let buyer = shop.customer();
    let body = order_of(thing, 1, "pm_card_visa");
    // Hangs up in the middle of the claim, and in the middle of the placing transaction.
    // Each with the request's own statement: sweeps, and the saga of the order before, wait there too.
    let gates = [("orders.claims", "INSERT INTO orders.claims"), ("orders.orders", "WITH placed AS")];
    for (n, (table, statement)) in gates.into_iter().enumerate() {
        let mut held = testing::begin(&shop.pool).await;
        let gate = format!("LOCK TABLE {table} IN SHARE MODE");
        sqlx::query(sqlx::AssertSqlSafe(gate)).execute(&mut *held).await.unwrap();
        let request = buyer.request(Method::POST, "/orders").header("Idempotency-Key", format!("k{n}"));
        let request = tokio::spawn(request.json(&body).send());
        let waits = || async {
            let waiting: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'
                   AND starts_with(query, $1)",
            )
            .bind(statement)
            .fetch_one(&shop.pool)
            .await
            .unwrap();
            (waiting > 0).then_some(())
        };
        eventually("the request to wait for the gate", waits).await;
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        held.rollback().await.unwrap();

        let placed = || async {
            let placed: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM orders.claims c JOIN orders.orders o ON o.id = c.order_id
                 WHERE c.key = $1 AND c.answer_status = 201",
            )
            .bind(format!("k{n}"))
            .fetch_one(&shop.pool)
            .await
            .unwrap();
            (placed == 1).then_some(())
        };
        eventually("the order to be placed all the same", placed).await;
    }
    // And the pool's connections are fit for the next one.
    for n in 0..20 {
        assert_eq!(buyer.order(&format!("next-{n}"), &body).await.status, 201);
    }
    let orders: i64 =
        sqlx::query_scalar("SELECT count(*) FROM orders.orders").fetch_one(&shop.pool).await.unwrap();
    assert_eq!(orders, 22);
}

#[tokio::test]
async fn a_cart_that_grew_too_long_is_refused_and_harms_nobody() {
    let shop = Shop::open().await;
    let buyer = shop.customer();
    let ids: Vec<Uuid> = (0..101).map(|_| shop.stock.add(100, 1000)).collect();
    // More than the API lets in, as requests at once may manage.
    sqlx::query("INSERT INTO orders.cart_items (user_id, product_id, quantity) SELECT $1, id, 1 FROM UNNEST($2) AS id")
        .bind(buyer.id)
        .bind(&ids)
        .execute(&shop.pool)
        .await
        .unwrap();
    let body = json!({"shipping_address": address(), "payment_method": "pm_card_visa"});
    assert_eq!(buyer.order("k", &body).await.problem(), (422, "too_many_items"));
}

#[tokio::test]
async fn a_cart_is_bought_once_however_many_ask_at_once() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 1000);
    let buyer = shop.customer();
    let body = json!({"shipping_address": address(), "payment_method": "pm_card_visa"});
    for round in 0..5 {
        buyer.put(&format!("/cart/items/{thing}"), json!({"quantity": 3})).await;
        let requests = (0..8).map(|n| {
            let key = format!("{round}-{n}");
            let request = buyer.request(Method::POST, "/orders").header("Idempotency-Key", key).json(&body);
            tokio::spawn(crate::common::send(request))
        });
        let mut bought = 0;
        for request in requests.collect::<Vec<_>>() {
            let answer = request.await.unwrap();
            if answer.status == 201 {
                bought += 1;
            } else {
                let refusals = [(409, "cart_changed"), (422, "cart_empty")];
                assert!(refusals.contains(&answer.problem()), "{}", answer.body);
            }
        }
        assert_eq!(bought, 1);
        assert_eq!(buyer.get("/cart").await.body["items"], json!([]));
    }
    let available = || async {
        let available = shop.stock.lock().products[&thing.to_string()].available;
        (available == 1000 - 5 * 3).then_some(())
    };
    eventually("what was not bought to be released", available).await;
}

#[tokio::test]
async fn a_key_is_kept_for_a_day() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let body = order_of(thing, 1, "pm_card_visa");
    let refund = json!({"reason": "r", "amount": {"amount": 1, "currency": "EUR"}});
    let (old, young) = (buyer.order("old", &body).await.id(), buyer.order("young", &body).await.id());
    buyer.until(&young, "confirmed", "captured").await;
    assert_eq!(staff.refund_under("old", &young, &refund).await.status, 201);
    let refunded = staff.refund_under("young", &young, &refund).await.id();
    for (key, age) in [("old", "24 hours 1 minute"), ("young", "23 hours 59 minutes")] {
        let aged = "UPDATE orders.claims SET answered_at = now() - $2::text::interval,
                           created_at = now() - interval '3 days' WHERE key = $1";
        sqlx::query(aged).bind(key).bind(age).execute(&shop.pool).await.unwrap();
    }
    let left = || async {
        let left: Vec<String> =
            sqlx::query_scalar("SELECT key FROM orders.claims").fetch_all(&shop.pool).await.unwrap();
        (left == ["young", "young"]).then_some(())
    };
    eventually("the old keys to be forgotten, and no others", left).await;
    let again = buyer.order("young", &body).await;
    assert_eq!((again.id(), again.replayed()), (young.clone(), true));
    let again = staff.refund_under("young", &young, &refund).await;
    assert_eq!((again.id(), again.replayed()), (refunded, true));
    let anew = buyer.order("old", &body).await;
    assert_eq!((anew.status.as_u16(), anew.replayed(), anew.id() == old), (201, false, false));
}

#[tokio::test]
async fn a_key_that_is_answered_late_is_kept_for_a_day_from_then() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 10);
    let buyer = shop.customer();
    let body = order_of(thing, 1, "pm_card_visa");
    let long_ago = async |key: &str, columns: &str| {
        let aged = format!("UPDATE orders.claims SET {columns} = now() - interval '2 days' WHERE key = $1");
        sqlx::query(sqlx::AssertSqlSafe(aged)).bind(key).execute(&shop.pool).await.unwrap();
    };
    // An outage of two days.
    shop.stock.lock().away = true;
    assert_eq!(buyer.order("late", &body).await.problem(), (503, "service_unavailable"));
    long_ago("late", "created_at").await;
    shop.stock.lock().away = false;
    let first = buyer.order("late", &body).await;
    assert_eq!((first.status.as_u16(), first.replayed()), (201, false));
    // A key that an earlier version answered: it shows when a sweep of old keys has run.
    assert_eq!(buyer.order("old", &body).await.status, 201);
    sqlx::query("UPDATE orders.claims SET answered_at = NULL WHERE key = 'old'")
        .execute(&shop.pool)
        .await
        .unwrap();
    long_ago("old", "created_at").await;
    let forgotten = || async {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM orders.claims WHERE key = 'old'")
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        (left == 0).then_some(())
    };
    eventually("the old key to be forgotten", forgotten).await;
    let again = buyer.order("late", &body).await;
    assert_eq!((again.id(), again.replayed()), (first.id(), true));
}

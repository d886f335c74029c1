//! Orders from placement to their end, against a real payment sandbox.

use futures_util::future::join_all;

use crate::common::product::State;
use crate::common::{Shop, order_of};
use serde_json::json;

#[tokio::test]
async fn an_order_is_paid_and_confirmed() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1999, 10);
    let buyer = shop.customer();

    let placed = buyer.place(&order_of(thing, 2, "pm_card_visa")).await;
    assert_eq!(placed.body["status"], "pending");
    assert_eq!(placed.body["total"], json!({"amount": 3998, "currency": "EUR"}));
    assert_eq!(placed.body["items"][0]["line_total"]["amount"], 3998);
    assert_eq!(placed.headers["location"], format!("/api/v1/orders/{}", placed.id()).as_str());

    let order = buyer.until(&placed.id(), "confirmed", "captured").await;
    assert_eq!(order["placed_at"], placed.body["placed_at"]);
    let history: Vec<_> = order["history"].as_array().unwrap().iter().map(|entry| &entry["status"]).collect();
    assert_eq!(history, ["pending", "confirmed"]);
    assert_eq!(order["next_actions"], json!(["cancel"]));
    assert_eq!(shop.stock.reservation(&placed.id()), Some(State::Committed));
    let ledger = shop.ledger(&placed.id()).await;
    assert_eq!(
        (&ledger["captured"], &ledger["captures"], &ledger["open"]),
        (&json!(3998), &json!(1), &json!(0))
    );
    shop.close().await;
}

#[tokio::test]
async fn a_declined_card_ends_the_order_and_holds_no_money() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(500, 1);
    let buyer = shop.customer();
    let id = buyer.place(&order_of(thing, 1, "pm_card_chargeDeclined")).await.id();
    let order = buyer.until(&id, "cancelled", "declined").await;
    assert_eq!(order["cancel_reason"], "payment_declined");
    assert_eq!(order["payment"]["decline_reason"], "declined");
    assert_eq!(order["next_actions"], json!([]));
    assert_eq!(buyer.post(&format!("/orders/{id}/cancel")).await.problem(), (409, "not_cancellable"));
}

#[tokio::test]
async fn a_customer_learns_why_a_card_was_declined() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(500, 9);
    let buyer = shop.customer();
    for (card, reason) in [
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card"),
    ] {
        let id = buyer.place(&order_of(thing, 1, card)).await.id();
        let order = buyer.until(&id, "cancelled", "declined").await;
        assert_eq!(order["payment"]["decline_reason"], reason);
    }
    let paid = buyer.place(&order_of(thing, 1, "pm_card_visa")).await.id();
    assert_eq!(buyer.until(&paid, "confirmed", "captured").await["payment"]["decline_reason"], json!(null));
}

#[tokio::test]
async fn a_card_the_provider_does_not_know_ends_the_order() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(500, 1);
    let buyer = shop.customer();
    let id = buyer.place(&order_of(thing, 1, "pm_card_of_nobody")).await.id();
    assert_eq!(buyer.until(&id, "cancelled", "declined").await["cancel_reason"], "payment_declined");
}

#[tokio::test]
async fn an_error_after_the_charge_is_not_taken_for_a_failure() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(700, 10);
    let buyer = shop.customer();
    for card in ["pm_card_confirm_500", "pm_card_capture_500"] {
        let id = buyer.place(&order_of(thing, 1, card)).await.id();
        buyer.until(&id, "confirmed", "captured").await;
        let ledger = shop.ledger(&id).await;
        assert_eq!((&ledger["captured"], &ledger["captures"]), (&json!(700), &json!(1)), "{card}");
    }
}

#[tokio::test]
async fn a_call_that_is_never_answered_is_followed_by_a_question_and_not_made_twice() {
    let shop = Shop::open().await;
    // What the provider did is to be found by asking.
    shop.hooks.block(true);
    let thing = shop.stock.add(700, 10);
    let buyer = shop.customer();
    let cards = ["pm_card_confirm_lost", "pm_card_capture_lost", "pm_card_refund_lost"];
    let mut placed = Vec::new();
    for card in cards {
        placed.push(buyer.place(&order_of(thing, 1, card)).await.id());
    }
    buyer.until(&placed[2], "confirmed", "captured").await;
    let cancelled = buyer.post(&format!("/orders/{}/cancel", placed[2])).await;
    assert_eq!(cancelled.status, 200);
    // The service waits ten seconds for an answer.
    let patience = std::time::Duration::from_secs(20);
    testing::within(patience, "all to be paid or paid back", || async {
        for (id, payment) in placed.iter().zip(["captured", "captured", "refunded"]) {
            let order = buyer.get(&format!("/orders/{id}")).await.body;
            if order["payment"]["status"] != payment {
                return None;
            }
        }
        Some(())
    })
    .await;
    for (id, refunded) in placed.iter().zip([0, 0, 700]) {
        let ledger = shop.ledger(id).await;
        assert_eq!((&ledger["captured"], &ledger["captures"]), (&json!(700), &json!(1)), "{ledger}");
        assert_eq!(ledger["refunded"], refunded, "{ledger}");
    }
    assert_eq!(shop.provider_refunds(&placed[2]).await.len(), 1);
}

#[tokio::test]
async fn a_refused_capture_ends_the_order() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(700, 10);
    let buyer = shop.customer();
    let id = buyer.place(&order_of(thing, 1, "pm_card_capture_refused")).await.id();
    let order = buyer.until(&id, "cancelled", "voided").await;
    assert_eq!(order["cancel_reason"], "payment_declined");
    assert_eq!(shop.ledger(&id).await["open"], 0);
}

#[tokio::test]
async fn a_reservation_that_ended_before_the_sale_cancels_the_order() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(700, 10);
    let buyer = shop.customer();
    let id = buyer.place(&order_of(thing, 1, "pm_card_slow")).await.id();
    shop.stock.lock().reservations.get_mut(&id).unwrap().0 = State::Ended;
    let order = buyer.until(&id, "cancelled", "voided").await;
    assert_eq!(order["cancel_reason"], "out_of_stock");
    assert_eq!(shop.ledger(&id).await["open"], 0);
}

#[tokio::test]
async fn an_order_that_is_not_paid_in_time_is_cancelled() {
    let shop = Shop::open_with(&["--payment-deadline-seconds=1"]).await;
    let thing = shop.stock.add(700, 10);
    let buyer = shop.customer();
    // The provider takes three seconds to hold the money; then it is let go.
    let id = buyer.place(&order_of(thing, 1, "pm_card_slow")).await.id();
    let order = buyer.until(&id, "cancelled", "voided").await;
    assert_eq!(order["cancel_reason"], "payment_timeout");
    let ledger = shop.ledger(&id).await;
    assert_eq!((&ledger["open"], &ledger["captured"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn a_confirmed_order_can_be_cancelled_and_is_refunded_once() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.place(&order_of(thing, 3, "pm_card_visa")).await.id();
    buyer.until(&id, "confirmed", "captured").await;
    let cancelled = buyer.post(&format!("/orders/{id}/cancel")).await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.body["status"]), (200, &json!("cancelled")));
    assert_eq!(buyer.post(&format!("/orders/{id}/cancel")).await.status, 200, "safe to repeat");
    let order = buyer.until(&id, "cancelled", "refunded").await;
    assert_eq!((&order["cancel_reason"], &order["refunded"]["amount"]), (&json!("customer"), &json!(3000)));
    let ledger = shop.ledger(&id).await;
    assert_eq!((&ledger["captured"], &ledger["refunded"]), (&json!(3000), &json!(3000)));
}

#[tokio::test]
async fn an_order_can_be_cancelled_while_its_payment_is_under_way() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.place(&order_of(thing, 1, "pm_card_slow")).await.id();
    let cancelled = buyer.post(&format!("/orders/{id}/cancel")).await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.body["status"]), (200, &json!("cancelled")));
    buyer.until(&id, "cancelled", "voided").await;
    let ledger = shop.ledger(&id).await;
    assert!(ledger.is_null() || (ledger["open"] == 0 && ledger["captured"] == 0), "{ledger}");
}

#[tokio::test]
async fn orders_are_listed_newest_first_and_seen_by_their_owner_and_staff_only() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 100);
    let buyer = shop.customer();
    let mut placed = Vec::new();
    for _ in 0..5 {
        placed.push(buyer.place(&order_of(thing, 1, "pm_card_visa")).await.id());
    }
    placed.reverse();
    let mut seen = Vec::new();
    let mut path = "/orders?limit=2".to_owned();
    loop {
        let page = buyer.get(&path).await.body;
        seen.extend(
            page["items"].as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/orders?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, placed);
    assert_eq!(buyer.get("/orders?status=shipped").await.body["items"], json!([]));
    assert_eq!(buyer.get("/orders?status=lost").await.problem(), (422, "validation_failed"));
    assert_eq!(buyer.get("/orders?limit=0").await.problem(), (422, "validation_failed"));
    assert_eq!(buyer.get("/orders?cursor=x").await.problem(), (400, "invalid_cursor"));

    let path = format!("/orders/{}", placed[0]);
    assert_eq!(shop.customer().get(&path).await.problem(), (404, "not_found"));
    assert_eq!(shop.customer().post(&format!("{path}/cancel")).await.problem(), (404, "not_found"));
    assert_eq!(shop.signed_in(identity::Role::Staff).get(&path).await.status, 200);
    assert_eq!(shop.customer().get("/orders").await.body["items"], json!([]));
}

#[tokio::test]
async fn staff_list_the_orders_of_everybody() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 100);
    let (one, two, staff) = (shop.customer(), shop.customer(), shop.staff());
    let mut placed = Vec::new();
    for buyer in [&one, &two, &one] {
        placed.push(buyer.buy(thing, 1).await);
    }
    two.post(&format!("/orders/{}/cancel", placed[1])).await;
    placed.reverse();
    let ids = |page: &serde_json::Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|order| order["id"].as_str().unwrap().to_owned()).collect()
    };
    let mut seen = Vec::new();
    let mut path = "/admin/orders?limit=2".to_owned();
    loop {
        let page = staff.get(&path).await.body;
        seen.extend(ids(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/admin/orders?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, placed);
    let listed = async |query: String| ids(&staff.get(&format!("/admin/orders?{query}")).await.body);
    assert_eq!(listed("status=cancelled".to_owned()).await, [placed[1].clone()]);
    assert_eq!(listed(format!("user_id={}", one.id)).await, [placed[0].clone(), placed[2].clone()]);
    assert_eq!(listed(format!("user_id={}&status=cancelled", one.id)).await, [""; 0]);
    assert_eq!(ids(&one.get("/orders?status=confirmed").await.body), [placed[0].clone(), placed[2].clone()]);

    assert_eq!(one.get("/admin/orders").await.problem(), (403, "forbidden"));
    let anonymous = shop.anonymous(reqwest::Method::GET, "/admin/orders").await;
    assert_eq!(anonymous, (401, "missing_token".to_owned()));
    for (query, pointer) in [("user_id=x", "/user_id"), ("status=lost", "/status"), ("limit=101", "/limit")] {
        let answer = staff.get(&format!("/admin/orders?{query}")).await;
        assert_eq!(answer.problem(), (422, "validation_failed"), "{query}");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer);
    }
    assert_eq!(staff.get("/admin/orders?cursor=x").await.problem(), (400, "invalid_cursor"));
    let admin = shop.signed_in(identity::Role::Admin);
    assert_eq!(admin.get("/admin/orders").await.status, 200);
}

#[tokio::test]
async fn while_the_provider_refuses_our_key_orders_wait_and_none_are_taken() {
    let mut shop = Shop::open_with(&["--payment-deadline-seconds=3"]).await;
    let thing = shop.stock.add(1999, 9);
    let right = shop.args.clone();
    let wrong = |arg: &String| match arg.starts_with("--payment-secret-key=") {
        true => "--payment-secret-key=sk_test_of_last_year".to_owned(),
        false => arg.clone(),
    };
    shop.replace(right.iter().map(wrong).collect()).await;
    let waiting = shop.customer().place(&order_of(thing, 1, "pm_card_visa")).await.id();
    // Its deadline is put off, in the database: another process, or this one later, keeps to it.
    let put_off =
        "SELECT deadline_at > now() + interval '1 minute' FROM orders.sagas WHERE order_id = $1::uuid";
    testing::eventually("the deadline to be put off", || async {
        let is: bool = sqlx::query_scalar(put_off).bind(&waiting).fetch_one(&shop.pool).await.unwrap();
        is.then_some(())
    })
    .await;
    let refused = shop.customer().order("new", &order_of(thing, 1, "pm_card_visa")).await;
    assert_eq!(refused.problem(), (503, "service_unavailable"));
    assert!(refused.headers.contains_key("retry-after"));

    shop.replace(right).await;
    shop.staff().until(&waiting, "confirmed", "captured").await;
}

#[tokio::test]
async fn who_leaves_too_many_orders_unpaid_gets_no_more_for_a_while() {
    let shop = Shop::open_with(&["--unpaid-orders-an-hour=2"]).await;
    let thing = shop.stock.add(1000, 50);
    let (buyer, other) = (shop.customer(), shop.customer());
    for _ in 0..3 {
        buyer.buy(thing, 1).await; // which are paid, and count for nothing
    }
    let declined = order_of(thing, 1, "pm_card_chargeDeclined");
    let first = buyer.order("first", &declined).await;
    buyer.until(&first.id(), "cancelled", "declined").await;
    let waits = buyer.order("second", &order_of(thing, 1, "pm_card_hang")).await.id();

    let reserved = || shop.stock.lock().reservations.len();
    let before = reserved();
    let refused = buyer.order("third", &order_of(thing, 1, "pm_card_visa")).await;
    assert_eq!(refused.problem(), (429, "too_many_unpaid_orders"), "{}", refused.body);
    let seconds: u32 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=3600).contains(&seconds), "{seconds}");
    assert_eq!(reserved(), before, "nothing is reserved for it");
    // What a key stands for stays, and others buy.
    let again = buyer.order("first", &declined).await;
    assert_eq!((again.status.as_u16(), again.replayed(), again.id()), (201, true, first.id()));
    other.buy(thing, 1).await;
    // An abandoned order is not unpaid; the refused key makes an order then.
    assert_eq!(buyer.post(&format!("/orders/{waits}/cancel")).await.status, 200);
    let placed = buyer.order("third", &order_of(thing, 1, "pm_card_visa")).await;
    assert_eq!((placed.status.as_u16(), placed.replayed()), (201, false));
}

#[tokio::test]
async fn of_many_orders_at_once_no_more_are_placed_than_may_be_left_unpaid() {
    let shop = Shop::open_with(&["--unpaid-orders-an-hour=3"]).await;
    let thing = shop.stock.add(1000, 50);
    let buyer = shop.customer();
    let hanging = order_of(thing, 1, "pm_card_hang");
    let keys: Vec<String> = (0..20).map(|n| format!("at-once-{n}")).collect();
    let answers = join_all(keys.iter().map(|key| buyer.order(key, &hanging))).await;
    let placed = answers.iter().filter(|answer| answer.status == 201).count();
    assert!(placed <= 3, "{placed} were placed");
    let refused = answers.iter().filter(|answer| answer.status != 201);
    for answer in refused {
        assert_eq!(answer.problem(), (429, "too_many_unpaid_orders"), "{}", answer.body);
    }
    // One after the other the rest of them are placed, and no more.
    let mut placed = placed;
    for key in &keys {
        let answer = buyer.order(key, &hanging).await;
        placed += usize::from(answer.status == 201 && !answer.replayed());
    }
    assert_eq!(placed, 3);
}

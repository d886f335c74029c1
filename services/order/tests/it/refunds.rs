//! Refunds by staff.

use crate::common::{Shop, order_of};
use prost::Message;
use proto::order::v1::OrderRefunded;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

fn eur(amount: i64) -> Value {
    json!({"amount": amount, "currency": "EUR"})
}

impl Shop {
    async fn refund_events(&self, order: &str) -> Vec<OrderRefunded> {
        let events = self.events(order).await.into_iter().filter(|(kind, _, _)| kind == "order.refunded.v1");
        events.map(|(_, _, body)| OrderRefunded::decode(body.as_slice()).expect("an event decodes")).collect()
    }

    /// Waits until the newest refund of the order has this status.
    async fn until_refund(&self, order: &str, status: &str) -> Value {
        let staff = self.staff();
        testing::eventually(&format!("the refund to be {status}"), || async {
            let refunds = staff.get(&format!("/orders/{order}/refunds")).await.body;
            (refunds["items"][0]["status"] == status).then_some(refunds["items"][0].clone())
        })
        .await
    }
}

#[tokio::test]
async fn part_of_an_order_is_refunded_and_its_goods_go_back() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 3).await;
    let body = json!({
        "amount": eur(1200), "reason": "one was broken", "restock": [{"product_id": thing, "quantity": 1}],
    });
    let refund = staff.refund(&id, &body).await;
    assert_eq!(refund.status, 201, "{}", refund.body);
    assert_eq!(refund.body["amount"], eur(1200));
    assert_eq!(
        (&refund.body["status"], &refund.body["reason"]),
        (&json!("pending"), &json!("one was broken"))
    );
    let order = staff.until_refunded(&id, 1200).await;
    assert_eq!((&order["status"], &order["payment"]["status"]), (&json!("confirmed"), &json!("captured")));
    assert_eq!(order["next_actions"], json!(["cancel", "ship", "refund"]));
    let listed = buyer.get(&format!("/orders/{id}/refunds")).await.body;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&listed["items"][0]["id"], &listed["items"][0]["status"]),
        (&refund.body["id"], &json!("succeeded"))
    );
    let events = shop.refund_events(&id).await;
    assert_eq!(
        (events.len(), events[0].amount, events[0].refund_id.as_str()),
        (1, 1200, refund.id().as_str())
    );
    assert_eq!(
        (events[0].restock[0].product_id.clone(), events[0].restock[0].quantity),
        (thing.to_string(), 1)
    );

    // The rest, without saying how much.
    let rest = staff.refund(&id, &json!({"reason": "all of them were"})).await;
    assert_eq!(rest.body["amount"], eur(1800));
    let order = staff.until_refunded(&id, 3000).await;
    assert_eq!((&order["status"], &order["payment"]["status"]), (&json!("confirmed"), &json!("refunded")));
    assert_eq!(order["next_actions"], json!(["cancel"]));
    let parcel = json!({"carrier": "Tern", "tracking_number": "1"});
    assert_eq!(
        staff.post_json(&format!("/orders/{id}/ship"), parcel).await.problem(),
        (409, "not_shippable")
    );
    let more = staff.refund(&id, &json!({"reason": "more"})).await;
    assert_eq!(more.problem(), (409, "refund_exceeds_captured"));
    assert_eq!(shop.ledger(&id).await["refunded"], 3000);
}

#[tokio::test]
async fn a_key_makes_one_refund_however_often_it_is_sent() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let (id, other) = (buyer.buy(thing, 3).await, buyer.buy(thing, 3).await);
    let body = json!({"amount": eur(100), "reason": "late"});
    let sent = (0..8).map(|_| staff.refund_under("k", &id, &body));
    let mut made = None;
    for answer in futures(sent).await {
        match answer.status.as_u16() {
            201 => assert_eq!(*made.get_or_insert(answer.id()), answer.id()),
            _ => {
                assert_eq!(answer.problem(), (409, "idempotency_in_progress"));
                assert!(answer.headers.contains_key("retry-after"));
            }
        }
    }
    let again = staff.refund_under("k", &id, &body).await;
    assert_eq!((again.status.as_u16(), Some(again.id()), again.replayed()), (201, made, true));
    let with_more = json!({"amount": eur(101), "reason": "late"});
    assert_eq!(staff.refund_under("k", &id, &with_more).await.problem(), (422, "idempotency_key_reused"));
    assert_eq!(staff.refund_under("k", &other, &body).await.problem(), (422, "idempotency_key_reused"));
    // Keys belong to one user.
    assert_eq!(shop.staff().refund_under("k", &other, &body).await.status, 201);
    // A refusal is repeated too, even when it would be different now.
    let all = json!({"reason": "all", "amount": eur(3001)});
    assert_eq!(staff.refund_under("k2", &id, &all).await.problem(), (409, "refund_exceeds_captured"));
    let again = staff.refund_under("k2", &id, &all).await;
    assert_eq!((again.problem(), again.replayed()), ((409, "refund_exceeds_captured"), true));
    staff.until_refunded(&id, 100).await;
    assert_eq!(shop.provider_refunds(&id).await.len(), 1);
}

async fn futures<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in all.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(output) = future.as_mut().poll(context) {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn refunds_at_once_never_come_to_more_than_was_captured_or_sold() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 3).await;
    let body = json!({
        "amount": eur(700), "reason": "r", "restock": [{"product_id": thing, "quantity": 1}],
    });
    let keys: Vec<String> = (0..8).map(|n| format!("k{n}")).collect();
    let answers = futures(keys.iter().map(|key| staff.refund_under(key, &id, &body))).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    // Three units were sold, so the fourth may not come back although its money might.
    assert_eq!(made, 3);
    let refused = answers.iter().filter(|answer| answer.status != 201);
    refused.for_each(|answer| assert_eq!(answer.problem(), (409, "restock_exceeds_sold")));
    let more = staff.refund(&id, &json!({"reason": "r", "amount": eur(901)})).await;
    assert_eq!(more.problem(), (409, "refund_exceeds_captured"));
    staff.until_refunded(&id, 2100).await;
    assert_eq!(shop.ledger(&id).await["refunded"], 2100);

    // Cancelled now, the rest goes back, and product puts back what is not back yet.
    buyer.post(&format!("/orders/{id}/cancel")).await;
    let order = buyer.until(&id, "cancelled", "refunded").await;
    assert_eq!(order["refunded"], order["total"]);
    let amounts: Vec<i64> =
        shop.provider_refunds(&id).await.iter().map(|made| made["amount"].as_i64().unwrap()).collect();
    assert_eq!(amounts, [900, 700, 700, 700]);
    assert_eq!(shop.refund_events(&id).await.len(), 3);
    assert_eq!(staff.refund(&id, &json!({"reason": "r"})).await.problem(), (409, "refund_exceeds_captured"));
}

#[tokio::test]
async fn a_refund_whose_answer_is_lost_is_made_once() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy_with(thing, 1, "pm_card_refund_500").await;
    shop.hooks.block(true);
    staff.refund(&id, &json!({"reason": "r", "amount": eur(400)})).await;
    staff.until_refunded(&id, 400).await;
    buyer.post(&format!("/orders/{id}/cancel")).await;
    buyer.until(&id, "cancelled", "refunded").await;
    let made = shop.provider_refunds(&id).await;
    assert_eq!(made.iter().map(|made| made["amount"].clone()).collect::<Vec<_>>(), [600, 400]);
}

#[tokio::test]
async fn a_worker_that_died_after_the_call_leaves_a_refund_that_is_not_made_again() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 1).await;
    shop.hooks.block(true);
    let refund = staff.refund(&id, &json!({"reason": "r", "amount": eur(400)})).await.id();
    staff.until_refunded(&id, 400).await;
    // As if the answer had never been written; and the provider's memory of keys is not relied on.
    let order: Uuid = id.parse().unwrap();
    for undo in [
        "UPDATE orders.refunds SET status = 'pending', provider_id = NULL WHERE order_id = $1",
        "UPDATE orders.orders SET refunded = 0 WHERE id = $1",
        "UPDATE orders.sagas SET busy = true, next_at = now() WHERE order_id = $1",
    ] {
        sqlx::query(undo).bind(order).execute(&shop.pool).await.unwrap();
    }
    staff.until_refunded(&id, 400).await;
    let made = shop.provider_refunds(&id).await;
    assert_eq!((made.len(), &made[0]["metadata"]["refund_id"]), (1, &json!(refund)));
}

#[tokio::test]
async fn a_refund_that_fails_frees_its_amount_and_units() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy_with(thing, 1, "pm_card_refund_fails_once").await;
    let all = json!({"reason": "r", "restock": [{"product_id": thing, "quantity": 1}]});
    assert_eq!(staff.refund(&id, &all).await.status, 201);
    shop.until_refund(&id, "failed").await;
    assert_eq!(staff.get(&format!("/orders/{id}")).await.body["refunded"]["amount"], 0);
    assert!(shop.refund_events(&id).await.is_empty());
    assert_eq!(staff.refund(&id, &all).await.status, 201);
    staff.until_refunded(&id, 1000).await;
    assert_eq!(shop.refund_events(&id).await.len(), 1);
    assert_eq!(shop.ledger(&id).await["refunded"], 1000);
}

#[tokio::test]
async fn a_cancellation_whose_refund_fails_is_refunded_under_another_id() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.buy_with(thing, 1, "pm_card_refund_fails_once").await;
    buyer.post(&format!("/orders/{id}/cancel")).await;
    buyer.until(&id, "cancelled", "refunded").await;
    let made = shop.provider_refunds(&id).await;
    let statuses: Vec<_> = made.iter().map(|made| &made["status"]).collect();
    assert_eq!(statuses, ["succeeded", "failed"]);
    assert_ne!(made[0]["metadata"]["refund_id"], made[1]["metadata"]["refund_id"]);
    assert_eq!(shop.ledger(&id).await["refunded"], 1000);
}

#[tokio::test]
async fn a_refund_may_take_its_time_and_may_fail_after_it_had_succeeded() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let slow = buyer.buy_with(thing, 1, "pm_card_pendingRefund").await;
    let bad = buyer.buy_with(thing, 1, "pm_card_refundFail").await;
    assert_eq!(staff.refund(&slow, &json!({"reason": "r"})).await.status, 201);
    assert_eq!(staff.refund(&bad, &json!({"reason": "r"})).await.status, 201);
    staff.until_refunded(&bad, 1000).await;
    assert_eq!(
        staff.refund(&slow, &json!({"reason": "r"})).await.problem(),
        (409, "refund_exceeds_captured")
    );
    staff.until_refunded(&slow, 1000).await;
    shop.until_refund(&bad, "failed").await;
    let order = staff.until_refunded(&bad, 0).await;
    assert_eq!(order["payment"]["status"], "captured");
    assert_eq!(shop.ledger(&bad).await["refunded"], 0);
}

#[tokio::test]
async fn refunds_are_for_staff_and_of_paid_orders() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 2).await;
    let path = format!("/orders/{id}/refunds");
    let good = json!({"reason": "r", "amount": eur(1)});
    assert_eq!(shop.anonymous(Method::POST, &path).await, (401, "missing_token".to_owned()));
    assert_eq!(shop.anonymous(Method::GET, &path).await, (401, "missing_token".to_owned()));
    assert_eq!(buyer.refund(&id, &good).await.problem(), (403, "forbidden"));
    assert_eq!(shop.customer().refund(&id, &good).await.problem(), (404, "not_found"));
    assert_eq!(shop.customer().get(&path).await.problem(), (404, "not_found"));
    assert_eq!(staff.refund(&Uuid::now_v7().to_string(), &good).await.problem(), (404, "not_found"));
    assert_eq!(staff.post_json(&path, good.clone()).await.problem(), (400, "idempotency_key_missing"));
    assert_eq!(staff.refund_under("a b", &id, &good).await.problem(), (400, "idempotency_key_invalid"));
    let line = |quantity: u32| json!({"product_id": thing, "quantity": quantity});
    let many: Vec<Value> = (0..101).map(|_| json!({"product_id": Uuid::now_v7(), "quantity": 1})).collect();
    for (body, pointer) in [
        (json!({}), "/reason"),
        (json!({"reason": " "}), "/reason"),
        (json!({"reason": "x".repeat(501)}), "/reason"),
        (json!({"reason": "r", "amount": null}), "/amount"),
        (json!({"reason": "r", "amount": 5}), "/amount"),
        (json!({"reason": "r", "amount": eur(0)}), "/amount/amount"),
        (json!({"reason": "r", "amount": eur(-1)}), "/amount/amount"),
        (json!({"reason": "r", "amount": eur(1_000_000_000_000)}), "/amount/amount"),
        (json!({"reason": "r", "amount": {"amount": 1.5, "currency": "EUR"}}), "/amount/amount"),
        (json!({"reason": "r", "amount": {"amount": 1}}), "/amount/currency"),
        (json!({"reason": "r", "amount": {"amount": 1, "currency": "eur"}}), "/amount/currency"),
        (json!({"reason": "r\u{0}"}), "/reason"),
        (json!({"reason": "r", "restock": many}), "/restock"),
        (json!({"reason": "r", "restock": [{"product_id": "x", "quantity": 1}]}), "/restock/0/product_id"),
        (json!({"reason": "r", "amount": {"amount": 5, "currency": "USD"}}), "/amount/currency"),
        (json!({"reason": "r", "restock": null}), "/restock"),
        (json!({"reason": "r", "restock": [line(0)]}), "/restock/0/quantity"),
        (json!({"reason": "r", "restock": [line(1), line(1)]}), "/restock/1/product_id"),
        (
            json!({"reason": "r", "restock": [{"product_id": Uuid::now_v7(), "quantity": 1}]}),
            "/restock/0/product_id",
        ),
        (json!({"reason": "r", "status": "succeeded"}), "/status"),
    ] {
        let answer = staff.refund(&id, &body).await;
        assert_eq!(answer.problem(), (422, "validation_failed"), "{body}");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{body}");
    }
    for (field, value, code) in [
        ("amount", json!({"amount": 5, "currency": "USD"}), "wrong_currency"),
        ("restock", json!([{"product_id": Uuid::now_v7(), "quantity": 1}]), "not_in_order"),
    ] {
        let answer = staff.refund(&id, &json!({"reason": "r", field: value})).await;
        assert_eq!(answer.body["errors"][0]["code"], code);
    }
    let too_many = staff.refund(&id, &json!({"reason": "r", "restock": [line(3)]})).await;
    assert_eq!(too_many.problem(), (409, "restock_exceeds_sold"));
    assert_eq!(too_many.body["errors"][0]["pointer"], "/restock/0/quantity");
    let unpaid = buyer.place(&order_of(thing, 1, "pm_card_hang")).await.id();
    assert_eq!(staff.refund(&unpaid, &good).await.problem(), (409, "refund_exceeds_captured"));
    let too_much = staff.refund(&id, &json!({"reason": "r", "amount": eur(2001)})).await;
    assert_eq!(too_much.problem(), (409, "refund_exceeds_captured"));
    assert_eq!(too_much.body["errors"][0]["pointer"], "/amount");
    assert_eq!(staff.get(&path).await.body, json!({"items": [], "next_cursor": null}));
    assert_eq!(shop.provider_refunds(&id).await.len(), 0);
}

#[tokio::test]
async fn an_order_on_its_way_or_delivered_can_be_refunded() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    // The provider takes its time to say that the money has gone back.
    let id = buyer.buy_with(thing, 2, "pm_card_pendingRefund").await;
    let path = format!("/orders/{id}");
    let some = json!({"reason": "r", "amount": eur(500), "restock": [{"product_id": thing, "quantity": 1}]});
    staff.post_json(&format!("{path}/ship"), json!({"carrier": "Tern", "tracking_number": "1"})).await;
    assert_eq!(staff.refund(&id, &some).await.status, 201);
    let order = staff.until_refunded(&id, 500).await;
    assert_eq!((&order["status"], &order["payment"]["status"]), (&json!("shipped"), &json!("captured")));
    staff.post(&format!("{path}/deliver")).await;
    assert_eq!(staff.get(&path).await.body["next_actions"], json!(["refund"]));
    assert_eq!(staff.refund(&id, &json!({"reason": "r"})).await.body["amount"], eur(1500));
    assert_eq!(staff.get(&path).await.body["next_actions"], json!([]), "answered or not, nothing is left");
    let order = staff.until_refunded(&id, 2000).await;
    assert_eq!((&order["status"], &order["payment"]["status"]), (&json!("delivered"), &json!("refunded")));
    assert_eq!(order["history"].as_array().unwrap().len(), 4, "a refund is no change of status");
    assert_eq!(shop.ledger(&id).await["refunded"], 2000);
}

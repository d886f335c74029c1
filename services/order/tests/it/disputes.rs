//! Customers who complain to their bank.

use crate::common::{Buyer, Shop, send};
use serde_json::{Value, json};

const CARD: &str = "pm_card_createDispute";

/// Waits until staff see the dispute so, and returns the order.
async fn disputed(staff: &Buyer<'_>, order: &str, state: &str) -> Value {
    testing::eventually(&format!("{order} to show its dispute as {state}"), || async {
        let order = staff.get(&format!("/orders/{order}")).await.body;
        (order["payment"]["dispute"] == state).then_some(order)
    })
    .await
}

impl Shop {
    /// Answers an order's dispute at the provider.
    async fn answer_dispute(&self, order: &str, evidence: &str) {
        let intent = self.intent(order).await;
        let path = format!("/v1/disputes/du_{}", intent.trim_start_matches("pi_"));
        let form = [("evidence[uncategorized_text]", evidence), ("submit", "true")];
        let answer = send(self.at_provider(&path).form(&form)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

#[tokio::test]
async fn a_disputed_order_is_neither_sent_nor_refunded_until_the_dispute_is_won() {
    let shop = Shop::open().await;
    let (thing, buyer, staff) = (shop.stock.add(700, 10), shop.customer(), shop.staff());
    let id = buyer.buy_with(thing, 2, CARD).await;
    let order = disputed(&staff, &id, "open").await;
    assert_eq!((&order["status"], &order["payment"]["status"]), (&json!("confirmed"), &json!("captured")));
    assert!(buyer.get(&format!("/orders/{id}")).await.body["payment"].get("dispute").is_none());

    let parcel = json!({"carrier": "Tern", "tracking_number": "T-1"});
    let ship = format!("/orders/{id}/ship");
    assert_eq!(staff.post_json(&ship, parcel.clone()).await.problem(), (409, "payment_disputed"));
    let refund = json!({"reason": "is unhappy"});
    assert_eq!(staff.refund(&id, &refund).await.problem(), (409, "payment_disputed"));
    assert_eq!(shop.provider_refunds(&id).await, Vec::<Value>::new());

    shop.answer_dispute(&id, "winning_evidence").await;
    disputed(&staff, &id, "won").await;
    assert_eq!(staff.post_json(&ship, parcel).await.body["status"], "shipped");
    assert_eq!(staff.refund(&id, &refund).await.status, 201);
    staff.until(&id, "shipped", "refunded").await;
    let ledger = shop.ledger(&id).await;
    assert_eq!((&ledger["captured"], &ledger["refunded"]), (&json!(1400), &json!(1400)));
}

#[tokio::test]
async fn an_order_whose_dispute_is_lost_stays_where_it_is() {
    let shop = Shop::open().await;
    let (thing, buyer, staff) = (shop.stock.add(700, 10), shop.customer(), shop.staff());
    let id = buyer.buy_with(thing, 1, CARD).await;
    disputed(&staff, &id, "open").await;
    shop.answer_dispute(&id, "losing_evidence").await;
    disputed(&staff, &id, "lost").await;
    let parcel = json!({"carrier": "Tern", "tracking_number": "T-1"});
    let shipped = staff.post_json(&format!("/orders/{id}/ship"), parcel).await;
    assert_eq!(shipped.problem(), (409, "payment_disputed"));
    // The bank has given all of it back.
    let refund = staff.refund(&id, &json!({"reason": "is unhappy"})).await;
    assert_eq!(refund.problem(), (409, "payment_disputed"));
    let ledger = shop.ledger(&id).await;
    assert_eq!(
        (&ledger["captured"], &ledger["refunded"], &ledger["disputed"]),
        (&json!(700), &json!(0), &json!(700))
    );
}

//! Customers who have to prove who they are to their bank (3-D Secure).

use std::time::Duration;

use crate::common::{Buyer, Shop, order_of};
use reqwest::{StatusCode, redirect};
use serde_json::{Value, json};

const CARD: &str = "pm_card_threeDSecure2Required";
const BACK: &str = "--payment-return-url=https://shop.test/orders/{order_id}?from=bank";

/// Waits until the order says where its customer has to go, and returns that.
async fn asked(buyer: &Buyer<'_>, order: &str) -> Value {
    testing::eventually(&format!("{order} to ask its customer to act"), || async {
        let order = buyer.get(&format!("/orders/{order}")).await.body;
        let action = order["payment"]["next_action"].clone();
        assert!(!action.is_null() || order["status"] == "pending", "{order}");
        (!action.is_null()).then_some(action)
    })
    .await
}

/// Does at the bank what a customer would; where its page leads back to.
async fn at_the_bank(action: &Value, outcome: &str) -> String {
    let browser =
        reqwest::Client::builder().redirect(redirect::Policy::none()).timeout(Duration::from_secs(20));
    let page = action["redirect_url"].as_str().expect("an address to go to");
    let click = browser.build().expect("a client").post(page).form(&[("outcome", outcome)]);
    let answer = click.send().await.expect("the bank answers");
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    answer.headers()["location"].to_str().expect("ASCII").to_owned()
}

#[tokio::test]
async fn a_customer_who_proves_who_they_are_comes_back_to_a_confirmed_order() {
    let shop = Shop::open_with(&[BACK]).await;
    let (thing, buyer) = (shop.stock.add(700, 10), shop.customer());
    let id = buyer.place(&order_of(thing, 2, CARD)).await.id();
    let action = asked(&buyer, &id).await;
    assert_eq!(shop.ledger(&id).await["authorized"], 0);
    let others = shop.customer().get(&format!("/orders/{id}")).await;
    assert_eq!(others.status, 404, "only its owner learns where");

    let back = at_the_bank(&action, "complete").await;
    assert!(back.starts_with(&format!("https://shop.test/orders/{id}?from=bank&payment_intent=")), "{back}");
    let order = buyer.until(&id, "confirmed", "captured").await;
    assert_eq!(order["payment"]["next_action"], json!(null));
    let ledger = shop.ledger(&id).await;
    assert_eq!((&ledger["captured"], &ledger["captures"]), (&json!(1400), &json!(1)));
}

#[tokio::test]
async fn who_fails_to_prove_it_has_paid_nothing_and_the_stock_is_free_again() {
    let shop = Shop::open_with(&[BACK]).await;
    let (thing, buyer) = (shop.stock.add(700, 10), shop.customer());
    for (card, outcome) in [(CARD, "fail"), ("pm_card_threeDSecureRequiredChargeDeclined", "complete")] {
        let id = buyer.place(&order_of(thing, 2, card)).await.id();
        at_the_bank(&asked(&buyer, &id).await, outcome).await;
        let order = buyer.until(&id, "cancelled", "declined").await;
        assert_eq!(order["cancel_reason"], "payment_declined", "{card}");
        assert_eq!(order["payment"]["next_action"], json!(null), "{card}");
        assert_eq!(shop.ledger(&id).await["authorized"], 0, "{card}");
        gives_its_stock_back(&shop, &id).await;
    }
}

#[tokio::test]
async fn an_order_that_its_customer_abandons_ends_at_its_deadline_and_frees_the_stock() {
    let deadlines = ["--payment-deadline-seconds=2", "--payment-action-deadline-seconds=4", BACK];
    let shop = Shop::open_with(&deadlines).await;
    let (thing, buyer) = (shop.stock.add(700, 10), shop.customer());
    let id = buyer.place(&order_of(thing, 2, CARD)).await.id();
    let action = asked(&buyer, &id).await;
    let order = buyer.until(&id, "cancelled", "voided").await;
    assert_eq!(order["cancel_reason"], "payment_timeout");
    gives_its_stock_back(&shop, &id).await;
    // Too late.
    let page = action["redirect_url"].as_str().unwrap();
    assert_eq!(shop.client.get(page).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let ledger = shop.ledger(&id).await;
    assert_eq!((&ledger["authorized"], &ledger["captured"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn a_customer_may_cancel_instead_of_proving_who_they_are() {
    let shop = Shop::open_with(&[BACK]).await;
    let (thing, buyer) = (shop.stock.add(700, 10), shop.customer());
    let id = buyer.place(&order_of(thing, 2, CARD)).await.id();
    asked(&buyer, &id).await;
    assert_eq!(buyer.post(&format!("/orders/{id}/cancel")).await.status, 200);
    let order = buyer.until(&id, "cancelled", "voided").await;
    assert_eq!(order["cancel_reason"], "customer");
    gives_its_stock_back(&shop, &id).await;
}

#[tokio::test]
async fn without_a_way_back_the_owner_gets_what_the_providers_own_program_needs() {
    let shop = Shop::open().await;
    let (thing, buyer) = (shop.stock.add(700, 10), shop.customer());
    let id = buyer.place(&order_of(thing, 1, CARD)).await.id();
    let action = asked(&buyer, &id).await;
    let secret = action["client_secret"].as_str().expect("a client secret");
    assert!(secret.starts_with(&shop.intent(&id).await), "{action}");
    assert_eq!(action.get("redirect_url"), None, "{action}");
}

/// Product takes back the stock of an order whose event says that it was cancelled.
async fn gives_its_stock_back(shop: &Shop, order: &str) {
    testing::eventually(&format!("the event of {order} being cancelled"), || async {
        let events = shop.events(order).await;
        events.iter().any(|(kind, ..)| kind == "order.cancelled.v1").then_some(())
    })
    .await;
}

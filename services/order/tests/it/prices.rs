//! What was agreed is what is charged, in the provider's units.

use proto::product::v1::Money;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::{Answer, Buyer, Shop, address, order_of, send};

fn reprice(shop: &Shop, product: Uuid, amount: i64, currency: &str) {
    let mut stock = shop.stock.lock();
    let product = stock.products.get_mut(&product.to_string()).expect("a product");
    product.price = Some(Money { amount, currency: currency.to_owned() });
}

fn of_cart() -> Value {
    json!({"shipping_address": address(), "payment_method": "pm_card_visa"})
}

async fn put(buyer: &Buyer<'_>, product: Uuid, quantity: u32) -> Answer {
    buyer.put(&format!("/cart/items/{product}"), json!({"quantity": quantity})).await
}

#[tokio::test]
async fn a_cart_is_bought_at_the_prices_that_it_showed_or_not_at_all() {
    let shop = Shop::open().await;
    let (thing, other) = (shop.stock.add(1000, 9), shop.stock.add(500, 9));
    let buyer = shop.customer();
    put(&buyer, other, 1).await;
    assert_eq!(put(&buyer, thing, 2).await.body["total"]["amount"], 2500);
    reprice(&shop, thing, 9900, "EUR");
    for replayed in [false, true] {
        let refused = buyer.order("a", &of_cart()).await;
        assert_eq!((refused.problem(), refused.replayed()), ((409, "price_changed"), replayed));
        assert_eq!(refused.body["new_total"], json!({"amount": 20_300, "currency": "EUR"}));
        let items = refused.body["items"].as_array().unwrap();
        let dear = items.iter().find(|item| item["product_id"] == thing.to_string()).unwrap();
        assert_eq!(dear["unit_price"]["amount"], 9900);
        assert!(refused.body["detail"].as_str().unwrap().contains("a new Idempotency-Key"));
    }
    // Nothing was changed by it.
    assert_eq!(buyer.get("/orders").await.body["items"], json!([]));
    assert_eq!(shop.stock.lock().products[&thing.to_string()].available, 9);
    // Nor does another key help, until the customer has seen the price.
    assert_eq!(buyer.order("b", &of_cart()).await.problem(), (409, "price_changed"));
    assert_eq!(buyer.get("/cart").await.body["total"]["amount"], 20_300);
    assert_eq!(buyer.order("c", &of_cart()).await.body["total"]["amount"], 20_300);
    assert_eq!(buyer.get("/cart").await.body["items"], json!([]));
}

#[tokio::test]
async fn a_total_that_was_agreed_to_is_the_one_that_is_charged() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 9);
    let buyer = shop.customer();
    let expecting = |amount: i64, currency: &str| {
        let mut body = order_of(thing, 2, "pm_card_visa");
        body["expected_total"] = json!({"amount": amount, "currency": currency});
        body
    };
    for (key, amount, currency) in [("less", 1999, "EUR"), ("more", 2001, "EUR"), ("other", 2000, "USD")] {
        assert_eq!(
            buyer.order(key, &expecting(amount, currency)).await.problem(),
            (409, "price_changed"),
            "{key}"
        );
    }
    assert_eq!(shop.stock.lock().products[&thing.to_string()].available, 9);
    assert_eq!(buyer.order("exact", &expecting(2000, "EUR")).await.status, 201);
    let null = json!({"items": [], "expected_total": null});
    assert_eq!(buyer.order("null", &null).await.status, 422);
    // What the customer says goes before what the cart showed.
    put(&buyer, thing, 1).await;
    reprice(&shop, thing, 1500, "EUR");
    let mut body = of_cart();
    body["expected_total"] = json!({"amount": 1500, "currency": "EUR"});
    assert_eq!(buyer.order("cart", &body).await.body["total"]["amount"], 1500);
}

#[tokio::test]
async fn a_cart_is_bought_as_it_was_seen_or_not_at_all() {
    let shop = Shop::open().await;
    let (one, other) = (shop.stock.add(1000, 9), shop.stock.add(1000, 9));
    let buyer = shop.customer();
    put(&buyer, one, 2).await;
    let seen = |lines: &[(Uuid, u32)]| {
        let lines = lines.iter().map(|(id, quantity)| json!({"product_id": id, "quantity": quantity}));
        let mut body = of_cart();
        body["expected_items"] = lines.collect();
        // So much for any of these carts.
        body["expected_total"] = json!({"amount": 2000, "currency": "EUR"});
        body
    };
    let others = [&[(other, 2)][..], &[(one, 1)], &[(one, 1), (other, 1)], &[(one, 2), (other, 1)]];
    for (at, lines) in others.into_iter().enumerate() {
        for replayed in [false, true] {
            let refused = buyer.order(&format!("key-{at}"), &seen(lines)).await;
            assert_eq!((refused.problem(), refused.replayed()), ((409, "cart_changed"), replayed), "{at}");
        }
    }
    assert_eq!(buyer.get("/orders").await.body["items"], json!([]));
    assert_eq!(shop.stock.lock().products[&one.to_string()].available, 9);
    let both = |quantity: u32| {
        let mut body = order_of(one, 2, "pm_card_visa");
        body["expected_items"] = json!([{"product_id": one, "quantity": quantity}]);
        body
    };
    for (wrong, pointer) in [
        (seen(&[]), "/expected_items"),
        (seen(&[(one, 1000)]), "/expected_items/0/quantity"),
        (seen(&[(one, 1), (one, 1)]), "/expected_items/1/product_id"),
    ] {
        let refused = buyer.order("wrong", &wrong).await;
        assert_eq!(refused.problem(), (422, "validation_failed"));
        assert_eq!(refused.body["errors"][0]["pointer"], pointer);
    }
    assert_eq!(buyer.order("other-items", &both(1)).await.problem(), (409, "cart_changed"));
    assert_eq!(buyer.order("same-items", &both(2)).await.status, 201);
    assert_eq!(buyer.order("as-seen", &seen(&[(one, 2)])).await.status, 201);
    put(&buyer, one, 1).await;
    put(&buyer, other, 1).await;
    assert_eq!(buyer.order("in-any-order", &seen(&[(other, 1), (one, 1)])).await.status, 201);
}

#[tokio::test]
async fn two_tabs_never_fill_a_cart_with_two_currencies() {
    let shop = Shop::open().await;
    let (chart, fan) = (shop.stock.add(100, 9), shop.stock.add(100, 9));
    reprice(&shop, fan, 100, "JPY");
    let buyer = shop.customer();
    for _ in 0..10 {
        send(buyer.request(Method::DELETE, "/cart")).await;
        let (one, two) = tokio::join!(put(&buyer, chart, 1), put(&buyer, fan, 1));
        let mut statuses = [one.status.as_u16(), two.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
        let cart = buyer.get("/cart").await.body;
        assert_eq!(cart["items"].as_array().unwrap().len(), 1);
        assert_eq!(cart["total"], cart["items"][0]["unit_price"]);
    }
}

#[tokio::test]
async fn what_is_gone_from_the_shop_costs_nothing_in_a_cart() {
    let shop = Shop::open().await;
    let (gone, left) = (shop.stock.add(1999, 7), shop.stock.add(500, 7));
    let buyer = shop.customer();
    put(&buyer, gone, 2).await;
    assert_eq!(put(&buyer, left, 1).await.body["total"]["amount"], 4498);
    shop.stock.lock().products.get_mut(&gone.to_string()).unwrap().archived = true;
    let cart = buyer.get("/cart").await.body;
    assert_eq!((&cart["total"]["amount"], cart["items"].as_array().unwrap().len()), (&json!(500), 2));
}

#[tokio::test]
async fn what_costs_nothing_is_ordered_without_a_payment() {
    let shop = Shop::open().await;
    let sample = shop.stock.add(0, 9);
    let buyer = shop.customer();
    assert_eq!(put(&buyer, sample, 2).await.body["total"]["amount"], 0);
    let id = buyer.order("cart", &of_cart()).await.id();
    let order = buyer.until(&id, "confirmed", "captured").await;
    assert_eq!(order["total"]["amount"], 0);
    assert_eq!(shop.ledger(&id).await, Value::Null, "the provider knows nothing of it");
    assert_eq!(shop.stock.reservation(&id), Some(crate::common::product::State::Committed));
    let staff = shop.staff();
    assert_eq!(staff.refund(&id, &json!({"reason": "x"})).await.problem(), (409, "refund_exceeds_captured"));
    assert_eq!(buyer.post(&format!("/orders/{id}/cancel")).await.status, 200);
    let order = buyer.get(&format!("/orders/{id}")).await.body;
    assert_eq!((&order["status"], &order["payment"]["status"]), (&json!("cancelled"), &json!("voided")));

    let id = buyer.place(&order_of(sample, 1, "pm_card_visa")).await.id();
    buyer.until(&id, "confirmed", "captured").await;
    let parcel = json!({"carrier": "DHL", "tracking_number": "1"});
    assert_eq!(staff.post_json(&format!("/orders/{id}/ship"), parcel).await.status, 200);
}

#[tokio::test]
async fn amounts_reach_the_provider_in_its_own_units() {
    let shop = Shop::open().await;
    let buyer = shop.customer();
    let staff = shop.staff();
    for (amount, currency, sent) in [
        (24_900, "ISK", 2_490_000),
        (40_000, "UGX", 4_000_000),
        (120_000, "MGA", 1200),
        (5120, "KWD", 5120),
        (450_000_000, "IDR", 450_000_000),
        (500, "JPY", 500),
    ] {
        let thing = shop.stock.add(1, 9);
        reprice(&shop, thing, amount, currency);
        let id = buyer.buy(thing, 1).await;
        assert_eq!(shop.ledger(&id).await["captured"], sent, "{currency}");
        let part = json!({"reason": "x", "amount": {"amount": amount / 2, "currency": currency}});
        let refund = staff.refund(&id, &part).await;
        assert_eq!(refund.status, 201, "{currency}: {}", refund.body);
        buyer.until_refunded(&id, amount / 2).await;
        assert_eq!(shop.ledger(&id).await["refunded"], sent / 2, "{currency}");
    }
    // Not in the provider's steps.
    let thing = shop.stock.add(1, 9);
    reprice(&shop, thing, 5120, "KWD");
    let id = buyer.buy(thing, 1).await;
    let part = json!({"reason": "x", "amount": {"amount": 5, "currency": "KWD"}});
    let refused = staff.refund(&id, &part).await;
    assert_eq!(refused.body["errors"][0]["code"], "out_of_range");
    let part = json!({"reason": "x", "amount": {"amount": 1234, "currency": "KWD"}});
    let refused = staff.refund(&id, &part).await;
    assert_eq!(refused.body["errors"][0]["code"], "not_chargeable");
}

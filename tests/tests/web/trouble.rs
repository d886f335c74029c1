//! Buying when something is in the way: no purchase is made twice, no cart is lost, and the page says what is the matter.

use std::process::Command;

use serde_json::json;

use crate::browser::Browser;
use crate::site::{PASSWORD, PAY, Site};

#[tokio::test]
async fn a_declined_card_is_reported_and_costs_nothing() {
    let site = Site::open().await;
    let product = site.shop.product(3).await;
    let b = Browser::open(&site).await;
    let person = b.at_checkout(product, 2, "pm_card_chargeDeclinedInsufficientFunds").await;
    let order = b.pay().await;
    b.order_becomes("cancelled").await;
    b.reads("#live", "There is not enough money for it.").await;
    b.close().await;
    assert_eq!(site.only_order(&person).await["cancel_reason"], "payment_declined");
    assert_eq!(site.shop.ledger(&order).await["captured"], 0);
    assert_eq!(site.shop.stock(product).await, (3, 0));
}

#[tokio::test]
async fn a_bank_that_asks_leads_back_to_the_order() {
    let site = Site::open().await;
    let product = site.shop.product(5).await;
    for (answer, status) in [("complete", "confirmed"), ("fail", "cancelled")] {
        let b = Browser::open(&site).await;
        b.expect_visit(&site.shop.sandbox);
        // It has no picture for the tab.
        b.expect_status(404);
        let person = b.at_checkout(product, 1, "pm_card_threeDSecure2Required").await;
        let order = b.pay().await;
        b.click(".act a.button").await;
        b.comes_to("/3d_secure/").await;
        b.click(&format!("button[value={answer}]")).await;
        assert_eq!(b.at_order().await, order);
        b.order_becomes(status).await;
        b.close().await;
        assert_eq!(site.only_order(&person).await["status"], status);
    }
}

#[tokio::test]
async fn what_sells_out_in_the_cart_is_reported_before_it_is_paid() {
    let site = Site::open().await;
    let product = site.shop.product(2).await;
    let b = Browser::open(&site).await;
    let person = b.at_checkout(product, 2, "pm_card_visa").await;
    site.adjust(product, -2).await;
    b.expect_status(409);
    b.click(PAY).await;
    b.reads("#problems", "There is not enough").await;
    b.find("aside .problem").await;
    assert!(site.orders(&person).await.is_empty());
    // Everything is kept, for when there is more.
    site.adjust(product, 2).await;
    b.goto("/checkout").await;
    b.fill_address().await;
    b.pay().await;
    b.order_becomes("confirmed").await;
    b.close().await;
    site.only_order(&person).await;
}

#[tokio::test]
async fn another_price_at_the_checkout_has_to_be_agreed_to() {
    let site = Site::open().await;
    let product = site.shop.product(5).await;
    let b = Browser::open(&site).await;
    let person = b.at_checkout(product, 1, "pm_card_visa").await;
    b.reads(PAY, "€12.50").await;
    site.change(product, &json!({"price": {"amount": 1399, "currency": "EUR"}})).await;
    b.expect_status(409);
    b.click(PAY).await;
    b.reads("#problems", "A price has changed").await;
    b.reads(PAY, "€13.99").await;
    assert!(site.orders(&person).await.is_empty());
    assert_eq!(b.value("#line1").await, "1 Quay", "what was typed is kept");
    b.pay().await;
    b.order_becomes("confirmed").await;
    b.close().await;
    assert_eq!(site.only_order(&person).await["total"]["amount"], 1399);
}

#[tokio::test]
async fn other_goods_at_the_checkout_have_to_be_agreed_to_though_they_cost_the_same() {
    let site = Site::open().await;
    let (seen, other) = (site.shop.product(5).await, site.shop.product(5).await);
    let b = Browser::open(&site).await;
    let person = b.at_checkout(seen, 1, "pm_card_visa").await;
    let price = b.text(PAY).await;
    let [first, _] = b.another_tab().await;
    b.put_in_cart(other, 1).await;
    b.click(&format!("form[action='/cart/items/{seen}/remove'] button")).await;
    b.reads("[role=status]", "It was removed").await;
    b.turn_to(&first).await;
    b.expect_status(409);
    b.click(PAY).await;
    b.reads("#problems", "The cart has changed meanwhile").await;
    assert_eq!(b.text(PAY).await, price);
    assert!(site.orders(&person).await.is_empty());
    b.pay().await;
    b.order_becomes("confirmed").await;
    b.close().await;
    assert_eq!(site.only_order(&person).await["items"][0]["product_id"], json!(other));
}

#[tokio::test]
async fn an_order_service_that_dies_before_it_answers_sells_once() {
    let site = Site::open().await;
    let product = site.shop.product(5).await;
    let b = Browser::open(&site).await;
    let person = b.at_checkout(product, 1, "pm_card_visa").await;
    let pid = site.shop.process("order").unwrap()["pid"].as_u64().unwrap().to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    // It takes the request, and can't answer.
    signal("-STOP");
    let click = "const button = document.querySelector(arguments[0]); setTimeout(() => button.click())";
    b.script(click, vec![json!(PAY)]).await;
    b.has_sent("/checkout").await;
    signal("-KILL");
    b.expect_status(503);
    b.find("h1").await;
    // The same form, sent again.
    b.insist().await;
    b.order_becomes("confirmed").await;
    b.close().await;
    site.only_order(&person).await;
    assert_eq!(site.shop.stock(product).await.0, 4);
}

#[tokio::test]
async fn two_tabs_renew_one_session_and_buy_one_cart_once() {
    let site = Site::open().await;
    let product = site.shop.product(5).await;
    let b = Browser::open(&site).await;
    let person = b.at_checkout(product, 1, "pm_card_visa").await;
    let [first, second] = b.another_tab().await;
    b.goto("/checkout").await;
    b.fill_address().await;

    // Both come at once with a session that has to be renewed, and one comes late with what it had before.
    let worn = site.worn_session(&person).await;
    let load = "const one = () => fetch('/account', {redirect: 'manual'}).then(answer => answer.status);
                return Promise.all([one(), one(), one()])";
    for tab in [&second, &first, &second] {
        b.turn_to(tab).await;
        b.devtools("Network.setCookie", worn.clone()).await;
        assert_eq!(b.script(load, vec![]).await, json!([200, 200, 200]));
    }

    b.turn_to(&first).await;
    b.pay().await;
    b.turn_to(&second).await;
    b.expect_status(409);
    b.click(PAY).await;
    b.comes_to("/cart").await;
    b.find(".empty").await;
    b.goto("/account").await;
    b.comes_to("/account").await;
    b.close().await;
    site.only_order(&person).await;
}

#[tokio::test]
async fn a_session_that_ends_at_the_checkout_keeps_the_cart_and_the_form() {
    let site = Site::open().await;
    let product = site.shop.product(5).await;
    let b = Browser::open(&site).await;
    let person = b.at_checkout(product, 2, "pm_card_mastercard").await;
    let key = b.value("input[name=key]").await;
    let [first, _] = b.another_tab().await;
    b.goto("/account").await;
    b.click("form[action='/sign-out'] button").await;
    b.find(".links a[href='/sign-in']").await;
    b.client.close_window().await.unwrap();
    b.turn_to(&first).await;

    b.click(PAY).await;
    b.reads("#problems", "Your session has ended").await;
    b.expect_status(422);
    b.sign_in_here(&person.email, "not the password").await;
    b.reads("#problems", "is wrong").await;
    b.sign_in_here(&person.email, PASSWORD).await;
    b.find(PAY).await;
    assert_eq!(b.value("#line1").await, "1 Quay");
    assert_eq!(b.value("input[name=payment_method]:checked").await, "pm_card_mastercard");
    assert_eq!(b.value("input[name=key]").await, key);
    b.reads(PAY, "€25.00").await;
    b.pay().await;
    b.order_becomes("confirmed").await;
    b.close().await;
    site.only_order(&person).await;
}

#[tokio::test]
async fn an_order_whose_answer_was_lost_is_shown_after_the_session_has_ended() {
    let site = Site::open().await;
    let product = site.shop.product(5).await;
    let b = Browser::open(&site).await;
    let person = b.at_checkout(product, 1, "pm_card_visa").await;
    // The form is sent, and its answer never comes to the page; the next try comes without a session.
    let send = "const form = document.querySelector('form[action=\"/checkout\"]');
                return fetch(form.action, {method: 'POST', body: new URLSearchParams(new FormData(form)), redirect: 'manual'})
                    .then(answer => answer.type)";
    assert_eq!(b.script(send, vec![]).await, "opaqueredirect");
    let order = site.only_order(&person).await;
    b.client.delete_cookie("session").await.unwrap();
    b.click(PAY).await;
    b.reads("#problems", "Your session has ended").await;
    b.sign_in_here(&person.email, PASSWORD).await;
    assert_eq!(b.at_order().await, order["id"].as_str().unwrap());
    b.reads("main [role=status]", "was placed before your session ended").await;
    b.close().await;
    site.only_order(&person).await;
}

#[tokio::test]
async fn two_tabs_that_add_at_the_same_moment_lose_nothing() {
    let site = Site::open().await;
    let (one, two) = (site.shop.product(5).await, site.shop.product(5).await);
    let b = Browser::open(&site).await;
    // Both go out before either answer is there.
    let add = "const add = product => {
                   const body = new URLSearchParams(new FormData(document.querySelector('.buy')));
                   body.set('product', product);
                   return fetch('/cart/items', {method: 'POST', body, redirect: 'manual'}).then(answer => answer.type);
               };
               return Promise.all(arguments[0].map(add))";
    let twice = json!([one, two, one]);
    for signed_in in [false, true] {
        if signed_in {
            b.sign_up().await;
            b.goto("/cart").await;
        }
        b.goto(&format!("/products/{one}")).await;
        let answers = b.script(add, vec![twice.clone()]).await;
        assert_eq!(answers, json!(["opaqueredirect", "opaqueredirect", "opaqueredirect"]));
        b.goto("/cart").await;
        let times = if signed_in { 2 } else { 1 };
        let quantity = |product| format!(".line form[action='/cart/items/{product}'] input[name=quantity]");
        assert_eq!(b.value(&quantity(one)).await, (2 * times).to_string(), "signed in: {signed_in}");
        assert_eq!(b.value(&quantity(two)).await, times.to_string(), "signed in: {signed_in}");
    }
    b.close().await;
}

#[tokio::test]
async fn a_tab_that_nobody_sees_holds_no_stream() {
    let site = Site::open().await;
    let product = site.shop.product(5).await;
    let b = Browser::open(&site).await;
    b.at_checkout(product, 1, "pm_card_visa").await;
    b.pay().await;
    b.order_becomes("confirmed").await;
    // As a browser tells it; what opens a stream from then on is counted.
    let turn = "window.opened ??= 0;
                window.EventSource = class extends EventTarget {
                    constructor() { super(); window.opened += 1; window.open_now = true; }
                    close() { window.open_now = false; }
                };
                Object.defineProperty(document, 'hidden', {configurable: true, value: arguments[0]});
                document.dispatchEvent(new Event('visibilitychange'));
                return [window.opened, window.open_now ?? false]";
    assert_eq!(b.script(turn, vec![json!(true)]).await, json!([0, false]));
    assert_eq!(b.script(turn, vec![json!(false)]).await, json!([1, true]));
    assert_eq!(b.script(turn, vec![json!(true)]).await, json!([1, false]));
    b.close().await;
}

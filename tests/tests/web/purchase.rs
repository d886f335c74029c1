//! Buying, the way that it mostly goes.

use fantoccini::key::Key;
use serde_json::json;

use crate::browser::Browser;
use crate::site::{PASSWORD, PAY, Site};

#[tokio::test]
async fn a_visitor_fills_a_cart_signs_up_and_watches_the_order_being_confirmed() {
    let site = Site::open().await;
    let product = site.shop.product(5).await;
    let b = Browser::open(&site).await;
    b.goto("/").await;
    b.click("main .card a").await;
    b.comes_to("/products/").await;
    b.put_in_cart(product, 1).await;
    b.reads(".cart-link", "1").await;
    b.fill(".line input[name=quantity]", "2").await;
    b.click(".line-do button.quiet").await;
    b.reads("aside .total", "€25.00").await;
    b.click("a[href='/checkout']").await;
    b.comes_to("/sign-in").await;
    b.click("main a[href^='/sign-up']").await;
    b.comes_to("/sign-up").await;
    let person = b.sign_up_here().await;
    b.comes_to("/checkout").await;
    b.fill_address().await;
    b.reads(PAY, "€25.00").await;
    let order = b.pay().await;

    // By itself: a page that is loaded again has forgotten this.
    b.script("window.same = true", vec![]).await;
    b.order_becomes("confirmed").await;
    assert_eq!(b.script("return window.same", vec![]).await, true);
    b.goto("/orders").await;
    b.find(&format!("a[href='/orders/{order}']")).await;
    b.goto("/cart").await;
    b.find(".empty").await;
    b.close().await;

    let ended = site.only_order(&person).await;
    assert_eq!((&ended["id"], &ended["total"]["amount"]), (&json!(order), &json!(2500)));
    assert_eq!(site.shop.stock(product).await, (3, 0));
    let ledger = site.shop.ledger(&order).await;
    assert_eq!((&ledger["captured"], &ledger["captures"]), (&json!(2500), &json!(1)));
}

#[tokio::test]
async fn the_whole_purchase_works_without_script() {
    let site = Site::open().await;
    let product = site.shop.product(5).await;
    let b = Browser::without_script(&site).await;
    b.put_in_cart(product, 2).await;
    b.click("a[href='/checkout']").await;
    b.comes_to("/sign-in").await;
    b.click("main a[href^='/sign-up']").await;
    let person = b.sign_up_here().await;
    b.comes_to("/checkout").await;
    // What is wrong comes back at its field, and the rest is kept.
    b.expect_status(422);
    b.fill("#line1", "1 Quay").await;
    b.fill("#city", "Hull").await;
    b.click(PAY).await;
    b.find("#problems a[href='#country']").await;
    assert_eq!(b.value("#city").await, "Hull");
    b.fill("#postal_code", "HU1 1AA").await;
    b.select("#country", "GB").await;
    let order = b.pay().await;
    b.order_becomes_when_reloaded("confirmed").await;
    b.click("form[action$='/cancel'] button").await;
    b.find(".now .status-cancelled").await;
    b.close().await;

    let ended = site.only_order(&person).await;
    assert_eq!((&ended["id"], &ended["cancel_reason"]), (&json!(order), &json!("customer")));
}

#[tokio::test]
async fn the_keyboard_is_enough_to_buy() {
    let site = Site::open().await;
    let product = site.shop.product(5).await;
    let b = Browser::open(&site).await;
    b.goto(&format!("/products/{product}")).await;
    b.press(Key::Tab).await;
    b.find(".skip:focus").await;
    b.press(Key::Enter).await;
    b.find("main:focus").await;
    b.tab_to(".buy button").await;
    b.press(Key::Enter).await;
    b.comes_to("/cart").await;
    b.tab_to("a[href='/checkout']").await;
    b.press(Key::Enter).await;
    b.comes_to("/sign-in").await;
    b.tab_to("main a[href^='/sign-up']").await;
    b.press(Key::Enter).await;
    b.comes_to("/sign-up").await;
    let email = format!("{}@example.test", uuid::Uuid::now_v7());
    for (field, text) in [("#name", "Ada"), ("#email", &email), ("#password", PASSWORD)] {
        b.tab_to(field).await;
        b.types(text).await;
    }
    b.press(Key::Enter).await;
    b.comes_to("/checkout").await;
    for (field, text) in
        [("#line1", "1 Quay"), ("#postal_code", "HU1 1AA"), ("#city", "Hull"), ("#country", "United King")]
    {
        b.tab_to(field).await;
        b.types(text).await;
    }
    assert_eq!(b.value("#country").await, "GB");
    b.tab_to(PAY).await;
    b.press(Key::Enter).await;
    b.at_order().await;
    b.order_becomes("confirmed").await;
    b.close().await;
    site.only_order(&crate::site::Person { email }).await;
}

#[tokio::test]
async fn a_double_click_buys_once() {
    let site = Site::open().await;
    let product = site.shop.product(9).await;
    for script in [true, false] {
        let b = if script { Browser::open(&site).await } else { Browser::without_script(&site).await };
        let person = b.at_checkout(product, 1, "pm_card_visa").await;
        // The second may get the answer that the first is at work.
        b.expect_status(503);
        b.double_click(PAY).await;
        b.insist().await;
        b.close().await;
        site.only_order(&person).await;
    }
}

#[tokio::test]
async fn back_and_reload_after_a_purchase_buy_nothing_more() {
    let site = Site::open().await;
    let product = site.shop.product(9).await;
    let b = Browser::open(&site).await;
    let person = b.at_checkout(product, 1, "pm_card_visa").await;
    let order = b.pay().await;
    b.client.refresh().await.unwrap();
    assert_eq!(b.at_order().await, order);
    b.client.back().await.unwrap();
    // Nothing is left to pay for.
    b.comes_to("/cart").await;
    b.find(".empty").await;
    b.client.refresh().await.unwrap();
    b.find(".empty").await;
    b.goto(&format!("/orders/{order}")).await;
    b.order_becomes("confirmed").await;
    b.close().await;
    site.only_order(&person).await;
}

#[tokio::test]
async fn a_cancelled_order_shows_that_the_money_comes_back() {
    let site = Site::open().await;
    let product = site.shop.product(3).await;
    let b = Browser::open(&site).await;
    b.at_checkout(product, 2, "pm_card_visa").await;
    let order = b.pay().await;
    b.order_becomes("confirmed").await;
    b.click("form[action$='/cancel'] button").await;
    b.order_becomes("cancelled").await;
    let path = format!("/orders/{order}");
    let refunded = || async {
        b.goto(&path).await;
        b.text("#live").await.contains("€25.00").then_some(())
    };
    system_tests::eventually("the refund on the page", std::time::Duration::from_secs(60), refunded).await;
    b.close().await;
    site.shop
        .eventually("SELECT on_hand::bigint FROM products.stock WHERE product_id = $1", product, 3)
        .await;
}

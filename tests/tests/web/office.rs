//! The back office, as staff use it.

use std::path::PathBuf;
use std::time::Duration;

use fantoccini::Locator;
use serde_json::json;
use system_tests::eventually;
use uuid::Uuid;

use crate::browser::Browser;
use crate::pages::Audit;
use crate::site::Site;

impl Browser<'_> {
    async fn sign_in_as_admin(&self) {
        self.goto("/sign-in").await;
        self.sign_in_here("admin@dockside.test", "dockside-admin").await;
        self.find(".links a[href='/admin']").await;
    }
}

/// A file that goes with the test.
struct Passing(PathBuf);

impl Passing {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dockside-web-{}.csv", Uuid::now_v7()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn staff_refund_a_part_and_put_one_on_the_shelf_again() {
    let site = Site::open().await;
    let product = site.shop.product(5).await;
    let buyer = site.shop.customer().await;
    let order = buyer.place(product, 2, "pm_card_visa").await;
    assert_eq!(buyer.ended(&order).await["status"], "confirmed");
    let b = Browser::open(&site).await;
    b.sign_in_as_admin().await;
    b.goto("/admin/orders").await;
    b.click(&format!("a[href='/admin/orders/{order}']")).await;
    let refund = "form[action$='/refunds']";
    // More than was paid comes back at its field, with the rest.
    b.expect_status(422);
    b.fill(&format!("{refund} #reason"), "One was torn.").await;
    b.fill(&format!("{refund} #amount"), "99.00").await;
    b.click(&format!("{refund} button")).await;
    b.find("#amount-problem").await;
    assert_eq!(b.value(&format!("{refund} #reason")).await, "One was torn.");
    b.fill(&format!("{refund} #amount"), "12.50").await;
    b.fill(&format!("{refund} input[name='units-{product}']"), "1").await;
    b.click(&format!("{refund} button")).await;
    b.reads("section[aria-labelledby=refunds-title] .plain", "One was torn.").await;
    b.close().await;

    let refunded = || async {
        let order = buyer.get(&format!("/orders/{order}")).await.body;
        (order["refunded"]["amount"] == 1250).then_some(())
    };
    eventually("the refund", Duration::from_secs(60), refunded).await;
    site.shop
        .eventually("SELECT on_hand::bigint FROM products.stock WHERE product_id = $1", product, 4)
        .await;
    assert_eq!(site.shop.ledger(&order).await["refunded"], json!(1250));
}

#[tokio::test]
async fn staff_import_a_file_and_see_its_bad_lines() {
    let site = Site::open().await;
    for script in [true, false] {
        let b = if script { Browser::open(&site).await } else { Browser::without_script(&site).await };
        let sku = format!("T-{}", Uuid::now_v7());
        let file = Passing::new(&format!(
            "sku,name,description,price,currency,category,stock\n\
             {sku}-1,Test Rope,Ten metres,9.90,EUR,lighting,3\n\
             {sku}-2,Test Hook,Brass,free,EUR,lighting,3\n\
             {sku}-3,Test Cleat,Brass,4.90,EUR,lighting,3\n"
        ));
        b.sign_in_as_admin().await;
        // It is tried first, unless staff say otherwise.
        for (tried, made) in [(true, 0), (false, 2)] {
            b.goto("/admin/imports").await;
            if !tried {
                b.click("input[name=dry_run]").await;
            }
            b.find("#file").await.send_keys(&file.0.display().to_string()).await.unwrap();
            b.click("form[action='/admin/imports'] button").await;
            b.reads("#report", if tried { "What would be done" } else { "What was done" }).await;
            b.reads(".figures", "2").await;
            let lines = Locator::Css("section[aria-labelledby=report] tbody tr");
            let lines = b.client.find_all(lines).await.unwrap();
            assert_eq!(lines.len(), 1);
            let line = lines[0].text().await.unwrap();
            assert!(line.starts_with("3 price "), "{line}");
            let skus = "SELECT count(*) FROM products.products WHERE sku LIKE $1 || '%'";
            let there: i64 =
                sqlx::query_scalar(skus).bind(&sku).fetch_one(&site.shop.database).await.unwrap();
            assert_eq!(there, made);
        }
        b.close().await;
    }
}

#[tokio::test]
async fn the_back_office_is_for_everybody_in_the_light_and_in_the_dark() {
    let site = Site::open().await;
    let product = site.shop.product(5).await;
    let buyer = site.shop.customer().await;
    let order = buyer.place(product, 2, "pm_card_visa").await;
    buyer.ended(&order).await;
    let b = Browser::open(&site).await;
    b.sign_in_as_admin().await;
    let mut audit = Audit::new();
    for (name, path) in [
        ("back-office", "/admin/orders"),
        ("order of the back office", &format!("/admin/orders/{order}")),
        ("products of the back office", "/admin/products"),
        ("product of the back office", &format!("/admin/products/{product}")),
        ("stock", &format!("/admin/products/{product}/stock")),
        ("new product", "/admin/products/new"),
        ("categories", "/admin/categories"),
        ("category", "/admin/categories/lighting"),
        ("imports", "/admin/imports"),
        ("customers", "/admin/customers"),
        ("record", "/admin/audit"),
    ] {
        b.goto(path).await;
        audit.at(&b, name).await;
    }
    audit.found_nothing();
    b.close().await;
}

#[tokio::test]
async fn staff_make_rename_move_and_merge_categories() {
    let site = Site::open().await;
    let b = Browser::open(&site).await;
    b.sign_in_as_admin().await;
    let name = format!("T {}", &Uuid::now_v7().simple().to_string()[20..]);
    let slug = name.to_lowercase().replace(' ', "-");
    let make = "form[action='/admin/categories']";
    let link = |slug: &str| format!("a[href='/admin/categories/{slug}']");
    for part in ["one", "two"] {
        b.goto("/admin/categories").await;
        b.fill("#name", &format!("{name} {part}")).await;
        b.click(&format!("{make} button")).await;
        b.find(&link(&format!("{slug}-{part}"))).await;
    }
    // The same name again: another has its place.
    b.expect_status(422);
    b.fill("#name", &format!("{name} one")).await;
    b.click(&format!("{make} button")).await;
    b.find("#problems").await;
    assert_eq!(b.value("#name").await, format!("{name} one"));

    // Renamed and moved; the old name leads to the new one.
    b.goto(&format!("/admin/categories/{slug}-two")).await;
    b.fill("#name", &format!("{name} three")).await;
    b.fill("#slug", &format!("{slug}-three")).await;
    b.select("#parent", &format!("{slug}-one")).await;
    b.click("main form button:not(.quiet)").await;
    b.reads(&link(&format!("{slug}-three")), &format!("{name} one / {name} three")).await;
    b.goto(&format!("/admin/categories/{slug}-two")).await;
    b.comes_to(&format!("/admin/categories/{slug}-three")).await;

    // Not empty: it has to be said where its sub-category goes.
    b.goto(&format!("/admin/categories/{slug}-one")).await;
    b.click("form[action$='/delete'] button").await;
    b.reads("[role=alert]", "Choose where they go").await;
    b.select("#move_to", "lighting").await;
    b.click("form[action$='/delete'] button").await;
    b.comes_to("/admin/categories").await;
    assert!(!b.has(&link(&format!("{slug}-one"))).await);
    // An empty one goes without.
    b.goto(&format!("/admin/categories/{slug}-three")).await;
    b.click("form[action$='/delete'] button").await;
    b.reads("[role=status]", "is gone").await;
    assert!(!b.has(&link(&format!("{slug}-three"))).await);
    b.close().await;
}

#[tokio::test]
async fn staff_see_the_steps_of_an_orders_saga() {
    let site = Site::open().await;
    let product = site.shop.product(5).await;
    let buyer = site.shop.customer().await;
    let order = buyer.place(product, 1, "pm_card_visa").await;
    buyer.ended(&order).await;
    let b = Browser::open(&site).await;
    b.sign_in_as_admin().await;
    b.goto(&format!("/admin/orders/{order}")).await;
    b.reads("section[aria-labelledby=saga-title]", "Paid and sold").await;
    let steps = b.client.find_all(Locator::Css(".timeline li")).await.unwrap();
    assert_eq!(steps.len(), 3);
    b.reads(".timeline li:last-child", "order.confirmed.v1").await;
    b.close().await;
}

#[tokio::test]
async fn a_filter_that_is_wrong_is_led_to() {
    let site = Site::open().await;
    let b = Browser::open(&site).await;
    b.expect_status(422);
    b.sign_in_as_admin().await;
    b.goto(&format!("/admin/orders?q={}", "x".repeat(101))).await;
    b.click("#problems a").await;
    assert_eq!(b.script("return location.hash", vec![]).await, "#filter-q");
    assert_eq!(
        b.script("return document.querySelector(location.hash).form.action", vec![]).await,
        format!("{}/admin/orders", site.pages)
    );
    b.close().await;
}

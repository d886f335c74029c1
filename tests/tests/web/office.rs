//! The back office, as staff use it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use system_tests::eventually;
use uuid::Uuid;

use crate::browser::Browser;
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

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn staff_give_back_a_part_and_put_one_on_the_shelf_again() {
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
        b.goto("/admin/imports").await;
        b.find("#file").await.send_keys(&file.path().display().to_string()).await.unwrap();
        b.click("form[action='/admin/imports'] button").await;
        b.reads("#report + dl, #report ~ dl", "2").await;
        b.reads("section[aria-labelledby=report] tbody", "price").await;
        let lines =
            b.client.find_all(fantoccini::Locator::Css("section[aria-labelledby=report] tbody tr")).await;
        assert_eq!(lines.unwrap().len(), 1);
        b.close().await;
        let skus = "SELECT count(*) FROM products.products WHERE sku LIKE $1 || '%'";
        let made: i64 = sqlx::query_scalar(skus).bind(&sku).fetch_one(&site.shop.database).await.unwrap();
        assert_eq!(made, 2);
    }
}

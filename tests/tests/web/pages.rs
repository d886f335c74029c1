//! Every page: for everybody, in the light and in the dark, and with whatever a product holds.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::browser::Browser;
use crate::site::{Site, given};

/// What axe-core checks: WCAG 2.2 AA, and what it holds to be good besides.
const RULES: [&str; 7] = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"];

/// Pages that were checked, and what was found.
pub struct Audit {
    /// Without axe-core nothing is found.
    axe: Option<String>,
    found: Vec<String>,
}

impl Audit {
    pub fn new() -> Self {
        let axe = given("TEST_AXE").map(|file| std::fs::read_to_string(file).unwrap());
        Self { axe, found: Vec::new() }
    }

    /// The page that is open, in the light and in the dark.
    pub async fn at(&mut self, b: &Browser<'_>, name: &str) {
        picture(b, name).await;
        let twice = b.script(TWICE, vec![]).await;
        assert_eq!(
            twice,
            json!([]),
            "{name}: ids that are there twice, so that a link or a label leads elsewhere"
        );
        let Some(axe) = &self.axe else { return };
        for (dark, how) in [(false, "light"), (true, "dark")] {
            b.dark(dark).await;
            let bad = violations(b, axe).await.into_iter();
            self.found.extend(bad.map(|text| format!("{name}, {how}: {text}")));
        }
        b.dark(false).await;
    }

    pub fn found_nothing(self) {
        assert!(self.found.is_empty(), "{}", self.found.join("\n"));
    }
}

const TWICE: &str = "const all = [...document.querySelectorAll('[id]')].map(one => one.id);
                     return all.filter((id, n) => all.indexOf(id) !== n)";

/// What the page that is open has against it.
async fn violations(b: &Browser<'_>, axe: &str) -> Vec<String> {
    b.script(axe, vec![]).await;
    let run = "return axe.run(document, {runOnly: arguments[0], resultTypes: ['violations']}).then(r => r.violations.map(
               v => v.id + ': ' + v.help + ' at ' + v.nodes.map(n => n.target.join(' ') + ' ' + (n.any[0]?.message ?? '')).join('; ')))";
    let found = b.script(run, vec![json!(RULES)]).await;
    found.as_array().unwrap().iter().map(|text| text.as_str().unwrap_or_default().to_owned()).collect()
}

/// Pages that the docs show.
const SHOWN: [&str; 6] = ["home", "product", "cart", "checkout", "order", "back-office"];

/// A picture of the page that is open, where such are wanted.
async fn picture(b: &Browser<'_>, name: &str) {
    let Some(folder) = given("TEST_SCREENSHOTS").filter(|_| SHOWN.contains(&name)) else { return };
    b.script("document.activeElement?.blur(); scrollTo(0, 0)", vec![]).await;
    // WebP: a fraction of a PNG's size.
    let taken = b.devtools("Page.captureScreenshot", json!({"format": "webp", "quality": 80})).await;
    let bytes = BASE64_STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
    assert!(bytes.len() < 200 << 10, "the picture of {name} has {} bytes", bytes.len());
    // Within the checkout, unless the folder is elsewhere.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{name}.webp")), bytes).unwrap();
}

#[tokio::test]
async fn every_page_is_for_everybody_in_the_light_and_in_the_dark() {
    let site = Site::open().await;
    let b = Browser::open(&site).await;
    // Of pages that are not there, and of one that comes back with problems.
    b.expect_status(404);
    b.expect_status(422);
    let mut audit = Audit::new();
    for (name, path) in [
        ("home", "/"),
        ("products", "/products"),
        ("search", "/products?q=coffee&in_stock=true"),
        ("nothing-found", "/products?q=qqqqqq"),
        ("empty-cart", "/cart"),
        ("sign-in", "/sign-in"),
        ("sign-up", "/sign-up"),
        ("forgot-password", "/forgot-password"),
        ("reset-password", "/reset-password?token=x"),
        ("confirm-email", "/confirm-email?token=x"),
        ("not-found", "/nowhere"),
    ] {
        b.goto(path).await;
        audit.at(&b, name).await;
    }
    b.goto("/products?in_stock=true&q=coffee").await;
    b.click(".grid .card a").await;
    b.comes_to("/products/").await;
    audit.at(&b, "product").await;
    b.click(".buy button").await;
    b.comes_to("/cart").await;
    audit.at(&b, "cart").await;
    b.sign_up().await;
    for path in ["/account", "/account/addresses", "/account/addresses/new", "/orders", "/checkout"] {
        b.goto(path).await;
        audit.at(&b, path.trim_start_matches('/').replace('/', "-").as_str()).await;
    }
    b.click("aside button").await;
    b.find("#problems").await;
    audit.at(&b, "checkout-problems").await;
    b.fill_address().await;
    b.pay().await;
    b.order_becomes("confirmed").await;
    audit.at(&b, "order").await;
    b.goto("/orders").await;
    audit.at(&b, "orders-with-one").await;
    audit.found_nothing();
    b.close().await;
}

#[tokio::test]
async fn nothing_that_a_product_holds_or_a_visitor_types_runs() {
    let site = Site::open().await;
    let b = Browser::open(&site).await;
    let bad = [
        "<script>window.owned = 1</script>",
        "\"><img src=x onerror=\"window.owned = 1\">",
        "'-window.owned=1-'",
        "</script><script>window.owned = 1</script>",
        "{{window.owned = 1}} javascript:window.owned=1",
    ];
    let all = bad.join(" ");
    let body = json!({
        "sku": format!("T-{}", Uuid::now_v7()), "name": &all[..], "description": &all,
        "price": {"amount": 1250, "currency": "EUR"}, "category": "lighting", "stock": 5,
        "attributes": {"color": &bad[1], "<b onclick=owned()>": &bad[3]},
    });
    let answer = site.shop.staff().await.post("/products", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let calm = async |shows: bool| {
        assert_eq!(b.script("return window.owned ?? null", vec![]).await, Value::Null);
        if shows {
            b.reads("main", bad[0]).await;
        }
    };
    b.sign_up().await;
    b.put_in_cart(answer.id().parse().unwrap(), 1).await;
    calm(true).await;
    b.goto(&format!("/products/{}", answer.id())).await;
    calm(true).await;
    // Its structured data is whole, and says the same.
    let data = b
        .script(
            "return JSON.parse(document.querySelector('script[type=\"application/ld+json\"]').text).name",
            vec![],
        )
        .await;
    assert_eq!(data, all);
    b.goto("/products?sort=newest").await;
    calm(true).await;
    for words in bad {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("q", words).finish();
        b.goto(&format!("/products?{query}")).await;
        calm(false).await;
        assert_eq!(b.value("#q").await, words);
    }
    b.goto("/checkout").await;
    b.fill_address().await;
    b.fill("#line1", bad[1]).await;
    b.pay().await;
    b.order_becomes("confirmed").await;
    b.reads("main address", bad[1]).await;
    b.reads("main table", bad[0]).await;
    calm(false).await;
    b.goto("/orders").await;
    calm(true).await;
    b.close().await;
}

#[tokio::test]
async fn an_address_that_is_not_there_offers_a_search() {
    let site = Site::open().await;
    let b = Browser::open(&site).await;
    b.expect_status(404);
    for path in ["/nowhere", "/products/nothing-of-this-name", "/categories/none", "/orders", "/%3Cscript%3E"]
    {
        b.goto(path).await;
        if path == "/orders" {
            b.comes_to("/sign-in").await;
            continue;
        }
        let status = "return performance.getEntriesByType('navigation')[0].responseStatus";
        assert_eq!(b.script(status, vec![]).await, 404, "{path}");
    }
    b.fill("main input[name=q]", "lamp").await;
    b.click("main form button").await;
    b.comes_to("/products").await;
    b.find(".grid .card").await;
    b.close().await;
}

#[tokio::test]
async fn the_language_is_the_visitors() {
    let site = Site::open().await;
    let product = site.shop.product(5).await;
    let b = Browser::open(&site).await;
    b.goto(&format!("/products/{product}")).await;
    assert_eq!(b.script("return document.documentElement.lang", vec![]).await, "en");
    b.reads(".buy button", "Add to cart").await;
    b.select(".choices select[name=lang]", "zh").await;
    b.click(".choices button").await;
    b.find("html[lang^=zh]").await;
    // The same page, and every other one.
    b.comes_to("/products/").await;
    assert!(!b.text(".buy button").await.contains("Add"));
    b.reads("main .price", "12.50").await;
    b.goto("/cart").await;
    b.find("html[lang^=zh]").await;
    b.close().await;
}

#[tokio::test]
async fn a_link_to_what_is_wrong_leads_to_its_field() {
    let site = Site::open().await;
    let b = Browser::open(&site).await;
    b.expect_status(422);
    b.sign_up().await;
    b.goto("/account").await;
    b.fill("#email-email", "somebody@example.test").await;
    b.fill("#email-current_password", "not the password").await;
    b.click("form[action='/account/email'] button").await;
    b.click("#problems a").await;
    let at = "return document.activeElement.closest('form').getAttribute('action')";
    // The field of the form that was sent, not of the one beside it, which asks for a password too.
    assert_eq!(b.script("return location.hash", vec![]).await, "#email-current_password");
    b.press(fantoccini::key::Key::Tab).await;
    assert_eq!(b.script(at, vec![]).await, "/account/email");
    b.close().await;
}

#[tokio::test]
async fn who_deletes_the_account_gives_the_password_again() {
    let site = Site::open().await;
    let b = Browser::open(&site).await;
    b.expect_status(422);
    let person = b.sign_up().await;
    let form = "form[action='/account/delete']";
    b.goto("/account").await;
    b.fill("#delete-current_password", "not the password").await;
    b.click(&format!("{form} button")).await;
    b.reads("#problems", "password is wrong").await;
    b.fill("#delete-current_password", crate::site::PASSWORD).await;
    b.click(&format!("{form} button")).await;
    b.reads("[role=status]", "was deleted").await;
    b.goto("/sign-in").await;
    b.sign_in_here(&person.email, crate::site::PASSWORD).await;
    b.find("#problems").await;
    b.close().await;
}

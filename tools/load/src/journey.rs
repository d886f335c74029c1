//! What a shopper does, request by request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use crate::accounts::Account;
use crate::arrivals::exponential;
use crate::follow::follow;
use crate::generator::Run;
use crate::http::{Answer, Call, Failure};
use crate::plan::{Errand, Follow};
use crate::record::Kind;
use crate::shop::{self, Error, Ids, Order};

const ADDRESS: &str =
    r#"{"name":"Load Test","line1":"1 Quay","city":"Hull","postal_code":"HU1 1AA","country":"GB"}"#;
/// Nobody thinks for longer.
const LONGEST_THOUGHT: Duration = Duration::from_secs(60);

/// One shopper, from the arrival until it goes home.
pub(crate) struct Shopper {
    pub(crate) run: Arc<Run>,
    rng: StdRng,
    stage: usize,
    number: u64,
    /// When the first request was due; later ones are due when they are sent.
    arrived: Option<Instant>,
    token: Option<HeaderValue>,
    failed: bool,
}

impl Shopper {
    /// `due` is when it was to arrive.
    pub(crate) fn new(run: Arc<Run>, number: u64, stage: usize, due: Instant) -> Self {
        let seed = run.plan.seed ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            rng: StdRng::seed_from_u64(seed),
            run,
            stage,
            number,
            arrived: Some(due),
            token: None,
            failed: false,
        }
    }

    /// Comes for something, does it, and goes home. False when something went wrong.
    pub(crate) async fn shop(&mut self) -> bool {
        let run = self.run.clone();
        let errand = run.plan.mix.nth(self.rng.random_range(0..run.plan.mix.total().max(1)));
        run.recorder.came_for(self.stage, errand.name());
        match errand {
            Errand::Browse => self.browse().await,
            Errand::Search => self.search().await,
            Errand::Order => match run.accounts.any() {
                Some(account) => self.order(account).await,
                None => self.no_account("no_account"),
            },
            Errand::Cart => match run.accounts.with_cart() {
                Some(account) => self.cart(&account).await,
                None => self.no_account("no_free_cart"),
            },
        }
        run.recorder.went();
        !self.failed
    }

    /// The generator has too few accounts.
    fn no_account(&mut self, why: &'static str) {
        self.failed = true;
        self.run.recorder.dropped(self.stage, why);
    }

    pub(crate) fn token(&self) -> Option<HeaderValue> {
        self.token.clone()
    }

    /// When the next request is due: the first one when the shopper arrived, any other now.
    pub(crate) fn due(&mut self) -> Instant {
        self.arrived.take().unwrap_or_else(Instant::now)
    }

    pub(crate) fn answered(&mut self, kind: Kind, took: Duration, error: Option<&str>) {
        self.failed |= error.is_some();
        self.run.recorder.answered(self.stage, kind, took, error);
    }

    /// A stream broke off after its begin.
    pub(crate) fn broke(&self, kind: Kind, failure: Failure) {
        self.run.recorder.broke(self.stage, kind, failure.name());
    }

    /// Sends a request and records how long it took.
    pub(crate) async fn send(&mut self, kind: Kind, call: Call<'_>) -> Result<Answer, Error> {
        let due = self.due();
        self.send_due(kind, call, due).await
    }

    async fn send_due(&mut self, kind: Kind, call: Call<'_>, due: Instant) -> Result<Answer, Error> {
        self.run.recorder.sent();
        let answer = shop::succeeded(self.run.client.send(call).await);
        self.answered(kind, due.elapsed(), answer.as_ref().err().map(|error| error.name.as_ref()));
        answer
    }

    /// Thinks for a while, as people do.
    pub(crate) async fn think(&mut self) {
        if self.run.plan.think.is_zero() {
            return;
        }
        let thought = self.run.plan.think.mul_f64(exponential(&mut self.rng));
        tokio::time::sleep(thought.min(LONGEST_THOUGHT)).await;
    }

    async fn browse(&mut self) {
        let sort = ["newest", "price", "-price", "name"][self.rng.random_range(0..4)];
        let path = format!("/api/v1/products?in_stock=true&sort={sort}&limit=20");
        if self.send(Kind::List, Call::get(&path)).await.is_err() {
            return;
        }
        for _ in 0..self.rng.random_range(1..=3) {
            self.think().await;
            self.view_product().await;
        }
    }

    async fn view_product(&mut self) {
        if let Some(product) = self.run.goods.seen(&mut self.rng) {
            let path = format!("/api/v1/products/{product}");
            let _ = self.send(Kind::Product, Call::get(&path)).await;
        }
    }

    async fn search(&mut self) {
        let run = self.run.clone();
        let path = format!("/api/v1/products?q={}&limit=20", run.goods.word(&mut self.rng));
        let Ok(answer) = self.send(Kind::Search, Call::get(&path)).await else { return };
        let Ok(found) = shop::document::<Ids>(&answer) else { return };
        if let Some(product) = found.items.first() {
            self.think().await;
            let _ = self.send(Kind::Product, Call::get(&format!("/api/v1/products/{}", product.id))).await;
        }
    }

    async fn cart(&mut self, account: &Account) {
        self.view_product().await;
        self.think().await;
        let Some(product) = self.run.goods.bought(&mut self.rng) else { return self.sold_out() };
        self.token = Some(account.authorization());
        let path = format!("/api/v1/cart/items/{product}");
        let quantity = self.rng.random_range(1..=2);
        let body = format!(r#"{{"quantity":{quantity}}}"#);
        let call = Call { token: self.token(), method: Method::PUT, ..Call::post(&path, body) };
        if self.send(Kind::Cart, call).await.is_err() {
            return;
        }
        self.think().await;
        let body = self.wish(None);
        if !self.place(account, product, body).await {
            // What cannot be bought would stop whoever has this cart next.
            let call = Call { token: self.token(), method: Method::DELETE, ..Call::get("/api/v1/cart") };
            let _ = self.send(Kind::Cart, call).await;
        }
    }

    async fn order(&mut self, account: &Account) {
        let Some(product) = self.run.goods.bought(&mut self.rng) else { return self.sold_out() };
        let body = self.wish(Some(product));
        self.place(account, product, body).await;
    }

    fn sold_out(&mut self) {
        self.failed = true;
        self.run.recorder.refused(self.stage, "all_sold_out");
    }

    /// The body of a request for an order: of one product, or of the cart.
    fn wish(&self, product: Option<Uuid>) -> String {
        let payment = &self.run.plan.payment_method;
        match product {
            Some(product) => format!(
                r#"{{"items":[{{"product_id":"{product}","quantity":1}}],"shipping_address":{ADDRESS},"payment_method":"{payment}"}}"#
            ),
            None => format!(r#"{{"shipping_address":{ADDRESS},"payment_method":"{payment}"}}"#),
        }
    }

    /// Places an order and follows it; false when it was not accepted.
    async fn place(&mut self, account: &Account, product: Uuid, body: String) -> bool {
        self.token = Some(account.authorization());
        let run = self.run.clone();
        let key = format!("{}-{}", run.id, self.number);
        let call = Call { token: self.token(), key: Some(&key), ..Call::post("/api/v1/orders", body) };
        let due = self.due();
        let placed = self.send_due(Kind::Order, call, due).await;
        let order = placed.and_then(|answer| shop::document::<Order>(&answer).map(|order| order.id));
        let order = match order {
            Ok(order) => order,
            Err(error) => {
                if error.name == "out_of_stock" {
                    run.goods.sold_out(product);
                }
                run.recorder.refused(self.stage, &error.name);
                return false;
            }
        };
        let followed = run.plan.follow != Follow::None;
        run.recorder.placed(self.stage, followed);
        if followed {
            let end = follow(self, order, due + run.plan.confirm_within).await;
            run.recorder.ended(self.stage, order, end, due.elapsed());
        }
        true
    }
}

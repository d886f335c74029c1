//! Customers who buy, read, change their minds, and repeat every request until it has an answer.
//!
//! Their journal has what they did and the answers that they got: the only account of the run that the shop
//! has no hand in.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Answer, Shop, address, send};

/// How long a request is repeated, longer than any fault lasts.
const PATIENCE: Duration = Duration::from_secs(90);

/// Cards, and how many in a hundred pay with each: most go well, some are declined, and some fail in the ways that
/// make a shop charge twice.
const CARDS: [(&str, u32); 9] = [
    ("pm_card_visa", 66),
    ("pm_card_chargeDeclined", 8),
    ("pm_card_slow", 2),
    ("pm_card_confirm_lost", 4),
    ("pm_card_confirm_500", 4),
    ("pm_card_capture_lost", 4),
    ("pm_card_capture_500", 4),
    ("pm_card_capture_refused", 4),
    ("pm_card_refund_fails_once", 4),
];

/// An order that somebody tried to place, under one Idempotency-Key.
#[derive(Clone, Debug)]
pub struct Wish {
    pub user: Uuid,
    pub key: String,
    /// The outcome: an order's id, or the code of a refusal. None: there was no answer.
    pub outcome: Option<Result<Uuid, String>>,
}

/// What the customers know.
pub struct Journal {
    file: Mutex<BufWriter<File>>,
    wishes: Mutex<BTreeMap<String, Wish>>,
    /// Orders placed, by second of the run.
    placed: Mutex<Vec<u32>>,
    wrongs: Mutex<Vec<String>>,
    started: Instant,
}

/// A panic elsewhere must not hide what was seen.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    pub fn create(path: &Path, started: Instant) -> std::io::Result<Self> {
        Ok(Self {
            file: Mutex::new(BufWriter::new(File::create(path)?)),
            wishes: Mutex::default(),
            placed: Mutex::default(),
            wrongs: Mutex::default(),
            started,
        })
    }

    fn write(&self, entry: &Value) {
        let mut file = lock(&self.file);
        // A journal that cannot be written is missed by whoever reads it, not by the run.
        let _ = writeln!(file, "{entry}").and_then(|()| file.flush());
    }

    fn at(&self) -> u64 {
        self.started.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
    }

    fn wish(&self, wish: Wish) {
        self.write(&json!({"at": self.at(), "wish": wish.key, "user": wish.user}));
        lock(&self.wishes).insert(wish.key.clone(), wish);
    }

    fn answered(&self, key: &str, outcome: Result<Uuid, String>) {
        self.write(&match &outcome {
            Ok(order) => json!({"at": self.at(), "key": key, "order": order}),
            Err(code) => json!({"at": self.at(), "key": key, "refused": code}),
        });
        if outcome.is_ok() {
            let second = self.started.elapsed().as_secs() as usize;
            let mut placed = lock(&self.placed);
            if placed.len() <= second {
                placed.resize(second + 1, 0);
            }
            placed[second] += 1;
        }
        if let Some(wish) = lock(&self.wishes).get_mut(key) {
            wish.outcome = Some(outcome);
        }
    }

    /// Something that no fault excuses.
    pub fn wrong(&self, what: String) {
        self.write(&json!({"at": self.at(), "wrong": what}));
        lock(&self.wrongs).push(what);
    }

    pub fn wrongs(&self) -> Vec<String> {
        lock(&self.wrongs).clone()
    }

    pub fn wishes(&self) -> Vec<Wish> {
        lock(&self.wishes).values().cloned().collect()
    }

    /// Orders placed in each second so far; the last one may be under way.
    pub fn placed(&self) -> Vec<u32> {
        let mut placed = lock(&self.placed).clone();
        placed.resize((self.started.elapsed().as_secs() as usize + 1).max(placed.len()), 0);
        placed
    }
}

/// What is on sale in a run.
#[derive(Clone, Debug)]
pub struct Goods {
    /// More than can be sold.
    pub ample: Vec<Uuid>,
    /// Fewer than are wanted.
    pub scarce: Vec<Uuid>,
    /// Units of each scarce product.
    pub few: u32,
}

pub const MANY: u32 = 500_000;

impl Goods {
    pub async fn stock(shop: &Shop, few: u32) -> Self {
        let (mut ample, mut scarce) = (Vec::new(), Vec::new());
        for _ in 0..12 {
            ample.push(shop.product(MANY).await);
        }
        for _ in 0..3 {
            scarce.push(shop.product(few).await);
        }
        Self { ample, scarce, few }
    }

    pub fn all(&self) -> impl Iterator<Item = (Uuid, u32)> {
        let few = self.few;
        self.ample.iter().map(|id| (*id, MANY)).chain(self.scarce.iter().map(move |id| (*id, few)))
    }
}

/// A person with an account.
struct Person {
    id: Uuid,
    email: String,
    password: &'static str,
    token: String,
}

pub struct Customer {
    shop: Arc<Shop>,
    journal: Arc<Journal>,
    goods: Goods,
    name: String,
    rng: StdRng,
    me: Person,
    staff: Person,
    /// Orders that may still be changed.
    recent: Vec<Uuid>,
    /// Until when nothing is repeated any more.
    last: Option<Instant>,
}

const PASSWORD: &str = "correct horse battery";

impl Customer {
    pub async fn join(
        shop: &Arc<Shop>,
        journal: &Arc<Journal>,
        goods: &Goods,
        number: u64,
        seed: u64,
    ) -> Self {
        let email = format!("{}@example.test", Uuid::now_v7());
        let body = json!({"email": email, "password": PASSWORD, "name": format!("Customer {number}")});
        let answer = send(shop.request(Method::POST, "/auth/register").json(&body)).await;
        let answer = answer.expect("before the faults, register answers");
        assert_eq!(answer.status, 201, "{}", answer.body);
        let id = answer.id().parse().expect("an id is a UUID");
        let me = Person {
            id,
            email: email.clone(),
            password: PASSWORD,
            token: sign_in(shop, &email, PASSWORD).await,
        };
        let (email, password) = ("staff@dockside.test", "dockside-staff");
        let token = sign_in(shop, email, password).await;
        let staff = Person { id: Uuid::nil(), email: email.to_owned(), password, token };
        Self {
            shop: shop.clone(),
            journal: journal.clone(),
            goods: goods.clone(),
            name: format!("c{number}-{}", Uuid::now_v7().simple()),
            rng: StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number)),
            me,
            staff,
            recent: Vec::new(),
            last: None,
        }
    }

    /// Shops until stopped, and then until every request has its answer. `pause` is the mean time between two
    /// visits.
    pub async fn shop(mut self, stop: Arc<AtomicBool>, pause: Duration) {
        let mut visit = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            visit += 1;
            match self.rng.random_range(0..100) {
                0..10 => self.change_of_mind().await,
                10..14 => self.refund().await,
                14..20 => self.browse().await,
                20..28 => self.buy_cart(visit).await,
                28..36 => self.buy_scarce(visit).await,
                _ => self.buy(visit).await,
            }
            let pause = pause.mul_f64(self.rng.random_range(0.5..1.5));
            tokio::time::sleep(pause).await;
        }
    }

    /// Buys one of a product, again and again, until there is none left to buy.
    pub async fn buy_up(mut self, product: Uuid, most: u32) {
        for n in 0..u64::from(most) {
            let body = order(Some((product, 1)), "pm_card_visa");
            if !matches!(self.place(format!("up{n}"), body).await, Some(Ok(_))) {
                return;
            }
        }
    }

    fn card(&mut self) -> &'static str {
        CARDS.choose_weighted(&mut self.rng, |(_, share)| *share).map_or("pm_card_visa", |(card, _)| card)
    }

    async fn buy(&mut self, visit: u64) {
        let product = self.goods.ample.choose(&mut self.rng).copied().unwrap_or_default();
        let (quantity, card) = (self.rng.random_range(1..=3), self.card());
        self.place(format!("b{visit}"), order(Some((product, quantity)), card)).await;
    }

    async fn buy_scarce(&mut self, visit: u64) {
        let product = self.goods.scarce.choose(&mut self.rng).copied().unwrap_or_default();
        let card = self.card();
        let bought = self.place(format!("v{visit}"), order(Some((product, 1)), card)).await;
        if matches!(bought, Some(Err(_))) {
            // Something else then: a visit is an order, however much is sold out by now.
            self.buy(visit).await;
        }
    }

    async fn buy_cart(&mut self, visit: u64) {
        let product = self.goods.ample.choose(&mut self.rng).copied().unwrap_or_default();
        let put = self
            .insist(Method::PUT, &format!("/cart/items/{product}"), None, Some(&json!({"quantity": 2})))
            .await;
        if put.is_some_and(|answer| answer.status == 200) {
            let card = self.card();
            self.place(format!("v{visit}"), order(None, card)).await;
        }
    }

    async fn place(&mut self, visit: String, body: Value) -> Option<Result<Uuid, String>> {
        let key = format!("{}-{visit}", self.name);
        self.journal.wish(Wish { user: self.me.id, key: key.clone(), outcome: None });
        let product = body["items"][0]["product_id"].as_str().and_then(|id| id.parse().ok());
        // Nothing else may ever be said to be sold out, and no cart to have changed.
        let scarce = product.is_some_and(|product| self.goods.scarce.contains(&product));
        let answer = self.insist(Method::POST, "/orders", Some(&key), Some(&body)).await?;
        let outcome = match answer.status.as_u16() {
            201 => Ok(answer.id().parse::<Uuid>().unwrap_or_default()),
            409 if scarce && answer.problem().1 == "out_of_stock" => Err("out_of_stock".to_owned()),
            _ => {
                self.journal.wrong(format!("POST /orders with {key}: {} {}", answer.status, answer.body));
                return None;
            }
        };
        self.journal.answered(&key, outcome.clone());
        if let Ok(order) = outcome {
            self.recent.push(order);
            if self.recent.len() > 20 {
                self.recent.remove(0);
            }
        }
        Some(outcome)
    }

    async fn browse(&mut self) {
        let Some(order) = self.recent.last().copied() else { return };
        let Some(answer) = self.insist(Method::GET, &format!("/orders/{order}"), None, None).await else {
            return;
        };
        if answer.status != 200 {
            self.journal.wrong(format!(
                "order {order} was placed and is not there: {} {}",
                answer.status, answer.body
            ));
        }
    }

    async fn change_of_mind(&mut self) {
        let Some(order) = self.recent.choose(&mut self.rng).copied() else { return };
        let path = format!("/orders/{order}/cancel");
        let Some(answer) = self.insist(Method::POST, &path, None, None).await else { return };
        if answer.status != 200 && answer.problem() != (409, "not_cancellable") {
            self.journal.wrong(format!("POST {path}: {} {}", answer.status, answer.body));
        }
    }

    /// Staff give a little of an order back, and one unit into stock.
    async fn refund(&mut self) {
        let Some(order) = self.recent.choose(&mut self.rng).copied() else { return };
        let path = format!("/orders/{order}/refunds");
        let key = format!("r-{}", Uuid::now_v7());
        let body = json!({"amount": {"amount": self.rng.random_range(1..=300), "currency": "EUR"}, "reason": "goodwill"});
        std::mem::swap(&mut self.me, &mut self.staff);
        let answer = self.insist(Method::POST, &path, Some(&key), Some(&body)).await;
        std::mem::swap(&mut self.me, &mut self.staff);
        let Some(answer) = answer else { return };
        if answer.status != 201 && answer.problem() != (409, "refund_exceeds_captured") {
            self.journal.wrong(format!("POST {path}: {} {}", answer.status, answer.body));
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> RequestBuilder {
        let mut request = self.shop.request(method.clone(), path).bearer_auth(&self.me.token);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        match body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    /// The same request again and again until its answer is one that stays; None when there was none in time.
    async fn insist(
        &mut self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Option<Answer> {
        let begun = Instant::now();
        let mut seen = String::new();
        while begun.elapsed() < PATIENCE && self.last.is_none_or(|last| Instant::now() < last) {
            match send(self.request(&method, path, key, body)).await {
                Ok(answer) => match (answer.status.as_u16(), answer.problem().1) {
                    (401, _) => {
                        if let Ok(token) = try_sign_in(&self.shop, &self.me.email, self.me.password).await {
                            self.me.token = token;
                        }
                    }
                    (429 | 502 | 503 | 504, _) | (409, "idempotency_in_progress") => {
                        seen = format!("{} {}", answer.status, answer.problem().1);
                    }
                    (500.., _) => {
                        self.journal.wrong(format!("{method} {path}: {} {}", answer.status, answer.body));
                        seen = answer.status.to_string();
                    }
                    _ => return Some(answer),
                },
                Err(error) => seen = error.to_string(),
            }
            let pause = self.rng.random_range(50..250);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.journal.wrong(format!("{method} {path} had no answer in {PATIENCE:?}; the last: {seen}"));
        None
    }
}

fn order(of: Option<(Uuid, u32)>, card: &str) -> Value {
    let mut body = json!({"shipping_address": address(), "payment_method": card});
    if let Some((product, quantity)) = of {
        body["items"] = json!([{"product_id": product, "quantity": quantity}]);
    }
    body
}

async fn sign_in(shop: &Shop, email: &str, password: &str) -> String {
    try_sign_in(shop, email, password).await.expect("before the faults, login answers")
}

async fn try_sign_in(shop: &Shop, email: &str, password: &str) -> Result<String, String> {
    let body = json!({"email": email, "password": password});
    let answer = send(shop.request(Method::POST, "/auth/login").json(&body)).await;
    let answer = answer.map_err(|error| error.to_string())?;
    answer.body["access_token"].as_str().map(str::to_owned).ok_or_else(|| answer.status.to_string())
}

//! What shoppers read and buy: what the catalogue has in stock, or products made for it.

use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::json;
use uuid::Uuid;

use crate::Refusal;
use crate::accounts::sign_in;
use crate::http::{Call, Client};
use crate::shop::{self, Page};

/// Products that are read of a catalogue; a larger one is not read to its end.
const MOST: usize = 1000;
/// Units of each product that is made.
const UNITS: u32 = 500_000;

pub struct Goods {
    /// To look at, whether sold out or not.
    all: Vec<Uuid>,
    /// Still to be had.
    on_sale: Mutex<Vec<Uuid>>,
    /// Words to search for, from the products' names.
    words: Vec<String>,
}

/// Who makes products.
pub struct Staff<'a> {
    pub email: &'a str,
    pub password: &'a str,
}

impl Goods {
    /// What the catalogue has in stock, up to 1,000 products.
    ///
    /// # Errors
    /// when it cannot be read, or nothing is in stock.
    pub async fn listed(client: &Client) -> Result<Self, Refusal> {
        let (mut all, mut words, mut cursor) = (Vec::new(), Vec::new(), None::<String>);
        while all.len() < MOST {
            let mut path = "/api/v1/products?in_stock=true&sort=newest&limit=100".to_owned();
            if let Some(cursor) = &cursor {
                path.push_str("&cursor=");
                path.push_str(cursor);
            }
            let page = shop::succeeded(client.send(Call::get(&path)).await)
                .and_then(|answer| shop::document::<Page>(&answer))
                .map_err(|e| Refusal(format!("GET {path} was refused: {} ({})", e.name, e.status)))?;
            for product in page.items {
                if product.stock.available > 0 {
                    all.push(product.id);
                    words.extend(searched(&product.name));
                }
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        if all.is_empty() {
            return Err(Refusal(
                "the catalogue has nothing in stock: `--prepare 50` makes products, as staff".to_owned(),
            ));
        }
        Ok(Self::new(all, words))
    }

    /// Makes so many products with 500,000 units each.
    ///
    /// # Errors
    /// when the shop refuses the sign-in or a product.
    pub async fn prepare(client: &Arc<Client>, count: usize, staff: &Staff<'_>) -> Result<Self, Refusal> {
        let tokens = sign_in(client, staff.email, staff.password).await.map_err(|e| {
            Refusal(format!(
                "cannot sign in as {}: {e}; --staff-email and --staff-password say who may",
                staff.email
            ))
        })?;
        let authorization = shop::bearer(&tokens.access_token)?;
        let mut all = Vec::with_capacity(count);
        for n in 1..=count {
            let body = json!({
                "sku": format!("LOAD-{}", Uuid::now_v7().simple()), "name": format!("Load Lantern {n}"),
                "description": "Made for a load test.", "price": {"amount": 1250, "currency": "EUR"},
                "category": "lighting", "stock": UNITS,
            });
            let call = Call {
                token: Some(authorization.clone()),
                ..Call::post("/api/v1/products", body.to_string())
            };
            let made = shop::succeeded(client.send(call).await)
                .and_then(|answer| shop::document::<shop::Id>(&answer))
                .map_err(|e| {
                    Refusal(format!("POST /api/v1/products was refused: {} ({})", e.name, e.status))
                })?;
            all.push(made.id);
        }
        Ok(Self::new(all, vec!["lantern".to_owned()]))
    }

    pub fn new(all: Vec<Uuid>, mut words: Vec<String>) -> Self {
        words.sort();
        words.dedup();
        Self { on_sale: Mutex::new(all.clone()), all, words }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// One to look at.
    pub fn seen(&self, rng: &mut StdRng) -> Option<Uuid> {
        let n = self.all.len();
        (n > 0).then(|| self.all[rng.random_range(0..n)])
    }

    /// One to buy; None when all is sold out.
    pub fn bought(&self, rng: &mut StdRng) -> Option<Uuid> {
        let on_sale = self.on_sale.lock().unwrap_or_else(PoisonError::into_inner);
        (!on_sale.is_empty()).then(|| on_sale[rng.random_range(0..on_sale.len())])
    }

    /// Nobody tries to buy it any more.
    pub fn sold_out(&self, product: Uuid) {
        let mut on_sale = self.on_sale.lock().unwrap_or_else(PoisonError::into_inner);
        on_sale.retain(|other| *other != product);
    }

    /// How many products can still be bought.
    pub fn on_sale(&self) -> usize {
        self.on_sale.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A word that some product's name has.
    pub fn word(&self, rng: &mut StdRng) -> &str {
        match self.words.len() {
            0 => "lantern",
            n => &self.words[rng.random_range(0..n)],
        }
    }
}

/// Words of a name that can stand in an address as they are.
fn searched(name: &str) -> impl Iterator<Item = String> {
    name.split_whitespace()
        .filter(|word| word.len() > 3 && word.bytes().all(|byte| byte.is_ascii_alphabetic()))
        .map(str::to_ascii_lowercase)
}

//! The cart of visitors who have not signed in, in the browser's cookies.
//!
//! Each addition has a cookie of its own at first, so that two tabs that add at the same moment lose nothing:
//! each would write the whole cart without the other's addition. The next answer that writes the cart
//! includes the additions, and names them. Their own cookies are deleted once no answer can be under way that
//! does not know them.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::api::types::Money;

/// Different products that a cookie holds, so that it stays well below 4 KiB.
pub const CART_LINES: usize = 50;
/// As many of one product as the API takes.
pub const MOST_OF_ONE: u16 = 999;
const LINE_BYTES: usize = 16 + 2 + 8;

/// The cart of a visitor who has not signed in, and the price at which each product was last shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CookieCart {
    pub lines: Vec<CookieLine>,
    /// The additions that the cookie has in its lines.
    known: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CookieLine {
    pub product: Uuid,
    /// None when the API's cart has it, and only the price is remembered here.
    pub quantity: u16,
    /// Minor units.
    pub seen: i64,
}

impl CookieLine {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (product, rest) = bytes.split_first_chunk::<16>()?;
        let (quantity, seen) = rest.split_first_chunk::<2>()?;
        let quantity = u16::from_be_bytes(*quantity).min(MOST_OF_ONE);
        let seen = i64::from_be_bytes(*seen.first_chunk::<8>()?);
        Some(Self { product: Uuid::from_bytes(*product), quantity, seen })
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.product.as_bytes());
        bytes.extend_from_slice(&self.quantity.to_be_bytes());
        bytes.extend_from_slice(&self.seen.to_be_bytes());
    }
}

/// Additions with a cookie each at most; the next one is written with the cart.
pub const ADDITIONS: usize = 8;
/// Additions that a cart can name. Tabs that add at the same moment may make more than [`ADDITIONS`].
pub const KNOWN: usize = 2 * ADDITIONS;
/// Longer than an answer may be under way, in seconds.
const SETTLED: i64 = 60;

/// What was added to the cart: so many more.
#[derive(Clone, Debug, PartialEq)]
pub struct Addition {
    /// Random: its cookie is named after it.
    pub id: u32,
    /// In Unix seconds.
    at: i64,
    pub line: CookieLine,
}

impl Addition {
    pub fn new(product: Uuid, more: u16, price: &Money) -> Self {
        let line = CookieLine { product, quantity: more, seen: price.amount };
        Self { id: rand::random(), at: OffsetDateTime::now_utc().unix_timestamp(), line }
    }

    /// `rest` is the cookie's name behind what all of them begin with.
    pub fn decode(rest: &str, text: &str) -> Option<Self> {
        let id = u32::from_str_radix(rest, 16).ok().filter(|_| rest.len() == 8)?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (at, line) = bytes.split_first_chunk::<8>()?;
        Some(Self { id, at: i64::from_be_bytes(*at), line: CookieLine::decode(line)? })
    }

    pub fn encode(&self) -> String {
        let mut bytes = self.at.to_be_bytes().to_vec();
        self.line.encode(&mut bytes);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// By which the older of two comes first.
    pub fn age(&self) -> (i64, u32) {
        (self.at, self.id)
    }

    pub fn is_settled(&self) -> bool {
        OffsetDateTime::now_utc().unix_timestamp() - self.at > SETTLED
    }
}

impl CookieCart {
    pub fn decode(text: &str) -> Self {
        let (lines, known) = text.split_once('.').unwrap_or((text, ""));
        let bytes = |text| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        let (lines, known) = (bytes(lines), bytes(known));
        let lines = lines.chunks_exact(LINE_BYTES).take(CART_LINES).filter_map(CookieLine::decode);
        let known = known.chunks_exact(4).filter_map(|id| Some(u32::from_be_bytes(*id.first_chunk()?)));
        Self { lines: lines.collect(), known: known.take(KNOWN).collect() }
    }

    pub fn encode(&self) -> String {
        let mut lines = Vec::with_capacity(self.lines.len() * LINE_BYTES);
        self.lines.iter().take(CART_LINES).for_each(|line| line.encode(&mut lines));
        let known: Vec<u8> = self.known.iter().flat_map(|id| id.to_be_bytes()).collect();
        let lines = BASE64_URL_SAFE_NO_PAD.encode(lines);
        if known.is_empty() { lines } else { format!("{lines}.{}", BASE64_URL_SAFE_NO_PAD.encode(known)) }
    }

    /// Nothing is in it, and nothing was added to it that a cookie of its own could bring back.
    pub fn is_blank(&self) -> bool {
        self.lines.is_empty() && self.known.is_empty()
    }

    /// With the additions that it does not know, oldest first.
    pub fn with(mut self, additions: &[Addition]) -> Self {
        let mut new: Vec<_> = additions.iter().filter(|addition| !self.knows(addition)).collect();
        new.sort_by_key(|addition| addition.age());
        for Addition { line, .. } in new {
            let quantity = self.quantity(line.product).saturating_add(line.quantity);
            // One that does not fit is lost. If it is the only one, that is reported at once.
            let _ = self.put(CookieLine { quantity: quantity.min(MOST_OF_ONE), ..*line });
        }
        self
    }

    pub fn knows(&self, addition: &Addition) -> bool {
        self.known.contains(&addition.id)
    }

    /// Names the additions that its lines have and whose cookies stay.
    pub fn settle(&mut self, additions: &[Addition]) {
        self.known = additions.iter().map(|addition| addition.id).collect();
    }

    pub fn count(&self) -> u32 {
        self.lines.iter().map(|line| u32::from(line.quantity)).sum()
    }

    /// What is to be bought, as against what only has its price remembered.
    pub fn wanted(&self) -> Vec<CookieLine> {
        self.lines.iter().copied().filter(|line| line.quantity > 0).collect()
    }

    /// So many of a product are elsewhere now. Its price stays.
    pub fn moved(&mut self, product: Uuid, quantity: u16) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.product == product) {
            line.quantity = line.quantity.saturating_sub(quantity);
        }
    }

    pub fn quantity(&self, product: Uuid) -> u16 {
        self.lines.iter().find(|line| line.product == product).map_or(0, |line| line.quantity)
    }

    /// False when one more does not fit.
    #[must_use]
    pub fn set(&mut self, product: Uuid, quantity: u16, price: &Money) -> bool {
        self.put(CookieLine { product, quantity: quantity.min(MOST_OF_ONE), seen: price.amount })
    }

    fn put(&mut self, new: CookieLine) -> bool {
        if let Some(line) = self.lines.iter_mut().find(|line| line.product == new.product) {
            *line = new;
            return true;
        }
        if self.lines.len() >= CART_LINES {
            // A remembered price is worth less than a wanted product.
            let Some(spare) = self.lines.iter().position(|line| line.quantity == 0) else { return false };
            self.lines.remove(spare);
        }
        self.lines.push(new);
        true
    }

    pub fn remove(&mut self, product: Uuid) {
        self.lines.retain(|line| line.product != product);
    }

    /// The price that was shown last, if it was another one; `now` is remembered instead.
    pub fn price_shown(&mut self, product: Uuid, now: &Money) -> Option<Money> {
        if let Some(line) = self.lines.iter_mut().find(|line| line.product == product) {
            let before = std::mem::replace(&mut line.seen, now.amount);
            return (before != now.amount).then(|| Money { amount: before, currency: now.currency.clone() });
        }
        let _ = self.set(product, 0, now);
        None
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use axum_extra::extract::cookie::{Cookie, Key, PrivateCookieJar};

    use super::*;

    fn cart(lines: usize) -> CookieCart {
        let line = |_| CookieLine { product: Uuid::now_v7(), quantity: 999, seen: i64::MAX };
        CookieCart { lines: (0..lines).map(line).collect(), known: Vec::new() }
    }

    fn eur(amount: i64) -> Money {
        Money { amount, currency: "EUR".into() }
    }

    #[test]
    fn a_full_cart_fits_a_cookie() {
        let mut full = cart(CART_LINES);
        full.known = vec![u32::MAX; KNOWN];
        assert_eq!(CookieCart::decode(&full.encode()), full);
        // As a browser stores it: name and value in one, of which it takes 4,096 bytes.
        let jar = PrivateCookieJar::new(Key::generate()).add(Cookie::new("__Host-cart", full.encode()));
        let header = jar.into_response().headers()["set-cookie"].to_str().unwrap().to_owned();
        assert!(header.len() < 3500, "{}", header.len());
    }

    #[test]
    fn two_tabs_that_add_at_the_same_moment_lose_nothing() {
        let [rope, lamp] = [Uuid::now_v7(), Uuid::now_v7()];
        let mut before = CookieCart::default();
        assert!(before.set(rope, 1, &eur(5)));
        // Neither tab knows of the other's.
        let [one, two] = [Addition::new(rope, 2, &eur(5)), Addition::new(lamp, 1, &eur(9))];
        let kept = |addition: &Addition| {
            Addition::decode(&format!("{:08x}", addition.id), &addition.encode()).unwrap()
        };
        let both = [kept(&one), kept(&two)];
        assert_eq!(both, [one.clone(), two]);
        let cart = CookieCart::decode(&before.encode()).with(&both);
        assert_eq!((cart.quantity(rope), cart.quantity(lamp)), (3, 1));

        // Written down, each counts once, for as long as its own cookie is there.
        let mut written = cart.clone();
        written.settle(&both);
        let next = CookieCart::decode(&written.encode()).with(&both);
        assert_eq!(next.lines, cart.lines);
        assert!(both.iter().all(|addition| next.knows(addition) && !addition.is_settled()));

        // An answer that was late and knew one of them only: the other one is there yet.
        let mut late = before.with(&both[..1]);
        late.settle(&both[..1]);
        assert_eq!(CookieCart::decode(&late.encode()).with(&both).lines, cart.lines);
    }

    #[test]
    fn what_was_taken_out_does_not_come_back_with_its_addition() {
        let rope = Uuid::now_v7();
        let added = [Addition::new(rope, 2, &eur(5))];
        let mut cart = CookieCart::default().with(&added);
        cart.remove(rope);
        cart.settle(&added);
        assert!(!cart.is_blank(), "the cookie has to say that it knows the addition");
        assert_eq!(CookieCart::decode(&cart.encode()).with(&added).lines, []);
    }

    #[test]
    fn a_full_cart_takes_no_more_and_keeps_what_it_has() {
        let mut full = cart(CART_LINES);
        let before = full.clone();
        assert!(!full.set(Uuid::now_v7(), 1, &eur(5)));
        assert_eq!(full, before);
        full.lines[3].quantity = 0;
        assert!(full.set(Uuid::now_v7(), 1, &eur(5)), "a remembered price makes space");
        assert_eq!(full.lines.len(), CART_LINES);
    }

    #[test]
    fn what_is_no_cart_is_an_empty_one() {
        for bad in ["", "x", "!!", "AAAA", ".", "!.!", &"A".repeat(33)] {
            assert_eq!(CookieCart::decode(bad), CookieCart::default(), "{bad}");
        }
        assert_eq!(CookieCart::decode(&"A".repeat(100_000)).lines.len(), CART_LINES);
        for bad in ["", "x", "AAAA"] {
            assert_eq!(Addition::decode("00000001", bad), None, "{bad}");
            assert_eq!(Addition::decode(bad, &Addition::new(Uuid::now_v7(), 1, &eur(5)).encode()), None);
        }
    }

    #[test]
    fn another_price_than_the_one_shown_is_reported_once() {
        let (mut cart, product) = (CookieCart::default(), Uuid::now_v7());
        assert!(cart.set(product, 2, &eur(100)));
        assert_eq!(cart.price_shown(product, &eur(100)), None);
        assert_eq!(cart.price_shown(product, &eur(120)), Some(eur(100)));
        assert_eq!(cart.price_shown(product, &eur(120)), None);
    }
}

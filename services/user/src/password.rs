//! Passwords: which are acceptable, and hashing them without blocking others.

mod share;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use opentelemetry::metrics::Counter;
use service::Problem;
use service::telemetry::{counter, observed};
use service::validate::Invalid;
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;

use self::share::Shares;

pub(crate) use self::share::Asker;

/// Hashes that may wait for their turn, and for how long. More are refused, since by then their clients have
/// timed out or soon will.
const MOST_WAITING: usize = 64;
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// As many of known clients may wait beside them.
const MOST_KNOWN_WAITING: usize = 32;

/// The most used passwords of eight characters and more, in lower case.
const COMMON: &str = include_str!("password/common.txt");

/// An unknown address is checked against this, so that it takes as long as a wrong password: current
/// parameters, random salt, a hash of nothing known.
const DECOY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$8tWkN3mRZ0yQ5bVxLhJcCg$mJ4nTqv0cY7rXw2ZbK9sUeHfAoD1iGpL6uEyRtVxWzQ";

/// The same text from every keyboard (RFC 8265, section 4.2): one composed form of each letter, and one space.
fn prepared(typed: &str) -> String {
    typed.chars().map(|c| if c.is_whitespace() && !c.is_ascii() { ' ' } else { c }).nfc().collect()
}

/// How a password was found to be the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    Prepared,
    /// The hash is of what was typed, as an earlier release made it.
    AsTyped,
}

/// A password good enough for an account.
pub(crate) struct NewPassword(String);

impl NewPassword {
    /// Records what is wrong at `pointer`: not 8 to 128 characters, or
    /// `password_too_common`.
    pub fn parse(invalid: &mut Invalid, pointer: &str, text: String) -> Option<Self> {
        let text = invalid.text(pointer, prepared(&text), 8, 128)?;
        let lower = text.to_lowercase();
        if COMMON.lines().any(|common| common == lower) {
            let detail = "One of the first passwords that anybody would try.";
            invalid.push(pointer, "password_too_common", detail);
            return None;
        }
        Some(Self(text))
    }

    /// One that an account has already, whatever would be asked of it today.
    pub fn of_old(typed: &str) -> Self {
        Self(prepared(typed))
    }
}

/// Argon2id on blocking threads, a bounded number at a time.
pub(crate) struct Hasher {
    admitted: Arc<Semaphore>,
    admitted_known: Arc<Semaphore>,
    /// Held by unknown clients until the hash begins: so few of them are before a known client.
    strangers: Arc<Semaphore>,
    at_once: Arc<Semaphore>,
    shares: Shares,
    hashes: Counter<u64>,
    refused: Counter<u64>,
}

impl Hasher {
    pub fn new(at_once: Option<NonZeroUsize>) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let at_once = at_once.map_or_else(cores, NonZeroUsize::get);
        let most = at_once.saturating_add(MOST_WAITING).min(Semaphore::MAX_PERMITS);
        let at_once = at_once.min(Semaphore::MAX_PERMITS);
        let hasher = Self {
            admitted: Arc::new(Semaphore::new(most)),
            admitted_known: Arc::new(Semaphore::new(MOST_KNOWN_WAITING)),
            strangers: Arc::new(Semaphore::new(1)),
            shares: Shares::default(),
            at_once: Arc::new(Semaphore::new(at_once)),
            hashes: counter("password.hashes", "{hash}", "Passwords hashed."),
            refused: counter(
                "password.hashes.refused",
                "{hash}",
                "Passwords not hashed, as too many waited.",
            ),
        };
        hasher.hashes.add(0, &[]);
        hasher.refused.add(0, &[]);
        let turns = hasher.at_once.clone();
        let in_work = move || at_once.saturating_sub(turns.available_permits());
        let (admitted, known, working) =
            (hasher.admitted.clone(), hasher.admitted_known.clone(), in_work.clone());
        observed("password.hashing.in_work", "{hash}", "Passwords that are being hashed.", &[], move || {
            Some(in_work())
        });
        // A hash whose client is gone is in work and not admitted.
        observed(
            "password.hashing.waiting",
            "{hash}",
            "Passwords that wait for their turn.",
            &[],
            move || {
                let known = MOST_KNOWN_WAITING.saturating_sub(known.available_permits());
                let all = most.saturating_sub(admitted.available_permits()) + known;
                Some(all.saturating_sub(working()))
            },
        );
        observed("password.hashing.limit", "{hash}", "Most passwords hashed at once.", &[], move || {
            Some(at_once)
        });
        hasher
    }

    /// A PHC string to store. 503 when too much is waiting, or too much of this asker.
    pub async fn hash(&self, password: NewPassword, asker: &Asker) -> Result<String, Problem> {
        let hashed = self.run(asker, move || hash(password.0.as_bytes())).await?;
        hashed.map_err(|error| {
            tracing::error!(%error, "password.hash_failed");
            Problem::internal()
        })
    }

    /// Whether `password` is the one that `stored` was made of. Without `stored` it is not, after the same
    /// time. 503 when too much is waiting, or too much of this asker.
    pub async fn verify(
        &self,
        password: String,
        stored: Option<String>,
        asker: &Asker,
    ) -> Result<Option<Match>, Problem> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| DECOY.to_owned());
        let matched = self.run(asker, move || compare(&password, &stored)).await?;
        let matched = matched.map_err(|error| {
            tracing::error!(%error, "password.stored_hash_unusable");
            Problem::internal()
        })?;
        Ok(matched.filter(|_| known))
    }

    async fn run<T: Send + 'static>(
        &self,
        asker: &Asker,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let busy = || {
            self.refused.add(1, &[]);
            Problem::unavailable("Too many sign-ins at once; try again.")
        };
        let taken = self.shares.take(asker).ok_or_else(busy)?;
        let places = if asker.is_known() { &self.admitted_known } else { &self.admitted };
        let _admitted = places.try_acquire().map_err(|_| busy())?;
        let turn = tokio::time::timeout(LONGEST_WAIT, async {
            let _first = match asker.is_known() {
                true => None,
                false => Some(self.strangers.acquire().await),
            };
            self.at_once.clone().acquire_owned().await
        });
        let turn = turn.await.map_err(|_| busy())?.map_err(|_| busy())?;
        self.hashes.add(1, &[]);
        // The turn ends with the work, not with the client that waited for it.
        let work = tokio::task::spawn_blocking(move || {
            let result = work();
            drop((turn, taken));
            result
        });
        work.await.map_err(|error| {
            tracing::error!(%error, "password.task_failed");
            Problem::internal()
        })
    }
}

/// RFC 9106's second choice scaled down as OWASP advises: 19 MiB, two passes,
/// one lane, which are this crate's defaults and held by a test.
/// <https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>
fn hash(password: &[u8]) -> anyhow::Result<String> {
    let params = Params::DEFAULT;
    let salt = Salt::generate();
    let hash = argon2id(&params, password, &salt, Params::DEFAULT_OUTPUT_LEN)?;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: params.try_into()?,
        salt: Some(salt),
        hash: Some(hash),
    };
    Ok(hash.to_string())
}

/// Twice where preparing changed the text: the hash may be older than that.
fn compare(typed: &str, stored: &str) -> anyhow::Result<Option<Match>> {
    let prepared = prepared(typed);
    if matches(prepared.as_bytes(), stored)? {
        return Ok(Some(Match::Prepared));
    }
    let as_typed = prepared != typed && matches(typed.as_bytes(), stored)?;
    Ok(as_typed.then_some(Match::AsTyped))
}

fn matches(password: &[u8], stored: &str) -> anyhow::Result<bool> {
    let stored = PasswordHash::new(stored)?;
    let supported =
        stored.algorithm == Algorithm::Argon2id.ident() && stored.version == Some(Version::V0x13.into());
    let (Some(salt), Some(hash), true) = (&stored.salt, &stored.hash, supported) else {
        anyhow::bail!("not a hash of ours");
    };
    // `Output` compares in constant time.
    Ok(argon2id(&Params::try_from(&stored)?, password, salt, hash.len())? == *hash)
}

fn argon2id(params: &Params, password: &[u8], salt: &[u8], length: usize) -> anyhow::Result<Output> {
    // glibc hands freed memory back to the system only for allocations above
    // 32 MiB (M_MMAP_THRESHOLD in mallopt(3)); smaller ones it keeps after the
    // first. Asking for more than is touched costs nothing and lets the
    // service shrink again after a sign-in.
    const RETURNED_WHEN_FREED: usize = 33 * 1024 * 1024 / Block::SIZE;
    let blocks = params.block_count();
    let mut memory = Vec::with_capacity(blocks.max(RETURNED_WHEN_FREED));
    memory.resize(blocks, Block::new());

    let mut buffer = [0; Output::MAX_LENGTH];
    let out = &mut buffer[..length];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    argon2.hash_password_into_with_memory(password, salt, out, &mut memory)?;
    Ok(Output::new(out)?)
}

#[cfg(test)]
mod tests {
    use argon2::PasswordVerifier;

    use super::*;

    #[test]
    fn hashes_are_standard_argon2id_with_19_mib_two_passes_one_lane() {
        let stored = hash("pässword-1".as_bytes()).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        let parsed = PasswordHash::new(&stored).unwrap();
        let reference = Argon2::default();
        assert!(reference.verify_password("pässword-1".as_bytes(), &parsed).is_ok());
        assert!(matches("pässword-1".as_bytes(), &stored).unwrap());
        assert!(!matches(b"passwort-1", &stored).unwrap());
    }

    #[test]
    fn a_password_hashed_twice_gives_two_hashes() {
        assert_ne!(hash(b"password-1").unwrap(), hash(b"password-1").unwrap());
    }

    #[test]
    fn the_decoy_costs_what_a_real_hash_costs() {
        let decoy = PasswordHash::new(DECOY).unwrap();
        let real = PasswordHash::new(&hash(b"password-1").unwrap()).unwrap();
        assert_eq!(decoy.params, real.params);
        assert_eq!(decoy.salt.unwrap().len(), real.salt.unwrap().len());
        assert!(!matches(b"", DECOY).unwrap());
    }

    #[tokio::test]
    async fn an_unknown_account_matches_nothing() {
        let hasher = Hasher::new(None);
        assert_eq!(hasher.verify("anything".into(), None, &Asker::default()).await.unwrap(), None);
    }

    #[test]
    fn a_password_is_the_same_from_every_keyboard() {
        let (composed, decomposed) = ("Gr\u{fc}ne \u{d6}ltonne 7", "Gru\u{308}ne\u{a0}O\u{308}ltonne 7");
        let mut invalid = Invalid::new();
        for typed in [composed, decomposed] {
            let new = NewPassword::parse(&mut invalid, "/password", typed.to_owned()).unwrap();
            let stored = hash(new.0.as_bytes()).unwrap();
            assert_eq!(compare(composed, &stored).unwrap(), Some(Match::Prepared));
            assert_eq!(compare(decomposed, &stored).unwrap(), Some(Match::Prepared));
            assert_eq!(compare("Grune Oltonne 7", &stored).unwrap(), None);
        }
        let old = hash(decomposed.as_bytes()).unwrap();
        assert_eq!(compare(decomposed, &old).unwrap(), Some(Match::AsTyped));
        assert_eq!(compare(composed, &old).unwrap(), None);
        // Width and case stay: RFC 8265 maps neither.
        assert_eq!(prepared("\u{ff21}bc"), "\u{ff21}bc");
    }

    #[tokio::test]
    async fn what_would_wait_too_long_is_refused_at_once() {
        let hasher = Hasher::new(NonZeroUsize::new(1));
        let _all = hasher.admitted.try_acquire_many(1 + MOST_WAITING as u32).unwrap();
        let problem = hasher.verify("anything".into(), None, &Asker::default()).await.unwrap_err();
        assert_eq!(problem.code, "service_unavailable");
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_two_seconds() {
        let hasher = Hasher::new(NonZeroUsize::new(1));
        let _turn = hasher.at_once.clone().acquire_owned().await.unwrap();
        let started = tokio::time::Instant::now();
        let problem = hasher.verify("anything".into(), None, &Asker::default()).await.unwrap_err();
        assert_eq!(problem.code, "service_unavailable");
        assert!(started.elapsed() >= LONGEST_WAIT);
    }

    #[tokio::test]
    async fn known_clients_do_not_wait_for_unknown_ones() {
        let hasher = Arc::new(Hasher::new(NonZeroUsize::new(1)));
        let turn = hasher.at_once.clone().acquire_owned().await.unwrap();
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        let ask = |asker: Asker, name: &'static str| {
            let (hasher, sender) = (hasher.clone(), sender.clone());
            tokio::spawn(async move {
                hasher.run(&asker, move || sender.send(name)).await.unwrap().unwrap();
            })
        };
        for _ in 0..5 {
            ask(Asker::default(), "stranger");
        }
        // One of them is next already, the others wait for their turn to be next.
        while hasher.strangers.available_permits() > 0 || hasher.admitted.available_permits() > 60 {
            tokio::task::yield_now().await;
        }
        ask(Asker::known(uuid::Uuid::now_v7(), None), "known");
        while hasher.admitted_known.available_permits() == MOST_KNOWN_WAITING {
            tokio::task::yield_now().await;
        }
        drop(turn);
        let first = [order.recv().await, order.recv().await];
        assert_eq!(first, [Some("stranger"), Some("known")]);
    }

    #[test]
    fn the_common_passwords_could_all_be_chosen_otherwise() {
        assert!(COMMON.lines().count() >= 300);
        for common in COMMON.lines() {
            assert!((8..=128).contains(&common.chars().count()), "{common}");
            assert_eq!(common, common.to_lowercase());
        }
    }
}

//! Shares of the hashing. No account and no client address takes all of it, and known clients do not wait for
//! unknown ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

/// Hashes for one account, and for one client address, that may be in work or wait at the same time.
const MOST_OF_ACCOUNT: usize = 8;
const MOST_OF_NETWORK: usize = 32;

/// For known clients, who have places of their own: everybody can open accounts.
const MOST_OF_KNOWN_ACCOUNT: usize = 4;
const MOST_OF_KNOWN_NETWORK: usize = 16;

/// Whom a password is hashed for.
#[derive(Default)]
pub(crate) struct Asker {
    /// What counts together, each with how many there may be.
    shares: Vec<(String, usize)>,
    known: bool,
}

impl Asker {
    /// Somebody who names this account or address, from this network.
    pub fn of(account: String, network: Option<String>) -> Self {
        let mut shares = vec![(account, MOST_OF_ACCOUNT)];
        shares.extend(network.map(|network| (network, MOST_OF_NETWORK)));
        Self { shares, known: false }
    }

    /// A client with a session or a device of this account.
    pub fn known(account: Uuid, network: Option<String>) -> Self {
        let mut shares = vec![(format!("known {account}"), MOST_OF_KNOWN_ACCOUNT)];
        shares.extend(network.map(|network| (format!("known {network}"), MOST_OF_KNOWN_NETWORK)));
        Self { shares, known: true }
    }

    pub fn is_known(&self) -> bool {
        self.known
    }
}

/// What is in work or waits, by share. No more than the hasher has places for.
#[derive(Clone, Default)]
pub(super) struct Shares(Arc<Mutex<HashMap<String, usize>>>);

/// Counts until it is dropped.
pub(super) struct Taken {
    shares: Shares,
    names: Vec<String>,
}

impl Shares {
    /// `None` when one of the asker's shares is used up.
    pub fn take(&self, asker: &Asker) -> Option<Taken> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_place = |(name, most): &(String, usize)| counts.get(name).is_none_or(|count| count < most);
        if !asker.shares.iter().all(has_place) {
            return None;
        }
        let names: Vec<String> = asker.shares.iter().map(|(name, _)| name.clone()).collect();
        for name in &names {
            *counts.entry(name.clone()).or_default() += 1;
        }
        Some(Taken { shares: self.clone(), names })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut counts = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &self.names {
            if let Some(count) = counts.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_the_own_share_and_places_are_freed_at_the_end() {
        let shares = Shares::default();
        let here = || Some("192.0.2.7".to_owned());
        let of = |n: usize| Asker::of(format!("{n}@example.com"), here());
        let mut taken: Vec<_> = (0..MOST_OF_ACCOUNT).map(|_| shares.take(&of(0)).unwrap()).collect();
        assert!(shares.take(&of(0)).is_none());
        // For another account there are places, until the network has its share.
        taken.extend((MOST_OF_ACCOUNT..MOST_OF_NETWORK).map(|n| shares.take(&of(n)).unwrap()));
        assert!(shares.take(&of(99)).is_none());
        let elsewhere = Asker::of("99@example.com".to_owned(), Some("192.0.2.8".to_owned()));
        assert!(shares.take(&elsewhere).is_some());
        // Known clients have another share, of account and network too.
        let ada = Uuid::now_v7();
        for _ in 0..MOST_OF_KNOWN_ACCOUNT {
            taken.push(shares.take(&Asker::known(ada, here())).unwrap());
        }
        assert!(shares.take(&Asker::known(ada, here())).is_none());
        for _ in MOST_OF_KNOWN_ACCOUNT..MOST_OF_KNOWN_NETWORK {
            taken.push(shares.take(&Asker::known(Uuid::now_v7(), here())).unwrap());
        }
        assert!(shares.take(&Asker::known(Uuid::now_v7(), here())).is_none());
        assert!(shares.take(&Asker::known(Uuid::now_v7(), None)).is_some());
        drop(taken);
        assert!(shares.0.lock().unwrap().is_empty());
    }
}

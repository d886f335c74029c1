//! Commits that wait. While a synchronous standby is away, PostgreSQL answers every question, and no COMMIT.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So long without an answer to one COMMIT, and to any other, and the server takes no writes.
const PATIENCE: Duration = Duration::from_secs(2);

/// The commits under way on a server.
#[derive(Debug, Default)]
pub(super) struct Commits(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// When each began, and a number to tell two apart.
    pending: BTreeSet<(Instant, u64)>,
    begun: u64,
    last_ended: Option<Instant>,
}

/// A commit under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Pending {
    commits: Arc<Commits>,
    key: (Instant, u64),
}

impl Commits {
    pub fn begin(self: &Arc<Self>) -> Pending {
        let mut seen = self.seen();
        seen.begun += 1;
        let key = (Instant::now(), seen.begun);
        seen.pending.insert(key);
        Pending { commits: self.clone(), key }
    }

    /// Whether commits wait, and none comes through.
    pub fn are_stuck(&self) -> bool {
        let seen = self.seen();
        let recent = |at: Instant| at.elapsed() < PATIENCE;
        seen.pending.first().is_some_and(|(begun, _)| !recent(*begun)) && !seen.last_ended.is_some_and(recent)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut seen = self.commits.seen();
        seen.pending.remove(&self.key);
        seen.last_ended = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_commit_that_waits_is_seen_until_it_or_another_one_is_answered() {
        let commits = Arc::new(Commits::default());
        let waits = commits.begin();
        assert!(!commits.are_stuck());
        tokio::time::sleep(PATIENCE).await;
        assert!(commits.are_stuck());
        drop(commits.begin());
        assert!(!commits.are_stuck());
        drop(waits);
        assert!(!commits.are_stuck());
    }
}

//! Splits a failed batch into smaller parts.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use crate::db::{Kind, kind, outcome_unknown};

/// After this time from the failure of the whole batch no part is begun: later items wait, too, and a caller
/// of another service waits three seconds.
pub const BUDGET: Duration = Duration::from_secs(2);

/// Does `work` on all of a batch in one transaction or, where that fails, on ever smaller parts, so that a
/// bad item fails alone. `work` gets the places of its items, and there is an answer for each of the `items`,
/// in order. When the database goes away, or the time is up, the rest fails with an error that is transient.
/// Items whose COMMIT was not answered get an error that says so: they may be done.
pub async fn split<T, F>(items: usize, work: impl Fn(Range<usize>) -> F) -> Vec<sqlx::Result<T>>
where
    F: Future<Output = sqlx::Result<Vec<T>>>,
{
    split_within(BUDGET, items, work).await
}

async fn split_within<T, F>(
    budget: Duration,
    items: usize,
    work: impl Fn(Range<usize>) -> F,
) -> Vec<sqlx::Result<T>>
where
    F: Future<Output = sqlx::Result<Vec<T>>>,
{
    let mut answers = Vec::with_capacity(items);
    let mut parts = vec![(0, items)]; // the next one last
    let mut until = None;
    while let Some((start, end)) = parts.pop() {
        match work(start..end).await {
            Ok(done) => answers.extend(done.into_iter().map(Ok)),
            Err(error) if crate::db::is_transient(&error) => {
                tracing::warn!(%error, items = items - start, "batch.unavailable");
                if kind(&error) == Kind::OutcomeUnknown {
                    answers.resize_with(end, || Err(outcome_unknown()));
                }
                break;
            }
            Err(error) if end - start == 1 => answers.push(Err(error)),
            Err(error) => {
                if end - start == items {
                    tracing::warn!(%error, items, "batch.split");
                }
                until.get_or_insert_with(|| Instant::now() + budget);
                let middle = start.midpoint(end);
                parts.extend([(middle, end), (start, middle)]);
            }
        }
        if until.is_some_and(|until| Instant::now() >= until) && !parts.is_empty() {
            tracing::warn!(items = items - answers.len(), "batch.out_of_time");
            break;
        }
    }
    answers.resize_with(items, || Err(crate::db::abandoned()));
    answers
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::db::Defect;

    /// Which of 1..=16 are done, where those of `bad` fail whatever they are together with; and how many parts it took.
    async fn tried(bad: &[usize], away_after: usize) -> (Vec<usize>, usize) {
        let parts = Cell::new(0);
        let answers = split(16, |part| {
            let items: Vec<usize> = part.map(|place| place + 1).collect();
            parts.set(parts.get() + 1);
            let away = parts.get() > away_after;
            async move {
                match () {
                    () if away => Err(crate::db::abandoned()),
                    () if items.iter().any(|item| bad.contains(item)) => Err(Defect("a bad item").into()),
                    () => Ok(items),
                }
            }
        });
        let answers = answers.await;
        assert_eq!(answers.len(), 16);
        let done = answers.into_iter().enumerate().filter_map(|(place, answer)| {
            let item = answer.ok()?;
            assert_eq!(item, place + 1);
            Some(item)
        });
        (done.collect(), parts.get())
    }

    #[tokio::test]
    async fn a_bad_item_fails_alone_and_soon() {
        let others: Vec<usize> = (1..=16).filter(|item| *item != 11).collect();
        assert_eq!(tried(&[11], usize::MAX).await, (others, 9));
    }

    #[tokio::test]
    async fn nothing_more_is_tried_once_the_database_is_away() {
        // All, the first half, the second; and of that the first: away.
        assert_eq!(tried(&[11], 3).await, ((1..=8).collect(), 4));
    }

    #[tokio::test]
    async fn an_item_whose_commit_was_not_answered_may_be_done() {
        let parts = Cell::new(0);
        let answers = split(4, |part| {
            parts.set(parts.get() + 1);
            let nth = parts.get();
            async move {
                match nth {
                    1 => Err(Defect("a bad item").into()),
                    2 => Err::<Vec<()>, _>(outcome_unknown()),
                    _ => Ok(vec![(); part.len()]),
                }
            }
        });
        let kinds: Vec<Kind> =
            answers.await.iter().map(|answer| kind(answer.as_ref().unwrap_err())).collect();
        assert_eq!(kinds, [Kind::OutcomeUnknown, Kind::OutcomeUnknown, Kind::Later, Kind::Later]);
    }

    #[tokio::test]
    async fn what_the_whole_takes_is_not_taken_from_its_parts() {
        let answers = split(16, |part| async move {
            if part.len() == 16 {
                tokio::time::sleep(BUDGET + Duration::from_millis(100)).await;
            }
            if part.contains(&11) { Err(Defect("a bad item").into()) } else { Ok(vec![(); part.len()]) }
        });
        assert_eq!(answers.await.iter().filter(|answer| answer.is_ok()).count(), 15);
    }

    #[tokio::test]
    async fn nothing_more_is_tried_once_the_time_is_up() {
        let calls = Cell::new(0);
        let answers = split_within(Duration::ZERO, 128, |_| {
            calls.set(calls.get() + 1);
            async { Err::<Vec<()>, _>(Defect("a bad item").into()) }
        });
        let answers = answers.await;
        assert_eq!((answers.len(), calls.get()), (128, 1));
        assert!(answers.iter().all(|answer| answer.as_ref().is_err_and(crate::db::is_transient)));
    }
}

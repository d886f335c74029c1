use service::config::Backends;
use sqlx::Executor;

use super::*;

const OLD: &str = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1";
const NEW: &str = "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2";

fn seals(setting: &str) -> Seals {
    Seals::parse(Some(setting)).unwrap()
}

async fn pool() -> Pool {
    let url = testing::database("users").await;
    let backends = Backends::new(url, 2, "amqp://127.0.0.1:1/%2f".to_owned());
    service::db::open(&backends, "users", &crate::MIGRATIONS).await.unwrap()
}

/// The one key, as it is stored.
async fn stored(pool: &Pool) -> Vec<u8> {
    let mut connection = pool.acquire().await.unwrap();
    let rows = store::all(&mut connection).await.unwrap();
    assert_eq!(rows.len(), 1);
    rows.into_iter().next().unwrap().private_key
}

#[tokio::test]
async fn a_key_from_before_is_read_and_sealed_once_no_replica_of_before_is_left() {
    let pool = pool().await;
    let plain = load(&pool, &Seals::parse(None).unwrap(), Stored::Renewed).await.unwrap();
    let der = stored(&pool).await;
    assert_eq!(der.first(), Some(&0x30));

    let seals = seals(OLD);
    let read = load(&pool, &seals, Stored::AsTheyAre).await.unwrap();
    assert_eq!((&read.kid, &read.published), (&plain.kid, &plain.published));
    assert_eq!(stored(&pool).await, der, "a replica of the version before may still start");

    let renewed = load(&pool, &seals, Stored::Renewed).await.unwrap();
    assert_eq!((&renewed.kid, &renewed.published), (&plain.kid, &plain.published));
    let sealed = stored(&pool).await;
    assert!(seals.is_current(&sealed));
    load(&pool, &seals, Stored::Renewed).await.unwrap();
    assert_eq!(stored(&pool).await, sealed, "what is sealed is not written again");
}

#[tokio::test]
async fn a_key_that_falls_due_beside_replicas_of_before_is_one_that_they_can_read() {
    let pool = pool().await;
    load(&pool, &Seals::parse(None).unwrap(), Stored::Renewed).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    let month = "UPDATE users.signing_keys SET created_at = created_at - interval '31 days'";
    connection.execute(month).await.unwrap();
    let both = load(&pool, &seals(OLD), Stored::AsTheyAre).await.unwrap();
    assert_eq!(both.published.keys.len(), 2);
    let before = load(&pool, &Seals::parse(None).unwrap(), Stored::AsTheyAre).await.unwrap();
    assert_eq!(before.published, both.published);
    load(&pool, &seals(OLD), Stored::Renewed).await.unwrap();
    let rows = store::all(&mut connection).await.unwrap();
    assert!(rows.iter().all(|row| seals(OLD).is_current(&row.private_key)));
}

#[tokio::test]
async fn a_new_key_is_sealed_at_once_and_read_by_nobody_without_the_key() {
    let pool = pool().await;
    load(&pool, &seals(OLD), Stored::AsTheyAre).await.unwrap();
    let sealed = stored(&pool).await;
    assert!(seals(OLD).is_current(&sealed));
    for other in [Seals::parse(None).unwrap(), seals(NEW)] {
        let refused = load(&pool, &other, Stored::Renewed).await.err().map(|error| format!("{error:#}"));
        assert!(refused.unwrap_or_default().contains("SIGNING_KEY_ENCRYPTION_KEY"));
    }
    assert_eq!(stored(&pool).await, sealed);
}

#[tokio::test]
async fn the_key_of_the_seal_is_changed_while_replicas_of_each_step_run_beside_each_other() {
    let pool = pool().await;
    let (both, turned) = (seals(&format!("{OLD} {NEW}")), seals(&format!("{NEW} {OLD}")));
    let first = load(&pool, &seals(OLD), Stored::Renewed).await.unwrap();
    // Each step beside the one before, which is still there and writes, too.
    for step in [[&seals(OLD), &both], [&both, &turned], [&turned, &seals(NEW)]] {
        for seals in [step[0], step[1], step[0], step[1]] {
            let read = load(&pool, seals, Stored::Renewed).await.unwrap();
            assert_eq!((&read.kid, &read.published), (&first.kid, &first.published));
        }
    }
    assert!(seals(NEW).is_current(&stored(&pool).await));
    assert!(load(&pool, &seals(OLD), Stored::AsTheyAre).await.is_err());
}

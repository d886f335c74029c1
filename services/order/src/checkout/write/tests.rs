//! What a batch makes of two jobs of one record.

use clap::Parser;
use order_core::ids::UserId;
use service::Money;
use service::money::Currency;
use sqlx::{Executor, Row};

use uuid::Uuid;

use super::super::OPERATION;
use super::super::work::now;
use super::*;
use crate::idempotency::Key;
use crate::order::{Item, Items, Line, OrderNumber};
use crate::{Config, Times};

struct Scene {
    pool: Pool,
    outbox: Outbox,
    user: UserId,
    first: Record,
    /// The same record, of whoever took it over.
    second: Record,
}

impl Scene {
    /// A cart of two things: claimed, and then taken over from a request that still runs.
    async fn open() -> Self {
        let database = format!("--database-url={}", testing::database("orders").await);
        let config = Config::parse_from([
            "order",
            &database,
            "--amqp-url=amqp://x",
            "--service-key=x",
            "--payment-secret-key=x",
            "--payment-webhook-secret=x",
        ]);
        let migrators = [&messaging::MIGRATIONS, &crate::app::MIGRATIONS];
        let pool = service::db::open(&config.backends, "orders", &migrators).await.unwrap();

        let key = Key::new(Uuid::now_v7().into(), OPERATION, "k".to_owned(), &"body").unwrap();
        let line = Line { product_id: Uuid::now_v7().into(), quantity: 2u32.try_into().unwrap() };
        let mut connection = pool.acquire().await.unwrap();
        let price = service::Money::new(100, service::money::Currency::EUR);
        cart::store::put(&mut connection, key.user_id, line, price).await.unwrap();
        let lease = std::time::Duration::ZERO;
        let first = idempotency::make(&mut connection, &key, vec![line], None, lease).await.unwrap();
        let second = idempotency::store::take_over(&mut connection, &key, Times::default().claim_lease).await;
        let second = second.unwrap().unwrap();
        drop(connection);
        assert_eq!((first.id, first.owner == second.owner), (second.id, false));
        Self { outbox: Outbox::new(pool.clone()), pool, user: key.user_id, first, second }
    }

    fn job(&self, record: &Record, body: &str) -> Job {
        let item = Item {
            product_id: record.lines[0].product_id,
            sku: "S".to_owned(),
            name: "Thing".to_owned(),
            unit_price: Money::new(100, Currency::EUR),
            quantity: record.lines[0].quantity,
        };
        let address = serde_json::json!({
            "name": "Ada", "line1": "1 Quay", "city": "Hull", "postal_code": "HU1 1AA", "country": "GB"
        });
        Job {
            record: record.clone(),
            answer: StoredAnswer { id: record.id, status: 201, body: body.to_owned() },
            placement: Placement {
                id: record.id.into(),
                number: OrderNumber::new(rand::random()),
                user_id: self.user,
                items: Items::new(vec![item]).unwrap(),
                shipping_address: serde_json::from_value(address).unwrap(),
                payment_method: "pm_card_visa".to_owned(),
                deadline_seconds: 60.0,
                action_seconds: 60.0,
                placed_at: now(),
                traceparent: None,
                lease: None,
            },
            cart: true,
            slot: Mutex::default(),
        }
    }

    async fn placed(&self, jobs: &[Job]) -> Vec<Placed> {
        place(&self.pool, &self.outbox, jobs, |_| ()).await.into_iter().map(Result::unwrap).collect()
    }

    /// The answer that the key has, and whether its reservation may be released.
    async fn claim(&self) -> (Option<String>, bool) {
        let record = self.pool.fetch_one("SELECT answer_body, sweeping FROM orders.claims").await.unwrap();
        (record.get(0), record.get(1))
    }

    async fn orders(&self) -> i64 {
        self.pool.fetch_one("SELECT count(*) FROM orders.orders").await.unwrap().get(0)
    }
}

#[tokio::test]
async fn of_two_jobs_of_one_claim_in_one_batch_its_owner_s_is_done() {
    let scene = Scene::open().await;
    // The late job comes first, and would empty the cart before the other.
    let jobs = [scene.job(&scene.first, "first"), scene.job(&scene.second, "second")];
    assert_eq!(scene.placed(&jobs).await, [Placed::RecordLost, Placed::Yes]);
    assert_eq!((scene.claim().await, scene.orders().await), ((Some("second".to_owned()), false), 1));
}

#[tokio::test]
async fn an_order_whose_number_is_taken_is_not_placed_and_says_so() {
    let scene = Scene::open().await;
    let mut job = scene.job(&scene.second, "first");
    job.placement.number = OrderNumber::new(0);
    let taken = "INSERT INTO orders.directory VALUES (gen_random_uuid(), '2222222222', 'EUR', 1, '')";
    scene.pool.execute(taken).await.unwrap();
    let placed = place(&scene.pool, &scene.outbox, &[job], |_| ()).await;
    assert!(matches!(&placed[..], [Err(error)] if order::store::is_number_taken(error)), "{placed:?}");
    assert_eq!((scene.claim().await, scene.orders().await), ((None, false), 0));
    assert_eq!(scene.placed(&[scene.job(&scene.second, "second")]).await, [Placed::Yes]);
}

#[tokio::test]
async fn a_job_that_came_twice_is_done_once() {
    let scene = Scene::open().await;
    let jobs = [scene.job(&scene.second, "once"), scene.job(&scene.second, "twice")];
    assert_eq!(scene.placed(&jobs).await, [Placed::Yes, Placed::RecordLost]);
    assert_eq!((scene.claim().await, scene.orders().await), ((Some("once".to_owned()), false), 1));
}

#[tokio::test]
async fn who_lost_the_claim_releases_nothing() {
    let scene = Scene::open().await;
    let mut connection = scene.pool.acquire().await.unwrap();
    let marked = idempotency::store::sweep_next(&mut connection, &[scene.first.fence()]).await.unwrap();
    assert_eq!((marked, scene.claim().await.1), (vec![], false));
    let jobs = [scene.job(&scene.second, "second")];
    assert_eq!(scene.placed(&jobs).await, [Placed::Yes]);
    // Its present holder can't either, once its order is placed.
    let marked = idempotency::store::sweep_next(&mut connection, &[scene.second.fence()]).await.unwrap();
    assert_eq!((marked, scene.claim().await.1), (vec![], false));
}

#[tokio::test]
async fn no_order_is_placed_on_a_reservation_that_is_about_to_be_released() {
    let scene = Scene::open().await;
    let mut connection = scene.pool.acquire().await.unwrap();
    let marked = idempotency::store::sweep_next(&mut connection, &[scene.second.fence()]).await.unwrap();
    assert_eq!(marked, [scene.second.fence()]);
    assert_eq!(scene.placed(&[scene.job(&scene.second, "late")]).await, [Placed::RecordLost]);
    assert_eq!((scene.claim().await, scene.orders().await), ((None, true), 0));
}

#[tokio::test]
async fn the_stock_of_an_erased_user_is_marked_before_it_is_released() {
    let scene = Scene::open().await;
    let erased = "INSERT INTO orders.deleted_users (user_id) SELECT user_id FROM orders.claims";
    scene.pool.execute(erased).await.unwrap();
    assert_eq!(scene.placed(&[scene.job(&scene.second, "late")]).await, [Placed::UserGone]);
    assert_eq!((scene.claim().await, scene.orders().await), ((None, true), 0));
}

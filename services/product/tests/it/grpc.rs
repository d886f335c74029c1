//! What the other services ask, over gRPC.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{Shop, id, is_reserved, reservation, shop, shop_with, untimed};
use proto::product::v1::reserve_result::Outcome;
use proto::product::v1::{self as wire, CommitResult, ReleaseResult};
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;
use uuid::Uuid;

#[tokio::test]
async fn a_reserve_asked_again_gets_the_same_answer_and_takes_nothing_more() {
    let shop = shop().await;
    let (lamp, rope) = (shop.stocked(5).await, shop.stocked(9).await);
    let order = Uuid::now_v7();
    let first = untimed(shop.reserve(order, &[(&rope, 2), (&lamp, 1)]).await);
    let Outcome::Reserved(reserved) = &first else { panic!("{first:?}") };
    let lines = reserved.lines.iter().map(|line| (line.product_id.as_str(), line.quantity));
    assert_eq!(lines.collect::<Vec<_>>(), [(rope.as_str(), 2), (lamp.as_str(), 1)]);
    assert_eq!(reserved.lines[0].unit_price.as_ref().unwrap().amount, 1999);
    let patch = json!({"price": {"amount": 1}, "name": "Dearer"});
    let patched =
        shop.staff(Method::PATCH, &format!("/products/{rope}")).header("if-match", "*").json(&patch);
    assert_eq!(patched.send().await.unwrap().status(), 200);

    assert_eq!(untimed(shop.reserve(order, &[(&rope, 2), (&lamp, 1)]).await), first);
    assert_eq!((shop.stock(&lamp).await, shop.stock(&rope).await), ((5, 1), (9, 2)));
    assert_eq!(shop.commit(order).await, CommitResult::Committed);
    assert_eq!(untimed(shop.reserve(order, &[(&rope, 2), (&lamp, 1)]).await), first);
    assert_eq!((shop.stock(&lamp).await, shop.stock(&rope).await), ((4, 0), (7, 0)));
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_known_order_with_other_lines_is_a_conflict() {
    let shop = shop().await;
    let (lamp, rope) = (shop.stocked(5).await, shop.stocked(5).await);
    let order = Uuid::now_v7();
    assert!(is_reserved(&shop.reserve(order, &[(&lamp, 2)]).await));
    for other in [&[(lamp.as_str(), 1)][..], &[(&rope, 2)], &[(&lamp, 2), (&rope, 1)]] {
        assert!(matches!(shop.reserve(order, other).await, Outcome::Conflict(_)), "{other:?}");
    }
    assert!(is_reserved(&shop.reserve(order, &[(&lamp, 1), (&lamp, 1)]).await));
    assert_eq!((shop.stock(&lamp).await, shop.stock(&rope).await), ((5, 2), (5, 0)));
}

#[tokio::test]
async fn an_ended_reservation_never_revives() {
    let shop = shop().await;
    let lamp = shop.stocked(5).await;
    let order = Uuid::now_v7();
    assert!(is_reserved(&shop.reserve(order, &[(&lamp, 2)]).await));
    assert_eq!(shop.release(order).await, ReleaseResult::Released);
    assert_eq!(shop.release(order).await, ReleaseResult::Released);
    assert!(matches!(shop.reserve(order, &[(&lamp, 2)]).await, Outcome::Ended(_)));
    assert_eq!(shop.commit(order).await, CommitResult::Gone);
    assert_eq!(shop.stock(&lamp).await, (5, 0));
}

#[tokio::test]
async fn a_release_that_arrives_before_its_reserve_wins() {
    let shop = shop().await;
    let lamp = shop.stocked(5).await;
    let order = Uuid::now_v7();
    assert_eq!(shop.release(order).await, ReleaseResult::Released);
    assert!(matches!(shop.reserve(order, &[(&lamp, 2)]).await, Outcome::Ended(_)));
    assert_eq!(shop.stock(&lamp).await, (5, 0));
}

#[tokio::test]
async fn a_short_line_is_named_and_nothing_is_reserved() {
    let shop = shop().await;
    let (lamp, rope, net) = (shop.stocked(5).await, shop.stocked(1).await, shop.stocked(0).await);
    let order = Uuid::now_v7();
    let outcome = shop.reserve(order, &[(&lamp, 1), (&rope, 1), (&net, 1), (&rope, 1)]).await;
    let Outcome::OutOfStock(short) = outcome else { panic!("{outcome:?}") };
    let named = short.lines.iter().map(|line| (line.product_id.as_str(), line.requested, line.available));
    assert_eq!(named.collect::<Vec<_>>(), [(rope.as_str(), 2, 1), (net.as_str(), 1, 0)]);
    assert_eq!((shop.stock(&lamp).await, shop.stock(&rope).await), ((5, 0), (1, 0)));
    assert!(is_reserved(&shop.reserve(order, &[(&lamp, 1), (&rope, 1)]).await), "the order may ask again");
}

#[tokio::test]
async fn a_bad_item_fails_alone() {
    let shop = shop().await;
    let lamp = shop.stocked(3).await;
    let archived = shop.stocked(3).await;
    let gone = shop.staff(Method::DELETE, &format!("/products/{archived}")).header("if-match", "*");
    assert_eq!(gone.send().await.unwrap().status(), 204);
    let stranger = Uuid::now_v7().to_string();
    let [a, b, c, d] = std::array::from_fn(|_| Uuid::now_v7());
    let asked = vec![
        reservation(a, &[(&lamp, 2)]),
        reservation(b, &[(&lamp, 1), (&stranger, 1), (&archived, 1)]),
        reservation(c, &[(&lamp, 2)]),
        reservation(a, &[(&lamp, 2)]),
        reservation(a, &[(&lamp, 1)]),
        reservation(d, &[(&lamp, 1)]),
    ];
    let outcomes = shop.reserve_all(asked).await.unwrap();
    assert!(is_reserved(&outcomes[0]));
    let unknown = vec![stranger, archived];
    assert_eq!(outcomes[1], Outcome::UnknownProducts(wire::UnknownProducts { product_ids: unknown }));
    assert!(matches!(&outcomes[2], Outcome::OutOfStock(short) if short.lines[0].available == 1));
    assert_eq!(outcomes[3], outcomes[0]);
    assert!(matches!(outcomes[4], Outcome::Conflict(_)));
    assert!(is_reserved(&outcomes[5]));
    assert_eq!(shop.stock(&lamp).await, (3, 3));
    assert_eq!(shop.release(a).await, ReleaseResult::Released);
    assert!(is_reserved(&shop.reserve(c, &[(&lamp, 2)]).await), "what was short left no trace");
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_sale_stays_sold() {
    let shop = shop().await;
    let lamp = shop.stocked(5).await;
    let order = Uuid::now_v7();
    assert_eq!(shop.commit(order).await, CommitResult::Gone);
    assert!(is_reserved(&shop.reserve(order, &[(&lamp, 2)]).await));
    assert_eq!(shop.commit(order).await, CommitResult::Committed);
    shop.run_out(order).await;
    assert_eq!(shop.commit(order).await, CommitResult::Committed, "also when replayed after expiry");
    assert_eq!(shop.release(order).await, ReleaseResult::Committed);
    assert_eq!(shop.stock(&lamp).await, (3, 0));
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_reservation_that_ran_out_is_refused_and_gives_its_stock_back() {
    let shop = shop().await;
    let lamp = shop.stocked(5).await;
    let (swept, prompt) = (Uuid::now_v7(), Uuid::now_v7());
    for order in [swept, prompt] {
        assert!(is_reserved(&shop.reserve(order, &[(&lamp, 2)]).await));
        shop.run_out(order).await;
        assert_eq!(shop.commit(order).await, CommitResult::Gone, "whether or not it was swept");
        assert!(matches!(shop.reserve(order, &[(&lamp, 2)]).await, Outcome::Ended(_)));
    }
    assert_eq!(shop.release(prompt).await, ReleaseResult::Released);
    testing::eventually("the sweeper comes by", async || (shop.stock(&lamp).await == (5, 0)).then_some(()))
        .await;
    assert_eq!(shop.commit(swept).await, CommitResult::Gone);
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn reservations_run_out_by_themselves() {
    let shop = shop_with(&["--reservation-life-seconds=1"]).await;
    let lamp = shop.stocked(5).await;
    assert!(is_reserved(&shop.reserve(Uuid::now_v7(), &[(&lamp, 2)]).await));
    testing::eventually("it runs out", async || (shop.stock(&lamp).await == (5, 0)).then_some(())).await;
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_reservation_that_breaks_its_batch_breaks_alone() {
    let shop = shop().await;
    let lamp = shop.stocked(5).await;
    let [a, bad, b] = std::array::from_fn(|_| Uuid::now_v7());
    let trigger = format!(
        "CREATE FUNCTION products.refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON products.reservations FOR EACH ROW
             WHEN (NEW.order_id = '{bad}') EXECUTE FUNCTION products.refuse();"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(trigger)).execute(&shop.pool).await.unwrap();
    let asked = [a, bad, b].map(|order| reservation(order, &[(&lamp, 1)]));
    let failed = shop.reserve_all(asked.into()).await.unwrap_err();
    assert_eq!(details(&failed), (Code::Internal, "internal_error".to_owned(), None));
    assert_eq!(failed.message(), "internal error");
    assert_eq!(shop.stock(&lamp).await, (5, 2), "the others went through");
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_database_that_is_busy_shows_as_unavailable_and_the_call_may_be_repeated() {
    let shop = shop().await;
    let lamp = shop.stocked(5).await;
    let mut busy = testing::begin(&shop.pool).await;
    sqlx::query("SELECT FROM products.stock FOR UPDATE").execute(&mut *busy).await.unwrap();
    let order = Uuid::now_v7();
    let asked = || vec![reservation(order, &[(&lamp, 1)])];
    // The pool's lock_timeout ends the wait.
    let refused = shop.reserve_all(asked()).await.unwrap_err();
    assert_eq!(details(&refused), (Code::Unavailable, "service_unavailable".to_owned(), None));
    busy.rollback().await.unwrap();
    assert!(is_reserved(&shop.reserve_all(asked()).await.unwrap()[0]));
    assert_eq!(shop.stock(&lamp).await, (5, 1));
}

#[tokio::test]
async fn a_caller_whose_time_is_up_does_not_cut_the_work_short() {
    let shop = shop().await;
    let lamp = shop.stocked(5).await;
    let mut busy = testing::begin(&shop.pool).await;
    sqlx::query("SELECT FROM products.stock FOR UPDATE").execute(&mut *busy).await.unwrap();
    let reservations = vec![reservation(Uuid::now_v7(), &[(&lamp, 1)])];
    let mut call = shop.call(wire::ReserveRequest { reservations });
    call.set_timeout(Duration::from_millis(200));
    let cancelled = shop.grpc.clone().reserve(call).await.unwrap_err();
    assert!(matches!(cancelled.code(), Code::Cancelled | Code::DeadlineExceeded), "{cancelled:?}");
    busy.rollback().await.unwrap();
    testing::eventually("it is done all the same", async || {
        (shop.stock(&lamp).await == (5, 1)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_call_that_was_cancelled_before_it_was_begun_is_not_done() {
    let shop = shop().await;
    let lamp = shop.stocked(5).await;
    let mut busy = testing::begin(&shop.pool).await;
    sqlx::query("SELECT FROM products.stock FOR UPDATE").execute(&mut *busy).await.unwrap();
    let reserve = |millis: u64| {
        let reservations = vec![reservation(Uuid::now_v7(), &[(&lamp, 1)])];
        let mut call = shop.call(wire::ReserveRequest { reservations });
        call.set_timeout(Duration::from_millis(millis));
        let mut grpc = shop.grpc.clone();
        tokio::spawn(async move { grpc.reserve(call).await })
    };
    let begun = reserve(1500);
    let waits = async || {
        let query = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(query).fetch_one(&shop.pool).await.unwrap();
        (waiting > 0).then_some(())
    };
    testing::eventually("the first to wait for the stock", waits).await;
    let queued = reserve(100);
    assert!(queued.await.unwrap().is_err());
    // The server's clock began a little later; the first gives up a second after.
    assert!(begun.await.unwrap().is_err());
    busy.rollback().await.unwrap();
    assert!(reserve(30_000).await.unwrap().is_ok());
    assert_eq!(shop.stock(&lamp).await, (5, 2), "what was begun, and the last");
    shop.assert_books_balance().await;
}

/// A call by a client that does not count the time itself.
async fn raw(shop: &Shop, method: &str, timeout: &str, message: &[u8]) -> (i32, Duration) {
    let call = shop.call(());
    let token = call.metadata().get("authorization").unwrap().to_str().unwrap();
    let stream = tokio::net::TcpStream::connect(&shop.grpc_address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = axum::http::Request::post(format!("http://x/dockside.product.v1.ProductService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", token)
        .header("grpc-timeout", timeout)
        .body(())
        .unwrap();
    let begun = Instant::now();
    let (response, mut body) = client.send_request(request, false).unwrap();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    body.send_data([&[0][..], &length, message].concat().into(), true).unwrap();
    let response = tokio::time::timeout(Duration::from_secs(10), response).await.unwrap().unwrap();
    let status = response.headers()["grpc-status"].to_str().unwrap().parse().unwrap();
    (status, begun.elapsed())
}

#[tokio::test]
async fn a_call_ends_here_when_its_deadline_has_passed() {
    let shop = shop().await;
    let lamp = shop.stocked(5).await;
    let mut busy = testing::begin(&shop.pool).await;
    sqlx::query("SELECT FROM products.stock FOR UPDATE").execute(&mut *busy).await.unwrap();
    let asked = wire::ReserveRequest { reservations: vec![reservation(Uuid::now_v7(), &[(&lamp, 1)])] };
    let (status, took) = raw(&shop, "Reserve", "200m", &prost::Message::encode_to_vec(&asked)).await;
    assert!([Code::Cancelled as i32, Code::DeadlineExceeded as i32].contains(&status), "{status}");
    // The wait for the lock would have gone on until lock_timeout.
    assert!((Duration::from_millis(150)..Duration::from_secs(5)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn reflection_names_the_services() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let shop = shop().await;
    let channel = service::grpc::channel(&format!("http://{}", shop.grpc_address)).unwrap();
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client = ServerReflectionClient::new(channel);
    let answer = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer = answer.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in
        ["dockside.product.v1.ProductService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]
    {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn products_are_named_as_they_are_archived_ones_included() {
    let shop = shop().await;
    let lamp = shop.product(json!({"sku": "LAMP-1", "name": "Pilot Lamp", "stock": 4})).await;
    let rope = shop.stocked(1).await;
    assert!(is_reserved(&shop.reserve(Uuid::now_v7(), &[(&id(&lamp), 1)]).await));
    let gone = shop.staff(Method::DELETE, &format!("/products/{rope}")).header("if-match", "*");
    assert_eq!(gone.send().await.unwrap().status(), 204);
    let product_ids = vec![id(&lamp), rope.clone(), Uuid::now_v7().to_string()];
    let answer = shop.grpc.clone().get_products(shop.call(wire::GetProductsRequest { product_ids })).await;
    let products = answer.unwrap().into_inner().products;
    assert_eq!(products.len(), 2);
    assert_eq!(
        products[0],
        wire::Product {
            id: id(&lamp),
            sku: "LAMP-1".to_owned(),
            slug: "pilot-lamp".to_owned(),
            name: "Pilot Lamp".to_owned(),
            price: Some(wire::Money { amount: 1999, currency: "EUR".to_owned() }),
            available: 3,
            archived: false,
            version: 1,
        }
    );
    assert!(products[1].archived && products[1].version == 2);
}

#[tokio::test]
async fn what_can_not_be_asked_is_an_invalid_argument() {
    let shop = shop().await;
    let lamp = shop.stocked(5).await;
    let order = Uuid::now_v7();
    let many = vec![(lamp.as_str(), 1); 101];
    let nobody = wire::Reservation { order_id: "1".to_owned(), ..reservation(order, &[(&lamp, 1)]) };
    for (bad, field, reason) in [
        (reservation(order, &[]), "reservations[1].lines", "missing_field"),
        (reservation(order, &[(&lamp, 0)]), "reservations[1].lines[0].quantity", "out_of_range"),
        (reservation(order, &[(&lamp, 1000)]), "reservations[1].lines[0].quantity", "out_of_range"),
        (reservation(order, &[(&lamp, 1), (&lamp, 0)]), "reservations[1].lines[1].quantity", "out_of_range"),
        (reservation(order, &[("lamp", 1)]), "reservations[1].lines[0].product_id", "invalid_value"),
        (reservation(order, &many), "reservations[1].lines", "too_many"),
        (nobody, "reservations[1].order_id", "invalid_value"),
    ] {
        let good = reservation(Uuid::now_v7(), &[(&lamp, 1)]);
        let refused = shop.reserve_all(vec![good, bad.clone()]).await.unwrap_err();
        assert_eq!(
            details(&refused),
            (Code::InvalidArgument, reason.to_owned(), Some(field.to_owned())),
            "{bad:?}"
        );
    }
    let product_ids = vec![lamp.clone(); 201];
    let answer = shop.grpc.clone().get_products(shop.call(wire::GetProductsRequest { product_ids })).await;
    let field = Some("product_ids".to_owned());
    assert_eq!(details(&answer.unwrap_err()), (Code::InvalidArgument, "too_many".to_owned(), field));
    let order_ids = vec![order.to_string(), "x".to_owned()];
    let answer = shop.grpc.clone().release(shop.call(wire::ReleaseRequest { order_ids })).await;
    let field = Some("order_ids[1]".to_owned());
    assert_eq!(details(&answer.unwrap_err()), (Code::InvalidArgument, "invalid_value".to_owned(), field));
    assert_eq!(shop.stock(&lamp).await, (5, 0));
}

#[tokio::test]
async fn only_the_order_service_may_call() {
    let shop = shop().await;
    let mut grpc = shop.grpc.clone();
    let order_ids = vec![Uuid::now_v7().to_string()];
    let reserve = || wire::ReserveRequest { reservations: vec![] };
    let (commit, release) =
        (wire::CommitRequest { order_ids: order_ids.clone() }, wire::ReleaseRequest { order_ids });
    let products = wire::GetProductsRequest { product_ids: vec![] };
    let stranger = |refused: tonic::Status| {
        assert_eq!(details(&refused), (Code::Unauthenticated, "invalid_token".to_owned(), None));
    };
    stranger(grpc.reserve(reserve()).await.unwrap_err());
    stranger(grpc.commit(commit.clone()).await.unwrap_err());
    stranger(grpc.release(release.clone()).await.unwrap_err());
    stranger(grpc.get_products(products.clone()).await.unwrap_err());
    let user = |refused: tonic::Status| {
        assert_eq!(details(&refused), (Code::PermissionDenied, "forbidden".to_owned(), None));
    };
    user(grpc.reserve(shop.call_as_user_service(reserve())).await.unwrap_err());
    user(grpc.commit(shop.call_as_user_service(commit)).await.unwrap_err());
    user(grpc.release(shop.call_as_user_service(release)).await.unwrap_err());
    user(grpc.get_products(shop.call_as_user_service(products)).await.unwrap_err());
}

/// The status, the code that the HTTP API would answer with, and the field.
fn details(status: &tonic::Status) -> (Code, String, Option<String>) {
    let details = status.get_error_details();
    let info = details.error_info().expect("each error has one");
    assert_eq!(info.domain, "dockside");
    let field = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
    (status.code(), info.reason.clone(), field)
}

#[tokio::test]
async fn one_call_too_many_is_unavailable_at_once_and_health_checks_do_not_count() {
    let shop = Arc::new(shop_with(&["--requests-at-once=2"]).await);
    let lamp = shop.stocked(5).await;
    let mut busy = testing::begin(&shop.pool).await;
    sqlx::query("SELECT FROM products.stock FOR UPDATE").execute(&mut *busy).await.unwrap();
    let asked = || vec![reservation(Uuid::now_v7(), &[(&lamp, 1)])];
    let mut calls = JoinSet::new();
    for _ in 0..5 {
        let (shop, asked) = (shop.clone(), asked());
        calls.spawn(async move { shop.reserve_all(asked).await });
    }
    for _ in 0..3 {
        let refused = calls.join_next().await.unwrap().unwrap().unwrap_err();
        assert_eq!(details(&refused), (Code::Unavailable, "service_unavailable".to_owned(), None));
        assert_eq!(refused.message(), "too many calls at once");
    }
    let mut health = HealthClient::new(shop.channel.clone());
    assert!(health.check(HealthCheckRequest::default()).await.is_ok());
    busy.rollback().await.unwrap();
    for reserved in calls.join_all().await {
        assert!(is_reserved(&reserved.unwrap()[0]));
    }
    assert_eq!(shop.stock(&lamp).await, (5, 2));
}

/// Has every insertion of reservations run `body` with `many`: whether there are several, but for `good`'s.
async fn on_reserving(shop: &crate::common::Shop, good: Uuid, body: &str) {
    let script = format!(
        "CREATE SEQUENCE products.alone;
         CREATE FUNCTION products.interfere() RETURNS trigger LANGUAGE plpgsql AS $$
         DECLARE many bool := (SELECT count(*) > 1 FROM made);
         BEGIN
             IF EXISTS (SELECT FROM made WHERE order_id <> '{good}') THEN
                 IF many THEN RAISE EXCEPTION 'one of them is bad'; END IF;
                 PERFORM nextval('products.alone');
                 {body}
             END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER interfere AFTER INSERT ON products.reservations
             REFERENCING NEW TABLE AS made FOR EACH STATEMENT EXECUTE FUNCTION products.interfere()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(&shop.pool).await.unwrap();
}

/// How often an item was tried alone.
async fn tried_alone(shop: &crate::common::Shop) -> i64 {
    let query = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM products.alone";
    sqlx::query_scalar(query).fetch_one(&shop.pool).await.unwrap()
}

#[tokio::test]
async fn a_batch_that_is_tried_one_by_one_stops_when_the_database_goes_away() {
    let shop = shop().await;
    let lamp = shop.stocked(500).await;
    on_reserving(&shop, Uuid::nil(), "RAISE EXCEPTION 'going down' USING ERRCODE = '57P01';").await;
    let asked = (0..100).map(|_| reservation(Uuid::now_v7(), &[(&lamp, 1)])).collect();
    let request = shop.call(wire::ReserveRequest { reservations: asked });
    let status = shop.grpc.clone().reserve(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    // One for each of the few batches that the hundred make.
    let tried = tried_alone(&shop).await;
    assert!(tried < 50, "{tried} were tried alone");
    assert_eq!(shop.stock(&lamp).await, (500, 0));
}

#[tokio::test]
async fn a_batch_that_is_slow_one_by_one_does_not_keep_the_next_one_waiting() {
    let shop = shop().await;
    let lamp = shop.stocked(500).await;
    let good = Uuid::now_v7();
    on_reserving(&shop, good, "PERFORM pg_sleep(0.5); RAISE EXCEPTION 'bad';").await;
    let asked = (0..100).map(|_| reservation(Uuid::now_v7(), &[(&lamp, 1)])).collect();
    let request = shop.call(wire::ReserveRequest { reservations: asked });
    shop.grpc.clone().reserve(request).await.unwrap_err();
    assert!(is_reserved(&shop.reserve(good, &[(&lamp, 1)]).await));
    assert_eq!(shop.stock(&lamp).await, (500, 1));
}

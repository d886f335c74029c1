//! The number of an order, whose it is, and how staff find it.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::collections::HashSet;

use crate::common::{Shop, address, order_of};
use order_core::number::OrderNumber;
use prost::Message;
use proto::order::v1::{OrderConfirmed, OrderPlaced};
use serde_json::{Value, json};
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap_or_else(|| panic!("{page}")).iter();
    items.map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_order_has_a_number_wherever_it_is_shown() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let placed = buyer.place(&order_of(thing, 1, "pm_card_visa")).await.body;
    let (id, number) = (placed["id"].as_str().unwrap(), placed["number"].as_str().unwrap());
    assert_eq!(number.parse::<OrderNumber>().unwrap().to_string(), number);
    buyer.until(id, "confirmed", "captured").await;
    for caller in [&buyer, &staff] {
        assert_eq!(caller.get(&format!("/orders/{id}")).await.body["number"], number);
    }
    assert_eq!(buyer.get("/orders").await.body["items"][0]["number"], number);
    assert_eq!(staff.get("/admin/orders").await.body["items"][0]["number"], number);
    let events = shop.events(id).await;
    assert_eq!(OrderPlaced::decode(&*events[0].2).unwrap().order.unwrap().number, number);
    assert_eq!(OrderConfirmed::decode(&*events[1].2).unwrap().order.unwrap().number, number);
    let other = buyer.place(&order_of(thing, 1, "pm_card_hang")).await.body;
    assert_ne!(other["number"], number);
}

#[tokio::test]
async fn staff_find_an_order_by_what_its_customer_knows() {
    let shop = Shop::open().await;
    let (cheap, dear) = (shop.stock.add(700, 100), shop.stock.add(4711, 100));
    let (ada, ben, staff) = (shop.customer(), shop.customer(), shop.staff());
    shop.book.register(ada.id, "ada@example.com", "Ada King");
    shop.book.register(ben.id, "ben@example.com", "Ben Ali");
    let to = |name: &str, product: Uuid| {
        let mut order = order_of(product, 1, "pm_card_visa");
        order["shipping_address"] = address();
        order["shipping_address"]["name"] = name.into();
        order
    };
    let first = ada.place(&to("Ada Lovelace", cheap)).await;
    let second = ada.place(&to("王小明", dear)).await;
    let third = ben.place(&to("José O'Neill", cheap)).await;
    for placed in [&first, &second, &third] {
        staff.until(&placed.id(), "confirmed", "captured").await;
    }
    let parcel = json!({"carrier": "Tern", "tracking_number": "JD 00-07"});
    assert_eq!(staff.post_json(&format!("/orders/{}/ship", second.id()), parcel).await.status, 200);
    let number = first.body["number"].as_str().unwrap().to_owned();
    let (typed, spaced) = (number.replace('-', "").to_lowercase(), number.replace('-', "%20"));
    let (one, two, three) = (first.id(), second.id(), third.id());
    let at = third.body["placed_at"].as_str().unwrap();
    let today = &at[..10];
    let of_ada = ada.id;
    for (asked, found) in [
        (format!("number={number}"), vec![&one]),
        (format!("number={typed}"), vec![&one]),
        (format!("number={spaced}"), vec![&one]),
        ("email=ada@example.com".to_owned(), vec![&two, &one]),
        ("email=%20ada@example.com".to_owned(), vec![&two, &one]),
        ("email=nobody@example.com".to_owned(), vec![]),
        (format!("email=ada@example.com&user_id={of_ada}"), vec![&two, &one]),
        (format!("email=ben@example.com&user_id={of_ada}"), vec![]),
        ("email=ada@example.com&status=shipped".to_owned(), vec![&two]),
        ("q=lovelace".to_owned(), vec![&one]),
        ("q=Love%20ADA".to_owned(), vec![&one]),
        ("q=ada%20ben".to_owned(), vec![]),
        ("q=%E7%8E%8B".to_owned(), vec![&two]),
        ("q=jos%C3%89".to_owned(), vec![&three]),
        ("q=o'neill".to_owned(), vec![&three]),
        ("q=JD%2000-07".to_owned(), vec![&two]),
        ("q=jd0007".to_owned(), vec![&two]),
        ("q=--".to_owned(), vec![]),
        ("currency=EUR&min_total=701".to_owned(), vec![&two]),
        ("currency=EUR&min_total=4711&max_total=4711".to_owned(), vec![&two]),
        ("currency=EUR&max_total=700".to_owned(), vec![&three, &one]),
        ("currency=EUR&max_total=700&status=shipped".to_owned(), vec![]),
        ("currency=USD&min_total=0".to_owned(), vec![]),
        ("currency=EUR".to_owned(), vec![&three, &two, &one]),
        (format!("placed_from={today}&placed_to={today}"), vec![&three, &two, &one]),
        (format!("placed_from={at}"), vec![&three]),
        (format!("placed_to={at}"), vec![&two, &one]),
        (format!("placed_to={at}&q=lovelace&number={number}&user_id={of_ada}"), vec![&one]),
        ("placed_to=2020-01-01".to_owned(), vec![]),
        ("placed_from=2100-01-01T00:00:00Z".to_owned(), vec![]),
    ] {
        let page = staff.get(&format!("/admin/orders?{asked}")).await.body;
        assert_eq!(ids(&page).iter().collect::<Vec<_>>(), found, "{asked}");
    }
    // Page by page, with the same filters.
    let page = staff.get("/admin/orders?currency=EUR&limit=2").await.body;
    assert_eq!(ids(&page), [three.clone(), two.clone()]);
    let cursor = page["next_cursor"].as_str().unwrap();
    let page = staff.get(&format!("/admin/orders?currency=EUR&limit=2&cursor={cursor}")).await.body;
    assert_eq!((ids(&page), &page["next_cursor"]), (vec![one], &Value::Null));
}

#[tokio::test]
async fn a_search_that_makes_no_sense_is_refused_with_the_reason() {
    let shop = Shop::open().await;
    let staff = shop.staff();
    let number = OrderNumber::new(7);
    let slip = if number.as_str().ends_with('2') { '3' } else { '2' };
    let slip = format!("{}{slip}", &number.as_str()[..9]);
    for (asked, pointer, code) in [
        ("number=".to_owned(), "/number", "invalid_number"),
        ("number=12345".to_owned(), "/number", "invalid_number"),
        (format!("number={slip}"), "/number", "invalid_number"),
        ("email=ada".to_owned(), "/email", "invalid_email"),
        ("email=%20".to_owned(), "/email", "too_short"),
        ("q=".to_owned(), "/q", "too_short"),
        (format!("q={}", "x".repeat(101)), "/q", "too_long"),
        ("placed_from=yesterday".to_owned(), "/placed_from", "invalid_value"),
        ("placed_to=2026-02-30".to_owned(), "/placed_to", "invalid_value"),
        ("min_total=-1&currency=EUR".to_owned(), "/min_total", "invalid_value"),
        ("max_total=1.5&currency=EUR".to_owned(), "/max_total", "invalid_value"),
        ("min_total=2&max_total=1&currency=EUR".to_owned(), "/min_total", "out_of_range"),
        ("min_total=2".to_owned(), "/currency", "missing_field"),
        ("currency=Euro".to_owned(), "/currency", "invalid_value"),
    ] {
        let answer = staff.get(&format!("/admin/orders?{asked}")).await;
        assert_eq!(answer.problem(), (422, "validation_failed"), "{asked}");
        let error = &answer.body["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&json!(pointer), &json!(code)), "{asked}");
    }
    let all = staff.get("/admin/orders?number=1&q=&min_total=x&status=lost").await;
    assert_eq!(all.body["errors"].as_array().unwrap().len(), 4, "{}", all.body);
}

#[tokio::test]
async fn staff_see_whose_an_order_is_and_others_do_not() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, gone, staff) = (shop.customer(), shop.customer(), shop.staff());
    shop.book.register(buyer.id, "ada@example.com", "Ada King");
    let (id, other) = (buyer.buy(thing, 1).await, gone.buy(thing, 1).await);
    let path = format!("/orders/{id}");
    let known = json!({"id": buyer.id, "email": "ada@example.com", "name": "Ada King"});
    let unknown = |id: Uuid| json!({"id": id, "email": null, "name": null});
    assert_eq!(staff.get(&path).await.body["customer"], known);
    assert_eq!(buyer.get(&path).await.body.get("customer"), None);
    assert_eq!(buyer.get("/orders").await.body["items"][0].get("customer"), None);
    assert_eq!(staff.get(&format!("/orders/{other}")).await.body["customer"], unknown(gone.id));
    let page = staff.get("/admin/orders").await.body;
    assert_eq!((&page["items"][0]["customer"], &page["items"][1]["customer"]), (&unknown(gone.id), &known));
    let parcel = json!({"carrier": "T", "tracking_number": "1"});
    assert_eq!(staff.post_json(&format!("{path}/ship"), parcel).await.body["customer"], known);
    // Orders are shown while nobody knows the people.
    shop.book.lock().away = true;
    assert_eq!(staff.get(&path).await.body["customer"], unknown(buyer.id));
    assert_eq!(staff.get("/admin/orders").await.body["items"].as_array().unwrap().len(), 2);
    let away = staff.get("/admin/orders?email=ada@example.com").await;
    assert_eq!(away.problem(), (503, "service_unavailable"));
}

static MIGRATIONS: Migrator = sqlx::migrate!();

/// The newest migration of the release before orders had numbers.
const BEFORE_NUMBERS: i64 = 11;

#[tokio::test]
async fn older_orders_get_their_numbers_and_older_replicas_go_on_placing_some() {
    let mut connection = PgConnection::connect(&testing::database("orders").await).await.unwrap();
    sqlx::raw_sql("SET search_path = orders").execute(&mut connection).await.unwrap();
    messaging::MIGRATIONS.run(&mut connection).await.unwrap();
    let earlier = MIGRATIONS.iter().filter(|migration| migration.version <= BEFORE_NUMBERS).cloned();
    Migrator::with_migrations(earlier.collect()).run(&mut connection).await.unwrap();
    let place = r#"
        INSERT INTO orders.orders
            (id, user_id, status, currency, total, payment_method, shipping_address, tracking)
        SELECT gen_random_uuid(), gen_random_uuid(), 'shipped', 'EUR', n, 'pm_card_visa',
               jsonb_build_object('name', 'Ada ' || n), '{"carrier": "Tern", "tracking_number": "T-7"}'
        FROM generate_series(1, 2500) n"#;
    sqlx::raw_sql(place).execute(&mut connection).await.unwrap();
    MIGRATIONS.run(&mut connection).await.unwrap();
    // As a replica of the release before does it.
    sqlx::raw_sql(place).execute(&mut connection).await.unwrap();
    let numbers = "SELECT d.number FROM orders.orders o
                   JOIN orders.directory d ON d.order_id = o.id AND d.total = o.total";
    let numbers: Vec<String> = sqlx::query_scalar(numbers).fetch_all(&mut connection).await.unwrap();
    assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), 5000);
    for number in &numbers {
        let read = number.parse::<OrderNumber>();
        assert_eq!(read.map(|read| read.as_str() == number), Ok(true), "{number}");
    }
    let found = "SELECT count(*) FROM orders.directory WHERE words @@ orders.wanted($1)";
    let found = async |connection: &mut PgConnection, asked: &str| -> i64 {
        sqlx::query_scalar(found).bind(asked.to_owned()).fetch_one(connection).await.unwrap()
    };
    assert_eq!(found(&mut connection, "2500 ada").await, 2);
    assert_eq!(found(&mut connection, "t 7").await, 5000);
    // Such a replica forgets people, too.
    let forget = "UPDATE orders.orders SET shipping_address = NULL, tracking = NULL WHERE total = 2500";
    sqlx::raw_sql(forget).execute(&mut connection).await.unwrap();
    assert_eq!((found(&mut connection, "2500 ada").await, found(&mut connection, "t 7").await), (0, 4998));
}

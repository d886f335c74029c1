//! Outboxes, sagas and the comparison of everything, on a real shop that gets
//! each kind of difference for real or by hand.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{STRICT, Shop, about};
use futures_util::future::join_all;
use operator::reconcile::{Difference, Options, Remedy};
use operator::saga::Stuck;
use operator::{outbox, saga};
use serde_json::{Value, json};
use uuid::Uuid;

const MINUTE: Options = Options { since: None, grace: Duration::from_secs(60) };

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_in_order_has_no_differences() {
    let shop = Shop::open().await;
    let product = shop.product(100).await;
    shop.buy(product, "pm_card_visa", "confirmed", "captured").await;
    shop.buy(product, "pm_card_chargeDeclined", "cancelled", "declined").await;
    let refunded = shop.buy(product, "pm_card_visa", "confirmed", "captured").await;
    shop.refund(refunded, 1250, json!([{"product_id": product, "quantity": 1}])).await;
    let cancelled = shop.buy(product, "pm_card_visa", "confirmed", "captured").await;
    shop.cancel(cancelled).await;
    shop.until(cancelled, "cancelled", "refunded").await;
    let report = shop.agrees().await;
    assert_eq!((report.orders, report.payments, report.products), (4, 4, 1));
    assert!(report.events >= 8, "{report:?}");
    assert_eq!(shop.operator(&["reconcile", "--grace", "0"]).0, Some(0));
    let (code, log) = shop.operator(&["reconcile", "--grace", "0", "--log"]);
    let line: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let outcome = (code, &line["message"], &line["differences"], &line["orders"]);
    assert_eq!(outcome, (Some(0), &json!("reconcile.agrees"), &json!(0), &json!(4)), "{log}");
    // By itself it goes on until its signal.
    let mut hourly = shop.command(&["reconcile", "--every", "1h"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(hourly.stdout.take().unwrap()).lines();
    let line = lines.find_map(|line| line.ok().filter(|line| line.contains("reconcile.")));
    let goes_on = hourly.try_wait().unwrap().is_none();
    Command::new("kill").arg(hourly.id().to_string()).status().unwrap();
    assert!(hourly.wait().unwrap().success());
    assert!(goes_on && line.as_ref().is_some_and(|line| line.contains("reconcile.agrees")), "{line:?}");

    // So it is with no more rights than the operator's role has.
    let lesser = shop.as_operators_role().await;
    let database = ["--database-url", &lesser];
    for words in [
        &["reconcile", "--grace", "0"][..],
        &["reconcile", "--mend"],
        &["outbox", "status"],
        &["saga", "list", "--stuck"],
        &["saga", "nudge", &cancelled.to_string()],
        &["trace", &cancelled.to_string()],
    ] {
        let (code, text) = shop.operator(&[words, &database].concat());
        assert_eq!(code, Some(0), "{words:?}: {text}");
    }
    shop.until(cancelled, "cancelled", "refunded").await;
    let republish = "UPDATE users.outbox SET published_at = NULL, claimed_until = '-infinity'";
    let pool = sqlx::PgPool::connect(&lesser).await.unwrap();
    sqlx::query(republish).execute(&pool).await.unwrap();
    for forbidden in [
        "UPDATE orders.orders SET refunded = 0",
        "UPDATE orders.sagas SET phase = 'settled'",
        "UPDATE products.stock SET on_hand = 0",
        "SELECT email FROM users.accounts",
        "SELECT shipping_address FROM orders.orders",
    ] {
        let refused = sqlx::query(forbidden).execute(&pool).await.unwrap_err();
        assert!(refused.to_string().contains("permission denied"), "{forbidden}: {refused}");
    }

    // While it works an order is on its way, and no difference until the grace is over.
    let busy = shop.place(product, "pm_card_hang").await;
    let report = shop.check(MINUTE).await;
    assert_eq!((report.in_flight, report.differences), (vec![busy], vec![]));
    let strict = shop.check(STRICT).await;
    assert!(about(&strict.differences, busy)[0].contains("has not come to rest"), "{strict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orders_history_goes_from_the_request_to_the_mail() {
    let shop = Shop::open().await;
    let account = "INSERT INTO users.accounts (id, email, email_key, name, role, password_hash)
                   VALUES ('{}', 'ada@example.com', 'ada@example.com', 'Ada', 'customer', '-')";
    shop.sql(account.replace("{}", &shop.customer.to_string())).await;
    let product = shop.product(100).await;
    let order = shop.buy(product, "pm_card_visa", "confirmed", "captured").await;
    shop.cancel(order).await;
    shop.until(order, "cancelled", "refunded").await;
    let id = order.to_string();
    let found = || async {
        let (code, text) = shop.operator(&["trace", &id, "--json"]);
        assert_eq!(code, Some(0), "{text}");
        let trace: Value = serde_json::from_str(&text).unwrap();
        // Everything is published, and each consumer has applied it.
        let ended = |kind: &str| {
            let moments = trace["moments"].as_array().unwrap().iter();
            moments.filter(|m| m["kind"] == kind && !m["took_seconds"].is_null()).count()
        };
        (ended("event") == 3 && ended("applied") == 4).then_some(trace)
    };
    let trace = testing::eventually("all events to be applied", found).await;
    assert_eq!((&trace["order_id"], &trace["status"]), (&json!(order), &json!("cancelled")));
    let moments = trace["moments"].as_array().unwrap();
    let said = |kind: &str| -> Vec<&str> {
        moments.iter().filter(|m| m["kind"] == kind).map(|m| m["what"].as_str().unwrap()).collect()
    };
    assert_eq!(said("request"), ["POST /api/v1/orders"]);
    assert_eq!(
        said("status"),
        ["pending, payment pending", "confirmed, payment captured", "cancelled, payment captured"]
    );
    let mut events = said("event");
    events.sort_unstable();
    assert_eq!(events, ["order.cancelled.v1", "order.confirmed.v1", "order.placed.v1"]);
    assert_eq!(said("reservation").len(), 1);
    let stock: Vec<&str> = said("stock").iter().map(|what| what.split(' ').next().unwrap()).collect();
    assert_eq!(stock, ["sale,", "restock,"]);
    assert_eq!(said("refund"), ["2500 EUR minor units, succeeded, by cancel"]);
    assert_eq!(said("mail").len(), 3, "{moments:?}");
    // Created, charged, refunded.
    assert_eq!(said("payment").len(), 3, "{moments:?}");
    let intent = trace["intent_id"].as_str().unwrap();
    assert!(said("payment").contains(&format!("{intent} was created, succeeded by now").as_str()));
    assert!(moments.iter().all(|m| m["took_seconds"].as_f64().is_none_or(|took| took >= 0.0)));

    let (code, text) = shop.operator(&["trace", &id]);
    assert_eq!(code, Some(0));
    assert!(text.starts_with(&format!("order {id}: cancelled, payment refunded")), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains('#')).count(), moments.len(), "{text}");
    let other = Uuid::now_v7().to_string();
    assert_eq!(shop.operator(&["trace", &other]), (Some(1), "No such order.\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_costs_nothing_and_what_the_provider_counts_otherwise_is_in_order() {
    let shop = Shop::open().await;
    let sample = shop.priced(0, "EUR", 100).await;
    shop.buy(sample, "pm_card_visa", "confirmed", "captured").await;
    let cancelled = shop.buy(sample, "pm_card_visa", "confirmed", "captured").await;
    shop.cancel(cancelled).await;
    shop.until(cancelled, "cancelled", "voided").await;
    for currency in ["ISK", "UGX", "MGA", "KWD"] {
        let thing = shop.priced(5000, currency, 100).await;
        shop.buy(thing, "pm_card_visa", "confirmed", "captured").await;
        let returned = shop.buy(thing, "pm_card_visa", "confirmed", "captured").await;
        shop.cancel(returned).await;
        shop.until(returned, "cancelled", "refunded").await;
    }
    let report = shop.agrees().await;
    assert_eq!((report.orders, report.payments), (10, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispute_is_a_difference_until_its_order_knows_how_it_stands() {
    let shop = Shop::open().await;
    let product = shop.product(100).await;
    let sent = shop.buy(product, "pm_card_createDispute", "confirmed", "captured").await;
    let cancelled = shop.buy(product, "pm_card_createDispute", "confirmed", "captured").await;
    let mended = async |words: &str, orders: &[Uuid]| {
        let found = || async {
            let report = shop.check(STRICT).await;
            let all = orders.iter().map(|order| about(&report.differences, *order).join("; "));
            let all: Vec<String> = all.collect();
            (report.differences.len() == orders.len() && all.iter().all(|about| about.contains(words)))
                .then_some(())
        };
        testing::eventually(&format!("{words:?} to be found for all"), found).await;
        assert_eq!(shop.mend(STRICT).await.left, vec![]);
        shop.agrees().await;
    };
    mended("is disputed", &[sent, cancelled]).await;
    // What goes back waits for the bank: that is in order.
    shop.cancel(cancelled).await;
    shop.until(cancelled, "cancelled", "captured").await;
    shop.agrees().await;
    // Decided, weeks later.
    for (order, evidence) in [(sent, "winning_evidence"), (cancelled, "losing_evidence")] {
        let path = format!("disputes/du_{}", shop.intent(order).await.trim_start_matches("pi_"));
        shop.at_provider(&path, &[("evidence[uncategorized_text]", evidence), ("submit", "true")]).await;
    }
    mended("decided at the provider", &[sent, cancelled]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_services_can_do_again_is_mended() {
    let shop = Shop::open().await;
    let product = shop.product(100).await;
    // A refund at the provider without a report to us.
    let by_hand = shop.buy(product, "pm_card_visa", "confirmed", "captured").await;
    shop.refund_at_provider(by_hand, 500).await;
    // Paid after it was cancelled.
    let late = shop.place(product, "pm_card_late_success").await;
    let unknown = || async {
        let status: Value = serde_json::from_str(&shop.operator(&["saga", "list", "--json"]).1).unwrap();
        (status[0]["payment"] == "unknown").then_some(())
    };
    testing::eventually("the late payment to be unknown", unknown).await;
    shop.cancel(late).await;
    shop.until(late, "cancelled", "voided").await;
    // An event that the broker lost after it had confirmed it.
    shop.sql(
        "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             NEW.published_at := now() - interval '2 minutes'; RETURN NEW; END $$;
         CREATE TRIGGER lose BEFORE INSERT ON orders.outbox FOR EACH ROW
         WHEN (NEW.type = 'order.cancelled.v1') EXECUTE FUNCTION lose()"
            .to_owned(),
    )
    .await;
    let lost = shop.buy(product, "pm_card_visa", "confirmed", "captured").await;
    shop.cancel(lost).await;
    shop.until(lost, "cancelled", "refunded").await;
    let event: Uuid = sqlx::query_scalar(
        "SELECT id FROM orders.outbox WHERE aggregate_id = $1 AND type = 'order.cancelled.v1'",
    )
    .bind(lost)
    .fetch_one(&shop.database)
    .await
    .unwrap();
    // A saga that nobody takes up: the process that placed it cannot write what it learns, and cannot release
    // it.
    shop.sql(
        "DROP TRIGGER lose ON orders.outbox;
         CREATE SEQUENCE public.refused;
         CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             NEW.next_at := now() + interval '1 day'; RETURN NEW; END $$;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
             PERFORM nextval('public.refused'); RAISE 'refused'; END $$;
         CREATE TRIGGER sleep BEFORE INSERT ON orders.sagas FOR EACH ROW EXECUTE FUNCTION sleep();
         CREATE TRIGGER refuse BEFORE UPDATE ON orders.sagas FOR EACH ROW
         WHEN (OLD.phase = 'creating') EXECUTE FUNCTION refuse()"
            .to_owned(),
    )
    .await;
    let asleep = shop.place(product, "pm_card_visa").await;
    let let_go = || async {
        let refused: i64 = sqlx::query_scalar("SELECT last_value FROM public.refused")
            .fetch_one(&shop.database)
            .await
            .unwrap();
        (refused >= 2).then_some(())
    };
    testing::eventually("its worker to give up", let_go).await;
    shop.sql(format!(
        "DROP TRIGGER sleep ON orders.sagas;
         DROP TRIGGER refuse ON orders.sagas;
         UPDATE orders.sagas SET lease_until = '-infinity' WHERE order_id = '{asleep}'"
    ))
    .await;

    // Until the late payment has come and what else was under way has arrived.
    let arrived = || async {
        let found = shop.check(STRICT).await.differences;
        (!about(&found, late).is_empty() && found.len() == 6).then_some(found)
    };
    let found = testing::eventually("six differences", arrived).await;
    let intent = shop.intent(by_hand).await;
    assert_eq!(about(&found, by_hand), [format!("says 0 went back, the provider 500 ({intent})")]);
    let intent = shop.intent(late).await;
    assert_eq!(about(&found, late), [format!("is cancelled, and 2500 are kept ({intent})")]);
    assert_eq!(about(&found, lost), ["is cancelled, and 2 units it gave back are not on the shelf"]);
    assert_eq!(
        about(&found, event),
        [
            "order.cancelled.v1 of order was not applied by product",
            "order.cancelled.v1 of order was not applied by user"
        ]
    );
    assert!(about(&found, asleep)[0].starts_with("has not come to rest"), "{found:?}");
    // Changes within the grace are not compared yet.
    assert_eq!(about(&shop.check(MINUTE).await.differences, asleep), [""; 0]);

    let outcome = shop.mend(STRICT).await;
    assert_eq!(outcome.left, [], "{outcome:?}");
    assert_eq!(outcome.found.differences.len(), 6);
    shop.until(asleep, "confirmed", "captured").await;
    shop.until(late, "cancelled", "refunded").await;
    shop.agrees().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_person_can_set_right_is_reported_and_left_alone() {
    let shop = Shop::open().await;
    let product = shop.product(100).await;
    let mut orders = Vec::new();
    for _ in 0..8 {
        orders.push(shop.buy(product, "pm_card_visa", "confirmed", "captured").await);
    }
    let cancelled = shop.buy(product, "pm_card_visa", "confirmed", "captured").await;
    shop.cancel(cancelled).await;
    shop.until(cancelled, "cancelled", "refunded").await;
    let second = shop.product(7).await;
    shop.agrees().await;
    let [lines, refunds, unknown, unpaid, sagaless, status, unsold, entry] = orders[..] else { panic!() };
    let [of_unknown, of_unpaid, of_sagaless] =
        [shop.intent(unknown).await, shop.intent(unpaid).await, shop.intent(sagaless).await];
    let (promised, ownerless, held, event) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    for sql in [
        format!("UPDATE orders.order_items SET unit_price = unit_price + 1 WHERE order_id = '{lines}'"),
        format!(
            "INSERT INTO orders.refunds (id, order_id, amount, reason, status)
             VALUES ('{promised}', '{refunds}', 100, 'x', 'succeeded')"
        ),
        format!("UPDATE orders.sagas SET intent_id = 'pi_nobodys' WHERE order_id = '{unknown}'"),
        format!("UPDATE orders.sagas SET intent_id = NULL WHERE order_id = '{unpaid}'"),
        format!("DELETE FROM orders.sagas WHERE order_id = '{sagaless}'"),
        format!("UPDATE orders.orders SET payment_status = 'voided' WHERE id = '{status}'"),
        format!("UPDATE products.reservations SET state = 'released' WHERE order_id = '{unsold}'"),
        format!("DELETE FROM products.stock_ledger WHERE order_id = '{entry}'"),
        format!(
            "INSERT INTO orders.claims (user_id, operation, key, body_hash, order_id, lines, owner, lease_until,
                                        answer_status, answer_body)
             VALUES ('{promised}', 'POST /api/v1/orders', 'k', '', '{promised}', '[]', '{promised}', now(), 201, '{{}}')"
        ),
        format!(
            "INSERT INTO products.reservations (order_id, state, expires_at)
             VALUES ('{ownerless}', 'committed', now()), ('{held}', 'reserved', now() + interval '1 day')"
        ),
        format!(
            "INSERT INTO products.reservation_lines
                 (order_id, product_id, quantity, sku, name, unit_price, currency)
             VALUES ('{held}', '{second}', 3, 's', 'n', 1, 'EUR')"
        ),
        format!("UPDATE products.stock SET on_hand = on_hand + 1, reserved = 5 WHERE product_id = '{second}'"),
        format!(
            "INSERT INTO users.outbox (id, type, aggregate_id, aggregate_version, payload, created_at, claimed_until)
             VALUES ('{event}', 'user.deleted.v1', '{event}', 1, '', now() - interval '1 hour', 'infinity')"
        ),
    ] {
        shop.sql(sql).await;
    }
    let found = shop.check(STRICT).await.differences;
    let says = |id| about(&found, id);
    assert_eq!(says(lines), ["its lines come to 2502 and its total says 2500"]);
    assert_eq!(says(refunds), ["its refunds come to 100 and it says 0"]);
    let keeps = |intent: &str, has: &str| {
        format!("the provider's payment {intent} keeps 2500, and the order, which is confirmed, has {has}")
    };
    assert_eq!(
        says(unknown),
        ["its payment pi_nobodys is unknown to the provider", &keeps(&of_unknown, "the payment pi_nobodys")]
    );
    assert_eq!(says(unpaid), ["is confirmed without a payment", &keeps(&of_unpaid, "no payment")]);
    assert_eq!(says(sagaless), ["has no saga", &keeps(&of_sagaless, "no payment")]);
    assert_eq!(
        says(status),
        ["is confirmed, its payment voided, its saga confirmed, and nobody works on it"]
    );
    let ledger = format!("moved 0 of product {product}, and the ledger says -2");
    assert_eq!(says(unsold), ["is confirmed, and its reservation is released", &ledger]);
    assert_eq!(says(entry), [format!("moved -2 of product {product}, and the ledger says 0")]);
    assert_eq!(says(product), ["84 on hand, and its ledger comes to 86"]);
    assert_eq!(
        says(second),
        ["5 reserved, and its open reservations come to 3", "8 on hand, and its ledger comes to 7"]
    );
    assert_eq!(says(promised), ["was promised to its customer (201), and is not there"]);
    assert_eq!(says(ownerless), ["its reservation was sold, and there is no such order"]);
    let waited = says(event)[0].strip_prefix("user.deleted.v1 of user has waited ").unwrap();
    let (seconds, rest) = waited.split_once(' ').unwrap();
    assert!((3600..3700).contains(&seconds.parse().unwrap()) && rest.starts_with("s to be"), "{waited}");
    assert_eq!(says(cancelled), [""; 0]);
    assert_eq!(found.len(), 18, "{found:#?}");
    assert!(found.iter().all(|one| matches!(one.remedy, Remedy::Nothing { .. })), "{found:#?}");

    let outcome = shop.mend(STRICT).await;
    // All but how long the event has waited, which goes on.
    let lasting = |all: &[Difference]| -> Vec<String> {
        let what = |one: &Difference| one.what.split(" has waited ").next().unwrap().to_owned();
        all.iter().map(|one| format!("{:?} {} {} {:?}", one.about, one.id, what(one), one.remedy)).collect()
    };
    assert_eq!(lasting(&outcome.left), lasting(&found));
    let (code, text) = shop.operator(&["reconcile", "--grace", "0"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("18 differences, 18 left."), "{text}");
    assert!(text.contains(&format!("order {promised}: was promised")), "{text}");
    let (code, log) = shop.operator(&["reconcile", "--grace", "0", "--log"]);
    let line: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let outcome = (code, &line["message"], &line["differences"]);
    assert_eq!(outcome, (Some(1), &json!("reconcile.differs"), &json!(18)), "{log}");
    assert_eq!(log.matches(r#""message":"reconcile.difference""#).count(), 18, "{log}");

    // As the runbook has it for an order that lost its payment's id.
    shop.sql(format!(
        "UPDATE orders.sagas SET intent_id = '{of_unpaid}' WHERE order_id = '{unpaid}' AND intent_id IS NULL"
    ))
    .await;
    assert_eq!(shop.operator(&["saga", "nudge", &unpaid.to_string()]).0, Some(0));
    shop.until(unpaid, "confirmed", "captured").await;
    assert_eq!(about(&shop.check(STRICT).await.differences, unpaid), [""; 0]);

    // The stuck event shows in the outbox's status, too.
    let status = outbox::status(&shop.database).await.unwrap();
    let user = status.iter().find(|of| of.service == "user").unwrap();
    assert_eq!((user.backlog, user.claimed), (1, 1));
    assert!((3600.0..3700.0).contains(&user.oldest_seconds), "{user:?}");
    let (code, text) = shop.operator(&["outbox", "status"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("1h00m"), "{text}");
    assert_eq!(shop.operator(&["outbox", "status", "--older", "7200"]).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_that_was_deleted_after_its_time_is_no_difference() {
    let shop = Shop::open().await;
    let product = shop.product(100).await;
    let old = shop.buy(product, "pm_card_visa", "confirmed", "captured").await;
    let young = shop.buy(product, "pm_card_visa", "confirmed", "captured").await;
    shop.agrees().await;
    for order in [old, young] {
        shop.sql(format!("DELETE FROM products.reservation_lines WHERE order_id = '{order}'")).await;
        shop.sql(format!("DELETE FROM products.reservations WHERE order_id = '{order}'")).await;
    }
    shop.sql(format!("UPDATE products.forgotten_reservations SET up_to = '{old}'")).await;
    let report = shop.check(STRICT).await;
    assert_eq!(about(&report.differences, old), Vec::<&str>::new());
    assert_eq!(about(&report.differences, young), ["is confirmed, and its reservation is not there"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn money_of_an_order_that_the_database_lost_is_reported_and_left_alone() {
    let shop = Shop::open().await;
    let product = shop.product(100).await;
    let lost = shop.buy(product, "pm_card_visa", "confirmed", "captured").await;
    let kept = shop.buy(product, "pm_card_visa", "confirmed", "captured").await;
    let (paid, own) = (shop.intent(lost).await, shop.intent(kept).await);
    shop.agrees().await;
    shop.lose(lost).await;
    let sold = "its reservation was sold, and there is no such order";
    let has = |intent: &str, does: &str| {
        vec![format!("the provider's payment {intent} {does}, and there is no such order")]
    };
    let found = shop.check(STRICT).await.differences;
    assert_eq!(about(&found, lost), [sold, &has(&paid, "keeps 2500")[0]]);
    assert_eq!(found.len(), 2, "{found:#?}");

    // An order whose saga is about to ask for its payment's id once more is on its way.
    let asks = |busy, intent: &str| {
        shop.sql(format!(
            "UPDATE orders.sagas SET busy = {busy}, intent_id = {intent}, next_at = now() + interval '1 hour'
             WHERE order_id = '{kept}'"
        ))
    };
    asks(true, "NULL").await;
    let found = shop.check(STRICT).await.differences;
    let says = about(&found, kept);
    assert!(says.len() == 1 && says[0].starts_with("has not come to rest"), "{says:?}");
    asks(false, &format!("'{own}'")).await;

    // Each kind of payment, of an order of its own that is nowhere.
    let orders: [Uuid; 7] = std::array::from_fn(|_| Uuid::now_v7());
    let [held, slow, back, part, gone, retried, swept] = orders;
    let mut intents = Vec::new();
    for order in orders {
        let card = if order == slow { "pm_card_late_success" } else { "pm_card_visa" };
        intents.push(shop.pay_at_provider(&order.to_string(), card).await);
    }
    let [of_held, of_slow, of_back, of_part, of_gone, _, of_swept] = &intents[..] else { panic!() };
    for (intent, amount) in [(of_back, "2500"), (of_part, "500")] {
        shop.at_provider(&format!("payment_intents/{intent}/capture"), &[]).await;
        shop.at_provider("refunds", &[("payment_intent", intent), ("amount", amount)]).await;
    }
    shop.at_provider(&format!("payment_intents/{of_gone}/cancel"), &[]).await;
    // The customers of these two may come back: their keys are claimed and not answered. To the first one it will be
    // the same order.
    for (order, is_swept) in [(retried, false), (swept, true)] {
        shop.sql(format!(
            "INSERT INTO orders.claims
                 (user_id, operation, key, body_hash, order_id, lines, owner, lease_until, swept)
             VALUES ('{order}', 'POST /api/v1/orders', 'k', '', '{order}', '[]', '{order}',
                     now() + interval '1 hour', {is_swept})"
        ))
        .await;
    }
    // A second one of an order that has its own, and those of another program.
    let twice = shop.pay_at_provider(&kept.to_string(), "pm_card_visa").await;
    shop.pay_at_provider("", "pm_card_visa").await;
    shop.pay_at_provider("basket-7", "pm_card_visa").await;
    let found = shop.check(STRICT).await.differences;
    let says = |order| about(&found, order);
    assert_eq!(says(held), has(of_held, "holds 2500"));
    assert_eq!(says(slow), has(of_slow, "may yet take money"));
    assert_eq!(says(part), has(of_part, "keeps 2000"));
    assert_eq!(says(swept), has(of_swept, "holds 2500"));
    for nothing in [back, gone, retried] {
        assert_eq!(says(nothing), [""; 0]);
    }
    assert_eq!(
        says(kept),
        [format!(
            "the provider's payment {twice} holds 2500, and the order, which is confirmed, has the payment {own}"
        )]
    );
    assert_eq!(found.len(), 7, "{found:#?}");

    // The same when they are not on the first page.
    let order = lost.to_string();
    let form = [("amount", "50"), ("currency", "eur"), ("metadata[order_id]", order.as_str())];
    join_all((0..110).map(|_| shop.at_provider("payment_intents", &form))).await;
    assert_eq!(shop.check(STRICT).await.differences, found);
    let outcome = shop.mend(STRICT).await;
    assert_eq!(outcome.left, found);
    let (code, text) = shop.operator(&["reconcile", "--grace", "0"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("can't be mended here: look for the order"), "{text}");
    // Changes within the grace may be on their way; those older than asked for are not compared.
    let hour = Options { since: None, grace: Duration::from_secs(3600) };
    assert_eq!(about(&shop.check(hour).await.differences, lost), [sold]);
    let latest = Options { since: Some(Duration::from_secs(1)), ..STRICT };
    let none = || async { shop.check(latest).await.is_clean().then_some(()) };
    testing::eventually("all to be older than a second", none).await;

    // Once a person has refunded the money, there is no difference.
    shop.at_provider("refunds", &[("payment_intent", &paid)]).await;
    for intent in [of_held, of_swept, &twice] {
        shop.at_provider(&format!("payment_intents/{intent}/cancel"), &[]).await;
    }
    let left = shop.check(STRICT).await.differences;
    assert_eq!(about(&left, lost), [sold]);
    assert_eq!((left.len(), about(&left, kept)), (3, vec![]), "{left:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_a_dead_letter_is_reported_as_such() {
    let shop = Shop::open().await;
    let product = shop.product(100).await;
    shop.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             NEW.payload := '\\xffff'; RETURN NEW; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON orders.outbox FOR EACH ROW
         WHEN (NEW.type = 'order.placed.v1') EXECUTE FUNCTION refuse()"
            .to_owned(),
    )
    .await;
    shop.buy(product, "pm_card_visa", "confirmed", "captured").await;
    let found = || async {
        let found = shop.check(STRICT).await.differences;
        (found.len() == 1 && found[0].what.contains("dead letter")).then_some(found)
    };
    let found = testing::eventually("the dead letter", found).await;
    assert_eq!(found[0].what, "order.placed.v1 of order is a dead letter of user");
    assert!(matches!(found[0].remedy, Remedy::Nothing { .. }));
    // Dropping it is what leaves the difference for good.
    assert_eq!(shop.operator(&["dlq", "drop", &found[0].id.to_string()]).0, Some(0));
    let found = shop.check(STRICT).await.differences;
    assert_eq!(found[0].what, "order.placed.v1 of order was not applied by user");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_without_progress_is_listed_as_stuck_and_asks_again_when_rescheduled() {
    let shop = Shop::open().await;
    let product = shop.product(100).await;
    let order = shop.buy(product, "pm_card_visa", "confirmed", "captured").await;
    let stuck = Stuck { older_seconds: 60.0, attempts: 20 };
    assert!(saga::list(&shop.database, Some(stuck), 10).await.unwrap().is_empty());
    assert_eq!(shop.operator(&["saga", "list", "--stuck"]).0, Some(0));
    // As if its worker had hung with its lease for two minutes.
    shop.sql(format!(
        "UPDATE orders.sagas SET busy = true, lease_until = now() + interval '1 hour',
                                 next_at = now() - interval '2 minutes' WHERE order_id = '{order}'"
    ))
    .await;
    let listed = saga::list(&shop.database, Some(stuck), 10).await.unwrap();
    assert_eq!((listed.len(), listed[0].order_id, listed[0].phase.as_str()), (1, order, "confirmed"));
    assert!((120.0..180.0).contains(&listed[0].due_seconds), "{listed:?}");
    let (code, text) = shop.operator(&["saga", "list", "--stuck"]);
    assert_eq!(code, Some(1));
    assert!(text.contains(&order.to_string()) && text.contains("for 2m0"), "{text}");
    assert_eq!(shop.operator(&["saga", "list", "--stuck", "--older", "600"]).0, Some(0));

    shop.sql(format!("UPDATE orders.sagas SET busy = false, lease_until = now() WHERE order_id = '{order}'"))
        .await;
    shop.refund_at_provider(order, 700).await;
    assert_eq!(shop.operator(&["saga", "nudge", &order.to_string()]).0, Some(0));
    let refunded = || async {
        let refunded: i64 = sqlx::query_scalar("SELECT refunded FROM orders.orders WHERE id = $1")
            .bind(order)
            .fetch_one(&shop.database)
            .await
            .unwrap();
        (refunded == 700).then_some(())
    };
    testing::eventually("the refund to be known", refunded).await;
    assert_eq!(shop.operator(&["saga", "nudge", &Uuid::now_v7().to_string()]).0, Some(1));
}

//! 100,000 orders with what belongs to them: no statement reads a big table from
//! end to end, nor touches more than a small part of one.

#[path = "it/common/mod.rs"]
mod common;

use common::Shop;
use sqlx::{Connection, PgConnection};
use testing::plans::{Bounds, Example, faults};

const BIG: [&str; 8] =
    ["cart_items", "claims", "directory", "order_history", "order_items", "orders", "refunds", "sagas"];

/// Ids are made as UUIDv7s are, a minute apart. One user in 10,000 has a twentieth of all orders,
/// and one order has a thousand refunds.
const FILL: &str = "
    SET synchronous_commit = off;
    CREATE TEMP TABLE made AS
    SELECT n, (lpad(to_hex(1700000000000 + n * 60000::bigint), 12, '0') || '7000a000' || lpad(to_hex(n), 12, '0'))::uuid AS id,
           md5('user' || CASE WHEN n % 20 = 0 THEN 0 ELSE n % 10000 END)::uuid AS user_id,
           to_timestamp(1700000000 + n * 60) AS at,
           CASE WHEN n > 99500 THEN 'pending' WHEN n % 50 = 1 THEN 'cancelled' WHEN n > 98000 THEN 'confirmed'
                WHEN n > 95000 OR n % 10 = 3 THEN 'shipped' ELSE 'delivered' END AS status
    FROM generate_series(1, 100000) n;
    INSERT INTO orders.orders (id, user_id, status, cancel_reason, currency, total, payment_status, payment_method,
                               shipping_address, tracking, version, placed_at, updated_at)
    SELECT id, user_id, status, CASE status WHEN 'cancelled' THEN 'customer' END, 'EUR', 2000,
           CASE status WHEN 'pending' THEN 'pending' WHEN 'cancelled' THEN 'refunded' ELSE 'captured' END, 'pm_card_visa',
           jsonb_build_object('name', 'Ada ' || n % 10000), CASE WHEN status IN ('shipped', 'delivered') THEN jsonb '{}' END, 3, at, at FROM made;
    INSERT INTO orders.order_items (order_id, position, product_id, sku, name, unit_price, quantity)
    SELECT id, g, md5('product' || n * g)::uuid, 'S', 'N', 1000, 1 FROM made, generate_series(0, 1) g;
    INSERT INTO orders.order_history (order_id, version, status, at)
    SELECT id, g, CASE g WHEN 1 THEN 'pending' WHEN 2 THEN 'confirmed' ELSE status END, at FROM made, generate_series(1, 3) g;
    INSERT INTO orders.sagas (order_id, phase, intent_id, deadline_at, busy, next_at)
    SELECT id, CASE status WHEN 'pending' THEN 'creating' ELSE 'confirmed' END, 'pi_' || n, at, status = 'pending',
           now() - n * interval '1 ms' FROM made;
    INSERT INTO orders.refunds (id, order_id, amount, reason, status, made_by)
    SELECT gen_random_uuid(), id, 1, 'r', 'succeeded', 'staff' FROM made WHERE n % 2 = 0
    UNION ALL SELECT gen_random_uuid(), (SELECT id FROM made WHERE n = 7), 1, 'r', 'succeeded', 'staff'
    FROM generate_series(1, 1000);
    INSERT INTO orders.claims (user_id, operation, key, body_hash, order_id, lines, owner, lease_until, answer_status,
                               answer_body, created_at, answered_at)
    SELECT user_id, 'POST /api/v1/orders', n, '-', id, '[]', id, now() - interval '1 hour',
           CASE WHEN n % 1000 > 0 THEN 201 END, CASE WHEN n % 1000 > 0 THEN '{}' END, now() - n * interval '1 s',
           CASE WHEN n % 1000 > 0 THEN now() - n * interval '1 s' END FROM made;
    INSERT INTO orders.cart_items (user_id, product_id, quantity)
    SELECT md5('user' || n % 10000)::uuid, md5('product' || n)::uuid, 1 FROM generate_series(1, 100000) n;
    INSERT INTO orders.products (id, sku, name, price, currency, available, archived, version)
    SELECT md5('product' || n)::uuid, 'S', 'N', 1000, 'EUR', 1, false, 1 FROM generate_series(1, 20000) n;
    INSERT INTO orders.deleted_users (user_id, at)
    SELECT md5('user' || n)::uuid, now() - n * interval '1 hour' FROM generate_series(0, 500) n;
";

fn example(parts: &[&'static str], arguments: &[&str]) -> Example {
    Example {
        parts: parts.to_vec(),
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
    }
}

#[tokio::test]
async fn the_query_metadata_fits_the_schema() {
    let shop = Shop::open().await;
    let mut connection = PgConnection::connect(&shop.setting("--database-url")).await.unwrap();
    sqlx::raw_sql("SET search_path = orders").execute(&mut connection).await.unwrap();
    let stale = testing::metadata::stale(&mut connection, env!("CARGO_MANIFEST_DIR")).await;
    assert!(stale.is_empty(), "{}", stale.join("\n\n"));
    shop.close().await;
}

#[tokio::test]
async fn no_statement_reads_a_big_table_from_end_to_end() {
    let shop = Shop::open().await;
    let database = shop.args.iter().find_map(|arg| arg.strip_prefix("--database-url=")).unwrap().to_owned();
    // Nobody else's: the service would work on the rows that are made here.
    shop.close().await;
    let mut connection = PgConnection::connect(&database).await.unwrap();
    sqlx::raw_sql(FILL).execute(&mut connection).await.unwrap();
    // Not vacuumed: nothing is fast only because a vacuum came by.
    sqlx::raw_sql("ANALYZE").execute(&mut connection).await.unwrap();
    // The newest orders, whose text is an array as SQL writes it.
    let newest = async |connection: &mut PgConnection, count: i64| -> String {
        let query = "SELECT quote_literal(array_agg(id)::text) FROM (SELECT id FROM orders.orders ORDER BY id DESC LIMIT $1) o";
        sqlx::query_scalar(query).bind(count).fetch_one(connection).await.unwrap()
    };
    let (page, watched) = (newest(&mut connection, 101).await, newest(&mut connection, 500).await);
    let text = async |connection: &mut PgConnection, query: &'static str| -> String {
        sqlx::query_scalar(query).fetch_one(connection).await.unwrap()
    };
    let busiest = text(&mut connection, "SELECT quote_literal(md5('user0')::uuid)").await;
    let refunded =
        "SELECT quote_literal(order_id) FROM orders.refunds GROUP BY order_id ORDER BY count(*) DESC LIMIT 1";
    let refunded = text(&mut connection, refunded).await;
    let versions = format!("'{{{}}}'", vec!["3"; 500].join(","));

    let nobody = "'018d0000-0000-7000-8000-000000000000'";
    let mut examples = vec![
        example(&["WHERE id = ANY($1) ORDER BY id DESC"], &[&page]),
        example(&["FROM orders.order_items", "ORDER BY i.order_id, i.position"], &[&page]),
        example(&["FROM orders.order_history", "ANY($1)"], &[&page]),
        example(&["WHERE o.version > k.version"], &[&watched, &versions]),
        example(&["FROM orders.sagas", "SKIP LOCKED"], &["64", "15"]),
        example(&["FROM orders.sagas", "LIMIT $1\n         ) due"], &["128"]),
        example(&["lease_until < now() - make_interval"], &[&busiest, "30", "'POST /api/v1/orders'", "5"]),
        example(&["FROM orders.cart_items WHERE user_id = $1 ORDER BY added_at"], &[&busiest]),
        example(&["FROM orders.orders", "user_id = ANY($1)"], &["array[md5('user7')::uuid]"]),
        example(&["WITH ended"], &[&page]),
        example(&["WITH left_over"], &["1000"]),
        example(&["WITH expired"], &["'\\x01'", nobody, nobody, nobody, "'customer'", "now()", "60", "100"]),
        example(&["orders.is_known", "s.intent_id = $1"], &["'pi_77'", "'charge.refunded'"]),
    ];
    let (last, middle) = ("'ffffffff-ffff-ffff-ffff-ffffffffffff'", "'018d0000-0000-7000-8000-000000000000'");
    // Of the last hour alone.
    let arguments = [busiest.as_str(), last, "9", "'POST /api/v1/orders'", nobody];
    examples.push(example(&["WITH others AS MATERIALIZED"], &arguments));
    for before in [last, middle] {
        for limit in ["21", "101"] {
            examples.push(example(&["orders.orders WHERE id < $1"], &[before, limit]));
            for user in [busiest.as_str(), middle] {
                examples.push(example(&["WHERE user_id = $1 AND id < $2"], &[user, before, limit]));
                for status in ["'pending'", "'delivered'", "'cancelled'"] {
                    examples.push(example(&["user_id = $1 AND status = $2"], &[user, status, before, limit]));
                }
            }
            for status in ["'pending'", "'shipped'", "'delivered'"] {
                examples.push(example(
                    &["WHERE status >= $1 AND status <= $1 AND id < $2"],
                    &[status, before, limit],
                ));
            }
            let searched = |filter: usize, value: &str| {
                let first = "'00000000-0000-0000-0000-000000000000'";
                let mut arguments = vec![before, first];
                arguments.resize(11, "NULL");
                arguments[filter - 1] = value;
                if [8, 9].contains(&filter) {
                    arguments[6] = "'EUR'";
                }
                arguments.push(limit);
                example(&["orders.wanted($6)"], &arguments)
            };
            // By user, number, words, amounts that none has or all have, and time.
            examples.push(example(&["FROM orders.notes"], &[&refunded, before, limit]));
            examples.extend([
                searched(3, "array[md5('user7')::uuid]"),
                searched(5, "'22222FFFFF'"),
                // 110 parcels.
                searched(6, "'ada 777'"),
                searched(6, "'jd0007'"),
                searched(8, "2001"),
                searched(8, "1"),
                searched(9, "1999"),
                searched(10, "'2023-11-20'"),
            ]);
            for before in [before, "NULL"] {
                examples
                    .push(example(&["FROM orders.refunds", "id < COALESCE($2"], &[&refunded, before, limit]));
            }
        }
    }
    let bounds =
        Bounds { big: &BIG, blocks: 2500, settings: "SET LOCAL enable_seqscan = off; SET LOCAL jit = off" };
    let found = faults(&mut connection, env!("CARGO_MANIFEST_DIR"), bounds, &examples).await;
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

//! 100,000 accounts with what belongs to them, and as many events: no statement
//! reads a big table from end to end, nor touches more than a small part of one.

#[path = "it/app/mod.rs"]
mod app;

use app::App;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use testing::plans::{Bounds, Example, faults};

const BIG: [&str; 14] = [
    "accounts",
    "addresses",
    "audit_log",
    "audit_personal",
    "devices",
    "email_verifications",
    "inbox",
    "notifications",
    "outbox",
    "password_reset_callers",
    "password_resets",
    "refresh_tokens",
    "sessions",
    "sign_in_failures",
];

const FILL: &str = "
    SET synchronous_commit = off;
    INSERT INTO users.accounts (id, email, email_key, name, role, password_hash, created_at)
    SELECT (lpad(to_hex(1700000000000 + n * 1000::bigint), 12, '0') || '7000a000' || lpad(to_hex(n), 12, '0'))::uuid,
           'U-' || n || '@example.com', 'u-' || n || '@example.com', 'U ' || n,
           CASE WHEN n % 20000 = 1 THEN 'admin' WHEN n % 1000 = 2 THEN 'staff' ELSE 'customer' END, '-',
           timestamptz '2024-01-01' + n * interval '1 min'
    FROM generate_series(1, 100000) n;
    -- Each has one; the first has a thousand, more than the service allows.
    CREATE TEMP TABLE owners AS
    SELECT id AS account, n FROM users.accounts, generate_series(1, 1) n
    UNION ALL SELECT (SELECT id FROM users.accounts ORDER BY id LIMIT 1), n FROM generate_series(2, 1000) n;
    INSERT INTO users.sessions (id, account_id, created_at, last_used_at, expires_at)
    SELECT gen_random_uuid(), account, now(), now(),
           now() + CASE WHEN n % 50 = 0 THEN interval '-1 hour' ELSE interval '9 days' END FROM owners;
    INSERT INTO users.refresh_tokens (token_hash, session_id, created_at, spent_at)
    SELECT sha256((id::text || g)::bytea), id, now() - g * interval '3 days', CASE WHEN g > 0 THEN now() END
    FROM users.sessions, generate_series(0, 1) g;
    INSERT INTO users.addresses (id, account_id, name, line1, city, postal_code, country)
    SELECT gen_random_uuid(), account, 'A', '1', 'C', 'P', 'GB' FROM owners;
    INSERT INTO users.sign_in_failures (email_key, failures, last_failed_at, blocked_until)
    SELECT 'u-' || n || '@example.com', 1, now() - n * interval '1 ms', now() FROM generate_series(1, 100000) n;
    INSERT INTO users.password_resets (token_hash, account_id, created_at, ended_at)
    SELECT sha256((account::text || n)::bytea), account, now() - n * interval '1 s', CASE WHEN n > 1 THEN now() END
    FROM owners;
    INSERT INTO users.email_verifications (token_hash, account_id, email, email_key, name, language, password_hash, created_at)
    SELECT sha256((account::text || n)::bytea), CASE WHEN n > 1 THEN account END, 'V-' || account || '@example.com',
           'v-' || account || '@example.com', CASE WHEN n = 1 THEN 'A' END, CASE WHEN n = 1 THEN 'en' END,
           CASE WHEN n = 1 THEN '-' END, now() - n * interval '1 s'
    FROM owners;
    INSERT INTO users.devices (id, account_id, token_hash, last_used_at)
    SELECT gen_random_uuid(), account, sha256((account::text || n)::bytea), now() - n * interval '1 min' FROM owners;
    INSERT INTO users.password_reset_callers (caller, asked, since)
    SELECT '10.0.' || n / 256 || '.' || n % 256, 1, now() - n * interval '1 ms' FROM generate_series(1, 100000) n;
    INSERT INTO users.notifications (event_id, user_id, order_id, kind, created_at, status, due_at)
    SELECT gen_random_uuid(), id, gen_random_uuid(), 'order.placed.v1', now() - g * interval '20 days',
           CASE WHEN g = 0 AND hashtext(id::text) % 50 = 0 THEN 'pending' ELSE 'sent' END, now()
    FROM users.accounts, generate_series(0, 1) g;
    INSERT INTO users.outbox (id, type, aggregate_id, aggregate_version, payload, published_at)
    SELECT gen_random_uuid(), 'user.registered.v1', id, 1, '-',
           CASE WHEN hashtext(id::text) % 50 <> 0 THEN now() END FROM users.accounts;
    INSERT INTO users.inbox (consumer, event_id) SELECT 'user', event_id FROM users.notifications;
    -- One account did a fifth of it; all but a few entries are of three actions.
    INSERT INTO audit_log (id, at, actor, role, action, object_kind, object_id, changes)
    SELECT id, created_at, CASE WHEN n % 5 = 0 THEN (SELECT id FROM users.accounts ORDER BY id LIMIT 1) ELSE id END,
           'customer', CASE WHEN n % 5000 = 0 THEN 'account.changed' WHEN n % 3 = 0 THEN 'sign_in.failed'
                            ELSE 'sign_in.succeeded' END, 'account', id, '[]'
    FROM (SELECT id, created_at, row_number() OVER (ORDER BY id) AS n FROM users.accounts) AS numbered;
    INSERT INTO audit_personal (entry, subject, changes) SELECT id, actor, '[]' FROM audit_log WHERE id::text LIKE '%7';
";

fn example(parts: &[&'static str], arguments: &[&str]) -> Example {
    Example {
        parts: parts.to_vec(),
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
    }
}

/// Of this service, and of the tables that each service has.
#[tokio::test]
async fn the_query_metadata_fits_the_schema() {
    let app = App::start().await;
    let options: PgConnectOptions = app.database_url.parse().unwrap();
    let mut connection =
        PgConnection::connect_with(&options.options([("search_path", "users")])).await.unwrap();
    let mut stale = testing::metadata::stale(&mut connection, env!("CARGO_MANIFEST_DIR")).await;
    let messaging = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/messaging");
    stale.extend(testing::metadata::stale(&mut connection, messaging).await);
    let audit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/audit");
    stale.extend(testing::metadata::stale(&mut connection, audit).await);
    assert!(stale.is_empty(), "{}", stale.join("\n\n"));
    app.stop().await;
}

#[tokio::test]
async fn no_statement_reads_a_big_table_from_end_to_end() {
    let app = App::start().await;
    // Nobody else's: the service would send, relay and sweep what is made here.
    let database = app.database_url.clone();
    app.stop().await;
    let options: PgConnectOptions = database.parse().unwrap();
    let mut connection =
        PgConnection::connect_with(&options.options([("search_path", "users")])).await.unwrap();
    sqlx::raw_sql(FILL).execute(&mut connection).await.unwrap();
    // Not vacuumed: nothing is fast only because a vacuum came by.
    sqlx::raw_sql("ANALYZE").execute(&mut connection).await.unwrap();

    let busiest = "SELECT account_id::text FROM users.sessions GROUP BY 1 ORDER BY count(*) DESC LIMIT 1";
    let busiest: String = sqlx::query_scalar(busiest).fetch_one(&mut connection).await.unwrap();
    let busiest = format!("'{busiest}'");
    let (first, middle) =
        ("'ffffffff-ffff-ffff-ffff-ffffffffffff'", "'018c1000-0000-7000-8000-000000000000'");
    let mut examples = vec![example(&["FROM users.notifications", "SKIP LOCKED"], &["64"])];
    for after in [first, middle] {
        for (account, limit) in [(busiest.as_str(), "101"), (middle, "21")] {
            examples.push(example(&["FROM users.addresses", "LIMIT"], &[account, after, limit]));
            examples.push(example(&["FROM users.sessions", "LIMIT"], &[account, middle, after, limit]));
        }
        examples.push(example(&["FROM users.accounts", "WHERE id < $1"], &[after, "101"]));
        for email in ["'u-7@example.com'", "'nobody'", "''"] {
            let emails = format!("ARRAY[{email}]::text[]");
            examples.push(example(&["FROM users.accounts", "email_key = ANY($1) AND id"], &[&emails, after]));
        }
    }
    let bounds =
        Bounds { big: &BIG, blocks: 2000, settings: "SET LOCAL enable_seqscan = off; SET LOCAL jit = off" };
    let mut found = faults(&mut connection, env!("CARGO_MANIFEST_DIR"), bounds, &examples).await;

    // Each service has these tables, and runs these statements.
    let messaging = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/messaging");
    let examples = [example(&["FROM outbox", "SKIP LOCKED"], &["'{}'", "'{}'", "16", "128"])];
    // A dozen a row: it is found twice and written anew, with its entries in the indexes.
    let bounds = Bounds { blocks: 128 * 20, ..bounds };
    found.extend(faults(&mut connection, messaging, bounds, &examples).await);
    let audit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/audit");
    let bounds = Bounds { blocks: 2000, ..bounds };
    found.extend(faults(&mut connection, audit, bounds, &audited(&busiest)).await);
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

/// Pages of the record, by each filter.
fn audited(busiest: &str) -> Vec<Example> {
    let (first, none) = ("'ffffffff-ffff-ffff-ffff-ffffffffffff'", "'00000000-0000-0000-0000-000000000000'");
    let middle = "'018c1000-0000-7000-8000-000000000000'";
    let page = |before, from, actor, action, object| {
        example(&["FROM audit_log l"], &[before, from, actor, action, object, "101"])
    };
    vec![
        page(first, none, "NULL", "NULL", "NULL"),
        page(middle, none, "NULL", "NULL", "NULL"),
        page(first, middle, "NULL", "'account.changed'", "NULL"),
        page(middle, none, "NULL", "'sign_in.failed'", "NULL"),
        page(first, none, busiest, "NULL", "NULL"),
        page(middle, none, busiest, "'account.changed'", "NULL"),
        page(first, none, middle, "NULL", "NULL"),
        page(first, none, "NULL", "NULL", "'018c1000-0000-7000-8000-000000000000'"),
        page(first, none, busiest, "'account.changed'", "'nothing'"),
        example(&["DELETE FROM audit_log"], &[none]),
        example(&["DELETE FROM audit_personal", "entry < $1"], &[none]),
    ]
}

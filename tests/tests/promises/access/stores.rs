//! The services among themselves: each has its own schema and its own account, and no way into another's.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use operator::reconcile::{self, Options, Sources};
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use system_tests::Shop;
use tokio::time::timeout;

const SERVICES: [(&str, &str, &str); 3] = [
    ("user", "user_service", "users"),
    ("product", "product_service", "products"),
    ("order", "order_service", "orders"),
];

#[tokio::test]
async fn p9_no_services_role_reaches_a_table_of_another_service() {
    let shop = Shop::open().await;
    for (_, role, own) in SERVICES {
        let might: bool = sqlx::query_scalar(
            "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
                    OR EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid)
             FROM pg_roles r WHERE rolname = $1",
        )
        .bind(role)
        .fetch_one(&shop.database)
        .await
        .unwrap();
        assert!(!might, "{role} is more than a service's role");
        let schemas: Vec<String> = sqlx::query_scalar(
            "SELECT nspname::text FROM pg_namespace
             WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', $2)
               AND (has_schema_privilege($1, oid, 'CREATE')
                    OR nspname <> 'extensions' AND has_schema_privilege($1, oid, 'USAGE'))",
        )
        .bind(role)
        .bind(own)
        .fetch_all(&shop.database)
        .await
        .unwrap();
        assert_eq!(schemas, Vec::<String>::new(), "{role} gets into other schemas");
        // And tried for each table, view and sequence that there is.
        let relations: Vec<(String, String)> = sqlx::query_as(
            "SELECT relnamespace::regnamespace::text, relname::text FROM pg_class
             WHERE relnamespace::regnamespace::text = ANY($1) AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')",
        )
        .bind(SERVICES.map(|(_, _, schema)| schema.to_owned()).to_vec())
        .fetch_all(&shop.database)
        .await
        .unwrap();
        assert!(relations.len() > 25, "{relations:?}");
        for (schema, relation) in &relations {
            let mut transaction = shop.transaction().await;
            let become_role = AssertSqlSafe(format!("SET LOCAL ROLE {role}"));
            sqlx::query(become_role).execute(&mut *transaction).await.unwrap();
            let read = AssertSqlSafe(format!("SELECT 1 FROM {schema}.\"{relation}\" LIMIT 1"));
            let outcome = sqlx::query(read).execute(&mut *transaction).await;
            let code = outcome.as_ref().err().and_then(|error| error.as_database_error()?.code());
            let wanted = if schema == own { None } else { Some("42501") };
            assert_eq!(code.as_deref(), wanted, "{role} reads {schema}.{relation}: {outcome:?}");
        }
    }
}

/// A pooler drops what a service asks for when it connects.
#[tokio::test]
async fn p9_a_session_of_a_services_role_has_its_schema_and_its_limits_whoever_opens_it() {
    let shop = Shop::open().await;
    let secrets: Value = serde_json::from_str(&shop.file("secrets.json")).unwrap();
    for (service, role, schema) in SERVICES {
        let password = secrets[service].as_str().unwrap();
        // As any client would: the tests' own sessions have limits of their own.
        let options: PgConnectOptions = shop.database_url.parse().unwrap();
        let options = options.username(role).password(password);
        let mut session = PgConnection::connect_with(&options).await.unwrap();
        let path = if service == "product" { "products, extensions" } else { schema };
        for (setting, wanted) in [
            ("search_path", path),
            ("statement_timeout", "10s"),
            ("lock_timeout", "5s"),
            ("idle_in_transaction_session_timeout", "4s"),
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("jit", "off"),
        ] {
            let show = sqlx::query_scalar("SELECT current_setting($1)").bind(setting);
            let got: String = show.fetch_one(&mut session).await.unwrap();
            assert_eq!(got, wanted, "{setting} of {role}");
        }
    }
}

/// The role of the comparison that runs by itself.
#[tokio::test]
async fn p9_the_comparisons_role_reads_what_is_compared_and_nothing_else() {
    let shop = Shop::open().await;
    let secrets: Value = serde_json::from_str(&shop.file("secrets.json")).unwrap();
    let options: PgConnectOptions = shop.database_url.parse().unwrap();
    let options = options.username("reconcile").password(secrets["reconcile"].as_str().unwrap());
    let database = PgPool::connect_with(options).await.unwrap();
    let sources = Sources { database: &database, provider: None, broker: None };
    // What other tests have left may differ; it may be looked at.
    reconcile::check(&sources, &Options { since: None, grace: Duration::from_secs(60) }).await.unwrap();
    // What is read where the provider is asked, too.
    for read in [
        "SELECT o.version, o.dispute, s.intent_id FROM orders.orders o JOIN orders.sagas s ON s.order_id = o.id",
        "SELECT order_id, answer_status, swept FROM orders.claims",
    ] {
        sqlx::query(read).execute(&database).await.unwrap();
    }
    for refused in [
        "SELECT * FROM orders.orders",
        "SELECT * FROM orders.claims",
        "SELECT * FROM users.outbox",
        "SELECT email FROM users.accounts",
        "SELECT * FROM users.signing_keys",
        "SELECT * FROM users.sessions",
    ] {
        let error = sqlx::query(refused).execute(&database).await.expect_err(refused);
        let code = error.as_database_error().and_then(|error| error.code().map(String::from));
        assert_eq!(code.as_deref(), Some("42501"), "{refused}: {error}");
    }
    let written: Vec<String> = sqlx::query_scalar(
        "SELECT oid::regclass::text FROM pg_class
         WHERE relnamespace::regnamespace::text = ANY($1) AND relkind IN ('r', 'p', 'v', 'm', 'f')
           AND (has_table_privilege('reconcile', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')
                OR has_any_column_privilege('reconcile', oid, 'INSERT, UPDATE, REFERENCES'))",
    )
    .bind(SERVICES.map(|(_, _, schema)| schema.to_owned()).to_vec())
    .fetch_all(&shop.database)
    .await
    .unwrap();
    assert_eq!(written, Vec::<String>::new(), "it may read whole tables, or write");
}

/// Whether the broker does it: a channel of its own for each, as a refusal ends it.
async fn may_publish(connection: &Connection, exchange: &str, kind: &str) -> Result<(), String> {
    let publish = async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish(exchange.into(), kind.into(), options, b"", properties).await?.await
    };
    let outcome = timeout(Duration::from_secs(10), publish).await.expect("the broker answers");
    outcome.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn p9_a_service_publishes_events_of_its_own_name_only() {
    let shop = Shop::open().await;
    let secrets: Value = serde_json::from_str(&shop.file("secrets.json")).unwrap();
    let broker = &shop.broker_url;
    let (_, address) = broker.rsplit_once('@').unwrap();
    for (service, ..) in SERVICES {
        let connect = |password: &str| {
            let url = format!("amqp://{service}:{password}@{address}");
            async move { Connection::connect(&url, ConnectionProperties::default()).await }
        };
        assert!(connect("guessed").await.is_err());
        let connection = connect(secrets[service].as_str().unwrap()).await.unwrap();
        for (other, ..) in SERVICES {
            // Of a kind that nobody subscribes to.
            let published = may_publish(&connection, "dockside.events", &format!("{other}.tested.v1")).await;
            if other == service {
                assert_eq!(published, Ok(()), "{service} publishes its own");
            } else {
                let refused = published.expect_err("a service publishes for another");
                assert!(refused.contains("ACCESS_REFUSED"), "{service} publishes for {other}: {refused}");
            }
        }
        // The default one, without a name, leads into every queue.
        for exchange in ["", "amq.topic", "amq.fanout", "amq.direct"] {
            let refused = may_publish(&connection, exchange, "dockside.order").await.expect_err(exchange);
            assert!(refused.contains("ACCESS_REFUSED"), "{service} in {exchange}: {refused}");
        }
        let channel = connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions::default();
        let declared = channel.queue_declare("elsewhere".into(), options, FieldTable::default()).await;
        let refused = declared.map(drop).expect_err("a queue outside of the topology").to_string();
        assert!(refused.contains("ACCESS_REFUSED"), "{service}: {refused}");
    }
}

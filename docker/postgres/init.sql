-- Roles and schemas of the services, in the current database; run by a superuser, safe to repeat.
--
-- Plain psql: `cargo dockside` runs it, and so does PostgreSQL's official image from
-- /docker-entrypoint-initdb.d. Passwords come from the environment.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
\getenv user_password USER_SERVICE_PASSWORD
\getenv product_password PRODUCT_SERVICE_PASSWORD
\getenv order_password ORDER_SERVICE_PASSWORD
\getenv reconcile_password RECONCILE_PASSWORD

SELECT format('CREATE ROLE %I LOGIN', name)
FROM unnest(ARRAY['user_service', 'product_service', 'order_service', 'reconcile']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
ALTER ROLE user_service PASSWORD :'user_password';
ALTER ROLE product_service PASSWORD :'product_password';
ALTER ROLE order_service PASSWORD :'order_password';
ALTER ROLE reconcile PASSWORD :'reconcile_password';

-- Only these roles may connect, and nobody finds a schema to share.
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO user_service, product_service, order_service, reconcile;
REVOKE ALL ON SCHEMA public FROM PUBLIC;

-- A schema belongs to its service alone.
CREATE SCHEMA IF NOT EXISTS users AUTHORIZATION user_service;
CREATE SCHEMA IF NOT EXISTS products AUTHORIZATION product_service;
CREATE SCHEMA IF NOT EXISTS orders AUTHORIZATION order_service;

-- Extensions need a superuser, so they are not in the services' migrations.
CREATE SCHEMA IF NOT EXISTS extensions;
CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA extensions;
GRANT USAGE ON SCHEMA extensions TO product_service;

ALTER ROLE user_service IN DATABASE :"DBNAME" SET search_path = users;
ALTER ROLE product_service IN DATABASE :"DBNAME" SET search_path = products, extensions;
ALTER ROLE order_service IN DATABASE :"DBNAME" SET search_path = orders;

-- Settings of every session, however it comes: a pooler drops those that a client asks for when it connects.
SELECT format('ALTER ROLE %I IN DATABASE %I SET %s = %L', role, current_database(), setting, value)
FROM unnest(ARRAY['user_service', 'product_service', 'order_service']) AS role,
     (VALUES ('statement_timeout', '10s'), ('lock_timeout', '5s'),
             ('idle_in_transaction_session_timeout', '4s'),
             ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'), ('jit', 'off')) AS settings (setting, value)
\gexec

-- What `operator reconcile` reads, for a role that can do nothing else: no names, no addresses, no passwords, no keys.
-- Default privileges would give it every table, those with the signing keys too. So each column here is granted as
-- soon as a migration has made it.
GRANT USAGE ON SCHEMA users, products, orders TO reconcile;
ALTER ROLE reconcile IN DATABASE :"DBNAME" SET default_transaction_read_only = on;
CREATE SCHEMA IF NOT EXISTS reconcile;

-- Of these tables alone; NULL: of all.
CREATE OR REPLACE FUNCTION reconcile.grant_reads(changed oid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    reads record;
BEGIN
    FOR reads IN
        SELECT c.oid::regclass AS relation, string_agg(quote_ident(a.attname), ', ') AS names
        FROM (VALUES
            ('users.outbox', 'id type aggregate_id created_at published_at'),
            ('users.inbox', 'consumer event_id'),
            ('users.inbox_pruned', 'consumer up_to'),
            ('products.outbox', 'id type aggregate_id created_at published_at'),
            ('products.inbox', 'consumer event_id'),
            ('products.inbox_pruned', 'consumer up_to'),
            ('products.stock', 'product_id on_hand reserved'),
            ('products.stock_ledger', 'product_id order_id delta'),
            ('products.reservations', 'order_id state expires_at created_at'),
            ('products.reservation_lines', 'order_id product_id quantity restocked'),
            ('products.forgotten_reservations', 'up_to'),
            ('orders.outbox', 'id type aggregate_id created_at published_at'),
            ('orders.inbox', 'consumer event_id'),
            ('orders.inbox_pruned', 'consumer up_to'),
            ('orders.orders', 'id status payment_status total currency refunded dispute version updated_at'),
            ('orders.order_items', 'order_id product_id quantity unit_price'),
            ('orders.sagas', 'order_id phase intent_id busy news news_read'),
            ('orders.refunds', 'order_id amount status restock told created_at'),
            ('orders.claims', 'order_id operation answer_status swept created_at')
        ) AS wanted (relation, names)
        JOIN pg_class c ON c.oid = to_regclass(wanted.relation)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = ANY (string_to_array(wanted.names, ' '))
        WHERE (changed IS NULL OR c.oid = ANY (changed))
          AND NOT has_column_privilege('reconcile', c.oid, a.attnum, 'SELECT')
        GROUP BY c.oid
    LOOP
        EXECUTE format('GRANT SELECT (%s) ON %s TO reconcile', reads.names, reads.relation);
    END LOOP;
END $$;

-- A migration does not fail for it: `reconcile` does, and says what it may not read.
CREATE OR REPLACE FUNCTION reconcile.grant_reads_of_changed() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM reconcile.grant_reads(ARRAY(SELECT objid FROM pg_event_trigger_ddl_commands()));
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'reconcile may not read what was changed: %', SQLERRM;
END $$;

SELECT 'CREATE EVENT TRIGGER reconcile_reads ON ddl_command_end WHEN TAG IN (''CREATE TABLE'', ''ALTER TABLE'')
        EXECUTE FUNCTION reconcile.grant_reads_of_changed()'
WHERE NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'reconcile_reads')
\gexec
SELECT reconcile.grant_reads(NULL) \g /dev/null

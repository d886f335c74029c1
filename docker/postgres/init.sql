-- Roles and schemas of the services, in the current database; run by a superuser, safe to repeat.
--
-- Plain psql: `cargo dockside` runs it, and so does PostgreSQL's official image from
-- /docker-entrypoint-initdb.d. Passwords come from the environment.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
\getenv user_password USER_SERVICE_PASSWORD
\getenv product_password PRODUCT_SERVICE_PASSWORD
\getenv order_password ORDER_SERVICE_PASSWORD

SELECT format('CREATE ROLE %I LOGIN', name)
FROM unnest(ARRAY['user_service', 'product_service', 'order_service']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
ALTER ROLE user_service PASSWORD :'user_password';
ALTER ROLE product_service PASSWORD :'product_password';
ALTER ROLE order_service PASSWORD :'order_password';

-- Only the services' roles may connect, and nobody finds a schema to share.
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO user_service, product_service, order_service;
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

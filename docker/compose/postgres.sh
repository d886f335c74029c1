#!/bin/sh
# Run by PostgreSQL's image once, on an empty data folder: docker/postgres/init.sql with the passwords of the services
# and of `reconcile`; and a role that may read PostgreSQL's own metrics, and no table.
set -eu
USER_SERVICE_PASSWORD=$(cat /run/secrets/user)
PRODUCT_SERVICE_PASSWORD=$(cat /run/secrets/product)
ORDER_SERVICE_PASSWORD=$(cat /run/secrets/order)
RECONCILE_PASSWORD=$(cat /run/secrets/reconcile)
export USER_SERVICE_PASSWORD PRODUCT_SERVICE_PASSWORD ORDER_SERVICE_PASSWORD RECONCILE_PASSWORD
psql --no-psqlrc --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --file /usr/local/share/dockside/init.sql
METRICS_PASSWORD=$(cat /run/secrets/metrics)
export METRICS_PASSWORD
psql --no-psqlrc --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\set ON_ERROR_STOP on
SET client_min_messages = warning;
\getenv password METRICS_PASSWORD
SELECT 'CREATE ROLE metrics LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'metrics')
\gexec
ALTER ROLE metrics PASSWORD :'password' CONNECTION LIMIT 5;
GRANT pg_monitor TO metrics;
GRANT CONNECT ON DATABASE :"DBNAME" TO metrics;
SQL

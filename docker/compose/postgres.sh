#!/bin/sh
# Run by PostgreSQL's image once, on an empty data folder: docker/postgres/init.sql with the passwords of the services
# and of `reconcile`.
set -eu
USER_SERVICE_PASSWORD=$(cat /run/secrets/user)
PRODUCT_SERVICE_PASSWORD=$(cat /run/secrets/product)
ORDER_SERVICE_PASSWORD=$(cat /run/secrets/order)
RECONCILE_PASSWORD=$(cat /run/secrets/reconcile)
export USER_SERVICE_PASSWORD PRODUCT_SERVICE_PASSWORD ORDER_SERVICE_PASSWORD RECONCILE_PASSWORD
psql --no-psqlrc --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --file /usr/local/share/dockside/init.sql

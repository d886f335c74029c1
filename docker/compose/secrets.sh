#!/bin/sh
# Makes the passwords and keys of docker-compose.yml, once: a folder under /secrets for each container that needs some,
# each a volume that only that container mounts. `docker compose down --volumes` forgets them with the data.
set -eu
umask 022
cd /secrets

secret() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }
put() { printf '%s\n' "$2" >"$1"; }
storefront() {
    key=$(secret)
    put storefront/cookie_key "$(secret)$(secret)$(secret)$(secret)"
    put storefront/storefront_key "$key"
    put edge/storefront_key "$key"
}
# What the private halves of signing keys are sealed with in the database, and so in its dumps.
seal() {
    put user/signing_key_encryption_key "$(secret)$(secret)"
}
canary() {
    put edge/canary_key "$(secret)"
}
reconcile() {
    password=$(secret)
    put reconcile/database_url "postgres://reconcile:$password@postgres:5432/dockside"
    cat order/payment_secret_key >reconcile/payment_secret_key
    put postgres/reconcile "$password"
}
# Each account declares, reads and writes its own queues, and the exchange by which it puts events aside; it tells of
# nothing but its own affairs, and subscribes to what it needs. None writes to the default exchange, which leads into
# every queue. The exchange of all events is made here, as none may delete it. RabbitMQ reads this whenever it starts.
broker() {
    accounts='' permissions='' topics=''
    for service in user product order; do
        password=$(sed 's|^amqp://[^:]*:\([^@]*\)@.*|\1|' $service/amqp_url)
        case $service in order) reads='^(product|user)[.]' ;; *) reads='^order[.]' ;; esac
        own="$service([.]|\$)"
        topology="\"configure\":\"^dockside[.]$own\",\"write\":\"^dockside[.](events\$|$own)\",\"read\":\"^dockside[.](events\$|$own)\""
        accounts="$accounts${accounts:+,}{\"name\":\"$service\",\"password\":\"$password\",\"tags\":\"\"}"
        permissions="$permissions${permissions:+,}{\"user\":\"$service\",\"vhost\":\"/\",$topology}"
        topics="$topics${topics:+,}{\"user\":\"$service\",\"vhost\":\"/\",\"exchange\":\"dockside.events\",\"write\":\"^${service}[.]\",\"read\":\"$reads\"}"
    done
    events='{"name":"dockside.events","vhost":"/","type":"topic","durable":true,"auto_delete":false,"internal":false,"arguments":{}}'
    put rabbitmq/definitions.json "{\"vhosts\":[{\"name\":\"/\"}],\"users\":[$accounts],\"permissions\":[$permissions],\"topic_permissions\":[$topics],\"exchanges\":[$events]}"
}
# What reads PostgreSQL's own metrics.
metrics() {
    password=$(secret)
    put metrics/password "$password"
    put postgres/metrics "$password"
}

# Written last: what a run that was cut short left is made anew, which nobody can have used yet.
if [ -e postgres/complete ]; then
    # Shops that were made before these ran by themselves, or before there were web pages.
    [ -e postgres/reconcile ] || reconcile
    [ -e edge/storefront_key ] || storefront
    [ -e edge/canary_key ] || canary
    [ -e user/signing_key_encryption_key ] || seal
    [ -e postgres/metrics ] || metrics
    # Made by an earlier release, it may give more rights.
    broker
    exit 0
fi

put postgres/superuser "$(secret)"
for service in user product order; do
    password=$(secret)
    put "postgres/$service" "$password"
    put "$service/database_url" "postgres://${service}_service:$password@postgres:5432/dockside"
    put "$service/amqp_url" "amqp://$service:$(secret)@rabbitmq:5672/%2f"
done
broker

# {"private_key_pem":"...\n...","public_key":"..."}; the private half never leaves order's folder.
pair=$(order keygen)
printf '%b\n' "$(printf '%s' "$pair" | sed 's/.*"private_key_pem":"\([^"]*\)".*/\1/')" >order/service_key
for callee in user product; do
    put "$callee/trusted_callers" "order=$(printf '%s' "$pair" | sed 's/.*"public_key":"\([^"]*\)".*/\1/')"
done

# The shapes of Stripe's test keys.
key=sk_test_$(secret) webhook=whsec_$(secret)
put payment-sandbox/secret_key "$key"
put payment-sandbox/webhook_secret "$webhook"
put order/payment_secret_key "$key"
put order/payment_webhook_secret "$webhook"
reconcile
storefront
canary
seal
metrics

put postgres/complete yes

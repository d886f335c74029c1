#!/bin/bash
# Writes RabbitMQ's configuration, with an account for each service.
set -euo pipefail
mkdir -p /etc/rabbitmq/conf.d
cat >/etc/rabbitmq/conf.d/90-dockside.conf <<'CONF'
load_definitions = /etc/rabbitmq/definitions.json
# Below the container's limit, so that publishers wait before the kernel kills the broker.
vm_memory_high_watermark.absolute = 300MB
# Quorum queues keep what the log has not yet handed on in memory too; the default is 512 MiB.
raft.wal_max_size_bytes = 32000000
disk_free_limit.absolute = 200MB
log.console.level = info
# Of each queue, as `dockside.user.dead` means something else than `dockside.user`.
prometheus.return_per_object_metrics = true
CONF
account() {
    printf '{"name":"%s","password":"%s","tags":""}' "$1" "$2"
}
# Each account declares, reads and writes its own queues, and the exchange by which it puts events aside; it tells of
# nothing but its own affairs, and subscribes to what it needs. None writes to the default exchange, which leads into
# every queue. The exchange of all events is made here, as none may delete it.
may() {
    printf '{"user":"%s","vhost":"/","configure":"^dockside[.]%s([.]|$)",' "$1" "$1"
    printf '"write":"^dockside[.](events$|%s([.]|$))","read":"^dockside[.](events$|%s([.]|$))"}' "$1" "$1"
}
tells() {
    printf '{"user":"%s","vhost":"/","exchange":"dockside.events","write":"^%s[.]","read":"%s"}' "$1" "$1" "$2"
}
cat >/etc/rabbitmq/definitions.json <<JSON
{"vhosts":[{"name":"/"}],
 "users":[$(account user "$USER_PASSWORD"),$(account product "$PRODUCT_PASSWORD"),$(account order "$ORDER_PASSWORD")],
 "permissions":[$(may user),$(may product),$(may order)],
 "topic_permissions":[$(tells user '^order[.]'),$(tells product '^order[.]'),$(tells order '^(product|user)[.]')],
 "exchanges":[{"name":"dockside.events","vhost":"/","type":"topic","durable":true,"auto_delete":false,"internal":false,"arguments":{}}]}
JSON

#!/bin/bash
# Gives Elasticsearch the lifecycle and the mapping of the shop's logs, and Kibana what to look at them with. Safe to
# repeat.
set -euo pipefail
cd "$(dirname "$0")"
elasticsearch=${ELASTICSEARCH:-http://elasticsearch:9200}
kibana=${KIBANA:-http://kibana:5601}
ask() { curl -fsS --retry 30 --retry-delay 2 --retry-all-errors --max-time 30 -o /dev/null "$@"; }

ask -X PUT "$elasticsearch/_ilm/policy/dockside-logs" -H 'Content-Type: application/json' --data-binary @lifecycle.json
ask -X PUT "$elasticsearch/_index_template/logs-dockside" -H 'Content-Type: application/json' --data-binary @template.json
ask -X POST "$kibana/api/saved_objects/_import?overwrite=true" -H 'kbn-xsrf: true' -F file=@kibana.ndjson
echo "elk.ready"

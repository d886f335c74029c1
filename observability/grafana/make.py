"""Makes the dashboards that Grafana loads: `python3 observability/grafana/make.py`; with --check it changes nothing and
fails when one is out of date.

A panel here is a title, a unit of Grafana's, what it says, and queries by their legends.
"""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "prometheus"}


def share(bad, all_, by):
    """Of rates that may have no bad series yet: 0 then, not nothing."""
    return f"(sum by ({by}) ({bad}) or 0 * sum by ({by}) ({all_})) / (sum by ({by}) ({all_}) > 0)"


def quantiles(histogram, by=""):
    of = f"sum by (le{by and ', ' + by}) (rate({histogram}[$__rate_interval]))"
    end = f" {{{{{by}}}}}" if by else ""
    return {f"{name}{end}": f"histogram_quantile({q}, {of})" for name, q in [("median", 0.5), ("95 %", 0.95), ("99 %", 0.99)]}


def rate(counter, by):
    return f"sum by ({by}) (rate({counter}[$__rate_interval]))"


HTTP = 'http_server_request_duration_seconds_count{job=~"$service"}'
HTTP_BAD = 'http_server_request_duration_seconds_count{job=~"$service", http_response_status_code=~"5.."}'
BROWSE = 'http_server_request_duration_seconds_count{job="product", http_request_method="GET", http_route=~"/api/v1/(products|categories).*"}'
MINE = '{job=~"$service"}'

SHOP = [
    "Are customers served?",
    ("Objectives, over an hour", "percentunit", "Of what customers asked for, the share that was as promised. Of 30 days, 99.9 % of requests to browse and to order should succeed, 99 % of them within 250 ms and within 1 s, and 99.5 % of orders be confirmed or cancelled within 10 s.",
     {"{{slo}}": "1 - slo:bad:ratio1h"}, "stat", 16),
    ("Alerts that fire", "none", "0 is well. Alertmanager and the runbook say what to do about others.",
     {"alerts": 'count(ALERTS{alertstate="firing"}) or vector(0)'}, "stat", 4),
    ("Targets that are up", "percentunit", "Of all that Prometheus asks.", {"up": "avg(up)"}, "stat", 4),
    ("How fast the error budget goes", "none", "1: it lasts for just 30 days. Above 14.4 for an hour somebody is called.",
     {"{{slo}}": "slo:bad:ratio5m / on (slo) (1 - slo:objective:ratio)"}),
    ("From order to decision", "s", "From accepted to confirmed or cancelled; time with the customer's bank is not counted.",
     quantiles("orders_decision_duration_seconds_bucket")),
    "Business",
    ("Orders", "cpm", "Accepted, and how they ended, a minute.",
     {"accepted": "60 * sum(rate(orders_accepted_total[$__rate_interval]))", "{{outcome}} {{reason}}": "60 * " + rate("orders_outcomes_total", "outcome, reason")}),
    ("Money an hour", "none", "Captured and refunded, in minor units of each currency: cents of EUR.",
     {"captured {{currency}}": "sum by (currency) (rate(money_captured_total[$__rate_interval])) * 3600",
      "refunded {{currency}}": "(sum by (currency) (rate(money_refunded_total[$__rate_interval])) or 0 * sum by (currency) (money_captured_total)) * 3600"}),
    ("Orders that were refused to customers", "cpm", "A minute, by reason. out_of_stock: sold out.",
     {"{{reason}}": "60 * " + rate("checkout_refusals_total", "reason")}),
    ("Browsing and ordering", "reqps", "Requests a second.",
     {"browse": f"sum(rate({BROWSE}[$__rate_interval]))",
      "order": 'sum(rate(http_server_request_duration_seconds_count{job="order", http_request_method="POST", http_route="/api/v1/orders"}[$__rate_interval]))'}),
    ("Open reservations", "none", "Stock that is kept for orders under way.", {"open": "max(reservations_open)"}),
    ("Reservations", "cpm", "Asked for, and ended by time, a minute.",
     {"asked": "60 * sum(rate(reservations_asked_total[$__rate_interval]))", "expired": "60 * sum(rate(reservations_expired_total[$__rate_interval]))"}),
    ("Mail", "cpm", "Tries to send, a minute, by result.", {"{{result}}": "60 * " + rate("mail_attempts_total", "result")}),
]

SERVICE = [
    "Requests",
    ("HTTP requests", "reqps", "Answered, by service and status.", {"{{job}} {{http_response_status_code}}": rate(HTTP, "job, http_response_status_code")}),
    ("Share of 5xx", "percentunit", "Of the HTTP requests that were answered.",
     {"{{job}}": share(f"rate({HTTP_BAD}[$__rate_interval])", f"rate({HTTP}[$__rate_interval])", "job")}),
    ("HTTP duration", "s", "All routes together.",
     quantiles('http_server_request_duration_seconds_bucket{job=~"$service"}', "job")),
    ("Busiest routes", "reqps", "The ten with the most requests.",
     {"{{job}} {{http_request_method}} {{http_route}}": f"topk(10, {rate(HTTP, 'job, http_request_method, http_route')})"}),
    ("Slowest routes", "s", "95 % of requests are quicker; the ten slowest. Streams of events last as long as their listeners stay, and are left out.",
     {"{{job}} {{http_route}}": 'topk(10, histogram_quantile(0.95, sum by (le, job, http_route) (rate(http_server_request_duration_seconds_bucket{job=~"$service", http_route!~".*/events"}[$__rate_interval]))))'}),
    ("gRPC calls", "reqps", "Answered (of user and product) and made (of order), by status.",
     {"{{job}} {{rpc_method}} {{rpc_response_status_code}}": rate("rpc_server_call_duration_seconds_count" + MINE, "job, rpc_method, rpc_response_status_code"),
      "{{job}} made {{rpc_method}} {{rpc_response_status_code}}": rate("rpc_client_call_duration_seconds_count" + MINE, "job, rpc_method, rpc_response_status_code")}),
    ("gRPC duration", "s", "95 % of calls are quicker. A call that was made has all its repeats in it.",
     {"{{job}} {{rpc_method}}": f"histogram_quantile(0.95, sum by (le, job, rpc_method) (rate(rpc_server_call_duration_seconds_bucket{MINE}[$__rate_interval])))",
      "{{job}} made {{rpc_method}}": f"histogram_quantile(0.95, sum by (le, job, rpc_method) (rate(rpc_client_call_duration_seconds_bucket{MINE}[$__rate_interval])))"}),
    "Saturation",
    ("How full", "percentunit", "Of each limit, what is taken. At 100 % work is refused or waits.",
     {"{{job}} {{port}} places": f"max by (job, port) (requests_in_work{MINE} / requests_limit{MINE})",
      "{{job}} connections": f'max by (job) (db_client_connection_count{{job=~"$service", db_client_connection_state="used"}} / ignoring (db_client_connection_state) db_client_connection_max{MINE})',
      "{{job}} {{batch}}": f"max by (job, batch) (batch_queue_length{MINE} / batch_queue_limit{MINE})",
      "{{job}} listeners": f"max by (job) (order_stream_listeners{MINE} / order_stream_listeners_limit{MINE})",
      "{{job}} hashing": f"max by (job) (password_hashing_in_work{MINE} / password_hashing_limit{MINE})"}),
    ("Refused", "cps", "Requests (503), and items of full batches, a second.",
     {"{{job}} {{port}}": rate("requests_refused_total" + MINE, "job, port"), "{{job}} {{batch}}": rate("batch_refused_total" + MINE, "job, batch"),
      "{{job}} {{reason}}": rate("orders_refused_total" + MINE, "job, reason"), "{{job}} hashing": rate("password_hashes_refused_total" + MINE, "job")}),
    ("Connections to PostgreSQL", "none", "Used and idle, and callers that wait for one.",
     {"{{job}} {{db_client_connection_state}}": f"sum by (job, db_client_connection_state) (db_client_connection_count{MINE})",
      "{{job}} waiting": f"sum by (job) (db_client_connection_pending_requests{MINE})"}),
    ("Wait for a connection", "s", "95 % of callers waited less.",
     {"{{job}}": f"histogram_quantile(0.95, sum by (le, job) (rate(db_client_connection_wait_time_seconds_bucket{MINE}[$__rate_interval])))"}),
    "Process",
    ("CPU", "none", "Cores that are busy, by mode.", {"{{job}} {{cpu_mode}}": rate("process_cpu_time_seconds_total" + MINE, "job, cpu_mode")}),
    ("Memory", "bytes", "Resident, of each process.", {"{{job}} {{instance}}": "process_memory_usage_bytes" + MINE}),
    ("Open files", "none", "Of each process, sockets too.", {"{{job}} {{instance}}": "process_unix_file_descriptor_count" + MINE}),
    ("Tasks", "none", "Tasks that live, and tasks that no worker has taken up.",
     {"{{job}} tasks": f"sum by (job) (tokio_runtime_alive_tasks{MINE})", "{{job}} queued": f"sum by (job) (tokio_runtime_global_queue_depth{MINE})"}),
    ("Busy workers", "none", "How many threads of the runtime are busy.", {"{{job}}": rate("tokio_runtime_busy_time_seconds_total" + MINE, "job")}),
    ("Uptime", "s", "Since each process started.", {"{{job}} {{instance}}": "process_uptime_seconds" + MINE}),
    ("Key refreshes and password hashes", "cps", "Fetches of the public keys of access tokens, by outcome (product and order); passwords that were hashed (user).",
     {"{{job}} keys {{outcome}}": rate("jwks_refreshes_total" + MINE, "job, outcome"), "{{job}} hashes": rate("password_hashes_total" + MINE, "job")}),
]

ORDERS = [
    "Orders under way",
    ("Sagas", "none", "Orders that have work left, by phase.", {"{{phase}}": "max by (phase) (sagas_open)"}),
    ("Stuck, or with the customer's bank", "none", "Stuck: due for more than a minute, or tried more than 20 times. Above 0 see the runbook.",
     {"stuck": "max(sagas_stuck)", "with the bank": "max(sagas_waiting_for_customer)"}),
    ("Oldest order without a decision", "s", "Without the time with the customer's bank.", {"age": "max(sagas_oldest_age_seconds)"}),
    ("Decided within 10 s", "percentunit", "Of the orders that were confirmed or cancelled.",
     {"within 10 s": 'sum(rate(orders_decision_duration_seconds_bucket{le=~"10([.]0)?"}[$__rate_interval])) / sum(rate(orders_decision_duration_seconds_count[$__rate_interval]))'}),
    ("Outcomes", "cpm", "A minute, by outcome and reason.", {"{{outcome}} {{reason}}": "60 * " + rate("orders_outcomes_total", "outcome, reason")}),
    ("Refused at the door", "cpm", "503, a minute. backlog: 128 orders wait to be paid. provider_key: the provider refuses the shop's key.",
     {"{{reason}}": "60 * " + rate("orders_refused_total", "reason")}),
    "Card provider",
    ("Calls", "cps", "By status; no_answer where there was none.",
     {"{{http_response_status_code}}{{error_type}}": rate("http_client_request_duration_seconds_count", "http_response_status_code, error_type")}),
    ("Duration", "s", "95 % of calls are quicker, by what was asked for.",
     {"{{http_request_method}} {{url_template}}": "histogram_quantile(0.95, sum by (le, http_request_method, url_template) (rate(http_client_request_duration_seconds_bucket[$__rate_interval])))"}),
    "Events",
    ("Outbox", "none", "Events that RabbitMQ has not confirmed, and types of them that are paused.",
     {"{{job}} waiting": "max by (job) (outbox_backlog)", "{{job}} paused": "max by (job) (outbox_paused)"}),
    ("Oldest event in an outbox", "s", "Above 60 s for a minute EventsWait fires.", {"{{job}}": "max by (job) (outbox_lag_seconds)"}),
    ("Published", "cps", "By type of event.", {"{{job}} {{event_type}}": rate("events_published_total", "job, event_type")}),
    ("Applied", "cps", "By type of event.", {"{{job}} {{event_type}}": rate("events_applied_total", "job, event_type")}),
    ("Not taken, tried again, dead", "cps", "What the broker did not take, by reason; what a service could not apply, by the queue that it waits in.",
     {"{{job}} {{reason}}": rate("events_not_taken_total", "job, reason"), "{{queue}}": rate("events_put_aside_total", "queue")}),
    ("Mail that waits", "none", "How many mails.", {"mails": "max(mail_backlog)"}),
    ("Oldest mail that waits", "s", "How long it has waited.", {"age": "max(mail_lag_seconds)"}),
]

STORES = [
    "PostgreSQL",
    ("Connections", "none", "By state, and how many there may be.",
     {"{{state}}": "sum by (state) (pg_stat_activity_count)", "limit": "max(pg_settings_max_connections)"}),
    ("Transactions", "cps", "A second, of the shop's database.",
     {"committed": 'sum(rate(pg_stat_database_xact_commit{datname="dockside"}[$__rate_interval]))', "rolled back": 'sum(rate(pg_stat_database_xact_rollback{datname="dockside"}[$__rate_interval]))'}),
    ("Rows", "cps", "Written and read, a second.",
     {what: f'sum(rate(pg_stat_database_tup_{what}{{datname="dockside"}}[$__rate_interval]))' for what in ["inserted", "updated", "deleted", "fetched"]}),
    ("Blocks found in memory", "percentunit", "Of those that were read. What is missing comes from the system's cache or the disk.",
     {"found": 'sum(rate(pg_stat_database_blks_hit{datname="dockside"}[$__rate_interval])) / (sum(rate(pg_stat_database_blks_hit{datname="dockside"}[$__rate_interval])) + sum(rate(pg_stat_database_blks_read{datname="dockside"}[$__rate_interval])))'}),
    ("Longest transaction", "s", "By state. The services end theirs within seconds.", {"{{state}}": 'max by (state) (pg_stat_activity_max_tx_duration{datname="dockside"})'}),
    ("Locks", "none", "Held or waited for, by mode.", {"{{mode}}": 'sum by (mode) (pg_locks_count{datname="dockside"})'}),
    ("Deadlocks", "cps", "A second. There should be none.", {"deadlocks": 'sum(rate(pg_stat_database_deadlocks{datname="dockside"}[$__rate_interval]))'}),
    ("Files for sorting", "Bps", "Written a second, since it did not fit in memory.", {"written": 'sum(rate(pg_stat_database_temp_bytes{datname="dockside"}[$__rate_interval]))'}),
    ("Size", "bytes", "Of the shop's database on disk.", {"{{datname}}": 'max by (datname) (pg_database_size_bytes{datname="dockside"})'}),
    "RabbitMQ",
    ("Messages", "none", "In each queue: ready, and with a consumer.",
     {"{{queue}} ready": "max by (queue) (rabbitmq_queue_messages_ready)", "{{queue}} unacked": "max by (queue) (rabbitmq_queue_messages_unacked)"}),
    ("Dead letters", "none", "Events that could not be applied. Above 0 see the runbook.", {"{{queue}}": 'max by (queue) (rabbitmq_queue_messages{queue=~"dockside[.].*[.]dead"})'}),
    ("In and out", "cps", "Messages that were published and delivered, a second.",
     {"published": "sum(rate(rabbitmq_global_messages_received_total[$__rate_interval]))", "delivered": "sum(rate(rabbitmq_global_messages_delivered_total[$__rate_interval]))",
      "redelivered": "sum(rate(rabbitmq_global_messages_redelivered_total[$__rate_interval]))"}),
    ("Memory", "bytes", "Above the limit publishers are blocked.", {"{{instance}}": "rabbitmq_process_resident_memory_bytes", "limit": "max(rabbitmq_resident_memory_limit_bytes)"}),
    ("Free disk", "bytes", "Below the limit publishers are blocked.", {"{{instance}}": "rabbitmq_disk_space_available_bytes", "limit": "max(rabbitmq_disk_space_available_limit_bytes)"}),
    ("Connections, consumers, alarms", "none", "An alarm (1) blocks publishers.",
     {"connections": "sum(rabbitmq_connections)", "consumers": "sum(rabbitmq_consumers)", "memory alarm": "max(rabbitmq_alarms_memory_used_watermark)", "disk alarm": "max(rabbitmq_alarms_free_disk_space_watermark)"}),
]

SERVICES = {
    "name": "service", "label": "Service", "type": "query", "datasource": SOURCE, "query": "label_values(process_uptime_seconds, job)",
    "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "current": {"text": "All", "value": "$__all"},
}
BOARDS = {
    "shop": ("Shop", SHOP, []),
    "service": ("Service", SERVICE, [SERVICES]),
    "orders": ("Order saga and messaging", ORDERS, []),
    "stores": ("PostgreSQL and RabbitMQ", STORES, []),
}


def panel(number, title, unit, description, queries, kind="timeseries", width=8):
    defaults = {"unit": unit} | ({"min": 0} if kind == "timeseries" else {})
    options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    if kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none", "textMode": "value_and_name"}
    targets = [
        {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expr, "legendFormat": legend, "exemplar": "histogram_quantile" in expr}
        for at, (legend, expr) in enumerate(queries.items())
    ]
    return {
        "id": number, "type": kind, "title": title, "description": description, "datasource": SOURCE, "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options,
    }, width, 5 if kind == "stat" else 8


def board(uid, title, parts, variables):
    panels, x, y, line = [], 0, 0, 0
    for number, part in enumerate(parts, start=1):
        made, width, height = ({"id": number, "type": "row", "title": part, "collapsed": False, "panels": []}, 24, 1) if isinstance(part, str) else panel(number, *part)
        if x + width > 24 or isinstance(part, str):
            x, y, line = 0, y + line, 0
        panels.append(made | {"gridPos": {"x": x, "y": y, "w": width, "h": height}})
        x, line = x + width, max(line, height)
    link = {"title": "Dockside", "type": "dashboards", "tags": ["dockside"], "asDropdown": True, "keepTime": True, "includeVars": False,
            "icon": "external link", "targetBlank": False, "tooltip": "", "url": ""}
    return {
        "uid": f"dockside-{uid}", "title": title, "tags": ["dockside"], "schemaVersion": 39, "version": 1, "editable": True, "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"}, "refresh": "15s", "timezone": "browser", "templating": {"list": variables},
        "annotations": {"list": []}, "links": [link], "panels": panels,
    }


def texts():
    for uid, (title, parts, variables) in BOARDS.items():
        yield FOLDER / f"{uid}.json", json.dumps(board(uid, title, parts, variables), indent=1) + "\n"


def main():
    stale = [path for path, text in texts() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.name} is out of date: python3 observability/grafana/make.py", file=sys.stderr)
        return bool(stale)
    for path, text in texts():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Has alerts fire for real: `python3 observability/faults.py`, on a shop of `cargo dockside up --observe` that nobody
needs. Processes are stopped for a while, and an event is published that nobody can read; meanwhile customers buy. The
windows of the rules are a sixtieth, so that minutes are seconds; limits such as an event's age are as they are.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import check
import trial

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# At the oldest event's and the oldest saga's age, with time for the numbers from the database.
LIMIT = 240


def scaled(text):
    """Rules with windows, offsets and waits of a sixtieth."""
    def short(found):
        return f"{found[1]}{max(1, int(found[2]) * UNITS[found[3]] // 60)}s"

    return re.sub(r"(\[|offset |\bfor: )(\d+)([smhd])\b", short, text)


class Processes:
    """Some are stopped, until the end of the block."""

    def __init__(self, status, names):
        self.pids = [process["pid"] for process in status["processes"] if process["name"] in names]

    def __enter__(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_):
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)


def buying(edge, over):
    """Orders the same product until it is over, whatever the answers."""
    shop = f"{edge}/api/v1"
    _, session = trial.call("POST", f"{shop}/auth/login", {"email": "demo@dockside.test", "password": "dockside-demo"})
    product = trial.call("GET", f"{shop}/products?in_stock=true&limit=1")[1]["items"][0]
    body = {"items": [{"product_id": product["id"], "quantity": 1}], "shipping_address": trial.ADDRESS, "payment_method": "pm_card_visa"}
    while not over.wait(0.2):
        headers = {"Authorization": f"Bearer {session['access_token']}", "Idempotency-Key": str(uuid.uuid4())}
        try:
            trial.call("POST", f"{shop}/orders", body, headers)
        except OSError:
            pass


def firing(servers):
    """{(alert, what it is about)} now."""
    _, body = trial.call("GET", f"{servers.url}/api/v1/alerts")
    return {
        (alert["labels"]["alertname"], alert["labels"].get("slo") or alert["labels"].get("job") or "")
        for alert in body["data"]["alerts"] if alert["state"] == "firing"
    }


def awaited(servers, name, wanted):
    """Whether all of them fire, each for a moment, within the limit."""
    seen, began = set(), time.monotonic()
    while not wanted <= seen and time.monotonic() < began + LIMIT:
        seen |= firing(servers)
        time.sleep(1)
    missing = wanted - seen
    print(f"{'FAILED' if missing else 'ok    '}  {name}, {time.monotonic() - began:.0f} s", flush=True)
    for alert, about in sorted(wanted):
        print(f"        {'does not fire' if (alert, about) in missing else 'fired'}: {alert} {about}", flush=True)
    return not missing


def unreadable_event(status):
    """What no consumer can decode, in the outbox of order."""
    event = "INSERT INTO orders.outbox (id, type, aggregate_id, aggregate_version, payload) VALUES (gen_random_uuid(), 'order.confirmed.v1', gen_random_uuid(), 1, '\\xff')"
    subprocess.run(["psql", status["postgres"]["url"], "--quiet", "--command", event], check=True, timeout=30)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=Path, default=os.environ.get("DOCKSIDE_DIR") or check.ROOT / ".dockside")
    folder = parser.parse_args().dir.absolute()
    status, over = trial.state(folder), threading.Event()
    with tempfile.TemporaryDirectory() as home, trial.Servers(status, folder, Path(home), scaled) as servers:
        servers.ready(time.monotonic() + 60)
        load = [threading.Thread(target=buying, args=(status["edge"], over), daemon=True) for _ in range(4)]
        for thread in load:
            thread.start()
        time.sleep(20)
        # A busy machine is slow.
        quiet = {alert for alert in firing(servers) if not alert[1].endswith("-latency")}
        print(f"{'FAILED' if quiet else 'ok    '}  nothing fires while all is well", *sorted(quiet), flush=True)
        kept = [not quiet]
        with Processes(status, {"product"}):
            wanted = {("TargetDown", "product"), ("AnswersFail", "order"), ("ErrorBudgetBurnsFast", "checkout-availability")}
            kept.append(awaited(servers, "product is stopped", wanted))
        unreadable_event(status)
        kept.append(awaited(servers, "an event that nobody can read", {("DeadLetters", "")}))
        with Processes(status, {"payment-sandbox", "rabbitmq"}):
            wanted = {("ProviderDoesNotAnswer", ""), ("SagasStuck", ""), ("OrderWaits", ""), ("EventsWait", "order")}
            kept.append(awaited(servers, "the card provider and RabbitMQ are stopped", wanted))
        kept.append(awaited(servers, "they are back, and orders were late", {("ErrorBudgetBurnsFast", "order-decision")}))
        over.set()
        for thread in load:
            thread.join(60)
    return not all(kept)


if __name__ == "__main__":
    sys.exit(main())

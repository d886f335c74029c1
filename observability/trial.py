"""Asks a real Prometheus every query of the dashboards, while it scrapes the running shop under a little load:
`python3 observability/trial.py`, with the shop of `cargo dockside up` and Debian's prometheus and
prometheus-postgres-exporter (`up --observe` installs them). Each query must have an answer, and each panel of the
dashboard "Service" one for each service. Buys and cancels with the demo account: not for a shop that sells.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

import check

SERVICES = ["user", "product", "order"]
ADDRESS = {"name": "Ada", "line1": "1 Quay", "city": "Hull", "postal_code": "HU1 1AA", "country": "GB"}


def call(method, url, body=None, headers=None):
    """(status, JSON or None) of a request."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            text, status = answer.read(), answer.status
    except urllib.error.HTTPError as error:
        text, status = error.read(), error.code
    try:
        return status, json.loads(text)
    except ValueError:
        return status, None


def state(folder):
    """What `status --json` says."""
    program = os.environ.get("DOCKSIDE_BIN")
    command = [program] if program else ["cargo", "dockside"]
    made = subprocess.run([*command, "status", "--json", "--dir", folder], capture_output=True, text=True, timeout=120, cwd=check.ROOT)
    if made.returncode:
        sys.exit(f"trial: the shop does not run in {folder}: cargo dockside up")
    return json.loads(made.stdout)


def targets(status, folder, exporter):
    """{job: addresses} of what Prometheus asks."""
    jobs = {}
    for process in status["processes"]:
        if "admin" in process:
            jobs.setdefault(process["name"].split("-")[0], []).append(process["admin"].removeprefix("http://"))
    port = json.loads((folder / "state.json").read_text())["ports"].get("rabbitmq-metrics")
    if port:
        jobs["rabbitmq"] = [f"127.0.0.1:{port}"]
    return jobs | ({"postgres": [exporter]} if exporter else {})


def free():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Servers:
    """A Prometheus that asks each second, and what shows PostgreSQL's metrics, until the end of the block; with the rules
    as `changed` makes them."""

    def __init__(self, status, folder, home, changed=str):
        self.started = []
        program = shutil.which("postgres_exporter") or shutil.which("prometheus-postgres-exporter")
        exporter = f"127.0.0.1:{free()}" if program else None
        if program:
            env = {**os.environ, "PGSSLMODE": "disable", "DATA_SOURCE_NAME": status["postgres"]["url"]}
            self.start([program, f"--web.listen-address={exporter}"], home / "exporter.log", env)
        self.jobs = targets(status, folder, exporter)
        self.missing = {prefix for prefix, job in [("pg", "postgres"), ("rabbitmq", "rabbitmq")] if job not in self.jobs}
        self.url = f"http://127.0.0.1:{free()}"
        for file in (check.HERE / "prometheus/rules").glob("*.yml"):
            (home / f"rules-{file.name}").write_text(changed(file.read_text()))
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [f"{home}/rules-*.yml"],
            "scrape_configs": [{"job_name": job, "static_configs": [{"targets": at}]} for job, at in self.jobs.items()],
        }
        (home / "prometheus.yml").write_text(json.dumps(settings))
        listen = self.url.removeprefix("http://")
        options = [f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data", f"--web.listen-address={listen}"]
        self.start([shutil.which("prometheus") or sys.exit("trial: install prometheus"), *options], home / "prometheus.log")

    def start(self, command, log, env=None):
        with log.open("w") as file:
            self.started.append(subprocess.Popen(command, stdout=file, stderr=file, env=env))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.started:
            process.terminate()
        for process in self.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def answers(self, expr):
        """How many series a query has. A division by 0 is none: it shows nothing."""
        status, body = call("GET", f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expr})}")
        if status != 200:
            raise ValueError(body["error"])
        return sum(series["value"][1] != "NaN" for series in body["data"]["result"])

    def ready(self, deadline):
        while time.monotonic() < deadline:
            try:
                if self.answers("up == 1") == sum(len(at) for at in self.jobs.values()):
                    return
            except OSError:
                pass
            time.sleep(0.5)
        sys.exit("trial: Prometheus does not get the metrics of all targets")


def shopping(edge, over):
    """Looks around and buys until it is over, in every way that ends differently."""
    shop, orders = f"{edge}/api/v1", 0

    def signed_in(name):
        account = {"email": f"{name}@dockside.test", "password": f"dockside-{name}"}
        status, session = call("POST", f"{shop}/auth/login", account)
        if status != 200:
            sys.exit(f"trial: the demo account {name} cannot sign in ({status})")
        return {"Authorization": f"Bearer {session['access_token']}"}

    me, staff = signed_in("demo"), signed_in("staff")

    def order(product, card, quantity=1):
        items = [{"product_id": product["id"], "quantity": quantity}]
        body = {"items": items, "shipping_address": ADDRESS, "payment_method": card}
        return call("POST", f"{shop}/orders", body, {**me, "Idempotency-Key": str(uuid.uuid4())})

    while not over.is_set():
        call("GET", f"{shop}/users/me", None, me)
        call("GET", f"{shop}/categories")
        # With their customers, whom order asks user for.
        call("GET", f"{shop}/admin/orders?limit=20", None, staff)
        products = call("GET", f"{shop}/products?in_stock=true&limit=20")[1]["items"]
        for product in products[:5]:
            call("GET", f"{shop}/products/{product['id']}")
        product = products[orders % len(products)]
        for card in ["pm_card_visa", "pm_card_visa", "pm_card_chargeDeclined"]:
            status, made = order(product, card)
            orders += status == 201
        order(product, "pm_card_visa", 100_000)
        time.sleep(0.5)
        status, made = order(product, "pm_card_visa")
        orders += status == 201
        if status == 201:
            # Confirmed by then, as a rule: the money goes back.
            time.sleep(0.5)
            call("POST", f"{shop}/orders/{made['id']}/cancel", None, me)
            call("GET", f"{shop}/orders/{made['id']}", None, me)


def problems(servers):
    """Queries and panels without an answer, now."""
    for board, panel, queries in check.panels():
        name = f"{board}, {panel['title']}"
        if needs(queries) & servers.missing:
            continue
        for query in queries:
            if not servers.answers(check.filled(query)):
                yield f"{name}: no data for {query}"
        for service in SERVICES if any("$service" in query for query in queries) else []:
            if not any(servers.answers(check.filled(query, service=service)) for query in queries):
                yield f"{name}: no data for {service}"


def needs(queries):
    """The servers whose metrics are asked for."""
    return {found[1] for query in queries for name in check.used(query) if (found := check.SERVERS.match(name))}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=Path, default=os.environ.get("DOCKSIDE_DIR") or check.ROOT / ".dockside")
    parser.add_argument("--seconds", type=int, default=60, help="within which every query must have an answer")
    wanted = parser.parse_args()
    folder = wanted.dir.absolute()
    status = state(folder)
    over = threading.Event()
    with tempfile.TemporaryDirectory() as home, Servers(status, folder, Path(home)) as servers:
        servers.ready(time.monotonic() + 60)
        load = threading.Thread(target=shopping, args=(status["edge"], over), daemon=True)
        load.start()
        # Some numbers are read from the database each 5 s.
        end = time.monotonic() + wanted.seconds
        while (found := list(problems(servers))) and load.is_alive() and time.monotonic() < end:
            time.sleep(2)
        shopped = load.is_alive()
        over.set()
        load.join(60)
    for problem in found:
        print(f"        {problem}")
    for prefix in sorted(servers.missing):
        print(f"SKIPPED panels with {prefix}_... metrics: nobody shows them here")
    print(f"{'FAILED' if found or not shopped else 'ok    '}  {sum(1 for _ in check.panels())} panels{'' if shopped else ': nobody could buy'}")
    return bool(found) or not shopped


if __name__ == "__main__":
    sys.exit(main())

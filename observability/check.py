"""Checks what is in this folder: `python3 observability/check.py`, with Prometheus's `promtool` and, if there is one,
Alertmanager's `amtool`.

Rules, their tests and the settings by those; dashboards for what Grafana wants and people need; that each alert leads to
a section of the runbook. With files of metrics, as `/metrics` shows them, also that rules and dashboards name only
metrics that are there: `check.py --metrics user.txt product.txt order.txt`.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORK = Path(os.environ.get("DOCKSIDE_DIR") or ROOT / ".dockside").absolute() / "observability-checks"
YAML = "PyYAML==6.0.3"
# Grafana's names: https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts
UNITS = {"none", "percentunit", "s", "bytes", "Bps", "reqps", "cps", "cpm"}
# Made by Prometheus itself, and by who is not in every set-up: the collector and Kubernetes.
ELSEWHERE = re.compile(r"(up|ALERTS|(slo:|reconcile_|kube_).*)")
# Of servers that a shop may be without; known once one of their metrics is.
SERVERS = re.compile(r"(pg|rabbitmq)_")
# Words of PromQL that are no functions.
WORDS = {"by", "on", "or", "and", "unless", "ignoring", "offset", "bool", "without", "group_left", "group_right", "inf", "nan"}


def installed():
    """Continues in a virtual environment that has PyYAML, made where it is missing or out of date."""
    python, stamp = WORK / "bin" / "python", WORK / "installed.txt"
    if not (stamp.exists() and stamp.read_text() == YAML):
        print(f"installing {YAML} into {WORK}", flush=True)
        # Debian packages it apart.
        if not importlib.util.find_spec("ensurepip"):
            sys.exit("observability: Python lacks its venv module (Debian: apt-get install python3-venv)")
        venv.create(WORK, clear=True, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, YAML], check=True, timeout=600)
        stamp.write_text(YAML)
    if Path(sys.prefix) != WORK:
        os.execv(python, [str(python), __file__, *sys.argv[1:]])


def used(expr):
    """The metrics that a query names."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expr)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    text = re.sub(r"\b(by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)", " ", text)
    names = re.findall(r"(?<![\w:$])([a-zA-Z_][\w:]*)(?!\s*\(|[\w:])", re.sub(r"\boffset\s+\w+", " ", text))
    return {name for name in names if name not in WORDS}


def filled(expr, window="1m", service=".*"):
    """A dashboard's query with its variables replaced."""
    return expr.replace("$__rate_interval", window).replace("$service", service)


def panels():
    """(dashboard, panel, its queries) of each panel that shows something."""
    for path in sorted((HERE / "grafana/dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield path.stem, panel, [target["expr"] for target in panel["targets"]]


def rules():
    """Each rule."""
    import yaml

    for path in sorted((HERE / "prometheus/rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def dashboards():
    """What is wrong with the dashboards."""
    for path in sorted((HERE / "grafana/dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        ids = [panel["id"] for panel in board["panels"]]
        if len(set(ids)) != len(ids):
            yield f"{path.stem}: two panels have one id"
        taken = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            if place["x"] + place["w"] > 24 or cells & taken:
                yield f"{path.stem}, {panel['title']}: lies on another panel, or outside"
            taken |= cells
    for board, panel, queries in panels():
        name = f"{board}, {panel.get('title')}"
        if not panel.get("title") or not re.search(r"[.]$", panel.get("description") or ""):
            yield f"{name}: has no title, or no description in sentences"
        if panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
            yield f"{name}: has no unit that Grafana knows"
        if not queries or not all(queries):
            yield f"{name}: asks nothing"
        if panel["datasource"]["uid"] != "prometheus" or any(t["datasource"] != panel["datasource"] for t in panel["targets"]):
            yield f"{name}: asks another source than Prometheus"


def alerts():
    """What is wrong with the alerts, beside their queries."""
    runbook = (ROOT / "docs/runbook.md").read_text()
    sections = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", runbook, re.MULTILINE)}
    tests = "".join(path.read_text() for path in (HERE / "prometheus/tests").glob("*.yml"))
    for rule in rules():
        if "alert" not in rule:
            continue
        name, notes = rule["alert"], rule.get("annotations", {})
        if rule.get("labels", {}).get("severity") not in ("critical", "warning"):
            yield f"{name}: has no severity"
        page, _, section = notes.get("runbook", "").partition("#")
        if page != "docs/runbook.md" or section not in sections:
            yield f"{name}: docs/runbook.md has no section {section}"
        if f"`{name}`" not in runbook:
            yield f"{name}: is not in the runbook's table"
        if not {"summary", "description"} <= notes.keys():
            yield f"{name}: lacks a summary or a description"
        if not re.search(rf'alertname(: |="){name}\b', tests):
            yield f"{name}: no test has it fire"


def spelled():
    """Bounds of histograms that one of Prometheus's formats writes otherwise."""
    for expr in [rule["expr"] for rule in rules()] + [query for _, _, queries in panels() for query in queries]:
        if re.search(r'\ble="\d+"', expr):
            yield f"le is 1 or 1.0, depending on the format that was scraped: {expr}"


def unknown(files):
    """Metrics that are named, and shown by nobody."""
    shown = set()
    for file in files:
        shown |= set(re.findall(r"^([a-zA-Z_][\w:]*)", file.read_text(), re.MULTILINE))
    servers = {found[1] for name in shown if (found := SERVERS.match(name))}
    places = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    places += [(f"{board}, {panel['title']}", query) for board, panel, queries in panels() for query in queries]
    for place, expr in places:
        for name in sorted(used(expr) - shown):
            found = SERVERS.match(name)
            if not ELSEWHERE.fullmatch(name) and (not found or found[1] in servers):
                yield f"{place}: nobody shows {name}"


def unreadable():
    """Files that are not what their name says."""
    import yaml

    for path in sorted(HERE.rglob("*")):
        try:
            if path.suffix in (".yml", ".yaml"):
                list(yaml.safe_load_all(path.read_text()))
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".ndjson":
                [json.loads(line) for line in path.read_text().splitlines()]
        except (ValueError, yaml.YAMLError) as error:
            yield f"{path.relative_to(HERE)}: {error}"


def run(*command, cwd=HERE):
    """What a program that found something wrong said."""
    made = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd)
    return (made.stdout + made.stderr).splitlines() if made.returncode else []


def parsed():
    """What Prometheus finds in the dashboards' queries, as rules of a passing file."""
    queries = [filled(query) for _, _, all_ in panels() for query in all_]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump({"groups": [{"name": "dashboards", "rules": [{"record": f"q{at}", "expr": query} for at, query in enumerate(queries)]}]}, file)
        file.flush()
        return run("promtool", "check", "rules", file.name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--metrics", type=Path, nargs="+", default=[])
    wanted = parser.parse_args()
    installed()
    prometheus = HERE / "prometheus"
    steps = {
        "Prometheus's settings and rules": lambda: run("promtool", "check", "config", "prometheus.yml", cwd=prometheus),
        "tests of the rules": lambda: run("promtool", "test", "rules", *map(str, sorted((prometheus / "tests").glob("*.yml")))),
        "Alertmanager's settings": lambda: run("amtool", "check-config", "alertmanager/alertmanager.yml"),
        "alerts": lambda: list(alerts()),
        "dashboards are as their source": lambda: run(sys.executable, "grafana/make.py", "--check"),
        "Kibana's objects are as theirs": lambda: run(sys.executable, "elk/kibana.py", "--check"),
        "YAML and JSON": lambda: list(unreadable()),
        "dashboards": lambda: list(dashboards()),
        "queries": parsed,
        "bounds": lambda: list(spelled()),
    }
    if wanted.metrics:
        steps["metrics"] = lambda: list(unknown(wanted.metrics))
    failed = False
    for name, step in steps.items():
        try:
            found = step()
        except FileNotFoundError as error:
            found = [f"{error.filename} is missing: it comes with Prometheus and Alertmanager"]
        failed = failed or bool(found)
        print(f"{'FAILED' if found else 'ok    '}  {name}", flush=True)
        for problem in found:
            print(f"        {problem}")
    return failed


if __name__ == "__main__":
    sys.exit(main())

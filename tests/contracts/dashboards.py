"""Grafana's dashboards, held against Grafana's own types of them by the TypeScript compiler."""

import document
from report import report


def check(root, work):
    """Whether something is wrong."""
    packages = document.packages(root / "tests/contracts", work)
    made = packages / "dashboards"
    made.mkdir(exist_ok=True)
    files = []
    for path in sorted((root / "observability/grafana/dashboards").glob("*.json")):
        files.append(made / f"{path.stem}.ts")
        # A literal, so that a field that Grafana does not know is an error too.
        files[-1].write_text(f'import type {{ Dashboard }} from "@grafana/schema";\nexport const board: Dashboard = {path.read_text()};\n')
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]
    return report("tsc, of the dashboards", ["node", packages / "node_modules/typescript/bin/tsc", *options, *files], root)

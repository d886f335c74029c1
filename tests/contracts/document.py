"""The OpenAPI document, linted by Redocly CLI."""

import os
import re
import shutil
import subprocess
import sys

from report import report

# As @redocly/cli's `engines` has it, without the release line that it warns of.
OLDEST = (22, 12)
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "npm_config_update_notifier": "false"}


def found():
    """Whether Node.js is here, with npm, and new enough."""
    if not (shutil.which("node") and shutil.which("npm")):
        return False
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=30).stdout
    version = re.match(r"v(\d+)\.(\d+)", said)
    return bool(version) and tuple(map(int, version.groups())) >= OLDEST


def check(root, work):
    """Whether something is wrong."""
    here = root / "tests/contracts"
    command = ["node", packages(here, work) / "node_modules/@redocly/cli/bin/cli.js", "lint"]
    command += ["--config", here / "redocly.yaml", "docs/openapi.json"]
    return report("redocly lint", command, root)


def packages(here, work):
    """The same as `installed`, with a Node.js on the path for it."""
    if not found():
        # That of requirements-node.txt.
        os.environ["PATH"] = f"{work / 'bin'}{os.pathsep}{os.environ['PATH']}"
    os.environ.update(QUIET)
    return installed(here, work)


def installed(here, work):
    """The folder with what package-lock.json names, filled where it is missing or out of date."""
    folder = work / "node"
    wanted, stamp = (here / "package-lock.json").read_text(), folder / "installed.json"
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"installing @redocly/cli, axe-core, stripe and Grafana's types into {folder}", flush=True)
        folder.mkdir(exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(here / name, folder)
        npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        if subprocess.run(npm, cwd=folder, timeout=600).returncode:
            sys.exit("contracts: npm could not install @redocly/cli, axe-core, stripe and Grafana's types")
        stamp.write_text(wanted)
    return folder

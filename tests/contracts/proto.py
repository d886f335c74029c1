"""The gRPC services and events: buf's lint, and that nothing they say now breaks who was built against the last commit."""

import subprocess

from report import report


def check(root, work):
    """Whether something is wrong."""
    buf = [work / "bin" / "buf"]
    failed = report("buf lint", [*buf, "lint", "proto"], root)
    base = last_commit(root)
    if not base:
        print("skipped  buf breaking: no commit to compare with")
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
    """The last commit that has other contracts or, where that is not known, the last one; None outside of a repository."""
    head = git(root, "rev-parse", "--verify", "--quiet", "HEAD").stdout.strip()
    if not head:
        return None
    if git(root, "status", "--porcelain", "proto").stdout.strip():
        return head
    # A clean checkout, as in CI: HEAD is what is being tested.
    return git(root, "rev-parse", "--verify", "--quiet", "HEAD^").stdout.strip() or head


def git(root, *arguments):
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return subprocess.CompletedProcess(arguments, 127, "", "git is not installed")

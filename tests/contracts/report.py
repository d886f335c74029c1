"""A tool's verdict, and what it said where that is bad."""

import subprocess


def report(name, command, root, environment=None):
    """Whether something is wrong."""
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)
    print(f"{'FAILED' if done.returncode else 'ok    '}  {name}")
    for line in (done.stdout + done.stderr).splitlines() if done.returncode else []:
        print(f"        {line}")
    return done.returncode != 0

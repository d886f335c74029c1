"""Runs docs/deploy.md's commands for a cluster with a `kubectl` that only looks whether what they name is there.

Nothing else of them does anything: this program is the `kubectl` too (`python3 documented.py kubectl ...`).
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from shop import Workload

KINDS = {
    "deployment": "Deployment", "service": "Service", "hpa": "HorizontalPodAutoscaler", "cronjob": "CronJob",
    "httproute": "HTTPRoute", "ingress": "Ingress", "job": "Job", "namespace": "Namespace",
}
# What a command makes itself.
MADE = {("job", "restore")}
# Tried elsewhere, or none of Kubernetes'.
SILENT = ["docker", "kind", "curl", "sed", "openssl", "age", "age-keygen", "python3", "cosign", "gh"]
# What the manifests leave out, as it has a secret.
ADDED = ("nginx.ingress.kubernetes.io/canary-by-header", "nginx.ingress.kubernetes.io/canary-by-header-value")


def problems(root, local, overlays):
    """Of commands that name what no overlay has, and of the list of images; `overlays` are all objects."""
    return check((root / "docs/deploy.md").read_text(), root, local, overlays)


def broken(root, local, overlays):
    """What could be changed in the page without a problem being found."""
    section = (root / "docs/deploy.md").read_text()
    for old, new in [
        ("`rabbitmq:4`", "`rabbitmq:3`"),
        ("deployment user product order", "deployment user products order"),
        ("exec postgres-0 --", "exec postgres-1 --"),
        ("exec deployment/user -- user", "exec deployment/user -- sh"),
        ("custom --create dockside", "custom --create docksides"),
        ("job restore --from=cronjob/backup", "job restore --from=cronjob/backups"),
        ("/spec/rules/0/backendRefs/0/weight", "/spec/rules/2/backendRefs/0/weight"),
        ("canary-weight=", "canary-share="),
        ("canary-by-header=", "canary-by-head="),
        ("/spec/rules/-", "/spec/rule/-"),
        ("app in (user, product, order)", "app in (user, produce, order)"),
        ("-k k8s/overlays/local", "-k k8s/overlays/here"),
        ("containers[0].command", "containers[0].commands"),
        ("create namespace dockside ", "create namespace docksides "),
    ]:
        if old not in section:
            yield f"{old}: is not in docs/deploy.md"
        elif not check(section.replace(old, new), root, local, overlays):
            yield f"{new}: not noticed"


def check(text, root, local, overlays):
    section = text.split("\n## In a cluster\n")[1]
    one_node = section.split("\n### One node\n")[1].split("\n### ")[0]
    named = set(re.findall(r"`([\w./-]+:[\w.]+)`", one_node))
    used = {c["image"] for w in map(Workload.of, local) if w for c in w.containers}
    found = [f"One node: the images are not {name}" for name in sorted(named ^ used)]
    with tempfile.TemporaryDirectory() as folder:
        folder, state = Path(folder), Path(folder) / "objects.json"
        state.write_text(json.dumps(overlays))
        for name in SILENT:
            (folder / name).symlink_to("/bin/true")
        for name in ["jq", "bash", "sh"]:
            (folder / name).symlink_to(shutil.which(name) or sys.exit(f"manifest checks: install {name}"))
        kubectl = folder / "kubectl"
        kubectl.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$@"\n')
        kubectl.chmod(0o755)
        (folder / "k8s").symlink_to(root / "k8s")
        env = {"PATH": str(folder), "OBJECTS": str(state)}
        # Functions of one block are used in the next.
        commands = "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))
        (folder / "dockside.dump").touch()
        shell = ["bash", "-c", f"set -uo pipefail; trap 'echo \"fails: $BASH_COMMAND\" >&2' ERR; set -E\n{commands}wait"]
        made = subprocess.run(shell, env=env, cwd=folder, capture_output=True, text=True, timeout=120)
        found += made.stderr.splitlines()
    return found


def kubectl(args, objects):
    """What is wrong with a call; prints what it would print."""
    by_name = {(o["kind"], o["metadata"]["name"]): o for o in objects}
    options, words, command = parsed(args)
    verb, *words = words
    if verb == "apply":
        return job_problems(json.load(sys.stdin)) if options.get("-f") == "-" else overlay_problems(options["-k"])
    if (verb, words[0]) == ("create", "namespace"):
        return [] if ("Namespace", words[1]) in by_name else [f"no namespace {words[1]}"]
    if options.get("-n") != "dockside" and (verb, words) != ("delete", ["namespace", "dockside"]):
        return ["names no namespace"]
    if verb == "exec":
        kind, slash, name = words[0].partition("/")
        if slash:
            return program_problems(by_name.get((KINDS[kind], name)), command)
        workload = by_name.get(("StatefulSet", words[0].removesuffix("-0")))
        return exec_problems(workload, command) if workload else [f"no Pod {words[0]}"]
    if verb == "create":
        source = by_name.get(("CronJob", options["--from"].removeprefix("cronjob/")))
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": words[1]}}
        print(json.dumps({**job, **source["spec"]["jobTemplate"]} if source else job))
        return [] if source else [f"no {options['--from']}"]
    if "-l" in options:
        apps = re.fullmatch(r"app in \((.*)\)", options["-l"])[1].split(", ")
        labels = {o["spec"]["template"]["metadata"]["labels"].get("app") for o in objects if o["kind"] == "Deployment"}
        return [f"no Pods of {app}" for app in apps if app not in labels]
    if verb in ("rollout", "set"):
        words = words[1:]
    if "/" in words[0]:
        (kind, _, name), extra = words[0].partition("/"), words[1:]
        names = [name]
    elif verb == "annotate":
        kind, names, extra = words[0], words[1:2], words[2:]
    else:
        kind, names, extra = words[0], words[1:], []
    found = []
    for name in names:
        thing = by_name.get((KINDS[kind], name))
        if thing:
            found += [f"{kind} {name} has no {what}" for what in lacks(thing, verb, options, extra)]
        elif (kind, name) not in MADE:
            found.append(f"no {kind} {name}")
    return found


def parsed(args):
    """({option: value}, words, what comes after `--`)."""
    options, words, rest = {}, [], iter(args)
    for arg in rest:
        if arg == "--":
            return options, words, list(rest)
        if arg in ("-n", "-k", "-l", "-f", "-o", "--patch"):
            options[arg] = next(rest)
        elif arg.startswith("-"):
            name, _, options[name] = arg.partition("=")
        else:
            words.append(arg)
    return options, words, []


def overlay_problems(folder):
    return [] if (Path(folder) / "kustomization.yaml").exists() else [f"no overlay {folder}"]


def lacks(thing, verb, options, extra):
    """What a command changes and the object does not have."""
    if verb == "patch":
        patch = json.loads(options["--patch"])
        for path in [p["path"].split("/")[1:] for p in patch] if isinstance(patch, list) else [list(paths(patch))]:
            # Without a value it is false.
            if path != ["spec", "suspend"] and not reaches(thing, path):
                yield ".".join(path)
    for name in (word.partition("=")[0] for word in extra):
        containers = [c["name"] for c in thing["spec"].get("template", {}).get("spec", {}).get("containers", [])]
        if (verb == "annotate" and name not in (*thing["metadata"]["annotations"], *ADDED)) or (verb == "set" and name not in containers):
            yield name


def paths(patch):
    while isinstance(patch, dict):
        (key, patch), *_ = patch.items()
        yield key


def reaches(thing, path):
    for part in path:
        # Where a list is added to.
        if part == "-" and isinstance(thing, list):
            return True
        try:
            thing = thing[int(part) if isinstance(thing, list) else part]
        except (KeyError, IndexError, ValueError):
            return False
    return True


def exec_problems(workload, command):
    """The database that a command names is the one that the Pod makes."""
    env = {v["name"]: v.get("value") for v in workload["spec"]["template"]["spec"]["containers"][0]["env"]}
    known = {env["POSTGRES_DB"], "postgres"}
    if command[0] not in ("pg_dump", "pg_restore", "dropdb"):
        return [f"runs {command[0]}"]
    names = [w for w in command[1:] if not w.startswith("-")]
    return [f"{command[0]} names {name}" for name in names if name not in known]


def program_problems(workload, command):
    """A command in a service's own image, which has its program and nothing else."""
    if workload is None:
        return ["no such workload"]
    program = workload["spec"]["template"]["spec"]["containers"][0]["name"]
    return [] if command[0] == program else [f"{program}'s image has no {command[0]}"]


def job_problems(job):
    import kubernetes_validate

    try:
        kubernetes_validate.validate(job, "1.36", strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"job: {error.message}"]
    return []


if __name__ == "__main__":
    wrong = kubectl(sys.argv[1:], json.loads(Path(os.environ["OBJECTS"]).read_text()))
    for problem in wrong:
        print(f"kubectl {' '.join(sys.argv[1:])}: {problem}", file=sys.stderr)
    sys.exit(bool(wrong))

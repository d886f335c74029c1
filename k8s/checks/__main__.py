"""Checks the manifests: `python3 k8s/checks`.

Scripts and the Dockerfile are linted (`lint.py`), and the local overlay's scripts run (`scripts.py`). Every overlay is rendered, validated against the Kubernetes schemas and checked against the rules of `policy.py` and
`network.py`; then `broken.py` breaks two of them in many ways, each of which must be noticed. Uses `kubectl` or
`kustomize`, or unpacks Debian's; what it needs goes to `.dockside/manifest-checks`.
"""

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = Path(os.environ.get("DOCKSIDE_DIR") or ROOT / ".dockside") / "manifest-checks"
# What the manifests are written for, and the oldest that they should work on.
VERSIONS = ["1.36", "1.32"]
OVERLAYS = ["local", "local-observability", "local-elk", "production", "production-pooler", "canary-gateway", "canary-ingress"]
# What is no part of the shop, and needs more than Pod Security `restricted`: the schemas alone.
LOGS = ["loki", "elk"]
SERVICES = ["user", "product", "order"]


def installed():
    """Continues in a virtual environment that has the packages, made where it is missing or out of date."""
    wanted = (HERE / "requirements.txt").read_text()
    python, stamp = WORK / "bin" / "python", WORK / "installed.txt"
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"installing kubernetes-validate, shellcheck and hadolint into {WORK}", flush=True)
        # Debian packages it apart.
        if not importlib.util.find_spec("ensurepip"):
            sys.exit("manifest checks: Python lacks its venv module (Debian: apt-get install python3-venv)")
        venv.create(WORK, clear=True, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "-r", HERE / "requirements.txt"], check=True, timeout=600)
        stamp.write_text(wanted)
    if Path(sys.prefix) != WORK:
        os.execv(python, [str(python), str(HERE)])


def renderer():
    """The command that renders a kustomization, without the folder."""
    private = WORK / "kustomize" / "usr" / "bin" / "kustomize"
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if not private.exists() and shutil.which("apt-get"):
        unpack_kustomize(WORK / "kustomize")
    if private.exists():
        return [str(private), "build"]
    sys.exit("manifest checks: install kubectl or kustomize")


def unpack_kustomize(folder):
    """Debian 13's kustomize, which runs on older ones too, from this machine's mirror, next to the system."""
    sources = Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")
    text = "".join(file.read_text() for file in sources if file.exists())
    mirror = re.search(r"^(?:URIs:|deb(?: \[[^]]*\])?) (http\S+)", text, re.MULTILINE)
    if not mirror:
        return
    print("unpacking Debian's kustomize", flush=True)
    for part in ["lists/partial", "cache/archives/partial"]:
        (folder / part).mkdir(parents=True, exist_ok=True)
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (folder / "sources.list").write_text(f"deb [signed-by={keys}] {mirror[1]} trixie main\n")
    places = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in places.items())]
    subprocess.run([*apt, "update"], check=True, timeout=300)
    subprocess.run([*apt, "download", "kustomize"], check=True, timeout=300, cwd=folder, stderr=subprocess.DEVNULL)
    subprocess.run(["dpkg", "-x", *folder.glob("kustomize_*.deb"), folder], check=True, timeout=60)


def render(command, folder):
    import yaml

    made = subprocess.run([*command, folder], capture_output=True, text=True, timeout=120)
    if made.returncode or made.stderr:
        sys.exit(f"{folder} does not render cleanly:\n{made.stderr}")
    return [document for document in yaml.load_all(made.stdout, Loader=yaml.CSafeLoader) if document]


def canaries_of_every_service(command):
    """(name, objects) of both canary overlays for each service, the committed ones being for one of them."""
    with tempfile.TemporaryDirectory() as copy:
        for part in ["k8s", "docker/edge", "docker/postgres"]:
            shutil.copytree(ROOT / part, Path(copy) / part)
        for overlay in ["canary-gateway", "canary-ingress"]:
            folder = Path(copy) / "k8s/overlays" / overlay
            committed = {file: file.read_text() for file in folder.iterdir()}
            for service in SERVICES:
                # As docs/deploy.md says to do it.
                for file, text in committed.items():
                    file.write_text(re.sub(r"\border\b", service, text))
                yield f"{overlay}, {service}", render(command, folder)


def validate(objects):
    """What the schemas find, in every object of a kind that Kubernetes itself has."""
    return [problem for thing in objects for problem in validate_one(json.dumps(thing))]


# Overlays share most of their objects.
@functools.cache
def validate_one(text):
    from jsonschema.exceptions import best_match

    thing, found = json.loads(text), []
    name = f"{thing['kind']}/{thing['metadata']['name']}"
    for version in VERSIONS:
        try:
            checked = validator(version, thing["kind"].lower(), thing["apiVersion"])
        except FileNotFoundError:
            if thing["apiVersion"] not in CUSTOM:
                found.append(f"{name}: Kubernetes {version} has no {thing['apiVersion']} {thing['kind']}")
            continue
        if error := best_match(checked.iter_errors(thing)):
            found.append(f"{name}: Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}")
    return found


# The package's own `validate` reads the schemas anew for each object, which takes most of its time.
@functools.cache
def validator(version, kind, api_version):
    from jsonschema.validators import Draft202012Validator
    from referencing import Resource

    # rbac.authorization.k8s.io/v1 is in the file of rbac-v1.
    group, slash, plain = api_version.rpartition("/")
    name = f"{kind}-{group.partition('.')[0]}{'-' if slash else ''}{plain}.json"
    schema = json.loads((schemas(version) / name).read_text())
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ definitions(version))


@functools.cache
def definitions(version):
    from referencing import Registry, Resource

    return (Resource.from_contents(json.loads((schemas(version) / "_definitions.json").read_text())) @ Registry()).crawl()


@functools.cache
def schemas(version):
    import kubernetes_validate

    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    (found,) = folder.glob(f"v{version}.*-local-strict")
    return found


# No schemas here for what operators bring.
CUSTOM = {
    "postgresql.cnpg.io/v1",
    "rabbitmq.com/v1beta1",
    "external-secrets.io/v1",
    "gateway.networking.k8s.io/v1",
    "cert-manager.io/v1",
}


def problems(objects):
    """Everything that is wrong with a rendered overlay."""
    import network
    import policy
    from shop import Shop

    # The rules take fields for what the schemas say that they are.
    if found := validate(objects):
        return found
    shop = Shop(objects, ROOT)
    return [*policy.check(shop), *network.check(shop)]


def main():
    installed()
    import broken
    import documented
    import lint
    import pinned
    import scripts

    command = renderer()
    failed = False

    def report(name, found, note=""):
        nonlocal failed
        failed = failed or bool(found)
        print(f"{'FAILED' if found else 'ok    '}  {name}{note}")
        for problem in found:
            print(f"        {problem}")

    for name, found, note in lint.results(ROOT, WORK / "bin"):
        report(name, found, note)
    for name, found, note in pinned.results(ROOT):
        report(name, found, note)
    rendered, everything = {}, []
    for overlay in OVERLAYS:
        objects = render(command, ROOT / "k8s/overlays" / overlay)
        rendered[overlay] = objects
        everything += objects
        report(overlay, problems(objects), f", {len(objects)} objects")
    for logs in LOGS:
        objects = render(command, ROOT / "k8s/logs" / logs)
        report(f"logs to {logs}", validate(objects), f", {len(objects)} objects")
    local = rendered["local"]
    for name, objects in canaries_of_every_service(command):
        report(name, problems(objects))
    for name, found, note in scripts.results(ROOT, local):
        report(name, found, note)
    found = documented.problems(ROOT, local, everything) or list(documented.broken(ROOT, local, everything))
    report("the cluster's commands in docs/deploy.md", found)
    for overlay, breaks in [("local", broken.LOCAL), ("production-pooler", broken.POOLED), ("local-observability", broken.OBSERVED), ("canary-gateway", broken.ROUTED)]:
        unnoticed, count = broken.unnoticed(rendered[overlay], problems, breaks)
        report(f"breaking {overlay}", unnoticed, f" in {count} ways")
    return failed


if __name__ == "__main__":
    sys.exit(main())

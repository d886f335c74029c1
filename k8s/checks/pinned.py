"""Which images of others are not pinned by digest; `docker/pin.py`, run against a stand-in for a registry; and the
release workflow: actions by commit, rights, and that it leaves out no image."""

import hashlib
import http.server
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

TOKEN = "a-token"


def results(root):
    """(name, problems, note) of both."""
    script = root / "docker/pin.py"
    spec = importlib.util.spec_from_file_location("pin", script)
    pin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pin)
    left = pin.unpinned(root)
    # A release fails for these: .github/workflows/release.yml. Here they are said, as not every machine has a registry.
    yield "images of others", [], f", NOT PINNED by digest: {', '.join(left)}" if left else ", pinned by digest"
    yield "docker/pin.py", list(tried(root, pin)), ""
    text = (root / ".github/workflows/release.yml").read_text()
    images = set(re.search(r"const IMAGES: \[&str; \d+\] = \[(.*?)\];", (root / "tools/images/src/lib.rs").read_text())[1].replace('"', "").split(", "))
    found = list(released(text, images))
    for old, new in RELEASE_BREAKS if not found else []:
        if old not in text:
            found.append(f"{old}: nothing was changed")
        elif not list(released(text.replace(old, new), images)):
            found.append(f"{new}: not noticed")
    yield "the release workflow", found, f", broken in {len(RELEASE_BREAKS)} ways"


RELEASE_BREAKS = [
    ("actions/attest@1e69f48acb82d1966a394da916b4c1698aa569d6 # v4.2.2", "actions/attest@v4"),
    (" # v4.1.2", ""),
    ("permissions: {}", "permissions: {contents: write}"),
    ("permissions: {contents: read}\n    steps:\n      - uses", "permissions: {packages: write}\n    steps:\n      - uses"),
    ("--scan", ""),
    ("docker/pin.py --check", "docker/pin.py"),
    ("image: [user, ", "image: ["),
    ("for name in user ", "for name in "),
    ("needs: [test, build]", "needs: [build]"),
    ("cosign sign --yes", "true"),
    ("timeout-minutes: 20", "env: {}"),
]


def released(text, images):
    """What is wrong with the release workflow."""
    import yaml

    for line in re.findall(r"uses: (.*)", text):
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line):
            yield f"{line}: is not pinned by commit, with its version beside it"
    workflow = yaml.safe_load(text)
    if workflow.get("permissions") != {}:
        yield "every job has rights that it does not name"
    for name, job in workflow["jobs"].items():
        if name != "publish" and job.get("permissions") != {"contents": "read"}:
            yield f"{name}: may do more than read"
        if not job.get("timeout-minutes"):
            yield f"{name}: may run for hours"
    publish, steps = workflow["jobs"]["publish"], {name: " ".join(s.get("run", "") for s in job["steps"]) for name, job in workflow["jobs"].items()}
    if set(publish.get("needs", [])) != {"test", "build"}:
        yield "what was not tested is published"
    if set(publish["strategy"]["matrix"]["image"]) != images:
        yield f"publishes other images than {', '.join(sorted(images))}"
    saved = re.search(r"for name in ([\w -]+);", steps["build"])
    if not saved or set(saved[1].split()) != images:
        yield f"builds other images than {', '.join(sorted(images))}"
    for job, wanted in [("build", "docker/pin.py --check"), ("build", "images --tag \"$TAG\" --scan"), ("test", "tests/supply advisories"), ("test", ".ci/run"), ("publish", "cosign sign --yes"), ("publish", "cosign attest --yes --type cyclonedx")]:
        if not re.search(rf"{re.escape(wanted)}(\s|$)", steps[job]):
            yield f"{job}: does not run {wanted}"


def tried(root, pin):
    with tempfile.TemporaryDirectory() as folder, Registry() as registry:
        copy = Path(folder)
        for place in pin.PLACES:
            (copy / place).parent.mkdir(parents=True, exist_ok=True)
            # As it is before the first time, whatever was pinned since.
            text = re.sub(r"@sha256:[0-9a-f]{64}", "", (root / place).read_text())
            (copy / place).write_text(text)
        before = {place: (copy / place).read_text() for place in pin.PLACES}

        def run(*options):
            command = [sys.executable, root / "docker/pin.py", "--root", copy, *options]
            return subprocess.run(command, capture_output=True, text=True, timeout=60)

        def texts():
            return {place: (copy / place).read_text() for place in pin.PLACES}

        if run("--check").returncode == 0:
            yield "--check passes though nothing is pinned"
        for what in ["lies", "no manifest", "gone"]:
            registry.answers = what
            if run("--mirror", registry.url).returncode == 0 or texts() != before:
                yield f"a registry whose answer is wrong ({what}) was believed"
        registry.answers = "right"
        made = run("--mirror", registry.url)
        if made.returncode:
            return (yield f"fails: {made.stderr}")
        if run("--check").returncode:
            yield "--check fails though all is pinned"
        after = texts()
        stripped = {place: re.sub(r"@sha256:[0-9a-f]{64}", "", text) for place, text in after.items()}
        if stripped != before:
            yield "more than digests was written"
        for _, match in pin.references(copy):
            wanted = hashlib.sha256(Registry.body(pin.address(match[2], None)[1], match[3])).hexdigest()
            if match[4] != f"@sha256:{wanted}":
                yield f"{match[2]}:{match[3]} got another image's digest"
        if any("registry.example.com" in line and "@sha256" in line for text in after.values() for line in text.splitlines()):
            yield "an image of the shop's own was pinned"
        if run("--mirror", registry.url).returncode or texts() != after:
            yield "a second run changes something"


class Registry:
    """Has every image, for who brings the token that anybody gets."""

    def __enter__(self):
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                registry.answer(self)

            def log_message(self, *_):
                pass

        self.answers = "right"
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    @staticmethod
    def body(repository, tag):
        return json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "of": f"{repository}:{tag}"}).encode()

    def answer(self, request):
        if request.path.startswith("/token?"):
            return self.send(request, 200, json.dumps({"token": TOKEN}).encode())
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            realm = f'Bearer realm="{self.url}/token",service="registry",scope="pull"'
            return self.send(request, 401, b"{}", {"WWW-Authenticate": realm})
        found = re.fullmatch(r"/v2/(.+)/manifests/([\w.-]+)", request.path)
        if not found or self.answers == "gone":
            return self.send(request, 404, b"{}")
        body = b"{}" if self.answers == "no manifest" else self.body(*found.groups())
        said = hashlib.sha256(b"another" if self.answers == "lies" else body).hexdigest()
        return self.send(request, 200, body, {"Docker-Content-Digest": f"sha256:{said}"})

    @staticmethod
    def send(request, status, body, headers=None):
        request.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

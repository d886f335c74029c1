"""Runs the local overlay's scripts: make-secrets.sh against a stand-in for the API server, rabbitmq.sh into a folder.

They run as they are but for two paths, which only a Pod has. Then they are broken, which must be noticed.
"""

import base64
import http.server
import json
import os
import re
import ssl
import subprocess
import tempfile
import threading
from pathlib import Path

from shop import Workload, mebibytes

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN = "a-token"
TRIES = 30
SERVICES = ["user", "product", "order"]


def results(root, local):
    """(name, problems, note) of each script; `local` is the rendered overlay."""
    folder = root / "k8s/overlays/local"
    for name, check, breaks in [
        ("make-secrets.sh", Maker(local).problems, MAKER_BREAKS),
        ("rabbitmq.sh", lambda text: broker_problems(text, local), BROKER_BREAKS),
    ]:
        text = (folder / name).read_text()
        found = check(text)
        for what, old, new in breaks if not found else []:
            if old not in text:
                found.append(f"{what}: nothing was changed")
            elif not check(text.replace(old, new)):
                found.append(f"{what}: not noticed")
        yield name, found, f", broken in {len(breaks)} ways"


MAKER_BREAKS = [
    ("any certificate", " -verify_return_error", ""),
    ("another host's certificate", ' -verify_ip "$host"', ""),
    ("no authorization", "Authorization: Bearer", "X-Authorization: Bearer"),
    ("another namespace", "$(cat $account/namespace)", "default"),
    ("another Secret", '"name":"dockside"', '"name":"secrets"'),
    ("the same password for all", "$(random | field", "$(echo 1 | field"),
    ("a short key of the cookies", "random 64", "random 16"),
    ("a short key of signing keys", "random 32", "random 16"),
    ("a key that does not fit", "tail -c 32", "head -c 32"),
    ("a line break in a value", "base64 -w0)\"", "base64)\""),
    ("a Secret that exists as an error", "409)", "410)"),
    ("success whatever happens", "exit 1", "exit 0"),
    ("one try", f"seq {TRIES}", "seq 1"),
]
BROKER_BREAKS = [
    ("no JSON", '"tags":""}', '"tags":"}'),
    ("an administrator", '"tags":""', '"tags":"administrator"'),
    ("every queue", "dockside[.]%s(", "dockside[.].*%s("),
    ("everybody's events", "'^(product|user)[.]'", "'.*'"),
    ("an exchange of all events that is not there", '"exchanges":[{', '"policies":[{'),
    ("a service left out", ",$(may order)", ""),
    ("another's password", 'order "$ORDER', 'order "$USER'),
    ("definitions that are not read", "load_definitions", "# load_definitions"),
    ("a log that does not fit", "32000000", "512000000"),
]


class Maker:
    """make-secrets.sh against API servers that answer differently."""

    def __init__(self, local):
        self.fields = {
            variable["valueFrom"]["secretKeyRef"]["key"]
            for workload in filter(None, map(Workload.of, local))
            for container in workload.containers
            for variable in container.get("env", [])
            if "secretKeyRef" in variable.get("valueFrom", {})
        }

    def problems(self, script):
        with tempfile.TemporaryDirectory() as folder:
            self.work = Path(folder)
            for name, address in [("own", "127.0.0.1"), ("other", "127.0.0.1"), ("elsewhere", "127.0.0.2")]:
                certificate(self.work, name, address)
            code, log, seen = self.run(script, [201])
            if code or len(seen) != 1:
                return [f"code {code} after {len(seen)} requests where the API server made the Secret: {log}"]
            found = self.request_problems(*seen[0])
            code, log, seen = self.run(script, [503, 201])
            if code or len(seen) != 2 or seen[0] != seen[1]:
                found.append(f"code {code} after {len(seen)} requests, one of them refused: {log}")
            code, log, seen = self.run(script, [409])
            if code or len(seen) != 1:
                found.append(f"code {code} after {len(seen)} requests where the Secret exists: {log}")
            code, log, seen = self.run(script, [403] * TRIES)
            if not code or len(seen) != TRIES:
                found.append(f"code {code} after {len(seen)} requests that were all refused")
            for what, server in [("from an unknown authority", "other"), ("of another host", "elsewhere")]:
                trusted = "own" if server == "other" else server
                code, log, seen = self.run(script, [201], server, trusted)
                if not code or seen:
                    found.append(f"code {code} after {len(seen)} requests to a server with a certificate {what}")
            return found

    def run(self, script, statuses, server="own", trusted="own"):
        """(code, what it wrote, [(path, headers, body)]) of a run."""
        account, tools = self.work / "account", self.work / "tools"
        for each in (account, tools):
            each.mkdir(exist_ok=True)
        (account / "token").write_text(TOKEN)
        (account / "namespace").write_text("dockside")
        (account / "ca.crt").write_bytes((self.work / f"{trusted}.crt").read_bytes())
        # Between two tries.
        (tools / "sleep").write_text("#!/bin/sh\n")
        (tools / "sleep").chmod(0o755)
        with ApiServer(self.work / f"{server}.crt", self.work / f"{server}.key", statuses) as (port, seen):
            env = {
                "PATH": f"{tools}:{os.environ['PATH']}", "TMPDIR": str(self.work),
                "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port),
            }
            made = subprocess.run(
                ["bash", "-c", script.replace(ACCOUNT, str(account))], env=env, capture_output=True, text=True, timeout=120
            )
        return made.returncode, (made.stdout + made.stderr).strip()[-500:], seen

    def request_problems(self, path, headers, body):
        found = [] if path == "/api/v1/namespaces/dockside/secrets" else [f"posts to {path}"]
        if headers.get("Authorization") != f"Bearer {TOKEN}" or headers.get("Content-Type") != "application/json":
            found.append("lacks the token, or the type of the body")
        try:
            secret = json.loads(body)
            values = {name: base64.b64decode(value, validate=True) for name, value in secret.pop("data").items()}
        except (ValueError, KeyError) as error:
            return [*found, f"sends no Secret: {error}"]
        if secret != {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "dockside"}, "type": "Opaque"}:
            found.append(f"sends another Secret: {secret}")
        if values.keys() != self.fields:
            found.append(f"the Pods refer to other fields: {sorted(values.keys() ^ self.fields)}")
            return found
        keys = {name: values.pop(name) for name in ("order-private-key", "order-public-key")}
        # What cookies are sealed with: 64 bytes.
        if not re.fullmatch(rb"[0-9a-f]{128}", values.pop("cookie-key")):
            found.append("the key of the cookies is short, or not random")
        # What signing keys are sealed with: 32 bytes.
        if not re.fullmatch(rb"[0-9a-f]{64}", values.pop("signing-key-encryption-key")):
            found.append("the key of signing keys is short, or not random")
        if len(set(values.values())) < len(values) or not all(re.fullmatch(rb"[0-9a-f]{48}", v) for v in values.values()):
            found.append("passwords are not random, or not fit for URLs")
        public = ["openssl", "pkey", "-pubout", "-outform", "DER"]
        made = subprocess.run(public, input=keys["order-private-key"], capture_output=True, timeout=30)
        wanted = base64.urlsafe_b64encode(made.stdout[-32:]).rstrip(b"=")
        if made.returncode or b"BEGIN PRIVATE KEY" not in keys["order-private-key"] or keys["order-public-key"] != wanted:
            found.append("the public key is not that of the private one")
        return found


class ApiServer:
    """Answers POSTs by TLS with these statuses in turn, and remembers them."""

    def __init__(self, certificate, key, statuses):
        seen, left = [], list(statuses)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                seen.append((self.path, dict(self.headers), body))
                self.send_response(left.pop(0) if left else 500)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            # In the connection's own thread, where a client that turns away is nobody's error.
            def finish_request(self, request, address):
                try:
                    super().finish_request(context.wrap_socket(request, server_side=True), address)
                except OSError:
                    pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server, self.seen = Server(("127.0.0.1", 0), Handler), seen

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self.server.server_address[1], self.seen

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def certificate(folder, name, address):
    """One that signs itself, for this address."""
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
        "-subj", "/CN=kube-apiserver", "-addext", f"subjectAltName=IP:{address}",
        "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def broker_rights():
    """Of each account: its own queues; of the events, its own to tell and those that it needs to hear."""
    permissions, topics = [], []
    for name in SERVICES:
        own = f"{name}([.]|$)"
        both = f"^dockside[.](events$|{own})"
        permissions.append({"user": name, "vhost": "/", "configure": f"^dockside[.]{own}", "write": both, "read": both})
        heard = "^(product|user)[.]" if name == "order" else "^order[.]"
        topics.append({"user": name, "vhost": "/", "exchange": "dockside.events", "write": f"^{name}[.]", "read": heard})
    events = {"name": "dockside.events", "vhost": "/", "type": "topic", "durable": True}
    events |= {"auto_delete": False, "internal": False, "arguments": {}}
    return {"permissions": permissions, "topic_permissions": topics, "exchanges": [events]}


def broker_problems(script, local):
    """What RabbitMQ would read."""
    broker = next(w for w in map(Workload.of, local) if w and w.app == "rabbitmq")
    with tempfile.TemporaryDirectory() as folder:
        passwords = {service: f"{service}-0123456789abcdef" for service in SERVICES}
        env = {f"{name.upper()}_PASSWORD": password for name, password in passwords.items()}
        text = script.replace("/etc/rabbitmq", folder)
        made = subprocess.run(["bash", "-c", text], env={**env, "PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=30)
        if made.returncode:
            return [f"failed: {made.stderr}"]
        lines = (Path(folder) / "conf.d/90-dockside.conf").read_text().splitlines()
        settings = dict(line.split(" = ", 1) for line in lines if not line.startswith("#"))
        file = Path(settings.get("load_definitions", ""))
        if file.parent != Path(folder):
            return ["the definitions are not loaded"]
        try:
            definitions = json.loads(file.read_text())
        except ValueError as error:
            return [f"the definitions are no JSON: {error}"]
    found = []
    if definitions != {
        "vhosts": [{"name": "/"}],
        "users": [{"name": name, "password": password, "tags": ""} for name, password in passwords.items()],
        **broker_rights(),
    }:
        found.append(f"other accounts or permissions than wanted: {definitions}")
    limit = mebibytes(broker.pod["containers"][0]["resources"]["limits"]["memory"]) * 2**20
    watermark = int(settings["vm_memory_high_watermark.absolute"].removesuffix("MB")) * 10**6
    if watermark + int(settings["raft.wal_max_size_bytes"]) > limit:
        found.append("more memory than the container has before publishers have to wait")
    return found

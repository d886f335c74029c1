"""The payment sandbox, driven by the provider's own SDKs: the newest and one of two years ago, in Python and in Node.

Each drives a sandbox of its own, whose webhooks are kept for it in a file.
"""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import document
from report import report

KEY, SECRET = "sk_test_contracts", "whsec_contracts"
PYTHON = ("11.3.0", "16.1.0")
# As package.json names them.
NODE = ("stripe-old", "stripe")


def check(root, work, sandbox):
    """Whether something is wrong. `sandbox` is its program."""
    here = root / "tests/contracts"
    wrong = []
    for version in PYTHON:
        folder = python_sdk(here, work, version)
        command = [sys.executable, here / "sdk_python.py"]
        wrong.append(drive(f"stripe {version} of PyPI", command, root, sandbox, {"PYTHONPATH": str(folder)}))
    if not node_is_here(work):
        print("SKIPPED  stripe of npm: there is NO Node.js here, and none could be installed")
        return any(wrong)
    packages = document.installed(here, work) / "node_modules"
    for name in NODE:
        version = json.loads((packages / name / "package.json").read_text())["version"]
        command = ["node", here / "sdk_node.mjs", packages / name]
        wrong.append(drive(f"stripe {version} of npm", command, root, sandbox, {}))
    return any(wrong)


def python_sdk(here, work, version):
    """The folder with that version, filled where it is missing: two do not fit into one environment."""
    folder = work / f"stripe-{version}"
    if not (folder / "done").exists():
        print(f"installing stripe {version} into {folder}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        # What it needs is in requirements.txt.
        subprocess.run([*pip, "--target", folder, f"stripe=={version}"], check=True, timeout=600)
        (folder / "done").touch()
    return folder


def node_is_here(work):
    """Whether there is a Node.js: the system's, or that of requirements-node.txt."""
    if not document.found():
        os.environ["PATH"] = f"{work / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return bool(shutil.which("node") and shutil.which("npm"))


def drive(name, command, root, sandbox, environment):
    """Whether something is wrong with one SDK."""
    with tempfile.TemporaryDirectory() as folder, Hooks(Path(folder) / "hooks.jsonl") as hooks:
        with Sandbox(sandbox, Path(folder), hooks) as url:
            own = {"SANDBOX_URL": url, "SANDBOX_KEY": KEY, "SANDBOX_SECRET": SECRET, "SANDBOX_HOOKS": str(hooks.file)}
            return report(name, command, root, {**os.environ, **environment, **own})


class Hooks:
    """Takes webhooks, and writes each as a line with its body and its signature."""

    def __init__(self, file):
        self.file = file
        file.touch()
        lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                line = json.dumps({"body": body, "signature": self.headers["Stripe-Signature"]})
                with lock, file.open("a") as out:
                    out.write(f"{line}\n")
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Sandbox:
    """The program on a free port; entered, its address."""

    def __init__(self, program, folder, hooks):
        settings = {
            "HTTP_ADDR": "127.0.0.1:0",
            "DATA_DIR": str(folder / "sandbox"),
            "SECRET_KEY": KEY,
            "WEBHOOK_URL": hooks.url,
            "WEBHOOK_SECRET": SECRET,
            "SLOW_MILLIS": "100",
            "LOG_FORMAT": "json",
        }
        self.process = subprocess.Popen([program], env=settings, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        for line in self.process.stderr:
            if found := re.search(r'"addr":"([^"]+)"', line):
                # Or it would stop once the pipe is full.
                threading.Thread(target=self.process.stderr.read, daemon=True).start()
                return f"http://{found.group(1)}"
        sys.exit("contracts: the payment sandbox did not start")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=15)

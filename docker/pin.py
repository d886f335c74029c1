"""Pins the images that others make to what a registry has for their tags today: `name:tag@sha256:...`.

`python3 docker/pin.py` asks the registries and writes; run again, it renews. `--check` asks nobody: it lists the images
that are not pinned, and fails when there are some. Pinned are those of the images' builds and of the production
overlays; the shop's own images are whoever's who pushes them. What was written is to be looked at as any other change.
"""

import argparse
import hashlib
import json
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

# Where a reference is, and with what around it: before, name, tag, digest, after.
NAME, DIGEST = r"([a-z0-9][a-z0-9./_-]*)", r"(@sha256:[0-9a-f]{64})?"
PLAIN = rf"{NAME}:([\w.-]+){DIGEST}()"
KUSTOMIZE = rf'{NAME}, newTag: "?([\w.-]+){DIGEST}("?\}}?)'
PLACES = {
    "docker/Dockerfile": rf"^(ARG \w+_IMAGE=){PLAIN}$",
    "k8s/overlays/production/kustomization.yaml": rf"^(.*newName: ){KUSTOMIZE}$",
    "k8s/overlays/production/backup.yaml": rf"^(\s*image: ){PLAIN}$",
    "k8s/overlays/production/postgres.yaml": rf"^(\s*image(?:Name)?: ){PLAIN}$",
    "k8s/overlays/production/rabbitmq.yaml": rf"^(\s*image: ){PLAIN}$",
    "k8s/components/pooler/pooler.yaml": rf"^(\s*image: ){PLAIN}$",
}
# A placeholder for the registry of whoever runs the shop.
OWN = "registry.example.com/"
# An index of all platforms where there is one: https://github.com/opencontainers/distribution-spec
KINDS = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
]
SECONDS = 30
LARGEST = 4 << 20


def references(root):
    """(file, match) of every image that is to be pinned."""
    for place, pattern in PLACES.items():
        found = [m for m in re.finditer(pattern, (root / place).read_text(), re.MULTILINE) if not m[2].startswith(OWN)]
        if not found:
            sys.exit(f"pin: {place} names no image: has its form changed?")
        for match in found:
            yield place, match


def unpinned(root):
    """`name:tag` of those without a digest, each once."""
    return sorted({f"{m[2]}:{m[3]}" for _, m in references(root) if not m[4]})


def address(name, mirror):
    """(registry, repository) of a name as Docker reads it: one without a host is Docker Hub's."""
    host, _, rest = name.partition("/")
    if "." not in host and ":" not in host and host != "localhost":
        host, rest = "registry-1.docker.io", name if "/" in name else f"library/{name}"
    return mirror or f"https://{host}", rest


def ask(url, headers):
    """(headers, body); a registry that wants a token says where to get it, for anybody."""
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return answer.headers, answer.read(LARGEST)


def manifest(url):
    headers = {"Accept": ", ".join(KINDS)}
    try:
        return ask(url, headers)
    except urllib.error.HTTPError as error:
        wanted = dict(re.findall(r'(\w+)="([^"]*)"', error.headers.get("WWW-Authenticate", "")))
        if error.code != 401 or "realm" not in wanted:
            raise
    asked = {name: wanted[name] for name in ("service", "scope") if name in wanted}
    _, body = ask(f"{wanted['realm']}?{urlencode(asked)}", {})
    token = json.loads(body)
    return ask(url, {**headers, "Authorization": f"Bearer {token.get('token') or token['access_token']}"})


def digest(name, tag, mirror):
    """`sha256:...` of what the registry has: of the bytes that came, whatever it says of them itself."""
    registry, repository = address(name, mirror)
    headers, body = manifest(f"{registry}/v2/{repository}/manifests/{tag}")
    if not json.loads(body).get("schemaVersion"):
        sys.exit(f"pin: {name}:{tag}: this is no manifest")
    found, said = f"sha256:{hashlib.sha256(body).hexdigest()}", headers.get("Docker-Content-Digest")
    if said and said != found:
        sys.exit(f"pin: {name}:{tag}: the registry says {said}, but sent {found}")
    return found


def pin(root, mirror):
    """Asks for all before it writes any."""
    found = {}
    for _, match in references(root):
        name, tag = match[2], match[3]
        if (name, tag) not in found:
            found[name, tag] = digest(name, tag, mirror)
            print(f"{name}:{tag}@{found[name, tag]}")
    for place, pattern in PLACES.items():
        file = root / place

        def pinned(match):
            if match[2].startswith(OWN):
                return match[0]
            start, end = match.span(4) if match[4] else (match.end(3), match.end(3))
            text, base = match[0], match.start()
            return f"{text[:start - base]}@{found[match[2], match[3]]}{text[end - base:]}"

        file.write_text(re.sub(pattern, pinned, file.read_text(), flags=re.MULTILINE))


def main():
    parser = argparse.ArgumentParser(prog="docker/pin.py", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only list what is not pinned, and fail when something is")
    parser.add_argument("--mirror", metavar="URL", help="ask this registry for all of them, as for https://mirror.example.com")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.check:
        left = unpinned(wanted.root)
        for reference in left:
            print(f"not pinned: {reference}")
        return bool(left)
    try:
        pin(wanted.root, wanted.mirror)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"pin: nothing was written: {error}")
    return False


if __name__ == "__main__":
    sys.exit(main())

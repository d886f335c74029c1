"""Accounts for the tests: made for one run, but for the demo shop's staff and admin."""

import json
import secrets
import urllib.request

PASSWORD = "conformance of a shop"
# The demo accounts, as docs/ and `up` name them.
KEPT = {
    "staff": ("staff@dockside.test", "dockside-staff"),
    "admin": ("admin@dockside.test", "dockside-admin"),
}


def post(url, path, body):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/api/v1{path}", json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=15) as answer:
        return json.load(answer)


def register(url):
    """A new customer: its email address and its id."""
    email = f"conformance-{secrets.token_hex(8)}@example.test"
    user = post(url, "/auth/register", {"email": email, "password": PASSWORD, "name": "Conformance"})
    return email, user["id"]


def login(url, email):
    """An access token and a refresh token of a customer that was made here."""
    return post(url, "/auth/login", {"email": email, "password": PASSWORD})


def document(url):
    """Who requests are sent as, in Web Fuzzing Commons' format. The first whom an operation lets in keeps it, so the
    order is from least to most that somebody may do."""
    people = {"ada": (register(url)[0], PASSWORD), "ben": (register(url)[0], PASSWORD), **KEPT}
    return {
        "authTemplate": {
            "loginEndpointAuth": {
                "endpoint": "/api/v1/auth/login",
                "verb": "POST",
                "contentType": "application/json",
                "token": {
                    "extractFrom": "body",
                    "extractSelector": "/access_token",
                    "sendIn": "header",
                    "sendName": "Authorization",
                    "sendTemplate": "Bearer {token}",
                },
            }
        },
        "auth": [
            {"name": name, "loginEndpointAuth": {"payloadRaw": json.dumps({"email": email, "password": password})}}
            for name, (email, password) in people.items()
        ],
    }

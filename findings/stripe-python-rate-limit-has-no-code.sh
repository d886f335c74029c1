#!/usr/bin/env bash
# stripe (Python): the error for a request that was too fast has no `code`, though the answer names one.
#
# Stripe answers 429 for two different things: too many requests (`code` is `rate_limit`), and an object that another
# request holds (`lock_timeout`). Who tries again wants to tell them apart: https://docs.stripe.com/rate-limits.
# Expected: `RateLimitError.code` is what the answer's `error.code` says, as it is for `CardError` and
# `InvalidRequestError`.
# Seen, stripe 16.1.0: `code` is None; `error.code` of the exception has it.
#
# Exits 0 when this is still so, 1 when not, 2 when it could not be tried. Needs python3 with venv, and half a minute.
set -uo pipefail
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv" && "$work/venv/bin/pip" install --quiet stripe==16.1.0 || exit 2
cat >"$work/seen.py" <<'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import stripe

ANSWERS = {
    "/v1/payment_intents/pi_locked": (429, {"type": "invalid_request_error", "code": "lock_timeout", "message": "Held."}),
    "/v1/payment_intents/pi_gone": (404, {"type": "invalid_request_error", "code": "resource_missing", "message": "None."}),
}


class Provider(BaseHTTPRequestHandler):
    def do_GET(self):
        status, error = ANSWERS[self.path]
        body = json.dumps({"error": error}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = stripe.StripeClient(
    "sk_test_x", base_addresses={"api": f"http://127.0.0.1:{server.server_port}"}, max_network_retries=0
)
for intent in ["pi_locked", "pi_gone"]:
    try:
        client.v1.payment_intents.retrieve(intent)
    except stripe.StripeError as error:
        print(f"{intent}: {type(error).__name__}, code {error.code}, error.code {error.error.code}")
PYTHON
"$work/venv/bin/python" "$work/seen.py" >"$work/seen" || exit 2
cat "$work/seen"
if grep -qx 'pi_locked: RateLimitError, code None, error.code lock_timeout' "$work/seen" &&
  grep -qx 'pi_gone: InvalidRequestError, code resource_missing, error.code resource_missing' "$work/seen"; then
  echo 'as described'
else
  echo 'not as described'
  exit 1
fi

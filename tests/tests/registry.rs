//! `telemetry/registry.yaml` against the code. What the running shop shows is in `telemetry.rs`.

use std::collections::BTreeSet;
use std::path::Path;

use system_tests::registry::{registry, root};

#[test]
fn every_log_event_of_the_code_is_in_the_registry_and_no_other() {
    let registered: BTreeSet<String> = registry()
        .into_iter()
        .filter(|group| group["type"] == "event")
        .map(|group| group["name"].clone())
        .collect();
    let mut logged = BTreeSet::new();
    for folder in [
        "crates/service",
        "crates/identity",
        "crates/messaging",
        "crates/audit",
        "services/user",
        "services/product",
        "services/order",
    ] {
        sources(&root().join(folder).join("src"), &mut |text| logged.extend(events(text)));
    }
    assert_eq!(logged, registered);
}

fn sources(folder: &Path, read: &mut impl FnMut(&str)) {
    for entry in std::fs::read_dir(folder).expect("a folder can be read") {
        let path = entry.expect("a folder can be read").path();
        if path.is_dir() {
            sources(&path, read);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            read(&std::fs::read_to_string(&path).expect("a source can be read"));
        }
    }
}

/// The last text in each logging macro, of what is no test.
fn events(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut found = Vec::new();
    for level in ["error", "warn", "info", "debug", "trace"] {
        for after in code.split(&format!("tracing::{level}!(")).skip(1) {
            let mut depth = 1;
            let end = after.find(|sign: char| {
                depth += i32::from(sign == '(') - i32::from(sign == ')');
                depth == 0
            });
            let call = &after[..end.expect("brackets come in pairs")];
            found.push(call.rsplit('"').nth(1).expect("an event has a name").to_owned());
        }
    }
    found
}

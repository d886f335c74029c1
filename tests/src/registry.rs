//! What the services' telemetry is, as `telemetry/registry.yaml` has it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The keys of one group of the registry, which has one a line.
pub type Group = BTreeMap<String, String>;

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the repository").to_owned()
}

pub fn registry() -> Vec<Group> {
    let text =
        std::fs::read_to_string(root().join("telemetry/registry.yaml")).expect("the registry is a file");
    let groups = text.split("\n  - id: ").skip(1).map(|group| {
        let lines = group.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": "));
        // What is deeper belongs to attributes.
        let lines = lines.filter(|(key, _)| !key.starts_with(' '));
        lines.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect()
    });
    groups.collect()
}

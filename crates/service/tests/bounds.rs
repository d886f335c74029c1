//! Nothing in a service waits for the database without a limit: statements go through `service::db`, whose
//! connections have deadlines, and sqlx's own, which have none, are named nowhere else.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::fs;
use std::path::{Path, PathBuf};

/// What has no deadline of its own.
const UNBOUNDED: [&str; 8] = [
    "PgConnection",
    "PgPool",
    "PoolConnection",
    "PgTransaction",
    "sqlx::Transaction",
    "sqlx::Pool",
    "PgListener::connect",
    ".persistent(",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Lines of `text` that name one, with their numbers.
fn unbounded(text: &str) -> Vec<(usize, &str)> {
    let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    code.filter(|(_, line)| UNBOUNDED.iter().any(|name| line.contains(name)))
        .map(|(index, line)| (index + 1, line.trim()))
        .collect()
}

#[test]
fn services_reach_the_database_by_connections_with_deadlines_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    for folder in [
        "services/user/src",
        "services/product/src",
        "services/order/src",
        "crates/messaging/src",
        "crates/audit/src",
        "crates/service/src",
        "crates/identity/src",
    ] {
        sources(&root.join(folder), &mut found);
    }
    assert!(found.len() > 100, "{} files", found.len());
    let own = |path: &PathBuf| path.to_string_lossy().contains("service/src/db");
    let offences: Vec<String> = found
        .iter()
        .filter(|path| !own(path))
        .flat_map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let lines = unbounded(&text).into_iter();
            lines.map(|(number, line)| format!("{}:{number}: {line}", path.display())).collect::<Vec<_>>()
        })
        .collect();
    assert!(offences.is_empty(), "use service::db instead:\n{}", offences.join("\n"));
}

#[test]
fn the_check_finds_violations() {
    assert_eq!(
        unbounded("let x = 1;\n    let c: PgConnection = y;\n// PgPool\n"),
        [(2, "let c: PgConnection = y;")]
    );
}

//! A folder of query metadata: read, compared, replaced.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;

/// Metadata by file name.
pub type Metadata = BTreeMap<String, Vec<u8>>;

/// What is there; nothing when the folder is missing.
pub fn read(folder: &Path) -> Result<Metadata> {
    let mut files = Metadata::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?);
    }
    Ok(files)
}

/// One line per file that is missing, left over or different.
pub fn differences(committed: &Metadata, fresh: &Metadata) -> Vec<String> {
    let query = |bytes: &[u8]| {
        let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        let text = value["query"].as_str().unwrap_or("?").split_whitespace().collect::<Vec<_>>().join(" ");
        text.chars().take(80).collect::<String>()
    };
    let mut lines = Vec::new();
    for (name, bytes) in fresh {
        match committed.get(name) {
            None => lines.push(format!("missing: {} ({name})", query(bytes))),
            Some(old) if old != bytes => lines.push(format!("different: {} ({name})", query(bytes))),
            Some(_) => {}
        }
    }
    let left_over = committed.iter().filter(|(name, _)| !fresh.contains_key(*name));
    lines.extend(left_over.map(|(name, bytes)| format!("left over: {} ({name})", query(bytes))));
    lines
}

/// New files come before old ones go, so that a build meanwhile finds what it needs.
pub fn replace(committed: &Path, old: &Metadata, new: &Metadata) -> Result<()> {
    fs::create_dir_all(committed)?;
    for (name, bytes) in new.iter().filter(|(name, bytes)| old.get(*name) != Some(*bytes)) {
        fs::write(committed.join(name), bytes)?;
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        fs::remove_file(committed.join(name))?;
    }
    // Gone with its last query.
    fs::remove_dir(committed).ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_different_and_left_over_metadata_is_named_with_its_query() {
        let file = |query: &str| format!(r#"{{"query": "{query}"}}"#).into_bytes();
        let old = Metadata::from([("a".into(), file("SELECT 1")), ("b".into(), file("SELECT 2"))]);
        let new = Metadata::from([("b".into(), file("SELECT  3")), ("c".into(), file("SELECT 4"))]);
        let lines = differences(&old, &new);
        assert_eq!(lines, ["different: SELECT 3 (b)", "missing: SELECT 4 (c)", "left over: SELECT 1 (a)"]);
        assert!(differences(&new, &new).is_empty());
    }
}

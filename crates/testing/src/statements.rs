//! Where a crate's SQL is, read from the source.

use std::path::Path;

/// The files of the crate in `folder` that hold a statement and are no store: a file or a folder named `store` or
/// `..._store`. Tests do not count.
///
/// # Panics
/// when a file cannot be read, and when there is no store.
pub fn outside_stores(folder: &str) -> Vec<String> {
    let root = Path::new(folder).join("src");
    let (mut found, mut stores) = (Vec::new(), 0);
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the crate") {
            let path = entry.expect("an entry of the folder").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(&root).expect("it is below the root");
            if path.extension().is_none_or(|kind| kind != "rs") || inside.ends_with("tests.rs") {
                continue;
            }
            if is_store(inside) {
                stores += 1;
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a file of the crate");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            if code.contains("sqlx::query") || code.contains("QueryBuilder") {
                found.push(inside.display().to_string());
            }
        }
    }
    assert!(stores > 0, "there is no store in {}", root.display());
    found.sort();
    found
}

fn is_store(inside: &Path) -> bool {
    let inside = inside.with_extension("");
    inside.iter().map(|name| name.to_string_lossy()).any(|name| name == "store" || name.ends_with("_store"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_outside_a_store_is_found() {
        let folder = std::env::temp_dir().join(format!("statements-{}", uuid::Uuid::now_v7()));
        let source = folder.join("src");
        std::fs::create_dir_all(source.join("a/store")).unwrap();
        for store in ["store.rs", "a/refund_store.rs", "a/store/lists.rs"] {
            std::fs::write(source.join(store), "sqlx::query!()").unwrap();
        }
        std::fs::write(source.join("b.rs"), "fn f() {}\n#[cfg(test)]\nmod tests { sqlx::query() }").unwrap();
        assert_eq!(outside_stores(folder.to_str().unwrap()), Vec::<String>::new());
        std::fs::write(source.join("a.rs"), "sqlx::query_scalar!()").unwrap();
        assert_eq!(outside_stores(folder.to_str().unwrap()), ["a.rs"]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}

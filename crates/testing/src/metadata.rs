//! The committed query metadata (`.sqlx`), with which a build needs no database: whether it fits the schema.

use std::path::Path;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor, PgConnection, SqlSafeStr};

/// Each query of the crate in `folder` (`env!("CARGO_MANIFEST_DIR")`) that the database describes otherwise than its
/// metadata does. The connection has the schema on its search path. A query without metadata does not compile.
pub async fn stale(connection: &mut PgConnection, folder: &str) -> Vec<String> {
    let files = std::fs::read_dir(Path::new(folder).join(".sqlx")).expect("there is metadata");
    let mut stale = Vec::new();
    for file in files {
        let file = std::fs::read(file.expect("a folder can be read").path()).expect("metadata can be read");
        let metadata: Value = serde_json::from_slice(&file).expect("metadata is JSON");
        let query = metadata["query"].as_str().expect("metadata has a query").to_owned();
        match connection.describe(AssertSqlSafe(query.clone()).into_sql_str()).await {
            Ok(described) => {
                let described = serde_json::to_value(described).expect("a description is JSON");
                if described != metadata["describe"] {
                    stale.push(format!("{query}\nis described as {described}"));
                }
            }
            Err(error) => stale.push(format!("{query}\nis no query of this schema: {error}")),
        }
    }
    if !stale.is_empty() {
        stale.insert(0, "run `cargo dockside prepare`".to_owned());
    }
    stale
}

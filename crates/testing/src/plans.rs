//! How PostgreSQL runs a service's statements when its tables are big.
//!
//! The committed query metadata (`.sqlx`) names every statement of a crate, so a new one is checked by
//! itself. A statement is explained as the services' sessions plan it, for unknown values. A statement that
//! reads pages is run with [`Example`]s of values. A statement with filters that may be absent has to be
//! planned for the actual values (`SET LOCAL plan_cache_mode = force_custom_plan`), and is explained so.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, Row};

/// Arguments for the statements that hold all `parts`, each as SQL (`NULL`, `'lamp'`).
#[derive(Clone, Debug)]
pub struct Example {
    pub parts: Vec<&'static str>,
    pub arguments: Vec<String>,
}

impl Example {
    fn fits(&self, statement: &Statement) -> bool {
        self.parts.iter().all(|part| statement.sql.contains(part))
    }
}

/// What the tables are, and what the statements may do.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// Tables too big to be read from end to end.
    pub big: &'a [&'static str],
    /// Blocks of 8 KiB that an example may touch.
    pub blocks: u64,
    /// Settings of the service's sessions, and of its transactions where it makes more, as SQL.
    pub settings: &'static str,
}

/// Explains every statement of the crate in `folder` (`env!("CARGO_MANIFEST_DIR")`)
/// and returns what is wrong with them: reads of big tables from end to end, examples that touch
/// too many blocks, examples that no statement has, statements that lack examples, SQL that
/// the metadata can't know of. Examples are run, in a transaction that is rolled back.
pub async fn faults(
    connection: &mut PgConnection,
    folder: &str,
    bounds: Bounds<'_>,
    examples: &[Example],
) -> Vec<String> {
    let mut faults = unchecked(&Path::new(folder).join("src"));
    let statements = statements(&Path::new(folder).join(".sqlx"));
    assert!(!statements.is_empty(), "{folder} has no query metadata");
    for example in examples {
        if !statements.iter().any(|statement| example.fits(statement)) {
            faults.push(format!("no statement holds {:?}", example.parts));
        }
    }
    let whole = "SELECT indexrelid::regclass::text FROM pg_index WHERE indpred IS NULL";
    let names =
        sqlx::query_scalar::<_, String>(whole).fetch_all(&mut *connection).await.expect("a catalogue");
    // Plans name an index without its schema.
    let plain = |name: String| name.rsplit('.').next().unwrap_or_default().to_owned();
    let whole_indexes: Vec<String> = names.into_iter().map(plain).collect();
    for statement in &statements {
        let mut fitting = examples.iter().filter(|example| example.fits(statement)).peekable();
        let optional = statement.sql.contains("IS NULL OR ");
        if fitting.peek().is_none() {
            if optional || statement.sql.contains("LIMIT $") {
                faults.push(format!("a list without an example: {}", statement.sql));
                continue;
            }
            let unknown = vec!["NULL".to_owned(); statement.parameters];
            let (mode, settings) = ("force_generic_plan", bounds.settings);
            let plan = explain(connection, statement, mode, settings, "COSTS", &unknown).await;
            faults.extend(scans(&plan, statement, bounds.big, &whole_indexes));
        }
        for example in fitting {
            let mode = if optional { "force_custom_plan" } else { "force_generic_plan" };
            let options = "ANALYZE, BUFFERS";
            let arguments = &example.arguments;
            let plan = explain(connection, statement, mode, bounds.settings, options, arguments).await;
            // Pages may begin anywhere in an index: what they read is counted.
            faults.extend(scans(&plan, statement, bounds.big, &[]));
            let blocks = plan["Shared Hit Blocks"].as_u64().unwrap_or(0)
                + plan["Shared Read Blocks"].as_u64().unwrap_or(0);
            if blocks > bounds.blocks {
                faults.push(format!("{blocks} blocks with {arguments:?}: {}\n{plan:#}", statement.sql));
            }
        }
    }
    faults
}

struct Statement {
    sql: String,
    parameters: usize,
}

fn statements(metadata: &Path) -> Vec<Statement> {
    let files = std::fs::read_dir(metadata).expect("the crate has query metadata");
    let mut statements: Vec<Statement> = files
        .map(|file| {
            let text = std::fs::read(file.expect("a folder can be read").path()).expect("a file can be read");
            let query: Value = serde_json::from_slice(&text).expect("metadata is JSON");
            let parameters = query["describe"]["parameters"]["Left"].as_array().map_or(0, Vec::len);
            Statement {
                sql: query["query"].as_str().expect("metadata names its query").to_owned(),
                parameters,
            }
        })
        .collect();
    statements.sort_by(|a, b| a.sql.cmp(&b.sql));
    statements
}

/// SQL that isn't checked when it is compiled, and so isn't in the metadata.
fn unchecked(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the crate has sources") {
        let path = entry.expect("a folder can be read").path();
        if path.is_dir() {
            found.extend(unchecked(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source can be read");
            let names = ["query", "query_as", "query_scalar", "query_with", "raw_sql"];
            let calls = names.iter().flat_map(|name| [format!("{name}("), format!("{name}::<")]);
            for call in calls.chain(["QueryBuilder".to_owned(), "AssertSqlSafe".to_owned()]) {
                if text.contains(&format!("sqlx::{call}")) {
                    found.push(format!("{}: sqlx::{call} is in no metadata", path.display()));
                }
            }
        }
    }
    found
}

/// The plan's root node.
async fn explain(
    connection: &mut PgConnection,
    statement: &Statement,
    mode: &str,
    settings: &str,
    options: &str,
    arguments: &[String],
) -> Value {
    let mut script = format!("BEGIN; SET LOCAL plan_cache_mode = {mode}; {settings};");
    write!(script, "PREPARE explained AS {};", statement.sql).expect("a String takes all");
    let list = if arguments.is_empty() { String::new() } else { format!("({})", arguments.join(", ")) };
    write!(script, "EXPLAIN (FORMAT JSON, {options}) EXECUTE explained{list};").expect("a String takes all");
    script.push_str("DEALLOCATE explained; ROLLBACK");
    let rows = sqlx::raw_sql(AssertSqlSafe(script)).fetch_all(connection).await;
    let rows = rows.unwrap_or_else(|error| panic!("{error} in {} with {arguments:?}", statement.sql));
    let plan: Value = rows.iter().find_map(|row| row.try_get(0).ok()).expect("EXPLAIN answers");
    plan[0]["Plan"].clone()
}

/// Reads of all of a big table: by itself, or by an index that has all its rows.
fn scans(plan: &Value, statement: &Statement, big: &[&str], whole_indexes: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![plan];
    while let Some(node) = open.pop() {
        let table = node["Relation Name"].as_str().unwrap_or_default();
        let kind = node["Node Type"].as_str().unwrap_or_default();
        // A partial index has only the rows that are wanted.
        let index = node["Index Name"].as_str().unwrap_or_default();
        let whole = kind == "Seq Scan"
            || kind.starts_with("Index")
                && node["Index Cond"].is_null()
                && whole_indexes.iter().any(|name| name == index);
        if whole && big.contains(&table) {
            found.push(format!("{kind} of all of {table}: {}\n{plan:#}", statement.sql));
        }
        open.extend(node["Plans"].as_array().into_iter().flatten());
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sqlx::{Connection, Executor};
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn each_kind_of_fault_is_found() {
        let mut connection = PgConnection::connect(&crate::database("crates").await).await.unwrap();
        let tables = "CREATE TABLE crates.big (id int PRIMARY KEY, name text);
            INSERT INTO crates.big SELECT n, n FROM generate_series(1, 20000) n;
            CREATE TABLE crates.small (id int); INSERT INTO crates.small VALUES (1); ANALYZE;";
        connection.execute(tables).await.unwrap();
        let folder = std::env::temp_dir().join(format!("plans-{}", Uuid::now_v7().simple()));
        std::fs::create_dir_all(folder.join(".sqlx")).unwrap();
        std::fs::create_dir_all(folder.join("src/deep")).unwrap();
        std::fs::write(folder.join("src/deep/lib.rs"), "sqlx::query_scalar::<_, i64>(\"SELECT 1\")").unwrap();
        for (n, sql, parameters) in [
            (1, "SELECT * FROM crates.big WHERE id = $1", vec!["Int4"]),
            (2, "SELECT * FROM crates.small", vec![]),
            (3, "SELECT * FROM crates.small s JOIN crates.big b ON b.name = $1", vec!["Text"]),
            (4, "SELECT id FROM crates.big ORDER BY id LIMIT $1", vec!["Int8"]),
            (5, "SELECT id + 1 FROM crates.big ORDER BY id LIMIT $1", vec!["Int8"]),
            (6, "SELECT sum(id) FROM crates.big WHERE id % 7 = $1", vec!["Int4"]),
        ] {
            let query = json!({"query": sql, "describe": {"parameters": {"Left": parameters}}});
            std::fs::write(folder.join(format!(".sqlx/query-{n}.json")), query.to_string()).unwrap();
        }
        let example =
            |part, argument: &str| Example { parts: vec![part], arguments: vec![argument.to_owned()] };
        let examples =
            [example("SELECT id FROM", "5"), example("SELECT id FROM", "20000"), example("SELECT name", "1")];
        let bounds = Bounds { big: &["big"], blocks: 50, settings: "" };
        let found = faults(&mut connection, folder.to_str().unwrap(), bounds, &examples).await;
        let beginnings: Vec<&str> = found.iter().map(|fault| fault.lines().next().unwrap()).collect();
        let expected = [
            "sqlx::query_scalar::< is in no metadata",
            "no statement holds [\"SELECT name\"]",
            "Seq Scan of all of big: SELECT * FROM crates.small s",
            "a list without an example: SELECT id + 1",
            "blocks with [\"20000\"]: SELECT id FROM",
            "Seq Scan of all of big: SELECT sum(id)",
        ];
        assert_eq!(beginnings.len(), expected.len(), "{beginnings:#?}");
        for part in expected {
            assert!(beginnings.iter().any(|fault| fault.contains(part)), "{part}: {beginnings:#?}");
        }
        // By an index, where it may not be read by itself.
        let bounds = Bounds { settings: "SET LOCAL enable_seqscan = off", ..bounds };
        let found = faults(&mut connection, folder.to_str().unwrap(), bounds, &examples).await;
        let whole = "Index Only Scan of all of big: SELECT sum(id)";
        assert!(found.iter().any(|fault| fault.starts_with(whole)), "{found:#?}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}

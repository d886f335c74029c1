//! Whether a service has routes that its OpenAPI document can't know of.
//!
//! A route gets into the document by `OpenApiRouter::routes`, which a handler's `#[utoipa::path]` describes.
//! The check searches `src/http.rs` and `src/http/` for axum's other ways to add one.

use std::path::{Path, PathBuf};

/// Calls that add what no document describes.
const UNDOCUMENTED: [&str; 7] =
    [".route(", ".route_service(", ".nest(", ".nest_service(", ".fallback(", ".fallback_service(", ".merge("];

/// Such calls in the crate in `folder` (`env!("CARGO_MANIFEST_DIR")`), as `file: call`. A router of a
/// module in `src/http/` that is an `OpenApiRouter` may be merged, and what is `allowed`.
pub fn undocumented(folder: &str, allowed: &[&str]) -> Vec<String> {
    let root = Path::new(folder).join("src/http.rs");
    let parts = Path::new(folder).join("src/http");
    let mut found = Vec::new();
    for file in files(&parts).into_iter().chain([root]) {
        let text = std::fs::read_to_string(&file).expect("a source can be read");
        for call in UNDOCUMENTED {
            for (_, rest) in text.match_indices(call).map(|(at, _)| text.split_at(at + call.len())) {
                let argument = rest.lines().next().unwrap_or_default();
                let described = call == ".merge(" && {
                    let module = argument.split_once("::router())").map(|(module, _)| module);
                    module.is_some_and(|module| {
                        let text = std::fs::read_to_string(parts.join(format!("{module}.rs")));
                        text.is_ok_and(|text| text.contains("fn router() -> OpenApiRouter<"))
                    })
                };
                if !described && !allowed.iter().any(|allowed| argument.starts_with(allowed)) {
                    found.push(format!("{}: {call}{argument}", file.display()));
                }
            }
        }
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder can be read");
    let paths = entries.map(|entry| entry.expect("a folder can be read").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn each_way_around_the_document_is_found() {
        let folder = std::env::temp_dir().join(format!("routes-{}", Uuid::now_v7().simple()));
        std::fs::create_dir_all(folder.join("src/http/deep")).unwrap();
        let write = |file: &str, text: &str| std::fs::write(folder.join("src").join(file), text).unwrap();
        write("http/good.rs", "pub fn router() -> OpenApiRouter<App> { OpenApiRouter::new().routes(x) }");
        write("http/bad.rs", "pub fn router() -> Router<App> { Router::new().nest(\"/x\", y) }");
        write("http/deep/z.rs", "Router::new().route_service(\"/x\", y)");
        write(
            "http.rs",
            "x.merge(good::router()).merge(docs::router())\n.merge(bad::router()).route(\"/\", get(y))",
        );
        let found = undocumented(folder.to_str().unwrap(), &["docs::router()"]);
        let mut calls: Vec<&str> = found.iter().map(|call| call.split_once(": ").unwrap().1).collect();
        calls.sort_unstable();
        let calls: Vec<&str> = calls.iter().map(|call| call.split('"').next().unwrap()).collect();
        assert_eq!(calls, [".merge(bad::router()).route(", ".nest(", ".route(", ".route_service("]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}

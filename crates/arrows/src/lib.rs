//! Finds the modules of a crate that lead back to themselves, by its source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The top-level modules of the crate in `folder` that can be reached from themselves, by the paths after
/// `crate::` in the files of each. Tests do not count.
///
/// # Panics
/// when a file cannot be read.
pub fn circles(folder: &str) -> Vec<String> {
    let root = Path::new(folder).join("src");
    let mut arrows = Arrows::new();
    collect(&root, &root, &mut arrows);
    assert!(arrows.len() > 1, "there is nothing to see in {}", root.display());
    let comes_back = |module: &String| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&String> = arrows[module].iter().collect();
        while let Some(at) = next.pop() {
            if seen.insert(at) {
                next.extend(arrows.get(at).into_iter().flatten());
            }
        }
        seen.contains(module)
    };
    arrows.keys().filter(|module| comes_back(module)).cloned().collect()
}

fn collect(root: &Path, folder: &Path, arrows: &mut Arrows) {
    for entry in std::fs::read_dir(folder).expect("a folder of the crate") {
        let path = entry.expect("an entry of the folder").path();
        if path.is_dir() {
            collect(root, &path, arrows);
            continue;
        }
        let inside = path.strip_prefix(root).expect("it is below the root").with_extension("");
        let module = inside.iter().next().map(|name| name.to_string_lossy().into_owned());
        let Some(module) = module.filter(|name| name != "lib" && name != "main") else { continue };
        if path.extension().is_some_and(|kind| kind == "rs") && !inside.ends_with("tests") {
            let text = std::fs::read_to_string(&path).expect("a file of the crate");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            arrows.entry(module.clone()).or_default().extend(named(code).filter(|name| *name != module));
        }
    }
}

/// The modules that `crate::` is followed by, one or a list in braces.
fn named(code: &str) -> impl Iterator<Item = String> + '_ {
    code.split("crate::").skip(1).flat_map(|rest| {
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default(),
            None => rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default(),
        };
        let name = |part: &str| part.trim().split("::").next().unwrap_or_default().trim().to_owned();
        list.split(',').map(name).filter(|name| !name.is_empty()).collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_found() {
        let folder = std::env::temp_dir().join(format!("arrows-{}", std::process::id()));
        let source = folder.join("src");
        std::fs::create_dir_all(source.join("b")).unwrap();
        std::fs::write(source.join("a.rs"), "use crate::{b, c};").unwrap();
        std::fs::write(source.join("b.rs"), "use crate::c::X;").unwrap();
        std::fs::write(source.join("c.rs"), "").unwrap();
        assert_eq!(circles(folder.to_str().unwrap()), Vec::<String>::new());
        std::fs::write(source.join("b/d.rs"), "fn f() { crate::a::g() }").unwrap();
        assert_eq!(circles(folder.to_str().unwrap()), ["a", "b"]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}

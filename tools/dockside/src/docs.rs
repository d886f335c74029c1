//! What the Markdown files point to has to be there: files, headings, and paths in code style.

use std::path::{Path, PathBuf};

/// Folders at the root whose names begin a path.
const ROOTS: [&str; 11] = [
    "bench",
    "crates",
    "docker",
    "docs",
    "findings",
    "k8s",
    "proto",
    "services",
    "telemetry",
    "tests",
    "tools",
];
/// Made by builds and runs.
const SKIPPED: [&str; 3] = ["target", "node_modules", "__pycache__"];

/// What `file` points to that is not there.
fn broken(root: &Path, file: &Path) -> Vec<String> {
    let text = without_blocks(&std::fs::read_to_string(file).expect("a Markdown file"));
    let folder = file.parent().unwrap_or(root);
    let mut broken: Vec<String> = links(&text).filter(|link| !link_holds(file, folder, link)).collect();
    broken.extend(paths(&text).filter(|path| !path_holds(root, folder, path)));
    broken
}

/// Without what stands between lines of three backticks.
fn without_blocks(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The targets of links within this repository.
fn links(text: &str) -> impl Iterator<Item = String> + '_ {
    let target = |rest: &str| rest.split(')').next().unwrap_or_default().to_owned();
    text.split("](").skip(1).map(target).filter(|link| !link.contains(':'))
}

fn link_holds(file: &Path, folder: &Path, link: &str) -> bool {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { file.to_path_buf() } else { folder.join(path) };
    if anchor.is_empty() || target.extension().is_none_or(|kind| kind != "md") {
        return target.exists();
    }
    let text = std::fs::read_to_string(target).unwrap_or_default();
    without_blocks(&text).lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor)
}

/// As GitHub makes an anchor of a heading.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Paths in backticks: from the root, or from the README's own folder.
fn paths(text: &str) -> impl Iterator<Item = String> + '_ {
    let plain = |code: &&str| {
        code.contains('/') && code.chars().all(|c| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_'))
    };
    let begins = |code: &&str| {
        let first = code.split('/').next().unwrap_or_default();
        ROOTS.contains(&first) || first == "src" || first == "core"
    };
    text.split('`').skip(1).step_by(2).filter(plain).filter(begins).map(str::to_owned)
}

fn path_holds(root: &Path, folder: &Path, path: &str) -> bool {
    [root, folder].iter().any(|from| from.join(path).exists())
}

/// All files below a folder whose names end so.
fn files(folder: &Path, end: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the repository").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            if !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                files(&path, end, found);
            }
        } else if name.ends_with(end) {
            found.push(path);
        }
    }
}

#[test]
fn all_that_documents_point_to_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the root");
    let mut found = Vec::new();
    files(&root, ".md", &mut found);
    assert!(found.len() > 10, "{found:?}");
    let wrong: Vec<String> = found
        .iter()
        .flat_map(|file| {
            let shown = file.strip_prefix(&root).unwrap_or(file).display().to_string();
            broken(&root, file).into_iter().map(move |what| format!("{shown}: {what}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Names of tests in backticks: sentences, with underscores for blanks.
fn tests_named(text: &str) -> impl Iterator<Item = &str> {
    let sentence = |code: &&str| {
        code.matches('_').count() > 3 && code.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
    };
    text.split('`').skip(1).step_by(2).filter(sentence)
}

#[test]
fn every_test_that_the_security_pages_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the root");
    let mut sources = Vec::new();
    files(&root, ".rs", &mut sources);
    let sources: String =
        sources.iter().map(|file| std::fs::read_to_string(file).unwrap_or_default()).collect();
    for page in ["docs/asvs.md", "docs/threat-model.md"] {
        let text = std::fs::read_to_string(root.join(page)).expect("the page");
        let named: Vec<&str> = tests_named(&text).collect();
        assert!(named.len() > 10, "{page} names {} tests", named.len());
        let missing: Vec<&str> =
            named.into_iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
        assert!(missing.is_empty(), "{page}: {missing:#?}");
    }
}

#[test]
fn what_is_not_there_is_found() {
    let dir = std::env::temp_dir().join(format!("docs-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("docs")).unwrap();
    let file = dir.join("docs/a.md");
    let text = "# Some `code` here\n[a](a.md) [b](b.md) [c](#some-code-here) [d](a.md#none) [e](https://x/y)\n\
                `docs/a.md` `docs/b.md` `docs/*.md`\n```\n[f](f.md)\n```\n";
    std::fs::write(&file, text).unwrap();
    assert_eq!(broken(&dir, &file), ["b.md", "a.md#none", "docs/b.md"]);
    std::fs::remove_dir_all(dir).unwrap();
}

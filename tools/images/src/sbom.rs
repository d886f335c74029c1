//! An image's bill of materials: the crates that its program is linked from and the packages of its base image, in
//! CycloneDX 1.6 (<https://cyclonedx.org/docs/1.6/json/>).
//!
//! `cargo tree` knows which optional crates are built. What is made from Cargo.lock or `cargo metadata` also names
//! those that are not (sqlx's MySQL and SQLite drivers), and scanners then warn of what isn't there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use machine::compile::cargo;
use machine::layout::Layout;
use machine::process::output;
use serde_json::{Value, json};

use crate::layers::Image;

pub struct Bill {
    pub document: Value,
    pub crates: usize,
    /// Of the base; `None` when it has no list of them.
    pub packages: Option<usize>,
}

/// A crate, and what it is linked with, both as package URLs (<https://github.com/package-url/purl-spec>).
#[derive(Debug, Default, PartialEq, Eq)]
struct Crate {
    name: String,
    version: String,
    license: String,
    uses: BTreeSet<String>,
}

/// Of the image of one of the `programs`.
pub fn of(layout: &Layout, programs: &[&str], program: &str, image: &str, found: &Image) -> Result<Bill> {
    let target = match found.architecture.as_str() {
        "amd64" => "x86_64-unknown-linux-gnu",
        "arm64" => "aarch64-unknown-linux-gnu",
        other => bail!("no bill of materials for {other}"),
    };
    // All of them at once, as the Dockerfile builds them: features that one asks for are those of all.
    let mut tree = cargo(layout);
    tree.args(["tree", "--locked", "--target", target]).args(programs.iter().flat_map(|p| ["--package", p]));
    tree.args(["--edges", "normal,no-proc-macro", "--prefix", "depth", "--format", "|{p}|{l}"]);
    let (root, crates) = graph(&output(&mut tree)?, program).context("cargo tree")?;
    let lock = fs::read_to_string(layout.root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let checksums = checksums(&lock);
    let listed = base_packages(image).with_context(|| format!("reading the packages of {image}"))?;
    let (packages, count) = (listed.as_deref().unwrap_or_default(), listed.as_ref().map(Vec::len));

    let mut components = Vec::new();
    for (purl, found) in &crates {
        let kind = if *purl == root { "application" } else { "library" };
        let mut component = json!({"type": kind, "bom-ref": purl, "purl": purl, "name": found.name, "version": found.version});
        if !found.license.is_empty() {
            component["licenses"] = json!([{"expression": found.license}]);
        }
        if let Some(sum) = checksums.get(&(found.name.as_str(), found.version.as_str())) {
            component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
        }
        components.push(component);
    }
    for package in packages {
        let purl = package.purl();
        components.push(json!({
            "type": "library", "bom-ref": purl, "purl": purl, "name": package.name, "version": package.version,
        }));
    }
    let mut dependencies: Vec<Value> =
        crates.iter().map(|(purl, found)| json!({"ref": purl, "dependsOn": found.uses})).collect();
    let parts: Vec<String> = packages.iter().map(Package::purl).chain([root]).collect();
    dependencies.push(json!({"ref": "image", "dependsOn": parts}));
    let id = output(Command::new("docker").args(["image", "inspect", "--format", "{{.Id}}", image]))?;
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [
                {"type": "application", "name": "cargo dockside images", "version": env!("CARGO_PKG_VERSION")},
            ]},
            "component": {
                "type": "container",
                "bom-ref": "image",
                "name": image,
                "version": id.trim(),
                "properties": [{"name": "architecture", "value": found.architecture}],
            },
        },
        "components": components,
        "dependencies": dependencies,
    });
    Ok(Bill { document, crates: crates.len(), packages: count })
}

/// Reads `cargo tree --prefix depth --format '|{p}|{l}'` of some programs: the package URL of one, and by its own each
/// crate that this one is linked from.
fn graph(tree: &str, program: &str) -> Option<(String, BTreeMap<String, Crate>)> {
    let mut crates = BTreeMap::<String, Crate>::new();
    let (mut root, mut path) = (None, Vec::<String>::new());
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let mut fields = line.splitn(3, '|');
        let depth: usize = fields.next()?.parse().ok()?;
        let mut package = fields.next()?.split(' ');
        // ` (*)`: what it uses was listed before, maybe for another program.
        let license = fields.next()?.trim_end_matches(" (*)").replace('/', " OR ");
        let (name, version) = (package.next()?, package.next()?.strip_prefix('v')?);
        // A folder follows where it does not come from crates.io, which has others of the same names.
        let purl = match package.next().filter(|rest| rest.starts_with("(/")) {
            Some(_) => format!("pkg:generic/dockside/{name}@{version}"),
            None => format!("pkg:cargo/{name}@{}", encoded(version)),
        };
        path.truncate(depth);
        if let Some(parent) = path.last() {
            crates.get_mut(parent)?.uses.insert(purl.clone());
        } else if name == program {
            root = Some(purl.clone());
        }
        let entry = crates.entry(purl.clone()).or_default();
        (entry.name, entry.version, entry.license) = (name.to_owned(), version.to_owned(), license);
        path.push(purl);
    }
    let (root, mut linked) = (root?, BTreeMap::new());
    let mut open = vec![root.clone()];
    while let Some(purl) = open.pop() {
        if let Some(found) = crates.remove(&purl) {
            open.extend(found.uses.iter().cloned());
            linked.insert(purl, found);
        }
    }
    Some((root, linked))
}

/// SHA-256 by name and version.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    fn quoted<'a>(block: &'a str, name: &str) -> Option<&'a str> {
        block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'))
    }
    let blocks = lock.split("[[package]]");
    blocks
        .filter_map(|block| {
            Some(((quoted(block, "name")?, quoted(block, "version")?), quoted(block, "checksum")?))
        })
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
    architecture: String,
    /// `debian-12`.
    distribution: String,
}

impl Package {
    fn purl(&self) -> String {
        let vendor = self.distribution.split('-').next().unwrap_or_default();
        let (version, arch) = (encoded(&self.version), &self.architecture);
        format!("pkg:deb/{vendor}/{}@{version}?arch={arch}&distro={}", encoded(&self.name), self.distribution)
    }
}

/// As package URLs want it: these occur in versions and names.
fn encoded(text: &str) -> String {
    text.replace('%', "%25").replace('+', "%2B").replace(':', "%3A").replace('~', "%7E")
}

/// What the base says that it has: `/var/lib/dpkg/status` in Debian's images, a file each in `status.d` in
/// distroless ones. `None` in one that has neither.
fn base_packages(image: &str) -> Result<Option<Vec<Package>>> {
    let container = output(Command::new("docker").args(["create", image]))?;
    let container = container.trim();
    let read = || -> Result<_> {
        let text = |path| text_of(container, path);
        Ok((text("/etc/os-release")?, text("/var/lib/dpkg/status")?, text("/var/lib/dpkg/status.d")?))
    };
    let found = read();
    let removed = output(Command::new("docker").args(["rm", container]));
    let (release, status, parts) = found?;
    removed?;
    if status.is_none() && parts.is_none() {
        return Ok(None);
    }
    let [release, status, parts] = [release, status, parts].map(Option::unwrap_or_default);
    let mut packages = packages(&format!("{status}\n\n{parts}"), &distribution(&release));
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(packages))
}

/// The text of a file, or of all files in a folder; `None` when there is no such path.
fn text_of(container: &str, path: &str) -> Result<Option<String>> {
    let source = format!("{container}:{path}");
    let mut docker = Command::new("docker")
        .args(["cp", "--follow-link", &source, "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // A tar.
    let archive = docker.stdout.take().context("docker's output")?;
    let text = output(Command::new("tar").arg("-xO").stdin(archive));
    let docker = docker.wait_with_output()?;
    if docker.status.success() {
        return text.map(Some);
    }
    let why = String::from_utf8_lossy(&docker.stderr);
    ensure!(no_such_path(&why), "docker cp failed ({}): {}", docker.status, why.trim());
    Ok(None)
}

/// Docker's words for it; there is no status of its own.
fn no_such_path(message: &str) -> bool {
    ["Could not find the file ", "No such container:path: "].iter().any(|words| message.contains(words))
}

fn distribution(os_release: &str) -> String {
    let field =
        |name: &str| os_release.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("").trim_matches('"');
    format!("{}-{}", field("ID="), field("VERSION_ID="))
}

/// Stanzas of fields, as deb822(5) has them. Files of them follow each other here without an empty line between, and
/// among them are lists of checksums: a stanza begins with its package's name.
fn packages(status: &str, distribution: &str) -> Vec<Package> {
    let starts = status.match_indices("Package: ").map(|(at, _)| at);
    let starts: Vec<usize> = starts.filter(|at| *at == 0 || status.as_bytes()[at - 1] == b'\n').collect();
    let ends = starts.iter().skip(1).copied().chain([status.len()]);
    starts
        .iter()
        .zip(ends)
        .filter_map(|(start, end)| {
            let stanza = &status[*start..end];
            let field =
                |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            // Removed packages stay in the list for their configuration.
            if field("Status: ").is_some_and(|status| !status.ends_with(" installed")) {
                return None;
            }
            Some(Package {
                name: field("Package: ")?,
                version: field("Version: ")?,
                architecture: field("Architecture: ")?,
                distribution: distribution.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_becomes_a_programs_crates_with_what_each_is_linked_with() {
        let tree = "\
0|order v0.1.0 (/src/services/order)|Apache-2.0 OR MIT
1|axum v0.8.9|MIT
2|bytes v1.12.2|MIT/Apache-2.0
1|service v0.1.0 (/src/crates/service)|MIT
2|axum v0.8.9|MIT (*)
2|zstd-sys v2.0.1+zstd.1.5.2|

0|user v0.1.0 (/src/services/user)|Apache-2.0 OR MIT
1|argon2 v0.6.0|MIT
1|axum v0.8.9|MIT (*)
";
        let (root, crates) = graph(tree, "user").unwrap();
        assert_eq!(root, "pkg:generic/dockside/user@0.1.0");
        assert_eq!(
            crates.keys().collect::<Vec<_>>(),
            ["pkg:cargo/argon2@0.6.0", "pkg:cargo/axum@0.8.9", "pkg:cargo/bytes@1.12.2", root.as_str()]
        );
        let (root, crates) = graph(tree, "order").unwrap();
        assert_eq!(root, "pkg:generic/dockside/order@0.1.0");
        assert_eq!(crates.len(), 5);
        let uses = |purl: &str| crates[purl].uses.iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(uses(&root), ["pkg:cargo/axum@0.8.9", "pkg:generic/dockside/service@0.1.0"]);
        assert_eq!(uses("pkg:cargo/axum@0.8.9"), ["pkg:cargo/bytes@1.12.2"]);
        assert_eq!(
            uses("pkg:generic/dockside/service@0.1.0"),
            ["pkg:cargo/axum@0.8.9", "pkg:cargo/zstd-sys@2.0.1%2Bzstd.1.5.2"]
        );
        assert_eq!(crates["pkg:cargo/bytes@1.12.2"].license, "MIT OR Apache-2.0");
        assert!(graph(tree, "product").is_none());
        assert!(graph("error: no such package", "order").is_none());
    }

    #[test]
    fn checksums_are_those_of_the_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n\n\
                    [[package]]\nname = \"order\"\nversion = \"0.1.0\"\n";
        assert_eq!(checksums(lock), BTreeMap::from([(("a", "1.0.0"), "00ff")]));
    }

    #[test]
    fn a_missing_path_is_distinguished_from_other_failures() {
        assert!(no_such_path("Error response from daemon: Could not find the file /x in container 1f"));
        assert!(no_such_path("Error: No such container:path: 1f:/x"));
        assert!(!no_such_path("Error response from daemon: No such container: 1f"));
        assert!(!no_such_path("Cannot connect to the Docker daemon at unix:///var/run/docker.sock."));
    }

    #[test]
    fn the_packages_of_a_base_are_those_installed() {
        let status = "\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u9
Description: GNU C Library
 Package: not a field
Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
d41d8cd98f00b204e9800998ecf8427e  usr/share/doc/libc6/copyright
Package: tzdata
Version: 2024a-0+deb12u1
Architecture: all
";
        let release = "NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n";
        let found: Vec<String> = packages(status, &distribution(release)).iter().map(Package::purl).collect();
        assert_eq!(
            found,
            [
                "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64&distro=debian-12",
                "pkg:deb/debian/tzdata@2024a-0%2Bdeb12u1?arch=all&distro=debian-12"
            ]
        );
    }
}

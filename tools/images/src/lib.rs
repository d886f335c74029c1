//! Builds the container images and says what is in them: sizes, layers, a bill of materials, and what a
//! vulnerability scanner finds where one is installed.

mod layers;
mod sbom;

use std::fs;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use machine::console::{line, seconds, step};
use machine::layout::Layout;
use machine::process::output;

/// The programs that have one: the shop's, and the operator's for the comparison that runs by itself.
const IMAGES: [&str; 6] = ["user", "product", "order", "storefront", "payment-sandbox", "operator"];

/// Of each image, compressed: what a node has to pull.
const LIMIT: u64 = 20 << 20;

pub struct Args {
    pub tag: String,
    /// As for `docker buildx build --platform`; the engine's own when left out.
    pub platform: Option<String>,
    /// Inspects existing images of that tag.
    pub no_build: bool,
    /// A machine without a scanner is an error.
    pub scan: bool,
}

pub fn run(layout: &Layout, args: &Args) -> Result<ExitCode> {
    let scanner = wanted(Scanner::installed(), args.scan)?;
    output(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]))
        .context("this needs a Docker engine")?;
    let folder = layout.dir.join("images");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    if !args.no_build {
        for program in IMAGES {
            build(layout, args, program)?;
        }
    }
    let mut wrong = Vec::new();
    for program in IMAGES {
        let image = reference(program, &args.tag);
        let found = layers::of(&image, &folder)?;
        line(&format!(
            "\n{image} {}, {} compressed, {} unpacked",
            found.architecture,
            mebibytes(found.compressed()),
            mebibytes(found.unpacked())
        ));
        for layer in &found.layers {
            line(&format!("  {:>8}  {}", mebibytes(layer.compressed), layer.made_by));
        }
        wrong.extend(too_large(&image, found.compressed()));
        let file = folder.join(format!("{program}.cdx.json"));
        let bill = sbom::of(layout, &IMAGES, program, &image, &found)?;
        fs::write(&file, format!("{:#}\n", bill.document))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let base = match bill.packages {
            Some(count) => format!("{count} packages of the base"),
            None => "the base has no list of Debian packages".to_owned(),
        };
        line(&format!("  {}: {} crates, {base}", file.display(), bill.crates));
        if let Some(scanner) = scanner {
            for what in scanner.targets(&image, &file.to_string_lossy()) {
                let mut command = Command::new(scanner.program());
                if !command.args(what).status().is_ok_and(|status| status.success()) {
                    wrong.push(format!("{} found something in {image}, or failed", scanner.program()));
                }
            }
        }
    }
    line("");
    if scanner.is_none() {
        step("scan", "left out: neither trivy nor grype is installed");
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    step("images", &format!("done in {}", seconds(machine::console::since_start())));
    Ok(ExitCode::SUCCESS)
}

/// The scanner to use, if any.
///
/// # Errors
/// when there must be one and there is none: a release that nobody scanned would pass for one that was found
/// sound.
fn wanted(installed: Option<Scanner>, required: bool) -> Result<Option<Scanner>> {
    ensure!(installed.is_some() || !required, "--scan needs a scanner: install trivy or grype");
    Ok(installed)
}

/// The largest of the images of that tag, compressed, as `order 13.1 MiB`.
///
/// # Errors
/// when it is larger than a node should have to pull.
pub fn largest(layout: &Layout, tag: &str) -> Result<String> {
    let mut largest = (0, "");
    for program in IMAGES {
        let image = reference(program, tag);
        let size = layers::of(&image, &layout.dir)?.compressed();
        if let Some(wrong) = too_large(&image, size) {
            bail!("{wrong}");
        }
        largest = largest.max((size, program));
    }
    Ok(format!("{} {}", largest.1, mebibytes(largest.0)))
}

/// What is wrong with an image of so many bytes.
fn too_large(image: &str, size: u64) -> Option<String> {
    (size > LIMIT).then(|| format!("{image} has {}, more than {}", mebibytes(size), mebibytes(LIMIT)))
}

fn reference(program: &str, tag: &str) -> String {
    format!("dockside/{program}:{tag}")
}

/// The first build compiles for all of them; BuildKit's own progress is shown.
fn build(layout: &Layout, args: &Args, program: &str) -> Result<()> {
    step("build", program);
    let revision = output(Command::new("git").current_dir(&layout.root).args(["rev-parse", "HEAD"]));
    let mut command = Command::new("docker");
    command.current_dir(&layout.root).args(["buildx", "build", "--load", "--file", "docker/Dockerfile"]);
    command.args(["--target", program, "--tag", &reference(program, &args.tag)]);
    command.args(["--build-arg", concat!("VERSION=", env!("CARGO_PKG_VERSION"))]);
    if let Ok(revision) = revision {
        command.args(["--build-arg", &format!("REVISION={}", revision.trim())]);
    }
    if let Some(platform) = &args.platform {
        command.args(["--platform", platform]);
    }
    let status = command.arg(".").stdin(Stdio::null()).status().context("cannot run docker")?;
    if !status.success() {
        bail!("the build of {program} failed: see docker's messages above");
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scanner {
    Trivy,
    Grype,
}

impl Scanner {
    fn installed() -> Option<Scanner> {
        [Scanner::Trivy, Scanner::Grype]
            .into_iter()
            .find(|s| output(Command::new(s.program()).arg("--version")).is_ok())
    }

    fn program(self) -> &'static str {
        match self {
            Scanner::Trivy => "trivy",
            Scanner::Grype => "grype",
        }
    }

    /// Its arguments for the image, which has the base's packages, and for the bill of materials, which has the
    /// crates. It fails on what is serious and has a fix.
    fn targets(self, image: &str, bill: &str) -> [Vec<String>; 2] {
        let words = |text: String| text.split(' ').map(str::to_owned).collect();
        match self {
            Scanner::Trivy => {
                let with = "--quiet --severity HIGH,CRITICAL --ignore-unfixed --exit-code 1";
                [
                    words(format!("image {with} {image}")),
                    with_path(words(format!("sbom {with}")), bill.to_owned()),
                ]
            }
            Scanner::Grype => {
                let with = "--quiet --only-fixed --fail-on high";
                [
                    words(format!("{with} docker:{image}")),
                    with_path(words(with.to_owned()), format!("sbom:{bill}")),
                ]
            }
        }
    }
}

/// A path may have spaces.
fn with_path(mut words: Vec<String>, path: String) -> Vec<String> {
    words.push(path);
    words
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn no_module_leads_back_to_itself() {
        assert_eq!(arrows::circles(env!("CARGO_MANIFEST_DIR")), Vec::<String>::new());
    }

    #[test]
    fn the_images_are_built_from_every_part_of_the_workspace() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
        let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
        let members = manifest["workspace"]["members"].as_array().unwrap();
        let (dockerfile, ignored) = (read("docker/Dockerfile"), read(".dockerignore"));
        for member in members {
            // A folder brings what is in it.
            let folder = member.as_str().unwrap().split('/').next().unwrap();
            assert!(dockerfile.lines().any(|line| line == format!("COPY {folder} {folder}")), "{folder}");
            assert!(ignored.lines().any(|line| line == format!("!{folder}")), "{folder}");
        }
    }

    #[test]
    fn a_scan_that_was_asked_for_is_not_left_out() {
        assert!(wanted(None, true).unwrap_err().to_string().contains("install trivy or grype"));
        assert_eq!(wanted(None, false).unwrap(), None);
        for required in [true, false] {
            assert_eq!(wanted(Some(Scanner::Grype), required).unwrap(), Some(Scanner::Grype));
        }
    }

    #[test]
    fn an_image_may_have_20_mib_and_not_a_byte_more() {
        assert_eq!(too_large("dockside/order:dev", 20 << 20), None);
        assert!(too_large("dockside/order:dev", (20 << 20) + 1).unwrap().contains("dockside/order:dev"));
    }

    #[test]
    fn a_scanner_checks_the_image_and_its_bill_of_materials() {
        let [image, bill] = Scanner::Grype.targets("dockside/order:dev", "/a folder/order.cdx.json");
        assert_eq!(image.last().unwrap(), "docker:dockside/order:dev");
        assert_eq!(bill.last().unwrap(), "sbom:/a folder/order.cdx.json");
        let [image, bill] = Scanner::Trivy.targets("dockside/order:dev", "/a folder/order.cdx.json");
        assert_eq!((image[0].as_str(), image.last().unwrap().as_str()), ("image", "dockside/order:dev"));
        assert_eq!((bill[0].as_str(), bill.last().unwrap().as_str()), ("sbom", "/a folder/order.cdx.json"));
    }
}

//! What an image is made of, as `docker save` writes it.

use std::fs::{self, File};
use std::io::Read;
use std::iter;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use machine::process::output;
use serde_json::Value;

pub struct Image {
    /// `amd64`, `arm64`: as in OCI's image configuration.
    pub architecture: String,
    pub layers: Vec<Layer>,
}

pub struct Layer {
    /// The instruction of the Dockerfile.
    pub made_by: String,
    /// Bytes, by gzip as registries get it.
    pub compressed: u64,
    pub unpacked: u64,
}

impl Image {
    pub fn compressed(&self) -> u64 {
        self.layers.iter().map(|l| l.compressed).sum()
    }

    pub fn unpacked(&self) -> u64 {
        self.layers.iter().map(|l| l.unpacked).sum()
    }
}

/// Saves the image into `folder`, reads it and removes it again.
pub fn of(image: &str, folder: &Path) -> Result<Image> {
    let unpacked = folder.join("unpacked");
    fs::remove_dir_all(&unpacked).ok();
    fs::create_dir_all(&unpacked).with_context(|| format!("cannot create {}", unpacked.display()))?;
    let found = save(image, &unpacked).and_then(|()| read(&unpacked));
    fs::remove_dir_all(&unpacked).ok();
    found.with_context(|| format!("reading {image}"))
}

fn save(image: &str, folder: &Path) -> Result<()> {
    let mut docker = Command::new("docker").args(["save", image]).stdout(Stdio::piped()).spawn()?;
    let archive = docker.stdout.take().context("docker's output")?;
    let unpacked = output(Command::new("tar").arg("-x").arg("-C").arg(folder).stdin(archive));
    ensure!(docker.wait()?.success(), "docker has no image {image}");
    unpacked.map(drop)
}

fn read(folder: &Path) -> Result<Image> {
    let document =
        |name: &str| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(folder.join(name))?)?) };
    let manifest = document("manifest.json")?;
    let config = document(manifest[0]["Config"].as_str().context("no configuration")?)?;
    let files = manifest[0]["Layers"].as_array().context("no layers")?;
    let layers = instructions(&config, files.len()).into_iter().zip(files).map(|(made_by, file)| {
        let file = folder.join(file.as_str().context("a layer without a file")?);
        let (compressed, unpacked) = sizes(&file)?;
        Ok(Layer { made_by, compressed, unpacked })
    });
    Ok(Image {
        architecture: config["architecture"].as_str().unwrap_or("?").to_owned(),
        layers: layers.collect::<Result<_>>()?,
    })
}

/// What made each of so many layers, the lowest first. A history is optional, and that of a base may name fewer layers
/// or more than it has: those of the Dockerfile are the last ones.
fn instructions(config: &Value, layers: usize) -> Vec<String> {
    let history = config["history"].as_array().map(Vec::as_slice).unwrap_or_default();
    let with_layer = history.iter().rev().filter(|step| step["empty_layer"] != true);
    let texts = with_layer.map(|step| step["created_by"].as_str().unwrap_or_default());
    let shown = |text: &str| match text.trim_end_matches(" # buildkit") {
        "" => "(base image)".to_owned(),
        text => text.chars().take(80).collect(),
    };
    let mut made_by: Vec<String> = texts.chain(iter::repeat("")).take(layers).map(shown).collect();
    made_by.reverse();
    made_by
}

/// Compressed and unpacked; engines differ in which of both they save.
fn sizes(file: &Path) -> Result<(u64, u64)> {
    let on_disk = fs::metadata(file)?.len();
    let mut magic = Vec::new();
    File::open(file)?.take(2).read_to_end(&mut magic)?;
    let packed = magic == [0x1f, 0x8b];
    let how = if packed { "gzip -dc" } else { "gzip -c" };
    // The name as an argument of the shell, not as a part of its text.
    let counted = output(Command::new("sh").args(["-c", &format!("{how} <\"$1\" | wc -c"), "sh"]).arg(file))?;
    let other = counted.trim().parse().context("wc")?;
    Ok(if packed { (on_disk, other) } else { (other, on_disk) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_layer_is_named_by_the_instruction_that_made_it() {
        let config = json!({"history": [
            {"created_by": ""},
            {"created_by": "ENV A=b", "empty_layer": true},
            {"created_by": "COPY /out/order /usr/local/bin/ # buildkit"},
        ]});
        let copy = "COPY /out/order /usr/local/bin/";
        assert_eq!(instructions(&config, 2), ["(base image)", copy]);
        assert_eq!(instructions(&config, 1), [copy]);
        assert_eq!(instructions(&config, 3), ["(base image)", "(base image)", copy]);
        assert_eq!(instructions(&json!({}), 1), ["(base image)"]);
    }

    #[test]
    fn a_layer_is_measured_whether_it_was_saved_compressed_or_not() {
        let folder = std::env::temp_dir().join(format!("dockside-layers-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let plain = folder.join("layer.tar");
        fs::write(&plain, vec![7; 100_000]).unwrap();
        let (compressed, unpacked) = sizes(&plain).unwrap();
        assert!(compressed < 1_000 && unpacked == 100_000);
        output(Command::new("gzip").arg(&plain)).unwrap();
        let (again, unpacked) = sizes(&folder.join("layer.tar.gz")).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        // The header has the file's name now.
        assert!(again.abs_diff(compressed) < 100 && unpacked == 100_000);
    }
}

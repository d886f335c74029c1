//! `logs`: what the processes wrote, one file each in `logs/`.

use std::fs::File;
use std::process::ExitCode;

use anyhow::{Result, bail};
use machine::console::{dim, line};
use machine::layout::Layout;
use machine::process::{pause, tail};
use machine::signals;

use crate::detach::Follow;

pub fn run(layout: &Layout, service: Option<&str>, follow: bool, lines: usize) -> Result<ExitCode> {
    let mut names: Vec<String> = std::fs::read_dir(layout.logs())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_string_lossy().strip_suffix(".log")?.to_owned()))
        .collect();
    names.sort();
    if let Some(service) = service {
        if !names.iter().any(|n| n == service) {
            let known = if names.is_empty() { "none yet".to_owned() } else { names.join(", ") };
            bail!("no log of {service} in {}; there are: {known}", layout.logs().display());
        }
        names = vec![service.to_owned()];
    }
    if names.is_empty() {
        line("There are no logs yet: `cargo dockside up` starts the shop.");
        return Ok(ExitCode::FAILURE);
    }
    let several = names.len() > 1;
    signals::install()?;
    let mut following = Vec::new();
    for name in &names {
        let path = layout.log(name);
        let end = std::fs::metadata(&path).map_or(0, |m| m.len());
        if several {
            line(&dim(&format!("==> {} <==", path.display())));
        }
        tail(&path, lines).iter().for_each(|l| line(l));
        following.push((name, Follow { file: File::open(&path)?, at: end }));
    }
    while follow && !signals::stop_asked() {
        for (name, file) in &mut following {
            // A restart of the shop begins a new file.
            let path = layout.log(name);
            if std::fs::metadata(&path).is_ok_and(|m| m.len() < file.at) {
                *file = Follow { file: File::open(&path)?, at: 0 };
            }
            let prefix = if several { format!("{name:<15} ") } else { String::new() };
            file.show(&prefix)?;
        }
        pause(200);
    }
    Ok(ExitCode::SUCCESS)
}

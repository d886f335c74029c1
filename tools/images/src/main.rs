//! `cargo dockside images`, which builds this program and becomes it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, value_parser};
use machine::console;
use machine::layout::{DEFAULT_DIR, Layout};

fn command() -> Command {
    Command::new("cargo dockside images").bin_name("cargo dockside images")
        .about("Build the container images; show their sizes and layers, and what is in them")
        .long_about(
            "Build the container images; show their sizes and layers, and what is in them.\n\nWrites a bill of \
             materials of each (CycloneDX 1.6, JSON) into the folder's images/: its crates, and the packages of its \
             base image. Where trivy or grype is installed, image and bill of materials are scanned for known \
             vulnerabilities. Fails when an image is larger than 20 MiB compressed, or when the scanner finds \
             something serious that has a fix. Needs a Docker engine.",
        )
        .args([
            Arg::new("tag").long("tag").value_name("TAG").help("Of dockside/NAME:TAG").default_value("dev"),
            Arg::new("platform")
                .long("platform")
                .value_name("OS/ARCH")
                .value_parser(["linux/amd64", "linux/arm64"])
                .help("The engine's own when left out"),
            Arg::new("no-build").long("no-build").help("Look at the images that are there").action(ArgAction::SetTrue),
            Arg::new("scan")
                .long("scan")
                .help("Fail where no scanner is installed, before anything is built")
                .action(ArgAction::SetTrue),
            Arg::new("dir")
                .long("dir")
                .value_name("FOLDER")
                .help("Folder of the data, logs and state")
                .default_value(DEFAULT_DIR)
                .env("DOCKSIDE_DIR")
                .value_parser(value_parser!(PathBuf)),
        ])
}

fn main() -> ExitCode {
    console::init();
    let typed = command().get_matches();
    let args = images::Args {
        tag: typed.get_one::<String>("tag").cloned().unwrap_or_default(),
        platform: typed.get_one::<String>("platform").cloned(),
        no_build: typed.get_flag("no-build"),
        scan: typed.get_flag("scan"),
    };
    let dir = typed.get_one::<PathBuf>("dir").map_or(Path::new(DEFAULT_DIR), PathBuf::as_path);
    console::end(Layout::new(dir).and_then(|layout| images::run(&layout, &args)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound() {
        super::command().debug_assert();
    }
}

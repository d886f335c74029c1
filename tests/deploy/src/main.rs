//! `cargo dockside deploy-test`, which builds this program and becomes it.
#![expect(clippy::disallowed_methods, reason = "a synchronous program: it sleeps on its own threads")]

mod books;
mod canary;
mod cluster;
mod customers;
mod limits;
mod listeners;
mod load;
mod memory;
mod ready;
mod replace;
mod restore;
mod shop;
mod steps;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, value_parser};
use machine::console;
use machine::layout::{DEFAULT_DIR, Layout};

fn command() -> Command {
    Command::new("cargo dockside deploy-test").bin_name("cargo dockside deploy-test")
        .about("Test the images and docker-compose.yml under load on a Docker engine: all steps, or the one named")
        .long_about(steps::help())
        .args([
            Arg::new("step").value_name("STEP").value_parser(steps::names()),
            Arg::new("keep").long("keep").help("Leave the shop running, to inspect it").action(ArgAction::SetTrue),
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
    let step = typed.get_one::<String>("step").map(String::as_str);
    let dir = typed.get_one::<PathBuf>("dir").map_or(Path::new(DEFAULT_DIR), PathBuf::as_path);
    console::end(Layout::new(dir).and_then(|layout| steps::run(&layout, step, typed.get_flag("keep"))))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound() {
        super::command().debug_assert();
    }

    #[test]
    fn no_module_leads_back_to_itself() {
        assert_eq!(arrows::circles(env!("CARGO_MANIFEST_DIR")), Vec::<String>::new());
    }
}

//! `cargo dockside`: starts the shop, stops it, inspects it and tests it. See README.md.

mod bench;
mod cli;
mod contracts;
mod detach;
#[cfg(test)]
mod docs;
mod down;
mod idle;
mod load;
mod logs;
mod matrix;
mod observability;
mod openapi;
mod operator;
mod prepare;
mod program;
mod restart;
mod status;
mod supply;
mod test;
mod up;

use std::process::ExitCode;

use machine::console;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that the servers may need: RabbitMQ keeps some for every queue, and stops answering without.
const OPEN_FILES: u64 = 65_536;

fn main() -> ExitCode {
    console::init();
    raise_open_files();
    console::end(cli::run(&cli::command().get_matches()))
}

/// Shells often allow 1,024 open files and more when asked; what runs from here inherits it.
fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if current.is_some_and(|now| now < wanted) {
        // Refused or not, the servers start; they say so when it is too few.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_module_leads_back_to_itself() {
        assert_eq!(arrows::circles(env!("CARGO_MANIFEST_DIR")), Vec::<String>::new());
    }
}

//! `dlq`, `outbox`, `saga`, `trace`, `reconcile`: the program `operator`, with the running shop's addresses.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgMatches};
use machine::compile;
use machine::layout::Layout;
use machine::state::{Secrets, State};

/// What is passed on, and what `--help` says of it here.
const COMMANDS: [(&str, &str); 5] = [
    ("dlq", "Dead letters of the running shop: list, show, replay, drop"),
    ("outbox", "Events of the running shop that wait to be published: status"),
    ("saga", "Orders of the running shop that are under way: list, nudge"),
    ("trace", "One order of the running shop from the request to the mail, with times"),
    ("reconcile", "Compare the running shop's orders, stock, payments and events, and mend what can be"),
];

pub fn commands() -> impl Iterator<Item = clap::Command> {
    COMMANDS.into_iter().map(|(name, about)| passing(name, about))
}

/// A command whose words, `--help` too, are for the program that it becomes.
pub fn passing(name: &'static str, about: &'static str) -> clap::Command {
    let words = Arg::new("words").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
    clap::Command::new(name)
        .about(about)
        .override_usage(format!("cargo dockside {name} [--dir <FOLDER>] ..."))
        // The program has the whole of it.
        .disable_help_flag(true)
        .arg(words.value_parser(clap::value_parser!(OsString)))
}

pub fn is(name: &str) -> bool {
    COMMANDS.iter().any(|(command, _)| *command == name)
}

/// Becomes `operator`, whose exit code this is then.
pub fn run(layout: &Layout, name: &str, typed: &ArgMatches) -> Result<ExitCode> {
    let words: Vec<OsString> = typed.get_many("words").into_iter().flatten().cloned().collect();
    let state = State::load(layout);
    let asks = words.iter().any(|word| ["-h", "--help", "help"].iter().any(|help| word == help));
    let sandbox = state.processes.iter().find(|process| process.name == "payment-sandbox");
    let sandbox = sandbox.and_then(|process| process.addresses.http.clone());
    let mut settings = Vec::new();
    match (&state.postgres, &state.rabbitmq, sandbox) {
        (Some(postgres), Some(rabbitmq), Some(sandbox)) if state.running() => {
            let key = Secrets::load_or_create(layout)?.payment_secret_key;
            settings = vec![
                ("DATABASE_URL", postgres.clone()),
                ("AMQP_URL", rabbitmq.clone()),
                ("ALLOW_PLAINTEXT", "true".to_owned()),
                ("PAYMENT_URL", sandbox),
                ("PAYMENT_SECRET_KEY", key),
            ];
        }
        _ if asks => {}
        _ => bail!(
            "no shop runs in {}: `cargo dockside up` starts it. For one that runs elsewhere there is the program \
             itself (tools/operator/README.md)",
            layout.dir.display()
        ),
    }
    let program = compile::operator(layout)?;
    let error = Command::new(&program).arg(name).args(words).envs(settings).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_typed_is_passed_on_as_it_is() {
        let typed = ["dockside", "dlq", "--dir", "x", "replay", "--all", "--json"];
        let matches = crate::cli::command().try_get_matches_from(typed).unwrap();
        let (name, dlq) = matches.subcommand().unwrap();
        let words: Vec<_> = dlq.get_many::<std::ffi::OsString>("words").unwrap().collect();
        assert!(super::is(name));
        assert_eq!(words, ["replay", "--all", "--json"]);
    }

    #[test]
    fn help_is_the_programs_own() {
        let typed = ["dockside", "reconcile", "--help"];
        let matches = crate::cli::command().try_get_matches_from(typed).unwrap();
        assert!(matches.subcommand().unwrap().1.contains_id("words"));
    }
}

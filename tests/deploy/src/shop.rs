//! The shop under test: its compose project, and what can be asked of its containers.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use machine::layout::Layout;
use machine::process::{self, Signal, pause};
use machine::{net, signals};

/// The first build compiles the workspace.
const LIMIT: Duration = Duration::from_secs(40 * 60);
/// What is stopped has so long to end by itself.
const GRACE: Duration = Duration::from_secs(10);

pub struct Shop {
    pub layout: Layout,
    /// Compose's name for it, and the images' tag: another shop, or another checkout's test, is left alone.
    pub project: String,
    port: u16,
    sandbox_port: u16,
}

impl Shop {
    /// # Errors
    /// without an engine, or with a Compose that is too old for docker-compose.yml.
    pub fn new(layout: &Layout) -> Result<Shop> {
        docker(&["info", "--format", "{{.ServerVersion}}"]).context("deploy-test needs a Docker engine")?;
        let version =
            docker(&["compose", "version", "--short"]).context("deploy-test needs Docker Compose")?;
        ensure!(new_enough(&version), "deploy-test needs Docker Compose 2.24 or later, this is {version}");
        let project = format!("dockside-deploy-test-{}", layout.hash());
        let port = net::choose(None, &[])?;
        Ok(Shop { layout: layout.clone(), project, port, sandbox_port: net::choose(None, &[port])? })
    }

    pub fn edge(&self) -> String {
        format!("http://{}", self.address_of_edge())
    }

    pub fn address_of_edge(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn api(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.edge())
    }

    /// Runs `docker compose` with these arguments for this shop and returns what it printed.
    pub fn compose(&self, args: &[&str]) -> Result<String> {
        finish(self.command("docker").arg("compose").args(args), signals::stop_asked)
    }

    /// A command to which `docker compose` means this shop, wherever it runs: in this test's folder.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.layout.dir);
        command.env("COMPOSE_FILE", self.layout.root.join("docker-compose.yml"));
        command.env("COMPOSE_PROJECT_NAME", &self.project).env_remove("COMPOSE_PROFILES");
        command.env("DOCKSIDE_PORT", self.port.to_string());
        command.env("SANDBOX_PORT", self.sandbox_port.to_string());
        command.env("DOCKSIDE_TAG", &self.project).env("CANARY_TAG", &self.project);
        command
    }

    /// Stops and forgets all of it, also when a signal came: only a second one stops this.
    pub fn remove(&self) -> Result<()> {
        let mut command = self.command("docker");
        command.args(["compose", "--profile", "canary", "down", "--volumes", "--remove-orphans"]);
        finish(&mut command, signals::stop_at_once)
            .map(drop)
            .with_context(|| format!("the shop is not removed; do it with `{}`", self.removal()))
    }

    /// What removes it by hand.
    pub fn removal(&self) -> String {
        format!("docker compose --project-name {} --profile canary down --volumes", self.project)
    }

    /// Starts whatever does not run, and waits until all of it is healthy.
    pub fn start(&self) -> Result<()> {
        self.compose(&["up", "--detach", "--wait"]).map(drop)
    }

    /// The containers of a service, the older ones first.
    pub fn containers(&self, service: &str) -> Result<Vec<String>> {
        let ids = self.compose(&["--profile", "canary", "ps", "--quiet", service])?;
        let mut ids = ids
            .lines()
            .map(|id| Ok((inspect(id, "{{.Created}}")?, id.to_owned())))
            .collect::<Result<Vec<_>>>()?;
        ids.sort();
        Ok(ids.into_iter().map(|(_, id)| id).collect())
    }

    /// The one container of a service.
    pub fn container(&self, service: &str) -> Result<String> {
        let mut ids = self.containers(service)?;
        ensure!(ids.len() == 1, "{service} has {} containers, not one", ids.len());
        ids.pop().context("no container")
    }

    /// The edge's image, which has a shell and curl, as the services' have not.
    pub fn tools(&self) -> Result<String> {
        inspect(&self.container("edge")?, "{{.Config.Image}}")
    }

    /// A container's address as the edge's log has it.
    pub fn address(&self, id: &str) -> Result<String> {
        let network = format!("{}_edge", self.project);
        inspect(id, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"))
    }

    /// The rows of a query, as `a|b|c`.
    pub fn query(&self, sql: &str) -> Result<Vec<String>> {
        let psql = ["exec", "-T", "postgres", "psql", "-U", "postgres", "-d", "dockside", "-Atc", sql];
        Ok(self.compose(&psql)?.lines().map(str::to_owned).collect())
    }

    /// The lines that the edge's log has by now for requests whose id starts so. It is written each second.
    pub fn logged(&self, id: &str) -> Result<Vec<String>> {
        let mark = format!("\"request_id\":\"{id}");
        let log = self.compose(&["logs", "--no-color", "--no-log-prefix", "edge"])?;
        Ok(log.lines().filter(|line| line.contains(&mark)).map(str::to_owned).collect())
    }

    /// The same, once there are `count`.
    pub fn requests(&self, id: &str, count: usize) -> Result<Vec<String>> {
        let mut found = Vec::new();
        wait(Duration::from_secs(15), || {
            found = self.logged(id)?;
            Ok(found.len() >= count)
        })
        .with_context(|| format!("waiting for {count} requests in the edge's log"))?;
        ensure!(found.len() == count, "{} requests in the edge's log, not {count}", found.len());
        Ok(found)
    }

    /// Keeps what the containers wrote; returns the file.
    pub fn save_logs(&self) -> Result<PathBuf> {
        let file = self.layout.log("compose");
        let log = self.compose(&["--profile", "canary", "logs", "--no-color", "--timestamps"])?;
        fs::write(&file, log).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }
}

/// What docs/deploy.md asks for.
fn new_enough(version: &str) -> bool {
    let mut numbers =
        version.trim().trim_start_matches('v').split(['.', '-', '+']).map_while(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(2), Some(24))
}

pub fn docker(args: &[&str]) -> Result<String> {
    let text = finish(Command::new("docker").args(args), signals::stop_asked)?;
    Ok(text.trim().to_owned())
}

pub fn inspect(id: &str, format: &str) -> Result<String> {
    docker(&["inspect", "--format", format, id])
}

/// Polls until `done` says so.
///
/// # Errors
/// of `done`, when the time is over, or a signal came.
pub fn wait(limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !done()? {
        signals::check()?;
        ensure!(Instant::now() < deadline, "not within {} s", limit.as_secs());
        pause(50);
    }
    Ok(())
}

/// Runs a command to its end and returns what it printed; `stop` ends it early.
///
/// In a process group of its own: a Ctrl-C is for this program, which stops things in order.
pub fn finish(command: &mut Command, stop: fn() -> bool) -> Result<String> {
    let name = format!("{command:?}");
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    let out = child.stdout.take().map(|pipe| thread::spawn(|| read(pipe)));
    let err = child.stderr.take().map(|pipe| thread::spawn(|| read(pipe)));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if stop() || start.elapsed() > LIMIT {
            end(&mut child, GRACE).with_context(|| format!("stopping {name}"))?;
            signals::check()?;
            bail!("{name} took more than {} minutes", LIMIT.as_secs() / 60);
        }
        pause(10);
    };
    let text =
        |reader: Option<thread::JoinHandle<String>>| reader.and_then(|r| r.join().ok()).unwrap_or_default();
    let (out, err) = (text(out), text(err));
    ensure!(
        status.success(),
        "{name} failed ({status}): {}",
        if err.is_empty() { &out } else { &err }.trim()
    );
    Ok(out)
}

/// Ends the child's process group: a shell that is stopped goes at once, and what it runs goes on.
fn end(child: &mut Child, grace: Duration) -> Result<()> {
    process::signal_group(child.id(), Signal::TERM);
    if !gone(child, grace)? {
        process::kill_group(child.id());
        ensure!(gone(child, GRACE)?, "process {} does not end", child.id());
    }
    Ok(())
}

/// Waits until nobody is left in the child's group; false at the deadline.
fn gone(child: &mut Child, limit: Duration) -> Result<bool> {
    let deadline = Instant::now() + limit;
    // The child counts until it is waited for.
    while child.try_wait()?.is_none() || process::group_alive(child.id()) {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        pause(10);
    }
    Ok(true)
}

fn read(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compose_is_new_enough_from_2_24_on() {
        assert!(new_enough("2.24.0") && new_enough("v2.26.1-4") && new_enough("5.0.1\n"));
        assert!(!new_enough("2.23.3") && !new_enough("1.29.2") && !new_enough("dev"));
    }

    #[test]
    fn a_command_that_fails_says_what_it_wrote() {
        let run = |script: &str| finish(Command::new("sh").args(["-c", script]), || false);
        assert_eq!(run("echo yes").unwrap(), "yes\n");
        assert!(run("echo why >&2; exit 3").unwrap_err().to_string().contains("why"));
    }

    #[test]
    fn what_a_stopped_shell_runs_is_waited_for_and_killed_if_it_stays() {
        let stopped = |script: &str, grace| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).process_group(0).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            // From then on it acts on the signal.
            let mut out = child.stdout.take().unwrap();
            out.read_exact(&mut [0; 6]).unwrap();
            end(&mut child, grace).unwrap();
            assert!(!process::group_alive(child.id()));
            read(out)
        };
        let tidy = "(trap 'sleep 0.2; echo tidied; exit' TERM; echo ready; while :; do sleep 1; done) & wait";
        assert_eq!(stopped(tidy, GRACE), "tidied\n");
        let stubborn = "(trap '' TERM; echo ready; sleep 60; echo stayed) & wait";
        assert_eq!(stopped(stubborn, Duration::from_millis(200)), "");
    }
}

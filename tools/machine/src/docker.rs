//! The servers as containers, where a Docker engine runs and nothing can be installed.
//!
//! They share this machine's network, find their folder at the path that it has here, and run as the account that a
//! native server would have: addresses, configuration, process ids and signals are those of a native server.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::layout::Layout;
use crate::process::{Identity, pause};
use crate::signals;
use crate::spec::Spec;
use crate::system::{User, find, write_for};

pub const POSTGRES: &str = "postgres:17";
pub const RABBITMQ: &str = "rabbitmq:4";
pub const NGINX: &str = "nginx:1.28";

/// For answers of the engine that need no work.
const LIMIT: Duration = Duration::from_secs(10);

/// # Errors
/// when no engine answers, or one that keeps its containers in a machine or network of their own.
pub fn usable() -> Result<()> {
    let format = "{{.OSType}} {{.OperatingSystem}} {{json .SecurityOptions}}";
    check(&ask(&["info", "--format", format])?)
}

fn check(info: &str) -> Result<()> {
    if !info.starts_with("linux ") || !cfg!(target_os = "linux") || info.contains("Docker Desktop") {
        bail!("its containers would run in a virtual machine");
    }
    if info.contains("name=rootless") {
        bail!("a rootless engine keeps its containers off this machine's network");
    }
    Ok(())
}

/// Runs docker to its end and returns what it printed.
fn ask(args: &[&str]) -> Result<String> {
    let mut child = Command::new("docker")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run docker")?;
    let deadline = Instant::now() + LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("the Docker engine does not answer");
        }
        pause(10);
    }
    let out = child.wait_with_output()?;
    if !out.status.success() {
        bail!("{}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

pub fn has_image(image: &str) -> bool {
    ask(&["image", "inspect", "--format", "{{.Id}}", image]).is_ok()
}

/// The options of every container that uses a server's folder.
fn options(home: &Path, user: Option<&User>) -> Result<Vec<String>> {
    let (uid, gid) = user.map_or_else(
        || (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()),
        |u| (u.uid, u.gid),
    );
    // initdb refuses an account without a name, and the image does not know this one.
    let passwd = home.join("passwd");
    write_for(user, &passwd, &format!("dockside:x:{uid}:{gid}::{}:/bin/sh\n", home.display()))?;
    let home = home.display();
    Ok([
        "--network=host".to_owned(),
        // Ids inside are ids outside, also where the engine maps them by default.
        "--userns=host".to_owned(),
        format!("--user={uid}:{gid}"),
        "--security-opt=label=disable".to_owned(),
        // The default, 64 MB, is little for PostgreSQL's parallel queries.
        "--shm-size=256m".to_owned(),
        format!("--volume={home}:{home}"),
        format!("--volume={}:/etc/passwd:ro", passwd.display()),
        format!("--workdir={home}"),
    ]
    .to_vec())
}

/// A program of an image, run once with a server's folder.
pub fn once(image: &str, program: &str, home: &Path, user: Option<&User>) -> Result<Command> {
    let mut command = Command::new("docker");
    command
        .args(["run", "--rm"])
        .args(options(home, user)?)
        .arg(format!("--entrypoint={program}"))
        .arg(image);
    Ok(command)
}

/// psql of the image, which reaches what this machine reaches. These variables of the command are passed on.
pub fn psql(variables: &[&str]) -> Option<Command> {
    usable().ok()?;
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--interactive", "--network=host"]);
    command.args(variables.iter().flat_map(|name| ["--env", name]));
    command.args(["--entrypoint=psql", POSTGRES]);
    Some(command)
}

/// The same server as a container of this folder: `program` is then one of the image's.
pub fn contain(layout: &Layout, spec: Spec, image: &str, home: &Path) -> Result<Spec> {
    let container = format!("dockside-{}-{}", layout.hash(), spec.name);
    let mut args = vec!["run".to_owned(), "--rm".to_owned(), format!("--name={container}")];
    args.push(format!("--label=dockside={}", layout.hash()));
    // The log is the file that `docker run` writes to; the engine needs no copy.
    args.push("--log-driver=none".to_owned());
    args.extend(options(home, spec.run_as.as_ref())?);
    args.extend(spec.env.iter().map(|(name, value)| format!("--env={name}={value}")));
    args.extend([format!("--entrypoint={}", spec.program.display()), image.to_owned()]);
    args.extend(spec.args);
    let program = find("docker", &[]).context("docker is not on the PATH")?;
    Ok(Spec { program, args, env: Vec::new(), run_as: None, container: Some(container), ..spec })
}

/// The main process of a container that `child` (`docker run`) starts; `None` when that ended first.
pub fn identity(container: &str, child: &mut Child) -> Result<Option<Identity>> {
    let deadline = Instant::now() + 3 * LIMIT;
    while child.try_wait()?.is_none() {
        let pid = ask(&["container", "inspect", "--format", "{{.State.Pid}}", container]);
        // 0 until it runs.
        if let Some(pid) = pid.ok().and_then(|p| p.parse().ok()).filter(|pid| *pid != 0)
            && let Some(identity) = Identity::of(pid)
        {
            return Ok(Some(identity));
        }
        if Instant::now() >= deadline || signals::stop_at_once() {
            child.kill()?;
            child.wait()?;
            remove(container);
            bail!("the container {container} did not start on this machine");
        }
        pause(20);
    }
    Ok(None)
}

/// Removes the container, which stays when the `docker run` that watches it is killed.
pub fn remove(container: &str) {
    // Removing takes a moment, and fails while a removal is under way.
    let deadline = Instant::now() + LIMIT;
    while ask(&["container", "inspect", "--format", "{{.Id}}", container]).is_ok()
        && Instant::now() < deadline
    {
        let _ = ask(&["rm", "--force", container]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_used_when_its_containers_are_processes_of_this_machine() {
        assert!(check("linux Debian GNU/Linux 12 (bookworm) [\"name=seccomp,profile=builtin\"]").is_ok());
        assert!(check("linux Docker Desktop [\"name=seccomp,profile=unconfined\"]").is_err());
        assert!(
            check("linux Ubuntu 24.04 LTS [\"name=seccomp,profile=builtin\",\"name=rootless\"]").is_err()
        );
    }
}

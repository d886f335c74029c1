//! Installs what is missing with the system's package manager, saying what it runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::clocks;
use crate::console::{seconds, step};
use crate::layout::Layout;
use crate::process::{self, Signal};
use crate::servers::{self, nginx, postgres, rabbitmq};
use crate::system::{find, given, is_root};
use crate::{docker, signals};

/// What the shop needs, or its tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Postgres,
    RabbitMq,
    Nginx,
    /// With its module venv, for the checks of `k8s/`.
    Python,
    /// The programs of the tour in docs/api.md, and of the scripts and commands that the checks of `k8s/` run.
    Tour,
    /// For runs with faults: what makes clocks jump.
    Clocks,
    /// Chromium and its driver, for the tests in a browser.
    Browser,
    /// For `chaos --cluster`: Patroni, etcd, HAProxy and what makes its network.
    Cluster,
    /// For `up --observe`: Prometheus, Alertmanager and what asks PostgreSQL for its metrics.
    Monitoring,
}

/// The programs of [`Need::Cluster`].
const CLUSTER: [&str; 7] = ["patroni", "etcd", "haproxy", "ip", "nft", "nsenter", "unshare"];

/// Chromium's driver, and what Chromium is called.
const DRIVER: &str = "chromedriver";
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

impl Need {
    fn missing(self) -> bool {
        match self {
            Need::Postgres => postgres::find_bin().is_none(),
            Need::RabbitMq => rabbitmq::find_programs().is_none(),
            Need::Nginx => nginx::find_program().is_none(),
            Need::Python => python().is_none(),
            Need::Clocks => clocks::library().is_none(),
            Need::Monitoring => servers::monitoring::find_programs().is_none(),
            Need::Browser => {
                find(DRIVER, &[]).is_none() || BROWSERS.iter().all(|program| find(program, &[]).is_none())
            }
            Need::Cluster => CLUSTER.iter().any(|program| find(program, &[]).is_none()),
            Need::Tour => {
                ["bash", "curl", "jq", "openssl"].iter().any(|program| find(program, &[]).is_none())
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Need::Postgres => "PostgreSQL",
            Need::RabbitMq => "RabbitMQ",
            Need::Nginx => "nginx",
            Need::Python => "Python",
            Need::Tour => "bash, curl, jq and openssl",
            Need::Clocks => "libfaketime",
            Need::Browser => "Chromium and its driver",
            Need::Cluster => "Patroni, etcd, HAProxy, ip and nft",
            Need::Monitoring => "Prometheus, Alertmanager and postgres_exporter",
        }
    }

    /// The image of a server, which can run as a container.
    fn image(self) -> Option<&'static str> {
        Some(match self {
            Need::Postgres => docker::POSTGRES,
            Need::RabbitMq => docker::RABBITMQ,
            Need::Nginx => docker::NGINX,
            Need::Python | Need::Tour | Need::Clocks | Need::Browser | Need::Cluster | Need::Monitoring => {
                return None;
            }
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    Apt,
    Dnf,
    Apk,
    Pacman,
    Brew,
}

const MANAGERS: [(Manager, &str); 5] = [
    (Manager::Apt, "apt-get"),
    (Manager::Dnf, "dnf"),
    (Manager::Apk, "apk"),
    (Manager::Pacman, "pacman"),
    (Manager::Brew, "brew"),
];

/// The package with the server; where extensions such as pg_trgm are packaged apart, with those.
fn packages(manager: Manager, need: Need) -> &'static str {
    match (manager, need) {
        (Manager::Apt, Need::Postgres) => "postgresql",
        (Manager::Dnf, Need::Postgres) => "postgresql-server postgresql-contrib",
        (Manager::Apk, Need::Postgres) => "postgresql postgresql-contrib postgresql-client",
        (Manager::Pacman, Need::Postgres) => "postgresql",
        (Manager::Brew, Need::Postgres) => "postgresql@17",
        (Manager::Apt | Manager::Dnf | Manager::Apk, Need::RabbitMq) => "rabbitmq-server",
        (Manager::Pacman | Manager::Brew, Need::RabbitMq) => "rabbitmq",
        (_, Need::Nginx) => "nginx",
        // Debian packages venv apart.
        (Manager::Apt, Need::Python) => "python3 python3-venv",
        (Manager::Dnf | Manager::Apk, Need::Python) => "python3",
        (Manager::Pacman | Manager::Brew, Need::Python) => "python",
        (_, Need::Tour) => "bash curl jq openssl",
        (_, Need::Clocks) => "libfaketime",
        (Manager::Apt, Need::Browser) => "chromium chromium-driver",
        (Manager::Apk, Need::Browser) => "chromium chromium-chromedriver",
        (Manager::Dnf, Need::Browser) => "chromium chromedriver",
        // The driver is in it.
        (Manager::Pacman, Need::Browser) => "chromium",
        // Homebrew's browsers are for desktops: whoever has one needs its driver alone.
        (Manager::Brew, Need::Browser) => "chromedriver",
        // Debian's Patroni leaves its client of etcd to whoever installs it.
        (Manager::Apt, Need::Cluster) => {
            "patroni python3-etcd etcd-server haproxy iproute2 nftables util-linux"
        }
        (_, Need::Cluster) => "patroni etcd haproxy iproute2 nftables util-linux",
        (Manager::Apt, Need::Monitoring) => "prometheus prometheus-alertmanager prometheus-postgres-exporter",
        (Manager::Brew, Need::Monitoring) => "prometheus alertmanager postgres_exporter",
        (_, Need::Monitoring) => "prometheus alertmanager prometheus-postgres-exporter",
    }
}

/// The command line that installs, as a shell runs it.
fn command_line(manager: Manager, needs: &[Need]) -> String {
    let names = needs.iter().map(|n| packages(manager, *n)).collect::<Vec<_>>().join(" ");
    match manager {
        Manager::Apt => format!("apt-get install -y --no-install-recommends {names}"),
        Manager::Dnf => format!("dnf install -y {names}"),
        Manager::Apk => format!("apk add --no-cache {names}"),
        Manager::Pacman => format!("pacman -Sy --noconfirm --needed {names}"),
        Manager::Brew => format!("HOMEBREW_NO_AUTO_UPDATE=1 brew install {names}"),
    }
}

/// Debian starts a server once it is installed, creates a PostgreSQL cluster and enables both for the next
/// boot. None of that is wanted here: policy-rc.d (invoke-rc.d(8)) forbids the start, createcluster.d the
/// cluster, and what was not installed before is disabled again. What is there already stays as it is.
const APT_QUIETLY: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.d/dockside.conf
undo() { [ -z "${made_policy:-}" ] || rm -f "$policy"; rm -f "$cluster"; }
trap undo EXIT
trap 'exit 1' INT TERM HUP
new=
for service in postgresql rabbitmq-server nginx patroni haproxy prometheus prometheus-alertmanager \
    prometheus-postgres-exporter; do
    dpkg -s "$service" >/dev/null 2>&1 || new="$new $service"
done
dpkg -s etcd-server >/dev/null 2>&1 || new="$new etcd"
if [ ! -e "$policy" ]; then
    made_policy=yes
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
mkdir -p "${cluster%/*}"
echo 'create_main_cluster = false' > "$cluster"
export DEBIAN_FRONTEND=noninteractive
if ! ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; then apt-get update; fi
INSTALL || { apt-get update && INSTALL; }
if [ -d /run/systemd/system ]; then
    for service in $new; do systemctl disable "$service" >/dev/null 2>&1 || true; done
fi
"#;

/// Installs what the shop needs and does not find; `edge` counts nginx in, `contained` asks for containers.
///
/// Returns what is to run as a container, whose image is there then.
pub fn missing(layout: &Layout, edge: bool, contained: bool) -> Result<Vec<Need>> {
    let mut needs = Vec::new();
    needs.extend(given("DATABASE_URL").is_none().then_some(Need::Postgres));
    needs.extend(given("AMQP_URL").is_none().then_some(Need::RabbitMq));
    needs.extend(edge.then_some(Need::Nginx));
    if contained {
        docker::usable().context("--docker: this machine's Docker engine cannot run the servers")?;
        if layout.observed {
            monitoring(layout)?;
        }
        return pull(layout, needs);
    }
    needs.extend(layout.observed.then_some(Need::Monitoring));
    install(layout, needs)
}

/// Installs all three servers where they are missing; see [`missing`].
pub fn all(layout: &Layout) -> Result<Vec<Need>> {
    install(layout, vec![Need::Postgres, Need::RabbitMq, Need::Nginx])
}

/// # Errors
/// when PostgreSQL or RabbitMQ is missing, with what installs it. Nothing is installed.
pub fn present() -> Result<()> {
    let needs: Vec<Need> = [Need::Postgres, Need::RabbitMq].into_iter().filter(|n| n.missing()).collect();
    if needs.is_empty() {
        return Ok(());
    }
    let names = needs.iter().map(|n| n.name()).collect::<Vec<_>>().join(" and ");
    let manager = MANAGERS.into_iter().find(|(_, program)| find(program, &[]).is_some());
    let how = manager.map(|(manager, _)| format!(": {}", command_line(manager, &needs)));
    bail!("{names} missing; install it{}", how.unwrap_or_default())
}

/// Python with its module venv, installed where it is missing.
pub fn with_python(layout: &Layout) -> Result<PathBuf> {
    install(layout, vec![Need::Python])?;
    python().context("python3 and its module venv are missing")
}

fn python() -> Option<PathBuf> {
    let python = ["python3", "python"].into_iter().find_map(|name| find(name, &[]))?;
    let mut probe = Command::new(&python);
    probe
        .args(["-c", "import ensurepip, venv"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success()).then_some(python)
}

/// The programs of [`Need::Tour`], installed where they are missing.
pub fn tour(layout: &Layout) -> Result<()> {
    install(layout, vec![Need::Tour]).map(drop)
}

/// What makes clocks jump, installed where it is missing.
pub fn clocks(layout: &Layout) -> Result<()> {
    install(layout, vec![Need::Clocks]).map(drop)
}

/// Chromium's driver, installed with Chromium where either is missing.
pub fn browser(layout: &Layout) -> Result<PathBuf> {
    install(layout, vec![Need::Browser])?;
    find(DRIVER, &[]).with_context(|| format!("{DRIVER} is missing"))
}

/// What `chaos --cluster` needs, installed where it is missing. Never as containers: they are run on networks of ours.
pub fn cluster(layout: &Layout) -> Result<()> {
    install(layout, vec![Need::Postgres, Need::RabbitMq, Need::Nginx, Need::Cluster]).map(drop)
}

/// The programs of [`Need::Monitoring`], installed where they are missing.
pub fn monitoring(layout: &Layout) -> Result<()> {
    install(layout, vec![Need::Monitoring]).map(drop)
}

/// Installs PostgreSQL if it is missing; see [`missing`].
pub fn postgres(layout: &Layout) -> Result<Vec<Need>> {
    install(layout, vec![Need::Postgres])
}

fn install(layout: &Layout, mut needs: Vec<Need>) -> Result<Vec<Need>> {
    needs.retain(|n| n.missing());
    if needs.is_empty() {
        return Ok(needs);
    }
    let names = needs.iter().map(|n| n.name()).collect::<Vec<_>>().join(", ");
    let (manager, mut command) = match installer(&needs, &names) {
        Ok(found) => found,
        Err(cannot) if needs.iter().any(|n| n.image().is_none()) => return Err(cannot),
        Err(cannot) => match docker::usable() {
            Ok(()) => {
                step("install", &format!("{names}: missing, and cannot be installed here; Docker runs them"));
                return pull(layout, needs);
            }
            Err(why) if find("docker", &[]).is_some() => {
                bail!("{cannot}\nDocker does not help here: {why:#}");
            }
            Err(_) => return Err(cannot),
        },
    };
    let line = command_line(manager, &needs);
    step("install", &format!("{names}: {line}"));
    let script = match manager {
        Manager::Apt => APT_QUIETLY.replace("INSTALL", &line),
        _ => line.clone(),
    };
    layout.rotate_log("install")?;
    run(layout, command.args(["-c", &script]), &line)?;
    if let Some(still) = needs.iter().find(|n| n.missing()) {
        bail!("{} is still not found after `{line}`: see `cargo dockside logs install`", still.name());
    }
    Ok(Vec::new())
}

/// The package manager of this machine, and the shell that may use it.
///
/// # Errors
/// when there is none or it may not be used, with what to do by hand.
fn installer(needs: &[Need], names: &str) -> Result<(Manager, Command)> {
    let Some((manager, _)) = MANAGERS.into_iter().find(|(_, program)| find(program, &[]).is_some()) else {
        bail!(
            "{names} missing, and none of apt-get, dnf, apk, pacman and brew is here to install it: install it \
             or start a Docker engine and try again, or name servers that run elsewhere in DATABASE_URL and AMQP_URL"
        );
    };
    // Homebrew refuses root.
    if manager == Manager::Brew || is_root() {
        return Ok((manager, Command::new("sh")));
    }
    if !passwordless_sudo() {
        let line = command_line(manager, needs);
        bail!("{names} missing, and installing needs root. Run this, then try again:\n    sudo {line}");
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "sh"]);
    Ok((manager, sudo))
}

/// Fetches the images that are not there yet.
fn pull(layout: &Layout, needs: Vec<Need>) -> Result<Vec<Need>> {
    layout.rotate_log("install")?;
    for image in needs.iter().filter_map(|n| n.image()).filter(|image| !docker::has_image(image)) {
        let line = format!("docker pull {image}");
        step("install", &line);
        run(layout, Command::new("docker").args(["pull", image]), &line)?;
    }
    Ok(needs)
}

/// Runs a command, its output in the log `install`.
pub fn run(layout: &Layout, command: &mut Command, line: &str) -> Result<()> {
    let log = layout.append_log("install")?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().with_context(|| format!("cannot run `{line}`"))?;
    wait(layout, child, line)
}

fn wait(layout: &Layout, mut child: std::process::Child, line: &str) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(900);
    let start = Instant::now();
    let mut said = Duration::ZERO;
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                step("install", &format!("done in {}", seconds(start.elapsed())));
                return Ok(());
            }
            let tail = process::tail(&layout.log("install"), 15).join("\n    ");
            bail!(
                "installing failed ({status}):\n    {tail}\nInstall it by hand, then try again:\n    {line}"
            );
        }
        if signals::stop_asked() || start.elapsed() > LIMIT {
            // The package manager finishes what it is at and leaves no half-installed package.
            process::kill(child.id(), Signal::TERM);
            child.wait()?;
            signals::check()?;
            bail!(
                "installing took more than {} minutes: see {}",
                LIMIT.as_secs() / 60,
                layout.log("install").display()
            );
        }
        if start.elapsed() - said > Duration::from_secs(10) {
            said = start.elapsed();
            let now = process::tail(&layout.log("install"), 1).pop().unwrap_or_default();
            step("install", &now.chars().take(90).collect::<String>());
        }
        process::pause(100);
    }
}

fn passwordless_sudo() -> bool {
    Path::new("/usr/bin/sudo").exists()
        && Command::new("sudo")
            .args(["-n", "true"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_manager_gets_its_own_names_and_asks_nothing() {
        let needs = [Need::Postgres, Need::RabbitMq, Need::Nginx];
        assert_eq!(
            command_line(Manager::Apt, &needs),
            "apt-get install -y --no-install-recommends postgresql rabbitmq-server nginx"
        );
        assert_eq!(
            command_line(Manager::Dnf, &needs),
            "dnf install -y postgresql-server postgresql-contrib rabbitmq-server nginx"
        );
        assert_eq!(
            command_line(Manager::Pacman, &[Need::RabbitMq]),
            "pacman -Sy --noconfirm --needed rabbitmq"
        );
        assert_eq!(
            command_line(Manager::Brew, &[Need::Nginx]),
            "HOMEBREW_NO_AUTO_UPDATE=1 brew install nginx"
        );
    }

    #[test]
    fn the_debian_script_is_one_that_a_shell_can_read() {
        let script = APT_QUIETLY.replace("INSTALL", "true");
        let status = Command::new("sh").args(["-n", "-c", &script]).status().unwrap();
        assert!(status.success());
    }
}

//! A private RabbitMQ: its own node name, port mapper, cookie, accounts and data, on loopback.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::console::step;
use crate::docker;
use crate::layout::{Layout, free_space};
use crate::net::Probe;
use crate::servers::tls;
use crate::spec::Spec;
use crate::state::{Addresses, Secrets};
use crate::system::{User, data_dir, find, server_user, write_for};

/// Below this much free space the broker stops taking messages. The default, 50 MB, is less than a
/// busy quorum queue writes in a moment.
const DISK_FREE_LIMIT: u64 = 1_000_000_000;
/// The same for servers that only live as long as a test run.
const PASSING_LIMIT: u64 = 50_000_000;

/// `rabbitmq-server` and `epmd`.
pub struct Programs {
    pub server: PathBuf,
    pub epmd: PathBuf,
}

/// Looks in `/usr/lib/rabbitmq` first: Debian's program of that name on the `PATH` insists on the
/// system's own account and settings.
pub fn find_programs() -> Option<Programs> {
    let server = ["/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin"]
        .map(|dir| Path::new(dir).join("rabbitmq-server"))
        .into_iter()
        .find(|file| file.is_file())
        .or_else(|| find("rabbitmq-server", &[]))?;
    let mut places = vec![PathBuf::from("/usr/lib/erlang/bin"), PathBuf::from("/usr/lib64/erlang/bin")];
    // Homebrew and Alpine keep it with the runtime: <erlang>/erts-<version>/bin.
    for lib in ["/usr/lib/erlang", "/usr/lib64/erlang", "/opt/homebrew/lib/erlang", "/usr/local/lib/erlang"] {
        let inside = fs::read_dir(lib).into_iter().flatten().flatten().map(|e| e.path().join("bin"));
        places.extend(inside.filter(|p| p.join("epmd").is_file()));
    }
    Some(Programs { server, epmd: find("epmd", &places)? })
}

/// Those in a folder; `epmd` may be on the `PATH` instead.
///
/// # Errors
/// when one is missing.
pub fn programs_in(dir: &Path) -> Result<Programs> {
    let server = dir.join("rabbitmq-server");
    ensure!(server.is_file(), "there is no rabbitmq-server in {}", dir.display());
    let own = dir.join("epmd");
    let epmd = if own.is_file() { Some(own) } else { find("epmd", &[]) };
    Ok(Programs { server, epmd: epmd.with_context(|| format!("there is no epmd in {}", dir.display()))? })
}

/// Its version, as far as its folder's name has it: `rabbitmq_server-3.10.8`.
pub fn version(programs: &Programs) -> Option<String> {
    let place = fs::canonicalize(&programs.server).ok()?;
    let mut parts = place.components();
    parts.find_map(|part| part.as_os_str().to_str()?.strip_prefix("rabbitmq_server-").map(str::to_owned))
}

pub struct Ports {
    pub amqp: u16,
    pub epmd: u16,
    pub distribution: u16,
    /// Where Prometheus asks, if it runs.
    pub metrics: Option<u16>,
}

/// Writes the configuration; returns the port mapper, to be started first, and the broker.
///
/// The broker would start a port mapper by itself, as a daemon that outlives it; in a container (without
/// `programs`) it may, as that ends with the container.
pub fn specs(
    layout: &Layout,
    programs: Option<&Programs>,
    secrets: &Secrets,
    ports: &Ports,
) -> Result<(Option<Spec>, Spec)> {
    let user = server_user("rabbitmq")?;
    // Apart, since data of a newer version cannot be taken back to an older one.
    let name = if programs.is_some() { "rabbitmq" } else { "docker-rabbitmq" };
    let home = data_dir(layout, name, user.as_ref())?;
    configure(layout, &home, user.as_ref(), secrets, ports)?;
    let file = |name: &str| home.join(name).display().to_string();
    let env = [
        ("HOME", home.display().to_string()),
        ("RABBITMQ_NODENAME", "dockside@localhost".into()),
        ("RABBITMQ_MNESIA_BASE", file("mnesia")),
        ("RABBITMQ_LOG_BASE", file("log")),
        ("RABBITMQ_LOGS", "-".into()),
        ("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf")),
        ("RABBITMQ_CONFIG_FILES", file("conf.d")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced.config")),
        ("RABBITMQ_GENERATED_CONFIG_DIR", file("generated")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", file("enabled_plugins")),
        // The system's settings file belongs to the system's broker.
        ("RABBITMQ_CONF_ENV_FILE", file("rabbitmq-env.conf")),
        ("RABBITMQ_PID_FILE", file("pid")),
        ("RABBITMQ_DIST_PORT", ports.distribution.to_string()),
        ("ERL_EPMD_PORT", ports.epmd.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
        // Distribution on loopback only; schedulers that sleep when idle instead of spinning; and no table for as
        // many ports as files may be opened, which in a container can be a billion.
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none +Q 65536"
                .into(),
        ),
        // Makes the start script become the broker instead of waiting for it, so that the process
        // watched here is the broker.
        ("RUNNING_UNDER_SYSTEMD", "true".into()),
    ];
    let env: Vec<(String, String)> = env.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let epmd = programs.map(|programs| Spec {
        name: "epmd".into(),
        program: programs.epmd.clone(),
        args: ["-address", "127.0.0.1", "-port", &ports.epmd.to_string()].map(str::to_owned).to_vec(),
        env: vec![("HOME".into(), home.display().to_string())],
        run_as: user.clone(),
        addresses: Addresses::default(),
        probe: Probe::Tcp { addr: format!("127.0.0.1:{}", ports.epmd) },
        hidden: true,
        container: None,
    });
    let broker = Spec {
        name: "rabbitmq".into(),
        program: programs.map_or("rabbitmq-server".into(), |programs| programs.server.clone()),
        args: Vec::new(),
        env,
        run_as: user,
        addresses: Addresses::default(),
        probe: match layout.tls {
            true => Probe::Tcp { addr: format!("127.0.0.1:{}", ports.amqp) },
            false => Probe::Amqp { addr: format!("127.0.0.1:{}", ports.amqp) },
        },
        hidden: false,
        container: None,
    };
    match programs {
        Some(_) => Ok((epmd, broker)),
        None => Ok((None, docker::contain(layout, broker, docker::RABBITMQ, &home)?)),
    }
}

fn configure(
    layout: &Layout,
    home: &Path,
    user: Option<&User>,
    secrets: &Secrets,
    ports: &Ports,
) -> Result<()> {
    for dir in ["mnesia", "log", "generated", "conf.d"] {
        let dir = home.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        if let Some(user) = user {
            std::os::unix::fs::chown(&dir, Some(user.uid), Some(user.gid))?;
        }
    }
    let limit = disk_free_limit(free_space(home)?, layout.passing);
    if limit < DISK_FREE_LIMIT && !layout.passing {
        step(
            "rabbitmq",
            &format!("little space on the disk: it stops taking messages below {} MB", limit / 1_000_000),
        );
    }
    let definitions = home.join("definitions.json");
    let listener = match tls::shown(layout, home, user)? {
        None => format!("listeners.tcp.local = 127.0.0.1:{}\n", ports.amqp),
        Some(shown) => format!(
            "listeners.tcp = none\nlisteners.ssl.local = 127.0.0.1:{}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n",
            ports.amqp,
            shown.authority.display(),
            shown.certificate.display(),
            shown.key.display(),
        ),
    };
    let mut conf = format!(
        "{listener}load_definitions = {}\ndisk_free_limit.absolute = {limit}\nlog.console.level = info\n",
        definitions.display(),
    );
    let mut plugins = "[].\n";
    if let Some(port) = ports.metrics {
        plugins = "[rabbitmq_prometheus].\n";
        // Of each queue, as `dockside.user.dead` means something else than `dockside.user`.
        conf.push_str(&format!(
            "prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {port}\nprometheus.return_per_object_metrics = true\n"
        ));
    }
    write_for(user, &home.join("rabbitmq.conf"), &conf)?;
    write_for(user, &home.join("advanced.config"), "[].\n")?;
    write_for(user, &home.join("rabbitmq-env.conf"), "")?;
    write_for(user, &home.join("enabled_plugins"), plugins)?;
    write_for(user, &definitions, &self::definitions(secrets).to_string())?;
    // Erlang wants it readable by its owner only.
    let cookie = home.join(".erlang.cookie");
    if !cookie.exists() {
        write_for(user, &cookie, &secrets.erlang_cookie)?;
    }
    Ok(())
}

/// On a small disk half of what is free: the shop should still run there. For data that is soon thrown away only
/// RabbitMQ's own default: while tests are built, the disk may fill by more than this limit leaves.
pub fn disk_free_limit(free: u64, passing: bool) -> u64 {
    let limit = if passing { PASSING_LIMIT } else { DISK_FREE_LIMIT };
    limit.min(free / 2)
}

/// Each service, whose password on the broker is its own, and the events that it may subscribe to.
const READS: [(&str, &str); 3] =
    [("user", "^order[.]"), ("product", "^order[.]"), ("order", "^(product|user)[.]")];

/// An account for each service and one for tests. A service declares, reads and writes its own queues, with
/// its exchange for failed events, and publishes events of its own name only. None writes to the default
/// exchange, which leads into every queue. The exchange of all events is made here, as none may delete it.
pub fn definitions(secrets: &Secrets) -> serde_json::Value {
    let mut users =
        vec![json!({"name": "admin", "password": secrets.rabbitmq_admin, "tags": "administrator"})];
    let mut permissions =
        vec![json!({"user": "admin", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"})];
    let mut topics = Vec::new();
    for ((name, read), password) in READS.iter().zip([&secrets.user, &secrets.product, &secrets.order]) {
        users.push(json!({"name": name, "password": password, "tags": ""}));
        permissions.push(json!({
            "user": name,
            "vhost": "/",
            "configure": format!("^dockside[.]{name}([.]|$)"),
            "write": format!("^dockside[.](events$|{name}([.]|$))"),
            "read": format!("^dockside[.](events$|{name}([.]|$))"),
        }));
        let write = format!("^{name}[.]");
        topics.push(
            json!({"user": name, "vhost": "/", "exchange": "dockside.events", "write": write, "read": read}),
        );
    }
    let events = json!({
        "name": "dockside.events", "vhost": "/", "type": "topic",
        "durable": true, "auto_delete": false, "internal": false, "arguments": {},
    });
    json!({
        "vhosts": [{"name": "/"}], "users": users, "permissions": permissions,
        "topic_permissions": topics, "exchanges": [events],
    })
}

/// The address of an account on the private broker.
pub fn url(account: &str, password: &str, port: u16) -> String {
    format!("amqp://{account}:{password}@127.0.0.1:{port}/%2f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_the_broker_is_refused() {
        let error = programs_in(Path::new("/nonexistent")).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("there is no rabbitmq-server in /nonexistent"));
    }

    #[test]
    fn the_version_is_in_the_folders_name() {
        let home = std::env::temp_dir().join(format!("dockside-version-{}", std::process::id()));
        let place = home.join("rabbitmq_server-4.0.5/sbin");
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("rabbitmq-server"), "").unwrap();
        let programs = Programs { server: place.join("rabbitmq-server"), epmd: PathBuf::new() };
        assert_eq!(version(&programs).as_deref(), Some("4.0.5"));
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn a_small_disk_gets_a_small_limit() {
        assert_eq!(disk_free_limit(50_000_000_000, false), 1_000_000_000);
        assert_eq!(disk_free_limit(1_200_000_000, false), 600_000_000);
        assert_eq!(disk_free_limit(50_000_000_000, true), 50_000_000);
    }
}

//! RabbitMQ, three nodes of one cluster: each quorum queue has a member on each.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use machine::layout::Layout;
use machine::net::Probe;
use machine::servers::rabbitmq::{definitions, find_programs};
use machine::spec::Spec;
use machine::state::{Addresses, Secrets};
use machine::system::{User, server_user, write_for};

use super::network::{Host, disk, on};

pub const AMQP: u16 = 5672;

pub fn spec(layout: &Layout, hosts: &[Host], host: &Host, secrets: &Secrets) -> Result<Spec> {
    let user = server_user("rabbitmq")?;
    let home = disk(layout, host, 768, user.as_ref())?;
    let programs = find_programs().context("RabbitMQ is not installed")?;
    configure(&home, user.as_ref(), hosts, host, secrets)?;
    let file = |name: &str| home.join(name).display().to_string();
    let env = [
        ("HOME", home.display().to_string()),
        ("RABBITMQ_NODENAME", format!("rabbit@{}", host.name)),
        ("RABBITMQ_MNESIA_BASE", file("mnesia")),
        ("RABBITMQ_LOG_BASE", file("log")),
        ("RABBITMQ_LOGS", "-".into()),
        ("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf")),
        ("RABBITMQ_CONFIG_FILES", file("conf.d")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced.config")),
        ("RABBITMQ_GENERATED_CONFIG_DIR", file("generated")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", file("enabled_plugins")),
        ("RABBITMQ_CONF_ENV_FILE", file("rabbitmq-env.conf")),
        ("RABBITMQ_PID_FILE", file("pid")),
        ("RABBITMQ_DIST_PORT", "25672".into()),
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+sbwt none +sbwtdcpu none +sbwtdio none +Q 65536 +S 2:2".into(),
        ),
        // Makes the start script become the broker.
        ("RUNNING_UNDER_SYSTEMD", "true".into()),
    ];
    let (program, args) = on(layout, host, user.as_ref(), Path::new(&programs.server));
    Ok(Spec {
        name: host.name.clone(),
        program,
        args,
        env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        run_as: None,
        addresses: Addresses::default(),
        probe: Probe::Amqp { addr: host.at(AMQP) },
        hidden: false,
        container: None,
    })
}

fn configure(home: &Path, user: Option<&User>, hosts: &[Host], host: &Host, secrets: &Secrets) -> Result<()> {
    for dir in ["mnesia", "log", "generated", "conf.d"] {
        let dir = home.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        if let Some(user) = user {
            std::os::unix::fs::chown(&dir, Some(user.uid), Some(user.gid))?;
        }
    }
    let definitions_file = home.join("definitions.json");
    let mut conf = format!(
        "listeners.tcp.1 = {}\nload_definitions = {}\ndisk_free_limit.absolute = 50000000\n\
         raft.wal_max_size_bytes = 33554432\nlog.console.level = info\nlog.connection.level = error\n\
         cluster_partition_handling = pause_minority\ncluster_formation.peer_discovery_backend = classic_config\n",
        host.at(AMQP),
        definitions_file.display(),
    );
    // Each joins those that were started before it. Two that form a cluster at the same moment may leave one of them with a
    // virtual host that is down.
    let before = hosts.iter().position(|node| node.name == host.name).unwrap_or_default();
    for (at, node) in hosts.iter().take(before + 1).enumerate() {
        conf += &format!("cluster_formation.classic_config.nodes.{} = rabbit@{}\n", at + 1, node.name);
    }
    write_for(user, &home.join("rabbitmq.conf"), &conf)?;
    // Seconds until a node that says nothing is taken for dead.
    write_for(user, &home.join("advanced.config"), "[{kernel, [{net_ticktime, 8}]}].\n")?;
    write_for(user, &home.join("rabbitmq-env.conf"), "")?;
    write_for(user, &home.join("enabled_plugins"), "[].\n")?;
    write_for(user, &definitions_file, &definitions(secrets).to_string())?;
    write_for(user, &home.join(".erlang.cookie"), &secrets.erlang_cookie)
}

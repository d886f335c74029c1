//! PostgreSQL under Patroni: a primary, and two standbys of which one confirms each commit.

use std::path::Path;

use anyhow::{Context, Result};
use machine::layout::Layout;
use machine::net::Probe;
use machine::servers::postgres;
use machine::spec::Spec;
use machine::state::{Addresses, Secrets};
use machine::system::{find, server_user, write_for};
use serde_json::json;

use super::etcd;
use super::network::{Host, disk, on};

pub const DATABASE: u16 = 5432;
/// Of Patroni's REST API, which HAProxy asks who is the primary.
pub const API: u16 = 8008;

/// Enough for the data of a run, and small enough to be filled.
const DISK: u32 = 1500;

/// Seconds that a primary stays it without telling etcd so, between two looks, and for a call.
const TTL: u8 = 10;
const LOOP_WAIT: u8 = 2;
const RETRY: u8 = 3;

pub fn spec(layout: &Layout, etcds: &[Host], host: &Host, secrets: &Secrets) -> Result<Spec> {
    let user = server_user("postgres")?;
    let home = disk(layout, host, DISK, user.as_ref())?;
    let bin = postgres::find_bin().context("PostgreSQL is not installed")?;
    let program = find("patroni", &[]).context("Patroni is not installed")?;
    let file = home.join("patroni.yml");
    // JSON is YAML.
    let settings = settings(etcds, host, &home, &bin, secrets);
    write_for(user.as_ref(), &file, &format!("{settings:#}\n"))?;
    let (program, mut args) = on(layout, host, user.as_ref(), Path::new(&program));
    args.push(file.display().to_string());
    Ok(Spec {
        name: host.name.clone(),
        program,
        args,
        env: vec![("LC_ALL".into(), "C.UTF-8".into()), ("HOME".into(), home.display().to_string())],
        run_as: None,
        addresses: Addresses::default(),
        probe: Probe::Http { url: format!("http://{}/health", host.at(API)) },
        hidden: false,
        container: None,
    })
}

fn settings(etcds: &[Host], host: &Host, home: &Path, bin: &Path, secrets: &Secrets) -> serde_json::Value {
    let etcds: Vec<_> = etcds.iter().map(|etcd| etcd.at(etcd::CLIENTS)).collect();
    json!({
        "scope": "dockside",
        "name": host.name,
        "restapi": {"listen": host.at(API), "connect_address": host.at(API)},
        "etcd3": {"hosts": etcds},
        "log": {"level": "INFO"},
        "watchdog": {"mode": "off"},
        "bootstrap": {
            "dcs": {
                "ttl": TTL,
                "loop_wait": LOOP_WAIT,
                "retry_timeout": RETRY,
                "maximum_lag_on_failover": 1 << 20,
                // A primary that dies is not waited for.
                "primary_start_timeout": 0,
                "synchronous_mode": true,
                "postgresql": {
                    "use_pg_rewind": true,
                    "use_slots": true,
                    "parameters": {
                        "fsync": "on",
                        "synchronous_commit": "on",
                        "wal_log_hints": "on",
                        "max_connections": 200,
                        "shared_buffers": "64MB",
                        "wal_keep_size": "128MB",
                        "max_wal_size": "512MB",
                        // A silent peer is dropped after this: a commit waits as long for a standby that
                        // hangs, and a standby for its primary.
                        "wal_sender_timeout": "5s",
                        "wal_receiver_timeout": "5s",
                        "log_line_prefix": "%m [%p] %u@%d ",
                    },
                },
            },
            "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
        },
        "postgresql": {
            "listen": format!("{},127.0.0.1:{DATABASE}", host.address),
            "connect_address": host.at(DATABASE),
            "data_dir": home.join("data"),
            "bin_dir": bin,
            "pgpass": home.join("pgpass"),
            "basebackup": [{"checkpoint": "fast"}],
            "authentication": {
                "superuser": {"username": "postgres", "password": secrets.postgres_admin},
                "replication": {"username": "replicator", "password": secrets.postgres_admin},
            },
            "parameters": {"unix_socket_directories": ""},
            "pg_hba": [
                "host all all all scram-sha-256",
                "host replication replicator all scram-sha-256",
            ],
        },
    })
}

//! etcd, three members: where Patroni keeps who is the primary.

use std::path::Path;

use anyhow::{Context, Result};
use machine::layout::Layout;
use machine::net::Probe;
use machine::spec::Spec;
use machine::state::Addresses;
use machine::system::find;

use super::network::{Host, disk, on};

pub const CLIENTS: u16 = 2379;
const PEERS: u16 = 2380;

pub fn spec(layout: &Layout, hosts: &[Host], host: &Host) -> Result<Spec> {
    let data = disk(layout, host, 512, None)?;
    let program = find("etcd", &[]).context("etcd is not installed")?;
    let (program, mut args) = on(layout, host, None, Path::new(&program));
    let url = |host: &Host, port: u16| format!("http://{}", host.at(port));
    let members: Vec<_> = hosts.iter().map(|h| format!("{}={}", h.name, url(h, PEERS))).collect();
    let settings = [
        ("--name", host.name.clone()),
        ("--data-dir", data.join("data").display().to_string()),
        ("--listen-client-urls", url(host, CLIENTS)),
        ("--advertise-client-urls", url(host, CLIENTS)),
        ("--listen-peer-urls", url(host, PEERS)),
        ("--initial-advertise-peer-urls", url(host, PEERS)),
        ("--initial-cluster", members.join(",")),
        ("--initial-cluster-state", "new".to_owned()),
        ("--log-level", "warn".to_owned()),
        ("--logger", "zap".to_owned()),
        // A run's keys are few; what was written is forgotten soon.
        ("--auto-compaction-retention", "1".to_owned()),
    ];
    args.extend(settings.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
    Ok(Spec {
        name: host.name.clone(),
        program,
        args,
        env: Vec::new(),
        run_as: None,
        addresses: Addresses::default(),
        probe: Probe::HttpAnswer { url: format!("{}/health", url(host, CLIENTS)) },
        hidden: false,
        container: None,
    })
}

//! HAProxy: one address for whichever PostgreSQL is the primary, and one for the brokers.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use machine::layout::Layout;
use machine::net::Probe;
use machine::spec::Spec;
use machine::state::Addresses;
use machine::system::find;

use super::network::{Host, Hosts, on};
use super::{patroni, rabbitmq};

pub const DATABASE: u16 = 5000;
pub const BROKER: u16 = 5672;

/// On a machine of its own, or, without one, on loopback: the way of who watches, which no fault touches.
pub fn spec(layout: &Layout, hosts: &Hosts, host: Option<&Host>) -> Result<Spec> {
    let name = host.map_or("lb0", |host| &host.name);
    let address = host.map_or("127.0.0.1", |host| &host.address);
    let file = layout.dir.join(format!("{name}.cfg"));
    // The last leaves connections to a server that is the primary no longer as they are, as a virtual address does that is moved, or a
    // Service of Kubernetes.
    let cuts = host != hosts.balancer.last();
    fs::write(&file, settings(hosts, address, cuts))?;
    let program = find("haproxy", &[]).context("HAProxy is not installed")?;
    let (program, mut args) = match host {
        Some(host) => on(layout, host, None, Path::new(&program)),
        None => (program, Vec::new()),
    };
    args.extend(["-db".to_owned(), "-f".to_owned(), file.display().to_string()]);
    Ok(Spec {
        name: name.to_owned(),
        program,
        args,
        env: Vec::new(),
        run_as: None,
        addresses: Addresses::default(),
        probe: Probe::Tcp { addr: format!("{address}:{BROKER}") },
        hidden: false,
        container: None,
    })
}

fn settings(hosts: &Hosts, address: &str, cuts: bool) -> String {
    let cut = if cuts { " on-marked-down shutdown-sessions" } else { "" };
    let servers = |hosts: &[Host], port: u16, check: &str| {
        let line = |host: &Host| format!("    server {} {} check {check}\n", host.name, host.at(port));
        hosts.iter().map(line).collect::<String>()
    };
    format!(
        "global\n    maxconn 2000\n\
         defaults\n    mode tcp\n    timeout connect 1s\n    timeout client 1h\n    timeout server 1h\n    timeout check 1s\n\
         \n    default-server inter 500ms fall 2 rise 1{cut}\n\
         listen database\n    bind {address}:{DATABASE}\n    option httpchk OPTIONS /primary\n    http-check expect status 200\n{}\
         listen broker\n    bind {address}:{BROKER}\n    balance roundrobin\n    option tcp-check\n\
         \n    tcp-check connect\n    tcp-check send-binary 414d515000000901\n    tcp-check expect binary 01\n{}",
        servers(&hosts.database, patroni::DATABASE, &format!("port {}", patroni::API)),
        servers(&hosts.broker, rabbitmq::AMQP, "inter 2s"),
    )
}

//! The machines of the cluster: each is a network namespace with an address of its own, on one bridge. All of it is inside a
//! namespace that has no way out, so nothing of a run can reach another machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use machine::layout::Layout;
use machine::process::output;
use machine::system::User;

/// Where `ip netns` keeps the namespaces by name.
const NAMESPACES: &str = "/run/netns";

/// Of RFC 2544's range for test networks, which is routed nowhere.
const NETWORK: &str = "198.18.0";

/// A machine of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub address: String,
}

impl Host {
    fn new(kind: &str, number: usize, first: usize) -> Host {
        Host { name: format!("{kind}{number}"), address: format!("{NETWORK}.{}", first + number) }
    }

    pub fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.address)
    }
}

/// All machines, by what they do.
pub struct Hosts {
    pub etcd: Vec<Host>,
    pub database: Vec<Host>,
    pub broker: Vec<Host>,
    /// The first is for the first replica of each service, the second for the second.
    pub balancer: Vec<Host>,
}

impl Hosts {
    pub fn new() -> Hosts {
        let some = |kind, many, first| (1..=many).map(|n| Host::new(kind, n, first)).collect();
        Hosts {
            etcd: some("etcd", 3, 10),
            database: some("db", 3, 20),
            broker: some("mq", 3, 30),
            balancer: some("lb", 2, 40),
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &Host> {
        [&self.etcd, &self.database, &self.broker, &self.balancer].into_iter().flatten()
    }
}

/// Builds the network in the namespaces that this process was started in.
pub fn build(layout: &Layout, hosts: &Hosts) -> Result<()> {
    // Names of a mount namespace of our own: nobody else sees them, and they end with it.
    run("mount", &["-t", "tmpfs", "none", NAMESPACES])?;
    ip("link set lo up")?;
    ip("link add cluster type bridge")?;
    ip("link set cluster up")?;
    ip(&format!("addr add {NETWORK}.1/24 dev cluster"))?;
    for Host { name, address } in hosts.all() {
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add {name} type veth peer name eth0 netns {name}"))?;
        ip(&format!("link set {name} master cluster up"))?;
        ip(&format!("-n {name} addr add {address}/24 dev eth0"))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        ip(&format!("-n {name} link set lo up"))?;
    }
    let names: Vec<String> =
        hosts.all().map(|Host { name, address }| format!("{address} {name}\n")).collect();
    let file = layout.dir.join("hosts");
    fs::write(&file, format!("127.0.0.1 localhost\n{}", names.concat()))?;
    run("mount", &["--bind", &file.display().to_string(), "/etc/hosts"])
}

/// A folder on a disk of the machine's own, in memory and no larger than that; gone with the run.
pub fn disk(layout: &Layout, host: &Host, megabytes: u32, user: Option<&User>) -> Result<PathBuf> {
    let dir = layout.outside().join("disks").join(&host.name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let owner = user.map(|user| format!(",uid={},gid={}", user.uid, user.gid)).unwrap_or_default();
    let options = format!("size={megabytes}m,mode=0700{owner}");
    run("mount", &["-t", "tmpfs", "-o", &options, "none", &dir.display().to_string()])?;
    Ok(dir)
}

/// How to run a program on a machine: its process is the one that is started, once the file `held/<machine>` of the layout is
/// gone.
pub fn on(layout: &Layout, host: &Host, user: Option<&User>, program: &Path) -> (PathBuf, Vec<String>) {
    let wait = "while [ -e \"$0\" ]; do sleep 0.1; done; exec \"$@\"";
    let mut args = vec!["-c".to_owned(), wait.to_owned(), held(layout, host).display().to_string()];
    args.extend(["nsenter".to_owned(), format!("--net={NAMESPACES}/{}", host.name)]);
    if let Some(user) = user {
        args.extend([format!("--setuid={}", user.uid), format!("--setgid={}", user.gid)]);
    }
    args.push(program.display().to_string());
    ("/bin/sh".into(), args)
}

/// While this file exists, what dies on the machine is not started again.
fn held(layout: &Layout, host: &Host) -> PathBuf {
    layout.dir.join("held").join(&host.name)
}

fn ip(line: &str) -> Result<()> {
    run("ip", &line.split(' ').collect::<Vec<_>>())
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    output(Command::new(program).args(args))
        .with_context(|| format!("cannot build the cluster's network: {program} {}", args.join(" ")))
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_a_name_and_an_address_of_its_own() {
        let hosts = Hosts::new();
        let mut names: Vec<_> = hosts.all().map(|host| &host.name).collect();
        let mut addresses: Vec<_> = hosts.all().map(|host| &host.address).collect();
        names.sort();
        names.dedup();
        addresses.sort();
        addresses.dedup();
        assert_eq!((names.len(), addresses.len()), (11, 11));
        assert_eq!(hosts.database[0].at(5432), "198.18.0.21:5432");
    }
}

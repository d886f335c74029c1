//! Programs of a Debian release that need not be this machine's: its packages, unpacked into a folder and run with the
//! C library that they come with. Nothing is installed. apt checks the signatures, as ever.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::console::step;
use crate::install;
use crate::layout::Layout;
use crate::process::output;
use crate::system::{enters, find, server_user};

/// What is unpacked together.
pub struct Set {
    pub name: &'static str,
    /// The release's code name.
    release: &'static str,
    /// The programs' packages and those of their libraries.
    packages: &'static str,
}

/// Of Debian 13: 1.24.
pub const PGBOUNCER: Set = Set {
    name: "pgbouncer-debian-13",
    release: "trixie",
    packages: "pgbouncer libc6 libcares2 libevent-2.1-7t64 libpam0g libssl3t64 libsystemd0 libcap2 libaudit1 libcap-ng0 \
               libzstd1 zlib1g",
};

/// Of Debian 12: 1.18.
pub const OLD_PGBOUNCER: Set = Set {
    name: "pgbouncer-debian-12",
    release: "bookworm",
    packages: "pgbouncer libc6 libc-ares2 libevent-2.1-7 libpam0g libssl3 libsystemd0 libcap2 libaudit1 libcap-ng0 libzstd1 \
               libgcrypt20 libgpg-error0 liblzma5 liblz4-1",
};

/// Of Debian 13: RabbitMQ 4.0 on Erlang 27.
const RABBITMQ: Set = Set {
    name: "rabbitmq-debian-13",
    release: "trixie",
    packages: "rabbitmq-server erlang-base erlang-asn1 erlang-crypto erlang-eldap erlang-inets erlang-mnesia erlang-os-mon \
               erlang-parsetools erlang-public-key erlang-runtime-tools erlang-ssl erlang-syntax-tools erlang-tools \
               erlang-xmerl libc6 libstdc++6 libgcc-s1 libtinfo6 libssl3t64 libsystemd0 libcap2 zlib1g libzstd1 libsctp1",
};

/// The folder with RabbitMQ's programs, as `test --rabbitmq` takes it; see [`unpack`].
pub fn rabbitmq(layout: &Layout) -> Result<PathBuf> {
    let tree = unpack(layout, &RABBITMQ)?;
    let (bin, erlang) = (tree.join("bin"), tree.join("usr/lib/erlang"));
    let runtime = fs::read_dir(&erlang)?.flatten().map(|entry| entry.path().join("bin"));
    let runtime = runtime.into_iter().find(|dir| dir.join("erlexec").is_file()).context("no Erlang")?;
    fs::create_dir_all(&bin)?;
    // Debian's script looks in /usr/lib/erlang alone.
    let (erlang, runtime, scripts) = (erlang.display(), runtime.display(), tree.join("usr/lib/rabbitmq/bin"));
    let erl = format!(
        "export ROOTDIR='{erlang}' BINDIR='{runtime}' EMU=beam PROGNAME=erl\nexec '{runtime}/erlexec' \"$@\""
    );
    write_script(&bin.join("erl"), &erl)?;
    for name in ["rabbitmq-server", "rabbitmqctl"] {
        let text =
            format!("PATH='{}':\"$PATH\" exec '{}' \"$@\"", bin.display(), scripts.join(name).display());
        write_script(&bin.join(name), &text)?;
    }
    write_script(&bin.join("epmd"), &format!("exec '{runtime}/epmd' \"$@\""))?;
    Ok(bin)
}

/// Makes the folder, once, and returns it. Its programs run as they are, for every account of this machine.
///
/// # Errors
/// when this is no Debian, or its mirror has no such release.
pub fn unpack(layout: &Layout, set: &Set) -> Result<PathBuf> {
    let home = place(layout)?.join(set.name);
    let (tree, complete) = (home.join("tree"), home.join("complete"));
    let wanted = format!("{} {}\n", set.release, set.packages);
    if fs::read_to_string(&complete).is_ok_and(|got| got == wanted) {
        return Ok(tree);
    }
    let sources = sources(set.release)?;
    fs::remove_dir_all(&home).ok();
    fs::create_dir_all(&tree).with_context(|| format!("cannot create {}", tree.display()))?;
    fs::write(home.join("sources.list"), sources)?;
    fs::write(home.join("apt.conf"), apt_conf(&home))?;
    step(
        "install",
        &format!("{}: packages of Debian's {}, unpacked into {}", set.name, set.release, home.display()),
    );
    let mut command = Command::new("sh");
    command.current_dir(&home).env("APT_CONFIG", home.join("apt.conf"));
    command.args(["-c", UNPACK, "sh"]).args(set.packages.split_whitespace());
    install::run(layout, &mut command, &format!("apt-get download {}", set.packages))?;
    run_by_its_own_loader(&tree)?;
    fs::write(complete, wanted)?;
    Ok(tree)
}

const UNPACK: &str = r#"
set -eu
umask 022
mkdir -p lists/partial cache/archives/partial
: > status
apt-get -q update
apt-get -q download "$@"
for package in *.deb; do dpkg-deb -x "$package" tree; done
rm -rf lists cache status *.deb
"#;

/// A configuration that sees nothing of this machine's packages, and changes nothing of them.
fn apt_conf(home: &Path) -> String {
    let home = home.display();
    format!(
        "Dir::Etc::sourcelist \"{home}/sources.list\";\nDir::Etc::sourceparts \"-\";\nDir::State::lists \"{home}/lists\";\n\
         Dir::State::status \"{home}/status\";\nDir::Cache \"{home}/cache\";\nAPT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\nAcquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Acquire::http::Timeout \"20\";\nAcquire::https::Timeout \"20\";\nAcquire::Retries \"2\";\n"
    )
}

/// The folder of all sets, beside the data of runs, which is forgotten; where the servers' accounts get to it.
pub fn place(layout: &Layout) -> Result<PathBuf> {
    let dir = if layout.passing { layout.dir.parent().unwrap_or(&layout.dir) } else { &layout.dir };
    let near = match server_user("rabbitmq")? {
        Some(user) => enters(&user, dir),
        None => true,
    };
    Ok(if near { dir.join("versions") } else { layout.outside().join("versions") })
}

/// The release on the mirrors that this machine's apt has its own from.
fn sources(release: &str) -> Result<String> {
    for program in ["apt-get", "dpkg-deb"] {
        ensure!(find(program, &[]).is_some(), "this needs Debian's packages, and there is no {program}");
    }
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    ensure!(field("ID") == "debian", "this needs Debian's packages, and this is {}", field("ID"));
    let format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
    let own = output(
        Command::new("apt-get")
            .args(["indextargets", "--format", format, "Created-By: Packages"])
            .stdin(Stdio::null()),
    )?;
    let sources = of_release(&own, &field("VERSION_CODENAME"), release);
    ensure!(!sources.is_empty(), "apt has no mirror of Debian: add one to its sources");
    Ok(sources)
}

/// The lines for `release`, of apt's own `address release component`.
fn of_release(own: &str, here: &str, release: &str) -> String {
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let signed = if Path::new(keyring).exists() { format!("[signed-by={keyring}] ") } else { String::new() };
    let lines = own.lines().filter_map(|line| {
        let [address, suite, "main"] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
        let rest = suite.strip_prefix(here)?;
        ["", "-updates", "-security"]
            .contains(&rest)
            .then(|| format!("deb {signed}{address} {release}{rest} main\n"))
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines.dedup();
    lines.concat()
}

/// Puts a script in each program's place that runs it by the loader and with the libraries of `tree`.
fn run_by_its_own_loader(tree: &Path) -> Result<()> {
    let (mut programs, mut loader, mut libraries) = (Vec::new(), None, Vec::new());
    let mut folders = vec![tree.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let (entry, path) = entry.map(|entry| (entry.file_type(), entry.path()))?;
            let (kind, name) = (entry?, path.file_name().unwrap_or_default().to_string_lossy().into_owned());
            if kind.is_dir() {
                if name.ends_with("-linux-gnu") && folder.ends_with("lib") {
                    libraries.push(path.display().to_string());
                }
                folders.push(path);
            } else if kind.is_file() && name.starts_with("ld-linux") {
                loader = Some(path.display().to_string());
            } else if kind.is_file() && !name.contains(".so") && is_program(&path)? {
                programs.push(path);
            }
        }
    }
    let loader = loader.context("no loader among the packages")?;
    let libraries = libraries.join(":");
    for path in programs {
        let mut moved = path.clone().into_os_string();
        moved.push(".program");
        fs::rename(&path, &moved)?;
        let program = Path::new(&moved).display();
        write_script(
            &path,
            &format!("exec '{loader}' --library-path '{libraries}' --argv0 \"$0\" '{program}' \"$@\""),
        )?;
    }
    Ok(())
}

/// Whether it is executable, and in the format of programs (ELF).
fn is_program(path: &Path) -> Result<bool> {
    if fs::metadata(path)?.permissions().mode() & 0o100 == 0 {
        return Ok(false);
    }
    let mut magic = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(fs::File::open(path)?, 4), &mut magic)?;
    Ok(magic == *b"\x7fELF")
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{text}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_release_comes_from_the_same_mirrors() {
        let own = "http://m/debian/ bookworm main\nhttp://m/debian/ bookworm main\nhttp://m/debian/ bookworm-updates main\n\
                   http://m/debian-security/ bookworm-security main\nhttp://other/ tools-bookworm main\n\
                   http://m/debian/ bookworm contrib\n";
        let wanted = of_release(own, "bookworm", "trixie");
        let addresses: Vec<_> = wanted.lines().filter_map(|line| line.split("http").nth(1)).collect();
        assert_eq!(
            addresses,
            [
                "://m/debian-security/ trixie-security main",
                "://m/debian/ trixie main",
                "://m/debian/ trixie-updates main"
            ]
        );
    }
}

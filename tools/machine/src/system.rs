//! This machine's accounts and programs, and what the user's environment says.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::console::step;
use crate::layout::{Layout, write_private};

/// An account of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// Looks an account up in the text of passwd(5).
fn find_user(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(User { name: name.to_owned(), uid, gid })
    })
}

/// Who runs PostgreSQL and RabbitMQ: `None` is the caller; as root, which PostgreSQL refuses, another
/// account that exists here.
pub fn server_user(preferred: &str) -> Result<Option<User>> {
    if !is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    [preferred, "nobody"]
        .iter()
        .find_map(|name| find_user(&passwd, name))
        .map(Some)
        .context("running as root needs an account for the servers: neither postgres nor nobody exists")
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A folder that `user` can use, with everything above it open to that user; made if missing.
///
/// Under the instance's folder when the user gets there, else under `/var/lib/dockside`.
pub fn data_dir(layout: &Layout, name: &str, user: Option<&User>) -> Result<PathBuf> {
    let Some(user) = user else {
        let dir = layout.dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        return Ok(dir);
    };
    let base = if enters(user, &layout.dir) { layout.dir.clone() } else { layout.outside() };
    if base != layout.dir {
        let text =
            format!("its data is in {}: the account {} cannot enter this folder", base.display(), user.name);
        step(name, &text);
    }
    let dir = base.join(name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    if !enters(user, &base) {
        bail!("the account {} cannot reach {}: open it (chmod a+x) or use --dir", user.name, base.display());
    }
    if fs::metadata(&dir)?.uid() != user.uid {
        chown(&dir, Some(user.uid), Some(user.gid))?;
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    Ok(dir)
}

/// Whether the account can walk to the folder (a home is often closed to others).
pub fn enters(user: &User, dir: &Path) -> bool {
    Command::new("/bin/sh")
        .args(["-c", "cd \"$0\""])
        .arg(dir)
        .current_dir("/")
        .stderr(Stdio::null())
        .uid(user.uid)
        .gid(user.gid)
        .status()
        .is_ok_and(|s| s.success())
}

/// Writes a file that `user` may read, for example a server's configuration.
pub fn write_for(user: Option<&User>, path: &Path, text: &str) -> Result<()> {
    write_private(path, text.as_bytes())?;
    if let Some(user) = user {
        chown(path, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// A setting that the user gave, in the environment and not empty.
pub fn given(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|v| !v.is_empty())
}

/// The first of the places where `name` is an executable file: `PATH`, then `more`.
pub fn find(name: &str, more: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(more.iter().cloned())
        .chain(["/usr/sbin", "/sbin", "/opt/homebrew/bin", "/usr/local/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_in_passwd() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\n";
        let user = User { name: "postgres".into(), uid: 101, gid: 104 };
        assert_eq!(find_user(passwd, "postgres"), Some(user));
        assert_eq!(find_user(passwd, "post"), None);
    }

    #[test]
    fn a_program_is_found_on_the_path() {
        assert!(find("sh", &[]).is_some());
        assert_eq!(find("no-such-program-here", &[]), None);
    }
}

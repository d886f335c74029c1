//! The certificates that private servers and services show, of a private authority. The operator makes them: nothing here
//! can sign.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::process::output;
use crate::system::{User, write_for};

/// The name that the certificate is for, besides 127.0.0.1.
pub const HOST: &str = "localhost";

/// The certificate of the authority, in the instance's folder.
pub fn authority(layout: &Layout) -> PathBuf {
    folder(layout).join("ca.crt")
}

/// The same as part of an address.
pub fn authority_in_query(layout: &Layout) -> String {
    let path = authority(layout).display().to_string();
    ["%", " ", "&", "#", "+"]
        .iter()
        .fold(path, |path, c| path.replace(c, &format!("%{:02X}", c.as_bytes()[0])))
}

/// Where the files are: `ca.crt`, and a folder for the servers and for each service.
pub fn folder(layout: &Layout) -> PathBuf {
    layout.dir.join("tls")
}

/// The folder with `tls.crt`, `tls.key` and `ca.crt` of a service, or of [`SERVERS`].
pub fn of(layout: &Layout, name: &str) -> PathBuf {
    folder(layout).join(name)
}

/// What PostgreSQL and RabbitMQ show.
pub const SERVERS: &str = "servers";

/// Has `operator` make all of them, and the authority if there is none yet.
pub fn make(layout: &Layout, operator: &Path) -> Result<()> {
    let mut command = Command::new(operator);
    command.arg("certificates").arg(folder(layout)).args([SERVERS, "user", "product", "order"]);
    command.args(["--host", HOST, "--host", "127.0.0.1"]).stdin(Stdio::null());
    output(&mut command).context("cannot make certificates").map(drop)
}

/// Files of a server's own, which its user reads.
pub struct Shown {
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Copies them to the server's folder; `None` where it speaks plain.
pub fn shown(layout: &Layout, home: &Path, user: Option<&User>) -> Result<Option<Shown>> {
    if !layout.tls {
        return Ok(None);
    }
    let copy = |name: &str| -> Result<PathBuf> {
        let (from, to) = (of(layout, SERVERS).join(name), home.join(name));
        let text = fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
        write_for(user, &to, &text)?;
        Ok(to)
    };
    Ok(Some(Shown { authority: copy("ca.crt")?, certificate: copy("tls.crt")?, key: copy("tls.key")? }))
}

//! The certificate that a private server shows, of a private authority. Others make both: nothing here can sign.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::system::{User, write_for};

/// The name that the certificate is for, besides 127.0.0.1.
pub const HOST: &str = "localhost";

/// The certificate of the authority, in the instance's folder.
pub fn authority(layout: &Layout) -> PathBuf {
    folder(layout).join("ca.crt")
}

/// Where the files are: `ca.crt`, and `tls.crt` and `tls.key` of the servers.
pub fn folder(layout: &Layout) -> PathBuf {
    layout.dir.join("tls")
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
        let (from, to) = (folder(layout).join(name), home.join(name));
        let text = fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
        write_for(user, &to, &text)?;
        Ok(to)
    };
    Ok(Some(Shown { authority: copy("ca.crt")?, certificate: copy("tls.crt")?, key: copy("tls.key")? }))
}

//! A private authority and certificates of it, for shops that have no cert-manager.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// Made anew each time, long before it ends.
const LIFE: Duration = Duration::days(90);
const LIFE_OF_THE_AUTHORITY: Duration = Duration::days(3650);

/// Makes, in `folder`, a folder for each of `names` with `tls.crt`, `tls.key` and `ca.crt`: the certificate is for that
/// name and these `hosts`, to be shown by servers and clients. The authority, `ca.crt` and `ca.key` of `folder`, stays.
pub fn make(folder: &Path, names: &[String], hosts: &[String]) -> Result<()> {
    private_folder(folder)?;
    let (key, certificate) = (folder.join("ca.key"), folder.join("ca.crt"));
    let known = match fs::read_to_string(&key) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", key.display())),
    };
    let issuer = match known {
        Some(text) => {
            let own = KeyPair::from_pem(&text).with_context(|| format!("{} is no key", key.display()))?;
            Issuer::new(authority(), own)
        }
        None => {
            let own = KeyPair::generate()?;
            write(&certificate, &authority().self_signed(&own)?.pem())?;
            // Last: with the key all is there.
            write(&key, &own.serialize_pem())?;
            Issuer::new(authority(), own)
        }
    };
    let authority = read(&certificate)?;
    for name in names {
        let own = folder.join(name);
        private_folder(&own)?;
        let mut params = CertificateParams::new([&[name.clone()][..], hosts].concat())?;
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.not_after = OffsetDateTime::now_utc() + LIFE;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        write(&own.join("tls.crt"), &params.signed_by(&key, &issuer)?.pem())?;
        write(&own.join("tls.key"), &key.serialize_pem())?;
        write(&own.join("ca.crt"), &authority)?;
    }
    Ok(())
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Dockside's own authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_after = OffsetDateTime::now_utc() + LIFE_OF_THE_AUTHORITY;
    params
}

fn private_folder(folder: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("cannot make {}", folder.display()))
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// For its owner alone, and whole: who reads it meanwhile has the one from before.
fn write(file: &Path, text: &str) -> Result<()> {
    let part = file.with_extension("part");
    let write = || {
        fs::remove_file(&part).or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
        let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        new.write_all(text.as_bytes())?;
        fs::rename(&part, file)
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

//! Whom a process that speaks TLS trusts, and what it shows.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore, ServerConfig};

pub const HTTP_2: &[u8] = b"h2";
pub const HTTP_1: &[u8] = b"http/1.1";

/// What a service shows to others that it calls and that call it, and the authority that theirs are to be of: `tls.crt`,
/// `tls.key` and `ca.crt` of a folder, the names that cert-manager gives them. Files that have changed are taken for
/// the next connection; what can't be read leaves everything as it was.
#[derive(Clone)]
pub struct Identity(Arc<Held>);

struct Held {
    folder: PathBuf,
    now: Mutex<Loaded>,
}

struct Loaded {
    files: Stamp,
    /// When these files, which are others than those in use, could not be read.
    failed: Option<(Stamp, Instant)>,
    server: Arc<ServerConfig>,
    client: ClientConfig,
}

/// Files that could not be read are read again after this, as what was wrong may have passed.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// When each file was written, and which it is.
type Stamp = [Option<(SystemTime, u64)>; 3];

impl Identity {
    /// # Errors
    /// when a file is missing, can't be read, or the key is not the certificate's.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let now = Mutex::new(Loaded::from(folder)?);
        Ok(Self(Arc::new(Held { folder: folder.to_owned(), now })))
    }

    /// For the next client. It has to show a certificate of the authority.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current(|now| now.server.clone())
    }

    /// For the next server, which has to show a certificate of the authority that names it.
    pub fn client(&self, protocol: &[u8]) -> ClientConfig {
        let mut client = self.current(|now| now.client.clone());
        client.alpn_protocols = vec![protocol.to_vec()];
        client
    }

    fn current<T>(&self, of: impl Fn(&Loaded) -> T) -> T {
        let Held { folder, now } = &*self.0;
        let mut now = now.lock().unwrap_or_else(PoisonError::into_inner);
        let files = stamp(folder);
        let failed_lately = now.failed.is_some_and(|(which, at)| which == files && at.elapsed() < READ_AGAIN);
        if files != now.files && !failed_lately {
            match Loaded::from(folder) {
                Ok(loaded) => {
                    *now = loaded;
                    tracing::info!("tls.reloaded");
                }
                // Of a certificate and its key one may be there before the other.
                Err(error) => {
                    now.failed = Some((files, Instant::now()));
                    tracing::warn!(error = format!("{error:#}"), "tls.reload_failed");
                }
            }
        }
        of(&now)
    }
}

fn stamp(folder: &Path) -> Stamp {
    ["tls.crt", "tls.key", "ca.crt"].map(|name| {
        let file = fs::metadata(folder.join(name)).ok()?;
        Some((file.modified().ok()?, file.ino()))
    })
}

impl Loaded {
    fn from(folder: &Path) -> anyhow::Result<Self> {
        // First: what is written meanwhile is read again.
        let files = stamp(folder);
        let chain = certificates(&folder.join("tls.crt"))?;
        let file = folder.join("tls.key");
        let key = PrivateKeyDer::from_pem_file(&file)
            .with_context(|| format!("the key in {} can't be read", file.display()))?;
        let roots = Arc::new(roots(&folder.join("ca.crt"))?);
        let unfit = || format!("the certificate and the key in {} can't be used", folder.display());
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .with_context(unfit)?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .with_context(unfit)?;
        server.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
        Ok(Self { files, failed: None, server: Arc::new(server), client })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A client that takes certificates of the authorities in a PEM file and no others; without one, of those that the
/// system trusts. They must name the server. The file is read each time, so that it can change.
///
/// # Errors
/// when the file can't be read or has no certificate in it.
pub fn client(authorities: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match authorities {
        Some(file) => builder.with_root_certificates(roots(file)?),
        None => builder.with_platform_verifier()?,
    };
    Ok(builder.with_no_client_auth())
}

fn roots(file: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).with_context(|| format!("{} has what is no certificate", file.display()))?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let unread = || format!("the certificates in {} can't be read", file.display());
    let read = CertificateDer::pem_file_iter(file).with_context(unread)?;
    let read: Vec<_> = read.collect::<Result<_, _>>().with_context(unread)?;
    ensure!(!read.is_empty(), "there is no certificate in {}", file.display());
    Ok(read)
}

/// What kept TLS with `server` from being spoken, as a sentence; `None` if that was something else.
pub fn refusal(error: &std::io::Error, server: &str) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!("the certificate of {server} is not of an authority that is trusted here")
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("the certificate that {server} shows is for another name"),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("the certificate of {server} has expired")
        }
        other => format!("TLS with {server} failed: {other}"),
    })
}

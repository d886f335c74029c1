//! Whom a process that calls others by TLS trusts.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore};

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
    let unread = || format!("the certificates in {} can't be read", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).with_context(unread)? {
        roots.add(certificate.with_context(unread)?).with_context(unread)?;
    }
    ensure!(!roots.is_empty(), "there is no certificate in {}", file.display());
    Ok(roots)
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

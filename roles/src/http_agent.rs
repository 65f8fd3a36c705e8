//! Clients of HTTP, with TLS where a URL asks for it.
//!
//! Owns: whose certificates a client trusts. Those of the machine's authorities are read from the bundle that every
//! distribution keeps as one file; nothing is read where no TLS is spoken.

use anyhow::{Context, bail};
use std::{path::PathBuf, sync::Arc};
use ureq::{
    config::ConfigBuilder,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem},
    typestate::AgentScope,
};

/// Whom a client trusts.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Certificates are not looked at.
    pub anybody: bool,
    /// Authorities beside those of the machine; empty for none.
    pub ca_certs: PathBuf,
}

/// Where distributions keep the certificates of authorities.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A client for a URL. Statuses are answers, not errors.
///
/// # Errors
/// Certificates that are named cannot be read.
pub fn agent_builder(url: &str, trust: &Trust) -> anyhow::Result<ConfigBuilder<AgentScope>> {
    let builder = ureq::Agent::config_builder().http_status_as_error(false);
    if !url.starts_with("https://") {
        return Ok(builder);
    }
    let roots = if trust.anybody { Vec::new() } else { roots(trust)? };
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&roots))
        .disable_verification(trust.anybody);
    Ok(builder.tls_config(tls.build()))
}

fn roots(trust: &Trust) -> anyhow::Result<Vec<Certificate<'static>>> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let mut bundles: Vec<PathBuf> = match named {
        Some(named) => vec![named],
        None => BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()).into_iter().collect(),
    };
    if !trust.ca_certs.as_os_str().is_empty() {
        bundles.push(trust.ca_certs.clone());
    }
    let mut roots = Vec::new();
    for path in bundles {
        let bytes = std::fs::read(&path).with_context(|| format!("certificates of {}", path.display()))?;
        let before = roots.len();
        for item in parse_pem(&bytes) {
            if let PemItem::Certificate(certificate) = item.with_context(|| path.display().to_string())? {
                roots.push(certificate);
            }
        }
        if roots.len() == before {
            bail!("{} holds no certificate", path.display());
        }
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_without_tls_or_without_a_look() {
        let missing = Trust { anybody: false, ca_certs: "/nowhere/ca.pem".into() };
        assert!(agent_builder("http://localhost:1", &missing).is_ok());
        let error = agent_builder("https://localhost:1", &missing).map(drop).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere/ca.pem"), "{error:#}");
        assert!(agent_builder("https://localhost:1", &Trust { anybody: true, ..missing }).is_ok());
    }
}

//! TLS on the HTTP port: versions, and a certificate that is read again when its file changes.
//!
//! Owns: the certificate that new connections get, and the thread that looks after its files.
//! Invariant: a changed file that cannot be used changes nothing; the server goes on with what it has and says so.

use crate::{file_stamp::FileStamp, side_thread};
use anyhow::{Context, bail};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, RwLock, Weak},
    time::Duration,
};

/// `[http] https-...` and `[tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsOptions {
    pub is_enabled: bool,
    /// PEM, the server's own first.
    pub certificate: PathBuf,
    /// PEM; empty when it is in the certificate's file.
    pub private_key: PathBuf,
    pub version_min: TlsVersion,
    pub version_max: TlsVersion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl TlsVersion {
    pub const fn name(self) -> &'static str {
        match self {
            TlsVersion::Tls12 => "tls1.2",
            TlsVersion::Tls13 => "tls1.3",
        }
    }

    const fn protocol(self) -> &'static SupportedProtocolVersion {
        match self {
            TlsVersion::Tls12 => &TLS12,
            TlsVersion::Tls13 => &TLS13,
        }
    }
}

impl HttpsOptions {
    fn key_path(&self) -> &Path {
        if self.private_key.as_os_str().is_empty() { &self.certificate } else { &self.private_key }
    }
}

/// What connections are made with; `None` without TLS. A thread follows the files for as long as the configuration
/// lives.
///
/// # Errors
/// The certificate or its key cannot be used.
pub fn server_config(options: &HttpsOptions) -> anyhow::Result<Option<Arc<ServerConfig>>> {
    if !options.is_enabled {
        return Ok(None);
    }
    let provider = Arc::new(ring::default_provider());
    let key = load(options, &provider)?;
    let current = Arc::new(Current(RwLock::new(Arc::new(key))));
    let versions: Vec<&'static SupportedProtocolVersion> = [TlsVersion::Tls12, TlsVersion::Tls13]
        .into_iter()
        .filter(|version| (options.version_min..=options.version_max).contains(version))
        .map(TlsVersion::protocol)
        .collect();
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .context("TLS versions")?
        .with_no_client_auth()
        .with_cert_resolver(current.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (followed, watched) = (options.clone(), Arc::downgrade(&current));
    let seen = stamps(&followed);
    side_thread::spawn("certificate", move || follow(&followed, &provider, &watched, seen))
        .context("starting the thread that looks after the certificate")?;
    Ok(Some(Arc::new(config)))
}

/// The certificate of new connections.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // A thread that panicked held the lock for an assignment only.
        Some(self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone())
    }
}

fn load(options: &HttpsOptions, provider: &CryptoProvider) -> anyhow::Result<CertifiedKey> {
    let path = &options.certificate;
    let told = || format!("https-certificate {}", path.display());
    let pem = std::fs::read(path).with_context(told)?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().with_context(told)?;
    if chain.is_empty() {
        bail!("{}: no certificate in it", told());
    }
    let path = options.key_path();
    let told = || format!("https-private-key {}", path.display());
    let pem = std::fs::read(path).with_context(told)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| anyhow::anyhow!("{}: {error}", told()))?;
    CertifiedKey::from_der(chain, key, provider).with_context(told)
}

fn stamps(options: &HttpsOptions) -> [Option<FileStamp>; 2] {
    [&options.certificate, options.key_path()].map(FileStamp::of)
}

fn follow(
    options: &HttpsOptions,
    provider: &CryptoProvider,
    watched: &Weak<Current>,
    mut seen: [Option<FileStamp>; 2],
) {
    loop {
        std::thread::sleep(LOOK_INTERVAL);
        let Some(current) = watched.upgrade() else { return };
        let now = stamps(options);
        if now == seen {
            continue;
        }
        seen = now;
        match load(options, provider) {
            Ok(key) => {
                *current.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(key);
                tracing::info!(certificate = %options.certificate.display(), "new connections get the new certificate");
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "the changed certificate cannot be used; the old one goes on");
            }
        }
    }
}

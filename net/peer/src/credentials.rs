//! What a node proves itself with, and whom it believes.
//!
//! Owns the reading of PEM texts and the TLS configuration of both ends. Invariants: TLS 1.3 and one protocol name only;
//! both ends show a certificate that one of our authorities signed, that is valid now and that names a node of our
//! cluster; no ticket and no early data, so that no connection outlives the trust it was made with and nothing can be
//! replayed. Knows nothing of connections: new credentials hold for new connections.

use crate::identity::{ClusterId, IdentityError, NodeId, node_of_certificate};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CipherSuite, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme, version::TLS13,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The protocol's name in the handshake; another version is another name.
pub const PROTOCOL_NAME: &[u8] = b"tidemill-peer/1";
/// Files of a node's folder.
pub const AUTHORITY_FILE: &str = "ca.pem";
pub const CERTIFICATE_FILE: &str = "node.pem";
pub const KEY_FILE: &str = "node.key";

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("the {what} is not PEM: {source}")]
    Pem { what: &'static str, source: rustls::pki_types::pem::Error },
    #[error("there is no {0}")]
    Missing(&'static str),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the certificate is made out to node {found}, not to node {wanted}")]
    OtherNode { wanted: NodeId, found: NodeId },
    #[error("TLS does not take these credentials: {0}")]
    Tls(#[from] Error),
    #[error("no authority of ours signed the certificate, or it is not valid now")]
    Untrusted,
}

/// Both TLS configurations of one node.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) server: Arc<QuicServerConfig>,
    pub(crate) client: Arc<QuicClientConfig>,
}

impl Credentials {
    /// Reads `ca.pem` (one authority, or several while they change), `node.pem` and `node.key`.
    pub fn read(cluster: ClusterId, node: NodeId, folder: &Path) -> Result<Credentials, CredentialsError> {
        let text = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|source| CredentialsError::File { path, source })
        };
        Credentials::from_pem(cluster, node, &text(AUTHORITY_FILE)?, &text(CERTIFICATE_FILE)?, &text(KEY_FILE)?)
    }

    /// Credentials from PEM texts; they are checked as the other nodes will check them.
    pub fn from_pem(
        cluster: ClusterId,
        node: NodeId,
        authorities: &[u8],
        certificate: &[u8],
        key: &[u8],
    ) -> Result<Credentials, CredentialsError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates("authority", authorities)? {
            roots.add(authority)?;
        }
        let chain = certificates("certificate", certificate)?;
        let own = chain.first().ok_or(CredentialsError::Missing("certificate"))?;
        let found = node_of_certificate(cluster, own)?;
        if found != node {
            return Err(CredentialsError::OtherNode { wanted: node, found });
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|source| CredentialsError::Pem { what: "private key", source })?;

        let provider = provider();
        let roots = Arc::new(roots);
        let inner = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| CredentialsError::Tls(Error::General(error.to_string())))?;
        inner
            .verify_client_cert(own, chain.get(1..).unwrap_or_default(), UnixTime::now())
            .map_err(|_| CredentialsError::Untrusted)?;

        let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(ClusterVerifier { inner, cluster }))
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.alpn_protocols = vec![PROTOCOL_NAME.to_vec()];
        server.max_early_data_size = 0;
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});

        // The name that is asked for says cluster and node, so that the standard check of names is ours.
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        client.alpn_protocols = vec![PROTOCOL_NAME.to_vec()];
        client.enable_early_data = false;
        client.resumption = Resumption::disabled();

        let unfit = |_| CredentialsError::Missing("cipher suite for QUIC's first packets");
        Ok(Credentials {
            cluster,
            node,
            server: Arc::new(QuicServerConfig::try_from(server).map_err(unfit)?),
            client: Arc::new(QuicClientConfig::try_from(client).map_err(unfit)?),
        })
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|source| CredentialsError::Pem { what, source })?;
    if read.is_empty() { Err(CredentialsError::Missing(what)) } else { Ok(read) }
}

/// Both ends are ours: one cipher suite is enough, the one that every CPU we run on has instructions for, and that QUIC
/// wants for its first packets anyway.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// The usual check of a client's certificate, and then that it is made out to a node of our cluster: an authority may
/// have been used for two clusters.
#[derive(Debug)]
struct ClusterVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    cluster: ClusterId,
}

impl ClientCertVerifier for ClusterVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(own, intermediates, now)?;
        node_of_certificate(self.cluster, own)
            .map_err(|_| Error::InvalidCertificate(rustls::CertificateError::NotValidForName))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::certificate_name;
    use rcgen::{CertificateParams, Issuer, KeyPair};

    /// An authority that signs for two clusters: the callers of one must not come into the other.
    #[test]
    fn a_caller_of_another_cluster_is_refused_whoever_signed() {
        let issuer = Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(issuer.key()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
        let (ours, other) = (ClusterId([1; 16]), ClusterId([2; 16]));
        let verifier = ClusterVerifier { inner, cluster: ours };
        let verify = |names: Vec<String>| {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
            verifier.verify_client_cert(certificate.der(), &[], UnixTime::now())
        };
        let name = |cluster| certificate_name(cluster, NodeId(3));
        assert!(verify(vec![name(ours)]).is_ok());
        assert!(verify(vec![name(other)]).is_err());
        assert!(verify(vec![name(ours), name(other)]).is_err());
        assert!(verify(vec![]).is_err());
        assert!(verify(vec!["node.example".into()]).is_err());
    }
}

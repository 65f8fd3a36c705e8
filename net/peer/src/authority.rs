//! Makes the certificates of a cluster: its authority, and the nodes that the authority vouches for.
//!
//! Invariants: an authority signs for one cluster only, and says so in its own certificate (a name constraint would be
//! stronger, but not all verifiers know them); a node's certificate has exactly one name. Knows no files: `credentials`
//! reads what is made here.

use crate::identity::{ClusterId, NodeId, certificate_name};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::time::{Duration, SystemTime};

/// Clocks of nodes may differ: certificates are valid from this long ago.
const BACKDATED: Duration = Duration::from_secs(3600);

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("the key cannot be made or read: {0}")]
    Key(rcgen::Error),
    #[error("the certificate cannot be made: {0}")]
    Certificate(rcgen::Error),
}

/// A certificate and its key, as PEM texts.
#[derive(Clone)]
pub struct Issued {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// The authority of one cluster.
pub struct Authority {
    cluster: ClusterId,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority and what to keep of it.
    pub fn make(cluster: ClusterId, validity: Duration) -> Result<(Authority, Issued), AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Key)?;
        let params = authority_params(cluster, validity);
        let certificate = params.self_signed(&key).map_err(AuthorityError::Certificate)?;
        let issued = issued(&certificate, &key);
        Ok((Authority { cluster, issuer: Issuer::new(params, key) }, issued))
    }

    /// The authority that was made for this cluster with this key.
    pub fn from_key_pem(cluster: ClusterId, key_pem: &str) -> Result<Authority, AuthorityError> {
        let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::Key)?;
        // Signing needs the authority's name and key only; both are known without its certificate.
        let params = authority_params(cluster, Duration::ZERO);
        Ok(Authority { cluster, issuer: Issuer::new(params, key) })
    }

    /// A certificate for a node, with a new key. It is good for both ends of a connection.
    pub fn issue(&self, node: NodeId, validity: Duration) -> Result<Issued, AuthorityError> {
        let mut params =
            CertificateParams::new([certificate_name(self.cluster, node)]).map_err(AuthorityError::Certificate)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("tidemill node {node}"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + validity).into();
        self.sign(params)
    }

    /// A certificate that is no longer valid: tests want one.
    #[doc(hidden)]
    pub fn issue_expired(&self, node: NodeId) -> Result<Issued, AuthorityError> {
        let mut params =
            CertificateParams::new([certificate_name(self.cluster, node)]).map_err(AuthorityError::Certificate)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = SystemTime::now();
        params.not_before = (now - 2 * BACKDATED).into();
        params.not_after = (now - BACKDATED).into();
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Key)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(AuthorityError::Certificate)?;
        Ok(issued(&certificate, &key))
    }
}

fn authority_params(cluster: ClusterId, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("tidemill cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + validity).into();
    params
}

fn issued(certificate: &Certificate, key: &KeyPair) -> Issued {
    Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() }
}

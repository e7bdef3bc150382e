//! Certificates for one run of the tests: authorities that nobody else knows, and what they sign.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Result;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

/// An authority; who trusts it trusts what it signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its private key.
pub struct Identity {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    pub fn new(name: &str) -> Result<Self> {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        Ok(Self(CertifiedIssuer::self_signed(params, key)?))
    }

    /// A server that answers on 127.0.0.1 and to no name.
    pub fn server(&self) -> Result<Identity> {
        let mut params = named("broker");
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    pub fn client(&self, name: &str) -> Result<Identity> {
        let mut params = named(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Identity> {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(Identity { certificate, key })
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(fs::write(path, self.0.pem())?)
    }
}

impl Identity {
    pub fn write(&self, certificate: &Path, key: &Path) -> Result<()> {
        fs::write(certificate, self.certificate.pem())?;
        Ok(fs::write(key, self.key.serialize_pem())?)
    }

    /// Key and certificate in one file, as Kafka's key stores have them.
    pub fn write_store(&self, path: &Path) -> Result<()> {
        let store = self.key.serialize_pem() + &self.certificate.pem();
        Ok(fs::write(path, store)?)
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

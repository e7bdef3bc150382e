//! The certificates that SNS signs with, each fetched once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::Semaphore;
use url::Url;
use x509_parser::pem::parse_x509_pem;

use super::web::Web;
use super::{ANSWER_BYTES, SnsError};

/// Certificates kept; AWS changes a region's a few times a year.
const KEPT: usize = 16;

/// Fetched at a time: whoever reaches the webhook can name a file of the topic's host that is not there.
const FETCHED: usize = 4;

pub(super) struct Certificates {
    by_url: Mutex<HashMap<String, Arc<Certificate>>>,
    fetches: Semaphore,
}

/// What is used of a certificate.
#[derive(Debug)]
pub(super) struct Certificate {
    /// Seconds since 1970.
    not_before: i64,
    not_after: i64,
    /// RSA, PKCS #1, DER.
    pub(super) public_key: Vec<u8>,
}

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("it is not an X.509 certificate in PEM")]
    Unreadable,
    #[error("it is not valid now")]
    NotValidNow,
}

impl Default for Certificates {
    fn default() -> Self {
        Self {
            by_url: Mutex::default(),
            fetches: Semaphore::new(FETCHED),
        }
    }
}

impl Certificates {
    /// The certificate at a URL that was checked, if it is valid now.
    pub(super) async fn get(
        &self,
        url: &Url,
        now: Timestamp,
        web: &dyn Web,
    ) -> Result<Arc<Certificate>, SnsError> {
        let certificate = match self.known(url) {
            Some(certificate) => certificate,
            None => self.fetch(url, web).await?,
        };
        match certificate.is_valid(now) {
            true => Ok(certificate),
            false => Err(SnsError::Certificate(CertificateError::NotValidNow)),
        }
    }

    fn known(&self, url: &Url) -> Option<Arc<Certificate>> {
        let known = self.by_url.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(url.as_str()).cloned()
    }

    async fn fetch(&self, url: &Url, web: &dyn Web) -> Result<Arc<Certificate>, SnsError> {
        let _turn = self.fetches.try_acquire().map_err(|_| SnsError::Busy)?;
        let pem = web.get(url.clone(), ANSWER_BYTES).await;
        let certificate = Certificate::read(&pem.map_err(SnsError::Fetch)?);
        let certificate = Arc::new(certificate.map_err(SnsError::Certificate)?);
        let mut known = self.by_url.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(url.to_string(), Arc::clone(&certificate));
        Ok(certificate)
    }
}

impl Certificate {
    fn read(pem: &[u8]) -> Result<Self, CertificateError> {
        let (_, pem) = parse_x509_pem(pem).map_err(|_| CertificateError::Unreadable)?;
        let certificate = pem.parse_x509().map_err(|_| CertificateError::Unreadable)?;
        Ok(Self {
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
        })
    }

    fn is_valid(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now.as_second())
    }
}

//! Certificates and keys in PEM, named by where they come from. A key's bytes are in no message.

use rustls::{
    RootCertStore,
    client::verify_server_name,
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName,
        pem::{self, PemObject as _},
    },
    server::ParsedCertificate,
    sign::CertifiedKey,
};

use super::provider;

/// A text in PEM, and what messages call it: a file by its setting, or an entry of a Secret.
#[derive(Clone, Copy)]
pub struct Pem<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// The text.
    pub text: &'a [u8],
}

/// What is wrong with certificates or a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{name} cannot be read: {why}; put the file there, readable for this process")]
    File {
        /// The setting and its path.
        name: String,
        /// The system's reason.
        why: String,
    },
    /// It is no PEM.
    #[error("{name} is not PEM: {why}")]
    Pem {
        /// What it is.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// No certificate in it.
    #[error("{name} has no certificate in it: it has to have a BEGIN CERTIFICATE line")]
    NoCertificate {
        /// What it is.
        name: String,
    },
    /// No key in it.
    #[error("{name} has no private key in it: it has to have a BEGIN PRIVATE KEY line (PKCS#8, PKCS#1 or SEC1, not encrypted)")]
    NoKey {
        /// What it is.
        name: String,
    },
    /// A certificate that is none.
    #[error("{name} has a certificate in it that cannot be used: {why}")]
    Certificate {
        /// What it is.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Certificate and key are not of one pair.
    #[error("{certificate} and {key} do not belong together ({why}): put both of one pair there")]
    Pair {
        /// What the certificate is from.
        certificate: String,
        /// What the key is from.
        key: String,
        /// What is wrong with them.
        why: String,
    },
    /// The library refuses what it was given.
    #[error("TLS cannot be set up: {0}")]
    Library(#[source] rustls::Error),
}

/// Without what stands there: it may be a key.
fn wrong(name: &str, error: &pem::Error) -> TlsError {
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line does not end as one",
        pem::Error::Base64Decode(_) => "a section is not base64",
        pem::Error::SectionTooLarge => "a section is too long",
        _ => "it cannot be read",
    };
    TlsError::Pem { name: name.to_owned(), why: why.to_owned() }
}

fn certificates(pem: Pem<'_>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.text).collect();
    let found = found.map_err(|error| wrong(pem.name, &error))?;
    if found.is_empty() { Err(TlsError::NoCertificate { name: pem.name.to_owned() }) } else { Ok(found) }
}

/// The authorities of a bundle.
pub fn roots(pem: Pem<'_>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        let unusable = |error: rustls::Error| TlsError::Certificate { name: pem.name.to_owned(), why: error.to_string() };
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(roots)
}

/// Whether a certificate is for that DNS name.
pub fn is_for(own: &CertifiedKey, name: &str) -> bool {
    let certificate = own.end_entity_cert().and_then(ParsedCertificate::try_from);
    certificate
        .is_ok_and(|certificate| ServerName::try_from(name).is_ok_and(|name| verify_server_name(&certificate, &name).is_ok()))
}

/// A certificate with its chain, the leaf first, and its key. They are of one pair.
pub fn identity(certificate: Pem<'_>, key: Pem<'_>) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_slice(key.text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey { name: key.name.to_owned() },
        other => wrong(key.name, &other),
    })?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|error| TlsError::Pair {
        certificate: certificate.name.to_owned(),
        key: key.name.to_owned(),
        why: error.to_string(),
    })
}

//! TLS as every part of Sluice uses it: PEM, a stream that may be encrypted, and the side that dials.

mod pem;
mod stream;

use std::{io, sync::Arc};

use rustls::{
    ClientConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::ServerName,
    sign::SingleCertAndKey,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

pub use pem::{Pem, TlsError, identity, is_for, roots};
pub use stream::Stream;

/// The one provider of cryptography: what `main` has installed, and the same where nobody has.
pub fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()))
}

/// How one side dials another: whom it trusts, and who it is itself.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    name: Option<Arc<str>>,
}

impl ClientTls {
    /// Trusts certificates of those authorities, for the name or address that is dialled. `own`: certificate and key to show to who asks.
    pub fn new(authorities: Pem<'_>, own: Option<(Pem<'_>, Pem<'_>)>) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(TlsError::Library)?.with_root_certificates(roots(authorities)?);
        let mut config = match own {
            Some((certificate, key)) => {
                let own = identity(certificate, key)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
            }
            None => builder.with_no_client_auth(),
        };
        // A resumed session would not look at the peer's certificate again, and who dials here does so seldom.
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), name: None })
    }

    /// The same for a peer that is dialled by its address and whose certificate has that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self { config: self.config.clone(), name: Some(name.into()) }
    }

    /// Makes the handshake on a connection to `host`.
    pub async fn connect(&self, stream: TcpStream, host: &str) -> io::Result<Stream> {
        let name = self.name.as_deref().unwrap_or(host);
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` is no name a certificate could have")))?;
        let stream = TlsConnector::from(self.config.clone()).connect(server, stream).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
    }
}

/// Why a handshake or an encrypted connection failed, for people.
pub fn explain(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "it closed the connection".into();
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => "it does not speak TLS".into(),
        Some(rustls::Error::NoCertificatesPresented) => "it showed no certificate, which tls-auth-clients yes asks for".into(),
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired)) => {
            "it asks for a certificate, and was shown none".into()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;

//! TLS of this node: its certificate files, read at the start and again when they change, and what listeners and links make of them.

mod validity;

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};
use sluice_topology::tls::{ClientTls, Pem, Stream, TlsError, explain, identity, provider, roots};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};

/// What a TLS connection begins with: the type of a handshake record.
pub const FIRST_BYTE: u8 = 0x16;
/// Longest certificate or key file, in bytes.
const FILE_LEN_MAX: u64 = 1 << 20;
/// What who speaks in the clear where TLS is spoken is told, in the clear.
const PLAIN_REFUSED: &[u8] = b"-ERR this port speaks TLS: connect with it, as redis-cli --tls does\r\n";

/// Whether clients have to show a certificate, and peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They have to.
    Yes,
    /// They are not asked.
    No,
    /// They may; one that is shown has to be good.
    Optional,
}

/// What a node needs for TLS.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// Its certificate, and those between it and an authority.
    pub certificate: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
    /// The authorities of clients and peers.
    pub authorities: Option<PathBuf>,
    /// Whether clients and peers show certificates.
    pub clients: ClientAuth,
    /// For a handshake.
    pub handshake_timeout: Duration,
    /// Between looks at the files.
    pub reload_interval: Duration,
}

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer said nothing and went: a probe of the port.
    #[error("it went without a word")]
    Gone,
    /// The peer speaks in the clear.
    #[error("it does not speak TLS")]
    Plain,
    /// The peer did not go through with it in time.
    #[error("its TLS handshake was not done within {0} ms (tls-handshake-timeout-ms)")]
    Slow(u128),
    /// The handshake failed.
    #[error("its TLS handshake failed: {0}")]
    Failed(String),
}

/// What the files hold.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

/// What is made of them.
struct Loaded {
    contents: Contents,
    acceptor: TlsAcceptor,
    link: Option<ClientTls>,
    not_after: u64,
}

/// See the module's text.
pub struct Tls {
    options: TlsOptions,
    loaded: RwLock<Arc<Loaded>>,
    /// Why the files as they are now were not taken.
    refused: Mutex<Option<String>>,
    failed: AtomicU64,
}

impl Tls {
    /// Reads the files.
    pub fn load(options: TlsOptions) -> Result<Self, TlsError> {
        let loaded = make(&options, read(&options)?)?;
        note(&loaded, "TLS certificate read");
        Ok(Self { options, loaded: RwLock::new(Arc::new(loaded)), refused: Mutex::default(), failed: AtomicU64::new(0) })
    }

    fn loaded(&self) -> Arc<Loaded> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the certificate that is shown ends, in seconds since 1970.
    pub fn not_after(&self) -> u64 {
        self.loaded().not_after
    }

    /// Handshakes that failed.
    pub fn failed_handshakes(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether files were found that could not be taken, so that those before them are in use.
    pub fn reload_failed(&self) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What a peer is dialled with; `None` without authorities to know it by.
    pub fn link(&self) -> Option<ClientTls> {
        self.loaded().link.clone()
    }

    /// Makes the handshake with who connected, within its time.
    pub async fn accept(&self, stream: TcpStream) -> Result<Stream, HandshakeError> {
        let outcome = match timeout(self.options.handshake_timeout, self.handshake(stream)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(HandshakeError::Slow(self.options.handshake_timeout.as_millis())),
        };
        if matches!(outcome, Err(HandshakeError::Plain | HandshakeError::Slow(_) | HandshakeError::Failed(_))) {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    async fn handshake(&self, stream: TcpStream) -> Result<Stream, HandshakeError> {
        let failed = |error: io::Error| HandshakeError::Failed(explain(&error));
        let mut stream = Stream::Plain(stream);
        match (stream.first_byte().await.map_err(failed)?, stream) {
            (None, _) => Err(HandshakeError::Gone),
            (Some(FIRST_BYTE), Stream::Plain(stream)) => {
                let stream = self.loaded().acceptor.accept(stream).await.map_err(failed)?;
                Ok(Stream::Tls(Box::new(TlsStream::Server(stream))))
            }
            (Some(_), stream) => {
                // Who does not take it has been told as well as can be.
                let _ = stream.try_write(PLAIN_REFUSED);
                Err(HandshakeError::Plain)
            }
        }
    }

    /// Looks at the files for as long as the node lives.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.options.reload_interval).await;
            let tls = self.clone();
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }

    /// Takes the files in if they have changed and are whole. What is refused is said once.
    fn look(&self) {
        // Read twice: whoever replaces them does not replace all at one moment.
        let outcome = match (read(&self.options), read(&self.options)) {
            (Ok(first), Ok(second)) if first != second => return,
            (Ok(same), Ok(_)) if same == self.loaded().contents => Ok(None),
            (Ok(fresh), Ok(_)) => make(&self.options, fresh).map(Some),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(fresh) => {
                *refused = None;
                if let Some(loaded) = fresh {
                    note(&loaded, "TLS certificate read again: new connections get it");
                    *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                }
            }
            Err(error) => {
                let error = error.to_string();
                if refused.as_ref() != Some(&error) {
                    tracing::error!(error, "changed TLS files were not taken; those before them stay in use");
                    *refused = Some(error);
                }
            }
        }
    }
}

fn note(loaded: &Loaded, what: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if loaded.not_after < now {
        tracing::error!(not_after = loaded.not_after, "{what}; it has expired: who checks it will refuse it");
    } else {
        tracing::info!(not_after = loaded.not_after, days_left = (loaded.not_after - now) / 86_400, "{what}");
    }
}

fn named(setting: &str, path: &Path) -> String {
    format!("{setting} {}", path.display())
}

fn read(options: &TlsOptions) -> Result<Contents, TlsError> {
    let file = |setting: &str, path: &Path| {
        let failed = |why: String| TlsError::File { name: named(setting, path), why };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|error| failed(error.to_string()))?;
        file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
        if bytes.len() as u64 > FILE_LEN_MAX {
            return Err(failed(format!("it has more than {FILE_LEN_MAX} bytes")));
        }
        Ok(bytes)
    };
    Ok(Contents {
        certificate: file("tls-cert-file", &options.certificate)?,
        key: file("tls-key-file", &options.key)?,
        authorities: options.authorities.as_deref().map(|path| file("tls-ca-cert-file", path)).transpose()?,
    })
}

fn make(options: &TlsOptions, contents: Contents) -> Result<Loaded, TlsError> {
    let names = (named("tls-cert-file", &options.certificate), named("tls-key-file", &options.key));
    let (certificate, key) = (Pem { name: &names.0, text: &contents.certificate }, Pem { name: &names.1, text: &contents.key });
    let authorities_name = options.authorities.as_deref().map(|path| named("tls-ca-cert-file", path));
    let authorities = authorities_name.as_deref().zip(contents.authorities.as_deref()).map(|(name, text)| Pem { name, text });
    let own = identity(certificate, key)?;
    let not_after = own
        .cert
        .first()
        .and_then(|leaf| validity::not_after(leaf))
        .ok_or_else(|| TlsError::Certificate { name: names.0.clone(), why: "it does not say until when it is valid".into() })?;
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(TlsError::Library)?;
    let builder = match verifier(options.clients, authorities)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    let shown = (options.clients == ClientAuth::Yes).then_some((certificate, key));
    let link = authorities.map(|authorities| ClientTls::new(authorities, shown)).transpose()?;
    Ok(Loaded { acceptor: TlsAcceptor::from(Arc::new(config)), link, not_after, contents })
}

/// Who looks at the certificates of clients.
fn verifier(clients: ClientAuth, authorities: Option<Pem<'_>>) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(authorities) = authorities.filter(|_| clients != ClientAuth::No) else { return Ok(None) };
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authorities)?), provider());
    let builder = if clients == ClientAuth::Optional { builder.allow_unauthenticated() } else { builder };
    let unusable = |error: rustls::server::VerifierBuilderError| TlsError::Certificate {
        name: authorities.name.to_owned(),
        why: error.to_string(),
    };
    builder.build().map(Some).map_err(unusable)
}

#[cfg(test)]
mod tests;

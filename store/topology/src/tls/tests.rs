//! Both ends in one process: who is trusted, who is not, and why.

use std::{io, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, names: &[&str], until: i32) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

fn pem<'a>(name: &'a str, text: &'a str) -> Pem<'a> {
    Pem { name, text: text.as_bytes() }
}

/// Says hello to a server that shows that pair; what the client was told of the handshake, or what it was answered.
async fn hello(client: &ClientTls, (certificate, key): &(String, String), host: &str) -> Result<String, String> {
    let own = identity(pem("certificate", certificate), pem("key", key)).unwrap();
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        let mut word = [0; 5];
        stream.read_exact(&mut word).await?;
        stream.write_all(&word).await?;
        stream.shutdown().await
    });
    let outcome = async {
        let mut stream = client.connect(TcpStream::connect(address).await?, host).await?;
        stream.write_all(b"hello").await?;
        stream.flush().await?;
        assert_eq!(stream.first_byte().await?, Some(b'h'), "looked at and left there");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let outcome = outcome.await.map_err(|error: io::Error| explain(&error));
    let _ = server.await;
    outcome
}

#[tokio::test]
async fn a_peer_is_known_by_its_authority_its_name_and_its_time() {
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let trusted = authority.0.pem();
    let client = ClientTls::new(pem("authorities", &trusted), None).unwrap();
    let names = ["*.nodes.example", "127.0.0.1"];
    let good = authority.sign(&names, 2090);
    for (client, host) in [(&client, "a.nodes.example"), (&client, "127.0.0.1"), (&client.named("b.nodes.example"), "10.0.0.1")] {
        assert_eq!(hello(client, &good, host).await, Ok("hello".into()), "{host}");
    }
    for (pair, host, why) in [
        (&good, "a.b.nodes.example", "not valid for name"),
        (&good, "127.0.0.2", "not valid for name"),
        (&other.sign(&names, 2090), "a.nodes.example", "UnknownIssuer"),
        (&authority.sign(&names, 2021), "a.nodes.example", "expired"),
        (&good, "no name", "no name a certificate could have"),
    ] {
        let refused = hello(&client, pair, host).await.unwrap_err();
        assert!(refused.contains(why), "{host}: {refused}");
    }
    let own = identity(pem("certificate", &good.0), pem("key", &good.1)).unwrap();
    assert!(is_for(&own, "z.nodes.example") && !is_for(&own, "nodes.example") && !is_for(&own, "no name"));
}

#[tokio::test]
async fn who_does_not_speak_tls_is_named_so() {
    let authority = Authority::new("one");
    let client = ClientTls::new(pem("authorities", &authority.0.pem()), None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        stream.write_all(b"-ERR no such thing here\r\n").await?;
        // Until the other side has gone.
        stream.read_to_end(&mut Vec::new()).await
    });
    let error = client.connect(TcpStream::connect(address).await.unwrap(), "127.0.0.1").await.map(|_| ()).unwrap_err();
    assert_eq!(explain(&error), "it does not speak TLS");
}

#[test]
fn what_is_no_certificate_or_key_is_refused_by_its_name_and_never_shown() {
    let authority = Authority::new("one");
    let (one, other) = (authority.sign(&["one"], 2090), authority.sign(&["other"], 2090));
    let refused = |certificate: &str, key: &str| {
        identity(pem("tls-cert-file c.crt", certificate), pem("tls-key-file k.key", key)).map(|_| ()).unwrap_err().to_string()
    };
    let secret = "MHcCAQEEIsecretsecretsecret";
    let cut = &one.1[..one.1.len() / 2];
    let in_one_line = format!("-----BEGIN PRIVATE KEY-----{secret}-----END PRIVATE KEY-----");
    let not_base64 = format!("-----BEGIN PRIVATE KEY-----\n{secret}!!\n-----END PRIVATE KEY-----\n");
    for (certificate, key, expected) in [
        ("", one.1.as_str(), "tls-cert-file c.crt has no certificate in it"),
        (&one.1, &one.1, "tls-cert-file c.crt has no certificate in it"),
        (&one.0, "", "tls-key-file k.key has no private key in it"),
        (&one.0, &one.0, "tls-key-file k.key has no private key in it"),
        (&one.0, cut, "tls-key-file k.key is not PEM"),
        (&one.0, &in_one_line, "tls-key-file k.key"),
        (&one.0, &not_base64, "tls-key-file k.key is not PEM"),
        (&one.0, &other.1, "tls-cert-file c.crt and tls-key-file k.key do not belong together"),
    ] {
        let why = refused(certificate, key);
        assert!(why.contains(expected), "{why}");
        assert!(!why.contains(secret) && !why.contains("77, 72, 99"), "{why}");
    }
    assert!(roots(pem("tls-ca-cert-file a.crt", "nothing")).unwrap_err().to_string().contains("a.crt has no certificate"));
}

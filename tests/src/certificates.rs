//! Authorities and certificates, made for a test and good for nothing else.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use sluice_topology::tls::{ClientTls, Pem};

/// Who signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new one, which nobody trusts yet.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Its own certificate, by which it is known.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs a certificate for those names and addresses, good until the beginning of that year, for both ends of a connection.
    pub fn sign(&self, names: &[&str], until: i32) -> anyhow::Result<Pair> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Signs one for this machine's loopback that is good for long.
    pub fn for_loopback(&self) -> anyhow::Result<Pair> {
        self.sign(&["localhost", "127.0.0.1"], 2090)
    }
}

/// A folder of certificate files, as a mounted Secret is: the files are links through one link, which is what is replaced.
#[derive(Clone, Debug)]
pub struct Files {
    folder: PathBuf,
    /// What the settings that name the files are set to.
    paths: [(&'static str, String); 3],
}

impl Files {
    /// A folder with a pair and the certificates of authorities to trust.
    pub fn new(folder: &Path, pair: &Pair, trusted: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let path = |name: &str| folder.join(name).display().to_string();
        let paths = [("tls-cert-file", path("tls.crt")), ("tls-key-file", path("tls.key")), ("tls-ca-cert-file", path("ca.crt"))];
        let files = Self { folder: folder.to_owned(), paths };
        files.replace(pair, trusted)?;
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            std::os::unix::fs::symlink(Path::new("..data").join(name), folder.join(name))?;
        }
        Ok(files)
    }

    /// A folder with a pair that an authority signs for this machine's loopback, trusting that authority.
    pub fn of(folder: &Path, authority: &Authority) -> anyhow::Result<Self> {
        Self::new(folder, &authority.for_loopback()?, &authority.pem())
    }

    /// Another pair and other authorities, all at one moment.
    pub fn replace(&self, pair: &Pair, trusted: &str) -> anyhow::Result<()> {
        let fresh = tempfile::Builder::new().prefix("..").tempdir_in(&self.folder)?.keep();
        for (name, text) in [("tls.crt", pair.certificate.as_str()), ("tls.key", &pair.key), ("ca.crt", trusted)] {
            fs::write(fresh.join(name), text)?;
        }
        let link = self.folder.join("..data_tmp");
        std::os::unix::fs::symlink(fresh.file_name().unwrap_or_default(), &link)?;
        Ok(fs::rename(link, self.folder.join("..data"))?)
    }

    /// Where one of the files is.
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The settings that name them, and those.
    pub fn settings<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        self.paths.iter().map(|(name, path)| (*name, path.as_str())).chain(more.iter().copied()).collect()
    }
}

/// What dials, trusting the authorities of a file; with a certificate and a key where they are named.
pub fn client_tls(authorities: &str, own: Option<(&str, &str)>) -> anyhow::Result<ClientTls> {
    let read = |path: &str| fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")));
    let trusted = read(authorities)?;
    let own = own.map(|(certificate, key)| Ok::<_, io::Error>((read(certificate)?, read(key)?))).transpose()?;
    let own = own
        .as_ref()
        .map(|(certificate, key)| (Pem { name: "the certificate", text: certificate }, Pem { name: "its key", text: key }));
    Ok(ClientTls::new(Pem { name: "the authorities", text: &trusted }, own)?)
}

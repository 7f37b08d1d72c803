//! The certificates of a cluster, from the Secret that its spec names. Read anew each time: what is rotated is used from then on.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use sluice_topology::tls::{ClientTls, Pem, identity, is_for};

use crate::{
    api::{ClientAuth, SluiceCluster, TlsSpec},
    context::Context,
    error::Error,
    names::Names,
};

/// Keys of a Secret of type kubernetes.io/tls, as cert-manager writes it.
pub const CERTIFICATE: &str = "tls.crt";
/// Its private key.
pub const PRIVATE_KEY: &str = "tls.key";
/// The authorities that nodes and operator know each other by.
pub const AUTHORITIES: &str = "ca.crt";

/// What the operator speaks with the nodes of a cluster: `None` without `spec.tls`. The inner error says what the Secret lacks.
pub async fn client_tls(
    ctx: &Context,
    cluster: &SluiceCluster,
    names: &Names,
) -> Result<Result<Option<ClientTls>, String>, Error> {
    let Some(tls) = &cluster.spec.tls else { return Ok(Ok(None)) };
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &names.namespace);
    let name = &tls.secret_name;
    let secret = api.get_opt(name).await.map_err(Error::api(format!("reading Secret {name}")))?;
    let hosts = (0..u32::try_from(cluster.spec.shards).unwrap_or(0)).map(|shard| names.host(shard));
    Ok(from_secret(tls, secret.as_ref(), hosts).map(Some))
}

/// Pure. Whatever pods would not start with, or could not be reached with, is refused.
fn from_secret(tls: &TlsSpec, secret: Option<&Secret>, hosts: impl Iterator<Item = String>) -> Result<ClientTls, String> {
    let name = &tls.secret_name;
    let secret = secret.ok_or_else(|| {
        format!("spec.tls: there is no Secret {name}: make it, with {CERTIFICATE}, {PRIVATE_KEY} and {AUTHORITIES}")
    })?;
    let entry = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).filter(|bytes| !bytes.0.is_empty());
        let bytes = bytes.ok_or_else(|| format!("spec.tls: Secret {name} has no {key}"))?;
        Ok::<_, String>((format!("{key} of Secret {name}"), bytes.0.as_slice()))
    };
    let (certificate, key, authorities) = (entry(CERTIFICATE)?, entry(PRIVATE_KEY)?, entry(AUTHORITIES)?);
    let [certificate, key, authorities] = [&certificate, &key, &authorities].map(|(name, text)| Pem { name, text });
    let unusable = |error: sluice_topology::tls::TlsError| format!("spec.tls: {error}");
    let own = identity(certificate, key).map_err(unusable)?;
    for host in hosts {
        if !is_for(&own, &host) {
            let (_, domain) = host.split_once('.').unwrap_or_default();
            return Err(format!(
                "spec.tls: the certificate in Secret {name} is not for {host}, by which nodes know each other: have *.{domain} among its \
                 DNS names"
            ));
        }
    }
    let shown = (tls.client_auth == ClientAuth::Required).then_some((certificate, key));
    ClientTls::new(authorities, shown).map_err(unusable)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    fn data(names: &[&str]) -> BTreeMap<String, ByteString> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let entries = [(CERTIFICATE, certificate.pem()), (PRIVATE_KEY, key.serialize_pem()), (AUTHORITIES, issuer.pem())];
        entries.into_iter().map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes()))).collect()
    }

    fn judged(data: Option<BTreeMap<String, ByteString>>) -> Result<(), String> {
        let tls = TlsSpec { secret_name: "demo-tls".into(), client_auth: ClientAuth::Required };
        let secret = data.map(|data| Secret { data: Some(data), ..Secret::default() });
        let hosts = (0..2).map(|shard| format!("demo-{shard}-0.demo-nodes.ns.svc.cluster.local"));
        from_secret(&tls, secret.as_ref(), hosts).map(|_| ())
    }

    #[test]
    fn a_secret_is_taken_whole_or_the_message_says_what_it_lacks() {
        let good = data(&["*.demo-nodes.ns.svc.cluster.local"]);
        judged(Some(good.clone())).unwrap();
        assert!(judged(None).unwrap_err().contains("there is no Secret demo-tls"));
        for key in [CERTIFICATE, PRIVATE_KEY, AUTHORITIES] {
            for empty in [false, true] {
                let mut data = good.clone();
                data.remove(key);
                if empty {
                    data.insert(key.to_owned(), ByteString(Vec::new()));
                }
                let why = judged(Some(data)).unwrap_err();
                assert!(why.contains(&format!("Secret demo-tls has no {key}")), "{why}");
            }
        }
        let mut mixed = good.clone();
        mixed.insert(PRIVATE_KEY.to_owned(), data(&["x"])[PRIVATE_KEY].clone());
        let why = judged(Some(mixed)).unwrap_err();
        assert!(why.contains("tls.crt of Secret demo-tls and tls.key of Secret demo-tls do not belong together"), "{why}");
        let why = judged(Some(data(&["demo-0-0.demo-nodes.ns.svc.cluster.local"]))).unwrap_err();
        assert!(why.contains("not for demo-1-0.") && why.contains("*.demo-nodes.ns.svc.cluster.local"), "{why}");
    }
}

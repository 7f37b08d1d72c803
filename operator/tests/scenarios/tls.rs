//! A cluster that speaks TLS: the Secret of certificates, and the operator's own way to nodes.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, server::WebPkiClientVerifier, sign::SingleCertAndKey};
use serde_json::json;
use sluice_topology::tls::{Pem, identity, provider, roots};

use crate::world::World;

/// What cert-manager would write: a certificate of a new authority, for all nodes.
fn certificates() -> BTreeMap<String, String> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["*.demo-nodes.ns.svc.cluster.local".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let entries = [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", issuer.pem())];
    entries.map(|(name, text)| (name.to_owned(), text)).into()
}

/// Nodes that let nobody in who does not show a certificate of that authority.
fn mutual(certificates: &BTreeMap<String, String>) -> Arc<ServerConfig> {
    let pem = |name| Pem { name, text: certificates[name].as_bytes() };
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem("ca.crt")).unwrap()), provider());
    let own = identity(pem("tls.crt"), pem("tls.key")).unwrap();
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_client_cert_verifier(verifier.build().unwrap());
    Arc::new(builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own))))
}

fn put(world: &World, certificates: &BTreeMap<String, String>) {
    let data = certificates.iter().map(|(name, text)| (name.clone(), ByteString(text.clone().into_bytes()))).collect();
    let mut object = serde_json::to_value(Secret { data: Some(data), ..Secret::default() }).unwrap();
    object["metadata"] = json!({"name": "demo-tls"});
    world.api.lock().remove("secrets", "demo-tls");
    world.api.lock().create("secrets", object);
}

fn world() -> World {
    let world = World::new(2);
    world.change(|spec| spec["tls"] = json!({"secretName": "demo-tls", "clientAuth": "Required"}));
    world
}

#[tokio::test]
async fn without_its_certificates_a_cluster_is_not_made_and_says_which_part_is_missing() {
    let world = world();
    let whole = certificates();
    let lacks = |key: &str| {
        let mut part = whole.clone();
        part.remove(key);
        part
    };
    for (found, expected) in [
        (None, "there is no Secret demo-tls"),
        (Some(lacks("tls.crt")), "Secret demo-tls has no tls.crt"),
        (Some(lacks("tls.key")), "Secret demo-tls has no tls.key"),
        (Some(lacks("ca.crt")), "Secret demo-tls has no ca.crt"),
    ] {
        if let Some(found) = found {
            put(&world, &found);
        }
        world.reconcile().await.unwrap();
        let (status, reason, message) = world.condition("Degraded");
        assert_eq!((status.as_str(), reason.as_str()), ("True", "TlsSecretUnusable"));
        assert!(message.contains(expected), "{message}");
        for resource in ["statefulsets", "configmaps", "services"] {
            assert!(world.api.lock().names(resource).is_empty(), "{resource} were made");
        }
    }
    // Nothing but the Secret was wrong.
    world.nodes.lock().tls = Some(mutual(&whole));
    put(&world, &whole);
    world.until("a settled cluster", World::is_settled).await;
    assert_eq!(world.condition("Degraded").0, "False");
}

#[tokio::test]
async fn a_cluster_by_mutual_tls_is_made_scaled_and_goes_on_with_other_certificates() {
    let world = world();
    let first = certificates();
    world.nodes.lock().tls = Some(mutual(&first));
    put(&world, &first);
    world.until("a settled cluster", World::is_settled).await;
    // Moves are commanded by the same road.
    world.change(|spec| spec["shards"] = json!(3));
    for _ in 0..60 {
        world.round().await.unwrap();
        world.nodes.advance(2000);
    }
    assert!(world.is_settled() && world.owned().values().all(|slots| *slots > 4000), "{:?}: {:#}", world.owned(), world.status());
    // Another authority altogether, on both sides: no restart of anything.
    let second = certificates();
    world.nodes.lock().tls = Some(mutual(&second));
    world.reconcile().await.unwrap();
    assert!(!world.is("Available"), "nodes that are not to be trusted are not asked");
    put(&world, &second);
    world.clear_journal();
    world.until("the cluster to be reached again", World::is_settled).await;
    assert!(world.deletions("pods").is_empty());
    // What is put there instead and is not whole changes nothing, and is said.
    let mut mixed = second.clone();
    mixed.insert("tls.key".to_owned(), first["tls.key"].clone());
    put(&world, &mixed);
    world.reconcile().await.unwrap();
    assert!(world.condition("Degraded").2.contains("do not belong together"), "{:?}", world.condition("Degraded"));
    assert!(world.is("Available"));
}

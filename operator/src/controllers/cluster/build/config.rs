//! The store's configuration file.

use std::{collections::BTreeMap, fmt::Write as _};

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::Inputs;
use crate::{
    api::{SluiceClusterSpec, setting_name},
    controllers::tls::{AUTHORITIES, CERTIFICATE, PRIVATE_KEY},
    names::{ADMIN_PORT, CLIENT_PORT},
};

/// Where pods have the Secret of certificates.
pub(super) const TLS_FOLDER: &str = "/etc/sluice-tls";
/// Name of the file in its ConfigMap and in the pod's folder.
pub const CONFIG_FILE: &str = "sluice.conf";

/// The file's text: the operator's settings, then the user's, and where there is none of the user's the default, in order of name. Passwords
/// come by environment, never by file.
pub fn render(spec: &SluiceClusterSpec, defaults: &BTreeMap<String, String>) -> String {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" };
    let ports = match &spec.tls {
        None => format!("port {CLIENT_PORT}\n"),
        Some(tls) => format!(
            "port 0\ntls-port {CLIENT_PORT}\ntls-cluster yes\ntls-cert-file {TLS_FOLDER}/{CERTIFICATE}\n\
             tls-key-file {TLS_FOLDER}/{PRIVATE_KEY}\ntls-ca-cert-file {TLS_FOLDER}/{AUTHORITIES}\ntls-auth-clients {}\n",
            tls.client_auth.as_str(),
        ),
    };
    let mut text = format!(
        "# Written by sluice-operator; changes here are overwritten.\n\
         bind * -::*\n{ports}admin-bind * -::*\nadmin-port {ADMIN_PORT}\ndir /data\ncluster-enabled yes\n\
         protected-mode {}\nwal {}\nsync {}\n",
        yes_no(spec.auth.password_secret_ref.is_some()),
        yes_no(spec.durability.wal),
        spec.durability.sync.as_str(),
    );
    let mut settings = defaults.clone();
    // A setting has one name however it is written, and stands in the file once.
    settings.retain(|name, _| !spec.config.keys().any(|key| setting_name(key) == setting_name(name)));
    settings.extend(spec.config.clone());
    for (key, value) in &settings {
        let quoted = value.is_empty() || value.contains([' ', '"', '\'', '#']);
        let value = if quoted { format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")) } else { value.clone() };
        // Writing into a String does not fail.
        let _ = writeln!(text, "{key} {value}");
    }
    text
}

pub(super) fn config_map(inputs: &Inputs<'_>) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(inputs.names.config()),
            namespace: Some(inputs.names.namespace.clone()),
            labels: Some(inputs.names.labels()),
            owner_references: Some(vec![inputs.owner.clone()]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(CONFIG_FILE.to_owned(), render(inputs.spec, &inputs.defaults.settings))])),
        ..ConfigMap::default()
    }
}

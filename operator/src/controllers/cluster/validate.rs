//! What the schema cannot say, or what came past it.

use std::collections::BTreeMap;

use crate::api::{OWNED_SETTINGS, SluiceClusterSpec, parse_quantity, setting_name};
use crate::controllers::cluster::facts::Facts;

/// Longest value of a setting.
const VALUE_LEN_MAX: usize = 4096;

/// What is wrong with a spec; nothing of a wrong spec is carried out.
pub(super) fn validate(facts: &Facts) -> Result<(), String> {
    let spec = &facts.cluster.spec;
    if !(1..=1024).contains(&spec.shards) {
        return Err(format!("spec.shards is {}: it has to be 1 to 1024", spec.shards));
    }
    let size = parse_quantity(&spec.storage.size).map_err(|error| format!("spec.storage.size: {error}"))?;
    if size == 0 {
        return Err("spec.storage.size is 0".into());
    }
    let largest = facts
        .shards
        .values()
        .flat_map(|shard| &shard.volumes)
        .filter(|volume| volume.retired_node.is_none())
        .filter_map(|volume| Some((parse_quantity(&volume.size).ok()?, volume)))
        .max_by_key(|(size, _)| *size);
    if let Some((has, volume)) = largest.filter(|(has, _)| *has > size) {
        return Err(format!(
            "spec.storage.size is {}, volume {} has {} ({has} bytes): volumes never shrink, write the larger size",
            spec.storage.size, volume.name, volume.size
        ));
    }
    quantities(spec)?;
    check_settings("spec.config", &spec.config)
}

fn quantities(spec: &SluiceClusterSpec) -> Result<(), String> {
    let Some(resources) = &spec.resources else { return Ok(()) };
    for (kind, list) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        if let Some(memory) = list.get("memory") {
            parse_quantity(&memory.0).map_err(|error| format!("spec.resources.{kind}.memory: {error}"))?;
        }
    }
    Ok(())
}

/// Settings go into a file of `name value` lines: nothing in them may end a line or name what the operator owns.
pub fn check_settings(place: &str, config: &BTreeMap<String, String>) -> Result<(), String> {
    for (key, value) in config {
        let plain = !key.is_empty()
            && key.len() <= 128
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if !plain {
            return Err(format!("{place}: `{}` is not the name of a setting", key.escape_debug()));
        }
        if OWNED_SETTINGS.contains(&setting_name(key).as_str()) {
            return Err(format!(
                "{place}: {key} is set by the operator: use spec.durability, spec.auth and spec.tls, and leave out the rest"
            ));
        }
        if value.len() > VALUE_LEN_MAX || value.chars().any(char::is_control) {
            return Err(format!("{place}: {key} has a line break or is longer than {VALUE_LEN_MAX} bytes"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_cannot_smuggle_lines_or_what_the_operator_owns() {
        let check = |key: &str, value: &str| check_settings("spec.config", &[(key.to_owned(), value.to_owned())].into());
        assert_eq!(check("maxclients", "100"), Ok(()));
        assert_eq!(check("rocksdb.block_size", "16kb"), Ok(()));
        for (key, value) in [
            ("port", "1"),
            ("PORT", "1"),
            ("admin_password", "x"),
            ("requirepass", "x"),
            ("tls-port", "1"),
            ("TLS_Cluster", "no"),
            ("maxclients", "1\nrequirepass x"),
            ("max clients", "1"),
            ("", "1"),
            ("a\nport", "1"),
        ] {
            assert!(check(key, value).is_err(), "{key:?} {value:?}");
        }
    }
}

//! The chart, installed as a user installs it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::kubectl::run;

/// References of the three images, as `images/build` wrote them down.
#[derive(Clone, Debug)]
pub struct ImageReferences {
    /// The store.
    pub store: String,
    /// The operator.
    pub operator: String,
    /// The load client.
    pub load: String,
}

impl ImageReferences {
    /// Reads them. With SLUICE_IMAGE_PREFIX, for a cluster that pulls from a registry, that comes before each.
    pub fn built() -> anyhow::Result<Self> {
        let prefix =
            env::var("SLUICE_IMAGE_PREFIX").map(|prefix| format!("{}/", prefix.trim_end_matches('/'))).unwrap_or_default();
        let cache = cache_folder()?;
        let read = |name: &str| {
            let file = cache.join("images").join(format!("sluice-{name}.ref"));
            let text =
                fs::read_to_string(&file).with_context(|| format!("{} is not there: run `make images`", file.display()))?;
            anyhow::Ok(format!("{prefix}{}", text.trim()))
        };
        Ok(Self { store: read("store")?, operator: read("operator")?, load: read("load")? })
    }
}

/// Where build outputs live between checkouts: as in scripts/env.sh.
fn cache_folder() -> anyhow::Result<PathBuf> {
    if let Some(folder) = env::var_os("SLUICE_CACHE") {
        return Ok(folder.into());
    }
    if let Some(folder) = env::var_os("XDG_CACHE_HOME") {
        return Ok(Path::new(&folder).join("sluice"));
    }
    Ok(Path::new(&env::var_os("HOME").context("neither SLUICE_CACHE nor HOME is set")?).join(".cache/sluice"))
}

/// The operator's Helm release.
pub struct Release {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Release {
    /// Installs or upgrades it, and waits until the operator is ready. `settings` as in `helm --set`.
    pub fn install(images: &ImageReferences, settings: &[&str]) -> anyhow::Result<Self> {
        let release = Self { namespace: "sluice-system".into(), name: "sluice".into() };
        let chart = crate::repository("charts/sluice");
        let chart = chart.to_string_lossy();
        let part = |reference: &str| {
            let (repository, tag) = reference.rsplit_once(':').unwrap_or((reference, ""));
            (repository.to_owned(), tag.to_owned())
        };
        let (operator, operator_tag) = part(&images.operator);
        let (store, store_tag) = part(&images.store);
        let set = [
            format!("image.repository={operator}"),
            format!("image.tag={operator_tag}"),
            format!("store.image.repository={store}"),
            format!("store.image.tag={store_tag}"),
        ];
        let mut arguments = vec![
            "upgrade",
            "--install",
            &release.name,
            &chart,
            "--namespace",
            &release.namespace,
            "--create-namespace",
            "--wait",
            "--timeout",
            "180s",
        ];
        for setting in set.iter().map(String::as_str).chain(settings.iter().copied()) {
            arguments.extend(["--set", setting]);
        }
        run("helm", &arguments, None)?;
        Ok(release)
    }

    /// Removes it; its kinds, and every object of them, stay.
    pub fn uninstall(&self) -> anyhow::Result<()> {
        run(
            "helm",
            &["uninstall", &self.name, "--namespace", &self.namespace, "--ignore-not-found", "--wait", "--timeout", "120s"],
            None,
        )?;
        Ok(())
    }
}

/// Runs helm; for tests of the chart itself.
pub fn helm(arguments: &[&str]) -> anyhow::Result<String> {
    run("helm", arguments, None)
}

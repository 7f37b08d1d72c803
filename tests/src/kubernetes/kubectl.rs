//! kubectl as a subprocess, and namespaces that clean up after themselves.

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Runs kubectl; its output, or what it said was wrong.
pub fn kubectl(arguments: &[&str]) -> anyhow::Result<String> {
    run("kubectl", arguments, None)
}

/// Runs kubectl with something on its standard input.
pub fn kubectl_with_input(arguments: &[&str], input: &str) -> anyhow::Result<String> {
    run("kubectl", arguments, Some(input))
}

pub(super) fn run(program: &str, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| {
            format!("{program} cannot be run; `eval \"$(tests/kubernetes/harness/cluster env)\"` puts it on the path")
        })?;
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        pipe.write_all(input.as_bytes())?;
    }
    let Output { status, stdout, stderr } = child.wait_with_output()?;
    if !status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&stderr).trim());
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// An object, or nothing when it is not there. With an empty name, the list of the kind.
pub fn get(namespace: &str, kind: &str, name: &str) -> anyhow::Result<Option<Value>> {
    let mut arguments = vec!["-n", namespace, "get", kind, "-o", "json"];
    if !name.is_empty() {
        arguments.extend([name, "--ignore-not-found"]);
    }
    let text = kubectl(&arguments)?;
    if text.trim().is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&text)?)) }
}

/// GET of a path of the API server.
pub fn get_raw(path: &str) -> anyhow::Result<String> {
    kubectl(&["get", "--raw", path])
}

/// POST to a path of the API server, with nothing in it: a pod that answers without having read a body breaks the connection.
pub fn post_raw(path: &str) -> anyhow::Result<String> {
    kubectl_with_input(&["create", "--raw", path, "-f", "-"], "")
}

/// A namespace in which pods have to keep to PodSecurity `restricted`. Deleted when dropped, unless the thread panics: then
/// everything in it stays to be looked at.
pub struct Namespace {
    name: String,
    keep: bool,
}

impl Namespace {
    /// Makes it anew; what an earlier run left under this name goes first.
    pub fn fresh(name: &str) -> anyhow::Result<Self> {
        kubectl(&["delete", "namespace", name, "--ignore-not-found", "--wait=true", "--timeout=180s"])?;
        Self::existing_or_new(name)
    }

    /// Makes it if it is not there, and keeps it.
    pub fn existing_or_new(name: &str) -> anyhow::Result<Self> {
        let manifest = serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted", "sluice.dev/test": "true"}},
        });
        kubectl_with_input(&["apply", "-f", "-"], &manifest.to_string())?;
        Ok(Self { name: name.into(), keep: false })
    }

    /// Leaves it there.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What to look at when something in here went wrong: objects, events, what operator and stores logged last.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let name = self.name.as_str();
        let operator: [&str; 7] =
            ["-n", "sluice-system", "logs", "-l", "app.kubernetes.io/name=sluice-operator", "--tail=60", "--prefix"];
        let sections: [(&str, &[&str]); 6] = [
            ("clusters and migrations", &["-n", name, "get", "sluiceclusters,slotmigrations", "-o", "wide"]),
            ("status", &["-n", name, "get", "sluiceclusters", "-o", "yaml"]),
            ("pods and volumes", &["-n", name, "get", "pods,statefulsets,persistentvolumeclaims", "-o", "wide"]),
            ("events", &["-n", name, "get", "events", "--sort-by=.lastTimestamp"]),
            ("stores", &["-n", name, "logs", "-l", "app.kubernetes.io/name=sluice", "--tail=40", "--prefix", "--ignore-errors"]),
            ("operator", &operator),
        ];
        for (title, arguments) in sections {
            let body = kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
            let lines: Vec<&str> = body.lines().collect();
            let last = lines.iter().skip(lines.len().saturating_sub(120)).fold(String::new(), |text, line| text + line + "\n");
            // Writing into a String does not fail.
            let _ = write!(text, "--- {title}: kubectl {}\n{last}", arguments.join(" "));
        }
        text
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.keep || std::thread::panicking() {
            return;
        }
        if let Err(error) = kubectl(&["delete", "namespace", &self.name, "--wait=false"]) {
            eprintln!("namespace {} stays: {error:#}", self.name);
        }
    }
}

//! The monitoring parts of the chart: absent unless they are asked for, and then what their kinds allow and what they are to be of.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde::Deserialize as _;
use serde_json::{Value, json};
use sluice_tests::repository;

use super::chart::template;

/// Each part, and what switches it on.
const SWITCHES: [(&str, &str); 4] = [
    ("ServiceMonitor", "metrics.serviceMonitor.enabled=true"),
    ("PodMonitor", "monitoring.podMonitor.enabled=true"),
    ("PrometheusRule", "monitoring.rules.enabled=true"),
    ("ConfigMap", "monitoring.dashboard.enabled=true"),
];

/// What the chart renders.
fn rendered(settings: &[&str]) -> anyhow::Result<Vec<Value>> {
    let text = template(settings)?;
    let objects: Vec<Value> = serde_norway::Deserializer::from_str(&text).map(Value::deserialize).collect::<Result<_, _>>()?;
    Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
}

fn is_of(object: &Value, kind: &str) -> bool {
    object["kind"] == kind
}

fn kinds(objects: &[Value]) -> Vec<&str> {
    let parts = SWITCHES.map(|(kind, _)| kind);
    objects.iter().filter_map(|object| parts.into_iter().find(|kind| is_of(object, kind))).collect()
}

fn one<'o>(objects: &'o [Value], kind: &str) -> anyhow::Result<&'o Value> {
    let found: Vec<&Value> = objects.iter().filter(|object| is_of(object, kind)).collect();
    ensure!(found.len() == 1, "{} of kind {kind}", found.len());
    Ok(found[0])
}

fn file(name: &str) -> anyhow::Result<String> {
    Ok(fs::read_to_string(repository("charts/sluice/files/monitoring").join(name))?)
}

#[test]
fn monitoring_is_rendered_part_by_part_and_by_default_not_at_all() -> anyhow::Result<()> {
    ensure!(kinds(&rendered(&[])?).is_empty());
    for (kind, switch) in SWITCHES {
        let objects = rendered(&[switch])?;
        ensure!(kinds(&objects) == [kind], "{switch}: {:?}", kinds(&objects));
    }
    Ok(())
}

#[test]
fn monitoring_selects_what_is_there_and_carries_its_files_unchanged() -> anyhow::Result<()> {
    let labels = ["monitoring.podMonitor.labels.team=a", "monitoring.rules.labels.team=a", "watchNamespaces={x,y}"];
    let objects = rendered(&[&SWITCHES.map(|(_, switch)| switch)[..], &labels].concat())?;
    let at = |object: &Value, pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();

    let (service, monitor) = (one(&objects, "Service")?, one(&objects, "ServiceMonitor")?);
    let wanted = at(monitor, "/spec/selector/matchLabels");
    let selected = wanted.as_object().context("labels")?;
    ensure!(
        !selected.is_empty() && selected.iter().all(|(name, value)| service["metadata"]["labels"][name] == *value),
        "{monitor}"
    );
    ensure!(at(monitor, "/spec/endpoints/0/port") == at(service, "/spec/ports/0/name"), "{monitor}");

    // As the operator labels its pods and names their port.
    let pods = one(&objects, "PodMonitor")?;
    ensure!(
        at(pods, "/spec/selector/matchExpressions") == json!([{"key": "sluice.dev/cluster", "operator": "Exists"}]),
        "{pods}"
    );
    ensure!(at(pods, "/spec/namespaceSelector") == json!({"matchNames": ["x", "y"]}), "{pods}");
    ensure!(at(pods, "/spec/podMetricsEndpoints") == json!([{"port": "admin", "path": "/metrics", "interval": "30s"}]), "{pods}");
    ensure!(at(one(&rendered(&[SWITCHES[1].1])?, "PodMonitor")?, "/spec/namespaceSelector") == json!({"any": true}));

    let rules = one(&objects, "PrometheusRule")?;
    ensure!(rules["spec"] == serde_norway::from_str::<Value>(&file("alerts.yaml")?)?, "the rules are not the file's");
    ensure!(rules["metadata"]["labels"]["team"] == "a" && pods["metadata"]["labels"]["team"] == "a");
    let dashboard = one(&objects, "ConfigMap")?;
    ensure!(dashboard["metadata"]["labels"]["grafana_dashboard"] == "1", "{dashboard}");
    let text = at(dashboard, "/data/sluice-stores.json");
    let text = text.as_str().context("the dashboard")?;
    ensure!(serde_json::from_str::<Value>(text)? == serde_json::from_str::<Value>(&file("dashboard.json")?)?, "not the file's");
    Ok(())
}

#[test]
fn monitoring_is_what_the_prometheus_operators_own_types_allow() -> anyhow::Result<()> {
    let check = |objects: &Value| -> anyhow::Result<(bool, String)> {
        let mut reader = Command::new("go")
            .args(["run", "."])
            .current_dir(repository("tests/kubernetes/monitoring-kinds"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("Go is needed to read the kinds: `make setup` says where to get it")?;
        reader.stdin.take().context("its input")?.write_all(objects.to_string().as_bytes())?;
        let output = reader.wait_with_output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    };
    let objects = rendered(&SWITCHES.map(|(_, switch)| switch))?;
    let mut of_operator: Vec<Value> = ["ServiceMonitor", "PodMonitor", "PrometheusRule"]
        .into_iter()
        .map(|kind| one(&objects, kind).cloned())
        .collect::<anyhow::Result<_>>()?;
    let (good, said) = check(&json!(of_operator))?;
    ensure!(good && said.lines().count() == 3, "{said}");
    // It does look.
    of_operator[1]["spec"]["podMetricsEndpoints"][0]["intervall"] = json!("30s");
    let (good, said) = check(&json!(of_operator))?;
    ensure!(!good && said.contains("intervall"), "{said}");
    Ok(())
}

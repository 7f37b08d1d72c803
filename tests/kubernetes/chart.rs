//! The chart: what it renders, what it refuses, and what it gives the operator to do.

use std::fs;

use sluice_tests::kubernetes::{helm, kubectl};

use crate::images;

fn chart() -> String {
    sluice_tests::repository("charts/sluice").to_string_lossy().into_owned()
}

/// The rendered chart; settings as in `helm --set`.
pub(super) fn template(settings: &[&str]) -> anyhow::Result<String> {
    let chart = chart();
    let mut arguments = vec!["template", "release", &chart, "--namespace", "somewhere", "--kube-version", "1.34.0"];
    for setting in settings {
        arguments.extend(["--set", *setting]);
    }
    helm(&arguments)
}

#[test]
fn chart_passes_helms_own_checks_in_every_shape() {
    helm(&["lint", "--strict", &chart()]).unwrap();
    for settings in [
        &["replicas=3", "networkPolicy.enabled=true", "metrics.serviceMonitor.enabled=true"][..],
        &["watchNamespaces={a,b}", "crds.install=false", "monitoring.podMonitor.enabled=true"],
        &["monitoring.podMonitor.enabled=true", "monitoring.rules.enabled=true", "monitoring.dashboard.enabled=true"],
        &["serviceAccount.create=false", "serviceAccount.name=mine", "rbac.create=false"],
    ] {
        template(settings).unwrap();
    }
}

#[test]
fn chart_refuses_values_it_does_not_know() {
    for (setting, word) in
        [("relicas=2", "relicas"), ("replicas=0", "replicas"), ("watchNamespaces={Not_A_Namespace}", "watchNamespaces")]
    {
        let error = template(&[setting]).unwrap_err().to_string();
        assert!(error.contains(word), "{setting}: {error}");
    }
}

#[test]
fn chart_has_stores_traced_only_where_a_collector_is_named() {
    let text = template(&[]).unwrap();
    assert!(!text.contains("--store-setting"), "{text}");
    let text =
        template(&["monitoring.traces.endpoint=http://collector:4318", "monitoring.traces.samplePerMillion=1000000"]).unwrap();
    for argument in ["otlp-endpoint=http://collector:4318", "otlp-sample-per-million=1000000"] {
        assert!(text.contains(&format!("- --store-setting={argument}\n")), "{argument}: {text}");
    }
    for (setting, word) in [
        ("monitoring.traces.endpoint=https://collector:4318", "endpoint"),
        ("monitoring.traces.endpoint=collector:4318", "endpoint"),
        ("monitoring.traces.samplePerMillion=1000001", "samplePerMillion"),
    ] {
        let error = template(&[setting]).unwrap_err().to_string();
        assert!(error.contains(word), "{setting}: {error}");
    }
}

#[test]
fn chart_grants_no_wildcard_and_no_way_into_pods() {
    let text = template(&[]).unwrap();
    let rules: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("resources:") || line.contains("verbs:") || line.contains("apiGroups:"))
        .collect();
    assert!(rules.len() > 10, "no rules were rendered");
    for rule in rules {
        assert!(!rule.contains('*'), "a wildcard: {rule}");
        assert!(!rule.contains("pods/"), "a way into pods: {rule}");
    }
}

#[test]
fn chart_in_namespaced_mode_grants_nothing_elsewhere() {
    let text = template(&["watchNamespaces={a,b}"]).unwrap();
    assert!(!text.contains("kind: ClusterRole"), "{text}");
    assert!(text.contains("--namespaces=a,b"), "{text}");
}

#[test]
fn chart_carries_the_kinds_of_this_repository() {
    let text = template(&[]).unwrap();
    let folder = sluice_tests::repository("crds");
    let mut kinds = 0;
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(text.contains(&format!("name: {name}.sluice.dev")), "{name} is not in the chart");
        kinds += 1;
    }
    assert!(kinds >= 2);
    assert_eq!(text.matches("helm.sh/resource-policy: keep").count(), kinds);
    assert!(!template(&["crds.install=false"]).unwrap().contains("kind: CustomResourceDefinition"));
}

#[test]
fn operator_may_do_its_work_and_no_more() {
    images();
    let account = "--as=system:serviceaccount:sluice-system:sluice";
    let may = |verb: &str, resource: &str| {
        // `can-i` ends with 1 for a no.
        kubectl(&["auth", "can-i", verb, resource, "-n", "default", account]).is_ok_and(|answer| answer.trim() == "yes")
    };
    for (verb, resource) in [("patch", "sluiceclusters.sluice.dev/status"), ("create", "statefulsets.apps"), ("delete", "pods")] {
        assert!(may(verb, resource), "the operator may not {verb} {resource}");
    }
    for (verb, resource) in [
        ("create", "pods/exec"),
        ("create", "pods"),
        ("get", "nodes"),
        ("create", "clusterroles.rbac.authorization.k8s.io"),
        ("delete", "persistentvolumes"),
    ] {
        assert!(!may(verb, resource), "the operator may {verb} {resource}");
    }
}

//! The command line, as a new user meets it.

#![allow(clippy::expect_used, reason = "in a test it is how a failure is said")]

use std::process::Command;

fn store(arguments: &[&str]) -> (bool, String, String) {
    // Without what the environment of the tests says to a store.
    let environment = std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("SLUICE_"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-store"));
    let output = command.args(arguments).env_clear().envs(environment).output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn help_version_and_settings_are_printed() {
    for (argument, expected) in
        [("--help", "usage: sluice-store"), ("--version", "sluice-store 0."), ("--settings", "admin-port 7379")]
    {
        let (success, out, _) = store(&[argument]);
        assert!(success && out.contains(expected), "{argument}: {out}");
    }
}

#[test]
fn what_settings_prints_is_a_configuration_file() {
    let (_, printed, _) = store(&["--settings"]);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sluice.conf");
    std::fs::write(&path, printed + "\nport 70000\n").expect("written");
    let (success, _, error) = store(&[path.to_str().expect("UTF-8")]);
    // Every line before the last, wrong one was taken.
    assert!(!success && error.contains("`port` cannot be `70000`"), "{error}");
}

#[test]
fn a_wrong_key_is_refused_with_the_nearest_one() {
    let (success, _, error) = store(&["--max-client", "5"]);
    assert!(!success && error.contains("the nearest is `maxclients`"), "{error}");
}

#[test]
fn the_documentation_lists_the_settings_as_they_are() {
    let (_, printed, _) = store(&["--settings"]);
    // Asked for when it runs: a target folder that checkouts share may hold this test built for another one.
    let crate_root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs this test");
    let page = std::fs::read_to_string(format!("{crate_root}/../docs/configuration.md")).expect("docs/configuration.md");
    assert!(
        page.contains(printed.trim()),
        "docs/configuration.md differs from `sluice-store --settings`: paste its output there"
    );
}

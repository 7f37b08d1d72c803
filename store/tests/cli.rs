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
fn certificate_files_that_cannot_be_used_are_refused_at_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("UTF-8").to_owned();
    let pair = || rcgen::generate_simple_self_signed(vec!["node.example".to_owned()]).expect("a certificate");
    let (one, other) = (pair(), pair());
    let key = other.signing_key.serialize_pem();
    for (name, text) in [("tls.crt", one.cert.pem()), ("other.key", key.clone()), ("empty", String::new())] {
        std::fs::write(path(name), text).expect("written");
    }
    for (certificate, key_file, expected) in [
        ("none", "other.key", "cannot be read: No such file or directory (os error 2); put the file there"),
        ("empty", "other.key", "has no certificate in it"),
        ("tls.crt", "tls.crt", "has no private key in it"),
        ("tls.crt", "other.key", "do not belong together"),
    ] {
        let (certificate, key_file, data) = (path(certificate), path(key_file), path("data"));
        let arguments = ["--tls-port", "1", "--port", "0", "--tls-auth-clients", "no", "--dir", &data];
        let files = ["--tls-cert-file", certificate.as_str(), "--tls-key-file", key_file.as_str()];
        let (success, _, error) = store(&[arguments.as_slice(), files.as_slice()].concat());
        assert!(!success && error.contains(expected) && error.contains("tls-"), "{error}");
        let secret = key.lines().nth(1).expect("a line of the key");
        assert!(!error.contains(secret), "{error}");
    }
    let (success, _, error) = store(&["--tls-port", "6380"]);
    assert!(!success && error.contains("`tls-port 6380` and `tls-cert-file"), "{error}");
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

//! The files of a node: taken whole, or left with what was there before.

use std::fs;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;

fn pair(until: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec!["node.example".to_owned()]).unwrap();
    params.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn files_are_taken_when_they_are_whole_and_the_last_good_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let put = |certificate: &str, key: &str| {
        fs::write(path("tls.crt"), certificate).unwrap();
        fs::write(path("tls.key"), key).unwrap();
    };
    let options = TlsOptions {
        certificate: path("tls.crt"),
        key: path("tls.key"),
        authorities: None,
        clients: ClientAuth::No,
        handshake_timeout: Duration::from_secs(10),
        reload_interval: Duration::from_secs(10),
    };
    let missing = Tls::load(options.clone()).err().unwrap().to_string();
    assert!(missing.contains("tls-cert-file") && missing.contains("put the file there"), "{missing}");
    // As `date -u -d 2040-01-01 +%s` has it, and a year on.
    let ends = [2_208_988_800, 2_240_611_200];
    let (first, second) = (pair(2040), pair(2041));
    put(&first.0, &first.1);
    let tls = Tls::load(options).unwrap();
    assert_eq!((tls.not_after(), tls.reload_failed()), (ends[0], false));
    assert!(tls.link().is_none(), "a link needs authorities to know its peer by");
    for (certificate, key) in [(second.0.as_str(), first.1.as_str()), (&second.0, ""), ("", &second.1), ("", "")] {
        put(certificate, key);
        tls.look();
        assert_eq!((tls.not_after(), tls.reload_failed()), (ends[0], true));
    }
    put(&second.0, &second.1);
    tls.look();
    assert_eq!((tls.not_after(), tls.reload_failed()), (ends[1], false));
    fs::remove_file(path("tls.key")).unwrap();
    tls.look();
    assert_eq!((tls.not_after(), tls.reload_failed()), (ends[1], true));
    // What comes back as it was is what is in use: nothing to say any more.
    put(&second.0, &second.1);
    tls.look();
    assert!(!tls.reload_failed());
}

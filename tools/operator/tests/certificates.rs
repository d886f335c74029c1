//! Certificates of a private authority, as services read them.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use operator::certificates;
use service::tls::Identity;
use uuid::Uuid;

#[test]
fn each_gets_a_certificate_of_one_authority_which_stays() {
    let folder = std::env::temp_dir().join(format!("certificates-{}", Uuid::now_v7().simple()));
    let (names, hosts) =
        (["order", "servers"].map(str::to_owned), ["localhost", "127.0.0.1"].map(str::to_owned));
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    certificates::make(&folder, &names, &hosts).unwrap();
    let (authority, first) = (read("ca.crt"), read("order/tls.crt"));
    certificates::make(&folder, &names, &hosts).unwrap();
    assert_eq!(read("ca.crt"), authority);
    assert_ne!(read("order/tls.crt"), first);
    for name in &names {
        Identity::open(&folder.join(name)).unwrap();
        assert_eq!(read(&format!("{name}/ca.crt")), authority);
    }
    for key in ["ca.key", "order/tls.key"] {
        let mode = fs::metadata(folder.join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    fs::remove_dir_all(folder).unwrap();
}

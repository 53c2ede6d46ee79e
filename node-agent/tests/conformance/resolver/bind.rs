//! BIND: <https://bind9.readthedocs.io/en/v9.18.28/reference.html>.

use std::path::Path;

use crate::environment::SERVER;

/// Its `named.conf`. `max-records-per-type` is 100 otherwise.
pub fn settings(folder: &Path, zone: &Path) -> String {
    let ([four, six], folder, zone) = (SERVER, folder.display(), zone.display());
    format!(
        r#"
options {{
    directory "{folder}";
    managed-keys-directory "{folder}";
    pid-file none;
    session-keyfile none;
    lock-file none;
    listen-on {{ {four}; }};
    listen-on-v6 {{ {six}; }};
    allow-query {{ any; }};
    recursion yes;
    allow-recursion {{ any; }};
    dnssec-validation no;
    empty-zones-enable no;
    notify no;
    max-udp-size 4096;
    max-records-per-type 0;
}};
controls {{ }};
zone "test" {{ type primary; file "{zone}"; }};
"#
    )
}

//! Knot DNS: <https://www.knot-dns.cz/docs/3.2/html/reference.html>.

use std::path::Path;

/// Its `knot.conf`.
pub fn settings(addresses: &[&str], folder: &Path, zone: &Path) -> String {
    let (folder, zone) = (folder.display(), zone.display());
    format!(
        "
server:
    rundir: {folder}
    listen: [{}]
    udp-max-payload: 4096
database:
    storage: {folder}
log:
  - target: stderr
    any: warning
zone:
  - domain: test.
    file: {zone}
    zonefile-load: whole
    zonefile-sync: -1
    journal-content: none
    semantic-checks: off
",
        addresses.join(", ")
    )
}

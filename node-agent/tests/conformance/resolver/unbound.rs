//! Unbound: <https://unbound.docs.nlnetlabs.nl/en/latest/manpages/unbound.conf.html>.

use std::path::Path;

use super::UPSTREAM;
use crate::environment::SERVER;

/// Its `unbound.conf`. It has a local zone `test` of its own that says of every name that it does not exist.
pub fn settings(folder: &Path) -> String {
    let ([four, six], folder) = (SERVER, folder.display());
    format!(
        r#"
server:
    directory: "{folder}"
    chroot: ""
    username: ""
    pidfile: ""
    use-syslog: no
    interface: {four}
    interface: {six}
    access-control: 0.0.0.0/0 allow
    access-control: ::/0 allow
    module-config: "iterator"
    local-zone: "test." nodefault
    use-caps-for-id: yes
    max-udp-size: 4096
    edns-buffer-size: 4096
remote-control:
    control-enable: no
stub-zone:
    name: "test."
    stub-addr: {UPSTREAM}
"#
    )
}

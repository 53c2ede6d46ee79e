//! dnsmasq: <https://thekelleys.org.uk/dnsmasq/docs/dnsmasq-man.html>.

use super::UPSTREAM;
use crate::environment::SERVER;

/// Its `dnsmasq.conf`.
pub fn settings(records: &[String]) -> String {
    let [four, six] = SERVER;
    let head = format!(
        "
user=root
pid-file=
no-resolv
no-hosts
bind-interfaces
listen-address={four}
listen-address={six}
edns-packet-max=4096
server=/test/{UPSTREAM}
"
    );
    records.iter().filter_map(|record| local(record)).fold(head, |file, line| file + &line + "\n")
}

/// A record that dnsmasq can have itself: an address or an alias.
fn local(record: &str) -> Option<String> {
    let fields: Vec<_> = record.split_whitespace().collect();
    let &[name, ttl, _, kind, data] = fields.as_slice() else { return None };
    let (name, data) = (name.trim_end_matches('.'), data.trim_end_matches('.'));
    match kind {
        "A" | "AAAA" => Some(format!("host-record={name},{data},{ttl}")),
        "CNAME" => Some(format!("cname={name},{data},{ttl}")),
        _ => None,
    }
}

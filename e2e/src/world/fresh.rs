//! Names that exist without being set: everything below `fresh.test` has an address of its own.
//!
//! The labels before `fresh.test` say what the answer is:
//! - `n<INDEX>`: the index of the address, so that `n1234.fresh.test` is 198.18.68.210 and 2001:db8:18:1::4d2.
//!   Without it the index is a hash of the whole name.
//! - `ttl<SECONDS>`: the TTL, instead of 60 seconds.
//! - `many<COUNT>`: that many addresses, the index's and those that follow (at most 200).
//! - `cname<COUNT>`: that many CNAMEs come before the address (at most 8).

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// How many names have an IPv4 address of their own: 198.18.64.0 to 198.19.255.255.
pub const FRESH_NAMES: u32 = 0x1_C000;

const FIRST4: u32 = u32::from_be_bytes([198, 18, 64, 0]);
const TTL: u32 = 60;
const MAX_CNAMES: u32 = 8;
const MAX_ADDRESSES: u32 = 200;

/// The IPv4 address of the fresh name with this index; indices repeat after [`FRESH_NAMES`].
pub fn fresh_address4(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(FIRST4 + index % FRESH_NAMES)
}

/// The IPv6 address of the fresh name with this index.
pub fn fresh_address6(index: u32) -> Ipv6Addr {
    let [a, b, c, d] = index.to_be_bytes();
    Ipv6Addr::new(0x2001, 0xdb8, 0x18, 1, 0, 0, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// The records of `name`, if it is a fresh name: one of `qtype` (none if that is not A or AAAA), or a CNAME.
pub fn records(name: &Name, qtype: RecordType) -> Option<Vec<Record>> {
    let labels: Vec<String> =
        name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    let (rest, suffix) = labels.split_at_checked(labels.len().checked_sub(2)?)?;
    if suffix != ["fresh", "test"] || rest.is_empty() {
        return None;
    }
    let number = |key: &str| rest.iter().find_map(|label| label.strip_prefix(key)?.parse::<u32>().ok());
    let ttl = number("ttl").unwrap_or(TTL);
    if let Some(left) = number("cname").filter(|left| *left > 0) {
        let target = with_fewer_cnames(&labels, left.min(MAX_CNAMES) - 1)?;
        return Some(vec![Record::from_rdata(name.clone(), ttl, RData::CNAME(CNAME(target)))]);
    }
    let index = number("n").unwrap_or_else(|| fnv1a(labels.join(".").as_bytes()));
    let data = |index: u32| match qtype {
        RecordType::A => Some(RData::A(A(fresh_address4(index)))),
        RecordType::AAAA => Some(RData::AAAA(AAAA(fresh_address6(index)))),
        _ => None,
    };
    let indices = (0..number("many").unwrap_or(1).min(MAX_ADDRESSES)).map(|more| index.wrapping_add(more));
    Some(indices.filter_map(data).map(|data| Record::from_rdata(name.clone(), ttl, data)).collect())
}

fn with_fewer_cnames(labels: &[String], left: u32) -> Option<Name> {
    let labels = labels.iter().map(|label| match label.strip_prefix("cname") {
        Some(count) if count.parse::<u32>().is_ok() => format!("cname{left}"),
        _ => label.clone(),
    });
    let mut name = Name::from_labels(labels.map(String::into_bytes)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// FNV-1a, 32 bits: <http://www.isthe.com/chongo/tech/comp/fnv/>.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str, qtype: RecordType) -> Option<Vec<String>> {
        let records = records(&Name::from_ascii(name).unwrap(), qtype)?;
        Some(records.iter().map(|record| format!("{} {}", record.ttl, record.data)).collect())
    }

    #[test]
    fn an_index_gives_an_address_of_each_family() {
        assert_eq!(lookup("n1234.fresh.test.", RecordType::A).unwrap(), ["60 198.18.68.210"]);
        assert_eq!(lookup("N1234.Fresh.Test.", RecordType::AAAA).unwrap(), ["60 2001:db8:18:1::4d2"]);
        assert_eq!(fresh_address4(FRESH_NAMES - 1), Ipv4Addr::new(198, 19, 255, 255));
    }

    #[test]
    fn labels_control_the_ttl_and_the_chain() {
        assert_eq!(lookup("n1.ttl5.fresh.test.", RecordType::A).unwrap(), ["5 198.18.64.1"]);
        assert_eq!(lookup("n1.cname2.fresh.test.", RecordType::A).unwrap(), ["60 n1.cname1.fresh.test."]);
        assert_eq!(lookup("n1.cname1.fresh.test.", RecordType::A).unwrap(), ["60 n1.cname0.fresh.test."]);
        assert_eq!(lookup("n1.cname0.fresh.test.", RecordType::A).unwrap(), ["60 198.18.64.1"]);
    }

    #[test]
    fn a_name_may_have_many_addresses() {
        let two = ["60 198.18.64.5", "60 198.18.64.6"];
        assert_eq!(lookup("n5.many2.fresh.test.", RecordType::A).unwrap(), two);
        assert_eq!(lookup("n5.many2.fresh.test.", RecordType::MX).unwrap(), [""; 0]);
    }

    #[test]
    fn other_names_are_not_fresh() {
        assert_eq!(lookup("fresh.test.", RecordType::A), None);
        assert_eq!(lookup("n1.stale.test.", RecordType::A), None);
        assert_eq!(lookup("n1.fresh.test.", RecordType::MX).unwrap(), [""; 0]);
    }
}

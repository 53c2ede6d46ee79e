//! The names of the world: those that a test has set, and the fresh ones.

use std::collections::BTreeMap;

use hickory_proto::op::{Message, ResponseCode, UpdateMessage};
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};

use super::fresh;

const MAX_CHAIN: usize = 16;

/// Every record that was set. Names that have none are looked for among the fresh names, then as `*` of their
/// parents (RFC 1034, section 4.3.3); all others do not exist.
#[derive(Debug, Default)]
pub struct Zone {
    records: BTreeMap<LowerName, Vec<Record>>,
}

impl Zone {
    /// The answer to one question: the chain of CNAMEs and the records at its end.
    pub fn lookup(&self, qname: &Name, qtype: RecordType) -> (ResponseCode, Vec<Record>) {
        let mut answers = Vec::new();
        let mut name = qname.clone();
        for _ in 0..MAX_CHAIN {
            let Some(records) = self.records_of(&name, qtype) else {
                return (ResponseCode::NXDomain, answers);
            };
            let next = records.iter().find_map(|record| match &record.data {
                RData::CNAME(target) if qtype != RecordType::CNAME => Some(target.0.clone()),
                _ => None,
            });
            answers.extend(records);
            match next {
                Some(target) => name = target,
                None => break,
            }
        }
        (ResponseCode::NoError, answers)
    }

    /// Applies an update in the form of RFC 2136, section 2.5; prerequisites are ignored.
    pub fn update(&mut self, update: &Message) {
        for record in update.updates() {
            let name = LowerName::new(&record.name);
            let type_ = record.record_type();
            match record.dns_class {
                DNSClass::ANY if type_ == RecordType::ANY => drop(self.records.remove(&name)),
                DNSClass::ANY => {
                    if let Some(records) = self.records.get_mut(&name) {
                        records.retain(|known| known.record_type() != type_);
                    }
                }
                _ => self.records.entry(name).or_default().push(record.clone()),
            }
        }
        self.records.retain(|_, records| !records.is_empty());
    }

    /// The records of one name that answer `qtype`: of that type, or its CNAME. None: there is no such name.
    fn records_of(&self, name: &Name, qtype: RecordType) -> Option<Vec<Record>> {
        let answers = |owner: &LowerName| {
            let records = self.records.get(owner)?.iter();
            Some(
                records
                    .filter(|record| [qtype, RecordType::CNAME].contains(&record.record_type()))
                    .map(|record| Record::from_rdata(name.clone(), record.ttl, record.data.clone()))
                    .collect(),
            )
        };
        let mut wildcard = LowerName::new(name);
        answers(&wildcard).or_else(|| fresh::records(name, qtype)).or_else(|| {
            while !wildcard.is_root() {
                let parent = wildcard.base_name();
                let starred = Name::from(parent.clone()).prepend_label("*").ok()?;
                if let found @ Some(_) = answers(&LowerName::new(&starred)) {
                    return found;
                }
                wildcard = parent;
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{load_message, rrset_message};
    use super::*;

    fn zone(text: &str) -> Zone {
        let mut zone = Zone::default();
        zone.update(&load_message(text).unwrap());
        zone
    }

    fn lookup(zone: &Zone, name: &str, qtype: RecordType) -> (ResponseCode, Vec<String>) {
        let (code, records) = zone.lookup(&Name::from_ascii(name).unwrap(), qtype);
        (code, records.iter().map(|record| format!("{} {}", record.name, record.data)).collect())
    }

    #[test]
    fn answers_what_was_set_in_any_case_of_letters() {
        let zone = zone("api.shop.test. 30 IN A 198.18.0.80\napi.shop.test. 30 IN AAAA 2001:db8:18::80\n");
        assert_eq!(lookup(&zone, "API.shop.test.", RecordType::A).1, ["API.shop.test. 198.18.0.80"]);
        assert_eq!(lookup(&zone, "api.shop.test.", RecordType::MX), (ResponseCode::NoError, vec![]));
        assert_eq!(lookup(&zone, "web.shop.test.", RecordType::A), (ResponseCode::NXDomain, vec![]));
    }

    #[test]
    fn follows_chains_into_fresh_names_and_out_of_loops() {
        let zone = zone(
            "a.test. 30 IN CNAME b.test.\nb.test. 30 IN CNAME n1.fresh.test.\nl.test. 1 IN CNAME l.test.\n",
        );
        assert_eq!(
            lookup(&zone, "a.test.", RecordType::A).1,
            ["a.test. b.test.", "b.test. n1.fresh.test.", "n1.fresh.test. 198.18.64.1"]
        );
        assert_eq!(lookup(&zone, "l.test.", RecordType::A).1.len(), MAX_CHAIN);
        assert_eq!(lookup(&zone, "n1.cname3.fresh.test.", RecordType::AAAA).1.len(), 4);
    }

    #[test]
    fn wildcards_answer_for_any_depth() {
        let zone = zone("*.debian.test. 30 IN A 198.18.0.81\n");
        assert_eq!(lookup(&zone, "a.b.debian.test.", RecordType::A).1, ["a.b.debian.test. 198.18.0.81"]);
        assert_eq!(lookup(&zone, "debian.test.", RecordType::A).0, ResponseCode::NXDomain);
    }

    #[test]
    fn an_update_replaces_a_set_and_clears_a_name() {
        let mut zone = zone("a.test. 30 IN A 198.18.0.1\na.test. 30 IN AAAA 2001:db8:18::1\n");
        zone.update(&rrset_message("a.test", RecordType::A, 5, &["198.18.0.2", "198.18.0.3"]).unwrap());
        assert_eq!(lookup(&zone, "a.test.", RecordType::A).1, ["a.test. 198.18.0.2", "a.test. 198.18.0.3"]);
        assert_eq!(lookup(&zone, "a.test.", RecordType::AAAA).1.len(), 1);
        zone.update(&rrset_message("a.test", RecordType::ANY, 0, &[]).unwrap());
        assert_eq!(lookup(&zone, "a.test.", RecordType::A).0, ResponseCode::NXDomain);
    }
}

//! How answers come.

use super::Behaviour;
use crate::cell::fail;
use crate::client::{Client, Edns, Kind, Question};

const POLICY: &str = "{egress: [{to: [{domainNames: ['*.{zone}']}]}]}";
/// Nearly 4 KB: three packets of Ethernet.
const BIG: &str = "big.{zone}. 30 IN A {4:1..240}";

/// The rows.
pub const ROWS: &[Behaviour] = &[
    Behaviour {
        name: "EDNS: nearly 4,096 bytes over UDP, in fragments",
        policy: POLICY,
        records: BIG,
        check: |cell| cell.opens(Question::a("big.{zone}").edns(Edns::Large), "{4:1..240}"),
    },
    Behaviour {
        name: "the same in fragments of IPv6",
        policy: POLICY,
        records: BIG,
        check: |cell| {
            let question = Question { over_ipv6: true, ..Question::a("big.{zone}") };
            cell.opens(question.edns(Edns::Large), "{4:1..240}")
        },
    },
    Behaviour {
        name: "truncated over UDP, then whole over TCP",
        policy: POLICY,
        records: BIG,
        check: |cell| {
            cell.not_for(&[Client::MUSL], "musl 1.2.3 has no DNS over TCP")?;
            cell.not_for(&Client::OVER_TCP, "a column for TCP, where answers have any length")?;
            cell.opens(Question::a("big.{zone}"), "{4:1..240}")
        },
    },
    Behaviour {
        name: "DNS over TCP, one segment",
        policy: POLICY,
        records: "one.{zone}. 30 IN A {4:1}\ntwo.one.{zone}. 30 IN A {4:2}",
        check: |cell| {
            cell.opens(Question::a("one.{zone}").over_tcp(), "{4:1}")?;
            cell.denies(Question::a("two.one.{zone}").over_tcp(), "{4:2}")
        },
    },
    Behaviour {
        name: "DNS over TCP, many segments",
        policy: POLICY,
        records: BIG,
        check: |cell| cell.opens(Question::a("big.{zone}").over_tcp(), "{4:1..240}"),
    },
    Behaviour {
        name: "DNS over TCP, more than 4,096 bytes",
        policy: POLICY,
        records: "big.{zone}. 30 IN AAAA {6:1..240}",
        check: |cell| cell.opens(Question::new(Kind::Aaaa, "big.{zone}").over_tcp(), "{6:1..240}"),
    },
    Behaviour {
        name: "several questions on one TCP connection",
        policy: POLICY,
        records: "one.{zone}. 30 IN A {4:1}\none.{zone}. 30 IN AAAA {6:1}
two.{zone}. 30 IN A {4:2}\nthree.{zone}. 30 IN A {4:3}",
        check: |cell| {
            cell.not_for(&[Client::GO], "Go makes a connection for each question")?;
            let before = cell.environment.accepted();
            let mut connections = 1;
            if Client::STUBS.contains(&cell.client) {
                // glibc sends both at once.
                cell.opens(Question::new(Kind::Both, "one.{zone}").over_tcp(), "{4:1} {6:1}")?;
                connections += 2;
            } else {
                let names = ["one.{zone}", "two.{zone}", "three.{zone}"].map(str::to_owned).to_vec();
                cell.opens(Question { names, ..Question::a("").over_tcp() }, "{4:1} {4:2} {4:3}")?;
                connections += 3;
            }
            match cell.environment.accepted() - before {
                count if count == connections => Ok(()),
                count => fail(format!("{count} connections, not {connections}")),
            }
        },
    },
    Behaviour {
        name: "a resolver over IPv6",
        policy: POLICY,
        records: "one.{zone}. 30 IN A {4:1}\ntwo.one.{zone}. 30 IN A {4:2}",
        check: |cell| {
            let question = |name| Question { over_ipv6: true, ..Question::a(name) };
            cell.opens(question("one.{zone}"), "{4:1}")?;
            cell.denies(question("two.one.{zone}"), "{4:2}")
        },
    },
    Behaviour {
        name: "two resolvers in resolv.conf",
        policy: POLICY,
        records: "one.{zone}. 30 IN A {4:1}\none.{zone}. 30 IN AAAA {6:1}\ntwo.one.{zone}. 30 IN A {4:2}",
        check: |cell| {
            // musl asks both at the same time, by one socket, and takes the first answer.
            let question = |kind, name| Question { second_resolver: true, ..Question::new(kind, name) };
            cell.opens(question(Kind::Both, "one.{zone}"), "{4:1} {6:1}")?;
            cell.denies(question(Kind::A, "two.one.{zone}"), "{4:2}")
        },
    },
];

//! What an address that was learned opens, and for how long.

use std::time::{Duration, Instant};

use super::Behaviour;
use crate::client::{Client, Kind, Question};

/// The rows.
pub const ROWS: &[Behaviour] = &[
    Behaviour {
        name: "an expired TTL stops new connections, no live one",
        policy: "{egress: [{to: [{domainNames: ['short.{zone}']}]}]}",
        records: "short.{zone}. 5 IN A {4:1}",
        check: |cell| {
            cell.opens(Question::a("short.{zone}"), "{4:1}")?;
            cell.keeps_open("{4:1}", || {
                std::thread::sleep(Duration::from_secs(6));
                cell.is_denied("{4:1}")
            })
        },
    },
    Behaviour {
        name: "minTTL, maxTTL and ttlGrace bound every TTL",
        policy: "{dns: {minTTL: 1s, maxTTL: 1s, ttlGrace: 2s}, egress: [{to: [{domainNames: ['both.{zone}']}]}]}",
        records: "both.{zone}. 3600 IN A {4:1}\nboth.{zone}. 0 IN AAAA {6:1}",
        check: |cell| {
            let begun = Instant::now();
            cell.opens(Question::new(Kind::Both, "both.{zone}"), "{4:1} {6:1}")?;
            // A TTL of nothing and the grace would be over at two seconds.
            std::thread::sleep(Duration::from_millis(2050));
            let reached = cell.reaches("{4:1} {6:1}");
            // What took longer says nothing.
            if begun.elapsed() < Duration::from_secs(3) {
                reached?;
            }
            std::thread::sleep(Duration::from_millis(1100));
            cell.is_denied("{4:1} {6:1}")
        },
    },
    Behaviour {
        name: "an address that an unlisted name shares stays open",
        policy: "{egress: [{to: [{domainNames: ['listed.{zone}']}]}]}",
        records: "listed.{zone}. 30 IN A {4:1}\nunlisted.{zone}. 30 IN A {4:1}",
        check: |cell| {
            cell.denies(Question::a("unlisted.{zone}"), "{4:1}")?;
            cell.opens(Question::a("listed.{zone}"), "{4:1}")?;
            cell.opens(Question::a("unlisted.{zone}"), "{4:1}")
        },
    },
    Behaviour {
        name: "an allowed name opens nothing for a denied one",
        policy: "{egress: [{to: [{domainNames: ['*.{zone}']}]}, {action: Deny, to: [{domainNames: ['denied.{zone}']}]}]}",
        records: "allowed.{zone}. 30 IN A {4:1}\nshared.{zone}. 30 IN A {4:2}\ndenied.{zone}. 30 IN A {4:2}\ndenied.{zone}. 30 IN A {4:3}",
        check: |cell| {
            cell.opens(Question::a("allowed.{zone}"), "{4:1}")?;
            cell.opens(Question::a("shared.{zone}"), "{4:2}")?;
            cell.denies(Question::a("denied.{zone}"), "{4:2} {4:3}")?;
            cell.reaches("{4:1}")
        },
    },
    Behaviour {
        name: "refuseUnmatched: what no rule matches is refused at once",
        policy: "{dns: {refuseUnmatched: true}, egress: [{to: [{domainNames: ['listed.{zone}']}]}]}",
        records: "listed.{zone}. 30 IN A {4:1}\nunlisted.{zone}. 30 IN A {4:2}",
        check: |cell| {
            cell.not_for(&[Client::MUSL], "musl takes REFUSED for no answer and asks on; see the next row")?;
            cell.opens(Question::a("listed.{zone}"), "{4:1}")?;
            cell.refuses(Question::a("unlisted.{zone}"))
        },
    },
    Behaviour {
        name: "refusalCode: NXDOMAIN is an answer for everybody",
        policy: "{dns: {refuseUnmatched: true, refusalCode: NXDOMAIN}, egress: [{to: [{domainNames: ['listed.{zone}']}]}]}",
        records: "listed.{zone}. 30 IN A {4:1}\nunlisted.{zone}. 30 IN A {4:2}",
        check: |cell| {
            cell.opens(Question::a("listed.{zone}"), "{4:1}")?;
            cell.refuses(Question::a("unlisted.{zone}"))
        },
    },
];

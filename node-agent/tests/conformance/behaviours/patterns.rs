//! What a pattern matches.

use super::Behaviour;
use crate::client::Question;

/// The rows.
pub const ROWS: &[Behaviour] = &[
    Behaviour {
        name: "exact name",
        policy: "{egress: [{to: [{domainNames: ['api.{zone}']}]}]}",
        records: "api.{zone}. 30 IN A {4:1}\nother.{zone}. 30 IN A {4:2}\nwww.api.{zone}. 30 IN A {4:3}",
        check: |cell| {
            cell.opens(Question::a("api.{zone}"), "{4:1}")?;
            cell.denies(Question::a("other.{zone}"), "{4:2}")?;
            cell.denies(Question::a("www.api.{zone}"), "{4:3}")
        },
    },
    Behaviour {
        name: "*. is one label, not two",
        policy: "{egress: [{to: [{domainNames: ['*.{zone}']}]}]}",
        records: "one.{zone}. 30 IN A {4:1}\ntwo.one.{zone}. 30 IN A {4:2}\n{zone}. 30 IN A {4:3}",
        check: |cell| {
            cell.opens(Question::a("one.{zone}"), "{4:1}")?;
            cell.denies(Question::a("two.one.{zone}"), "{4:2}")?;
            cell.denies(Question::a("{zone}"), "{4:3}")
        },
    },
    Behaviour {
        name: "**. is one label or more",
        policy: "{egress: [{to: [{domainNames: ['**.{zone}']}]}]}",
        records: "one.{zone}. 30 IN A {4:1}\nthree.two.one.{zone}. 30 IN A {4:2}\n{zone}. 30 IN A {4:3}",
        check: |cell| {
            cell.opens(Question::a("one.{zone}"), "{4:1}")?;
            cell.opens(Question::a("three.two.one.{zone}"), "{4:2}")?;
            cell.denies(Question::a("{zone}"), "{4:3}")
        },
    },
    Behaviour {
        name: "* inside a label",
        policy: "{egress: [{to: [{domainNames: ['db-*-eu.{zone}']}]}]}",
        records: "db-7-eu.{zone}. 30 IN A {4:1}\ndb-7-us.{zone}. 30 IN A {4:2}\ndb-7.x-eu.{zone}. 30 IN A {4:3}",
        check: |cell| {
            cell.opens(Question::a("db-7-eu.{zone}"), "{4:1}")?;
            cell.denies(Question::a("db-7-us.{zone}"), "{4:2}")?;
            cell.denies(Question::a("db-7.x-eu.{zone}"), "{4:3}")
        },
    },
    Behaviour {
        name: "domainSuffixes",
        policy: "{egress: [{to: [{domainSuffixes: ['ome.{zone}']}]}]}",
        records: "home.{zone}. 30 IN A {4:1}\nwww.rome.{zone}. 30 IN A {4:2}\nhome.{zone}.evil.test. 30 IN A {4:3}",
        check: |cell| {
            cell.opens(Question::a("home.{zone}"), "{4:1}")?;
            cell.opens(Question::a("www.rome.{zone}"), "{4:2}")?;
            cell.denies(Question::a("home.{zone}.evil.test"), "{4:3}")
        },
    },
    Behaviour {
        name: "domainRegex, anchored",
        policy: r"{egress: [{to: [{domainRegex: ['(de|en)[.]wiki[0-9]+[.]{zone}']}]}]}",
        records: "de.wiki12.{zone}. 30 IN A {4:1}\nde.wiki.{zone}. 30 IN A {4:2}\nx.de.wiki1.{zone}. 30 IN A {4:3}\nde.wiki1.{zone}.evil.test. 30 IN A {4:4}",
        check: |cell| {
            cell.opens(Question::a("de.wiki12.{zone}"), "{4:1}")?;
            cell.denies(Question::a("de.wiki.{zone}"), "{4:2}")?;
            cell.denies(Question::a("x.de.wiki1.{zone}"), "{4:3}")?;
            cell.denies(Question::a("de.wiki1.{zone}.evil.test"), "{4:4}")
        },
    },
    Behaviour {
        name: "any case, mixed letters (0x20)",
        policy: "{egress: [{to: [{domainNames: ['Api.{zone}', 'x-*.{zone}']}]}]}",
        records: "api.{zone}. 30 IN A {4:1}\nx-ray.{zone}. 30 IN A {4:2}",
        check: |cell| {
            cell.opens(Question::a("aPI.{zone}"), "{4:1}")?;
            cell.opens(Question::a("X-rAy.{zone}"), "{4:2}")
        },
    },
    Behaviour {
        name: "final dot",
        policy: "{egress: [{to: [{domainNames: ['api.{zone}', 'www.{zone}.']}]}]}",
        records: "api.{zone}. 30 IN A {4:1}\nwww.{zone}. 30 IN A {4:2}",
        check: |cell| {
            cell.opens(Question::a("api.{zone}."), "{4:1}")?;
            cell.opens(Question::a("www.{zone}"), "{4:2}")
        },
    },
    Behaviour {
        name: "IDNA: U-labels in the Egg, A-labels asked",
        policy: "{egress: [{to: [{domainNames: ['bücher.{zone}']}]}]}",
        records: "xn--bcher-kva.{zone}. 30 IN A {4:1}\nxn--bcher-kvb.{zone}. 30 IN A {4:2}",
        check: |cell| {
            cell.opens(Question::a("xn--bcher-kva.{zone}"), "{4:1}")?;
            cell.denies(Question::a("xn--bcher-kvb.{zone}"), "{4:2}")
        },
    },
    Behaviour {
        name: "IDNA: U-labels asked",
        policy: "{egress: [{to: [{domainNames: ['*.bücher.{zone}']}]}]}",
        records: "www.xn--bcher-kva.{zone}. 30 IN A {4:1}",
        check: |cell| cell.opens(Question { idna: true, ..Question::a("www.bücher.{zone}") }, "{4:1}"),
    },
];

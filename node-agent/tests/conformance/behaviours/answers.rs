//! What an answer may look like.

use super::{Behaviour, SEARCH};
use crate::client::{Client, Edns, Kind, Question};
use crate::resolver::Resolver;

/// The rows.
pub const ROWS: &[Behaviour] = &[
    Behaviour {
        name: "A and AAAA",
        policy: "{egress: [{to: [{domainNames: ['api.{zone}']}]}]}",
        records: "api.{zone}. 30 IN A {4:1}\napi.{zone}. 30 IN AAAA {6:1}",
        check: |cell| {
            cell.is_denied("{4:1} {6:1}")?;
            cell.opens(Question::a("api.{zone}"), "{4:1}")?;
            cell.is_denied("{6:1}")?;
            cell.opens(Question::new(Kind::Aaaa, "api.{zone}"), "{6:1}")
        },
    },
    Behaviour {
        name: "A and AAAA asked in parallel",
        policy: "{egress: [{to: [{domainNames: ['api.{zone}']}]}]}",
        records: "api.{zone}. 30 IN A {4:1}\napi.{zone}. 30 IN AAAA {6:1}",
        check: |cell| cell.opens(Question::new(Kind::Both, "api.{zone}"), "{4:1} {6:1}"),
    },
    Behaviour {
        name: "8 CNAMEs in a row",
        policy: "{egress: [{to: [{domainNames: ['a8.{zone}']}]}]}",
        records: "a8.{zone}. 30 IN CNAME a7.{zone}.
a7.{zone}. 30 IN CNAME a6.{zone}.
a6.{zone}. 30 IN CNAME a5.{zone}.
a5.{zone}. 30 IN CNAME a4.{zone}.
a4.{zone}. 30 IN CNAME a3.{zone}.
a3.{zone}. 30 IN CNAME a2.{zone}.
a2.{zone}. 30 IN CNAME a1.{zone}.
a1.{zone}. 30 IN CNAME a0.{zone}.
a0.{zone}. 30 IN A {4:1}",
        check: |cell| {
            cell.not_with(Resolver::Knot, "knot follows 5 CNAMEs and leaves the rest to recursive resolvers")?;
            cell.opens(Question::a("a8.{zone}"), "{4:1}")
        },
    },
    Behaviour {
        name: "DNAME",
        policy: "{egress: [{to: [{domainNames: ['api.old.{zone}']}]}]}",
        records: "old.{zone}. 30 IN DNAME new.{zone}.\napi.new.{zone}. 30 IN A {4:1}\nwww.new.{zone}. 30 IN A {4:2}",
        check: |cell| {
            cell.opens(Question::a("api.old.{zone}"), "{4:1}")?;
            cell.denies(Question::a("www.old.{zone}"), "{4:2}")
        },
    },
    Behaviour {
        name: "question unmatched, its CNAME allowed",
        policy: "{egress: [{to: [{domainNames: ['api.{zone}']}]}]}",
        records: "api.{zone}. 30 IN A {4:1}
api.{zone}.svc.{zone}. 30 IN CNAME api.{zone}.
www.{zone}. 30 IN A {4:2}
www.{zone}.svc.{zone}. 30 IN CNAME www.{zone}.",
        check: |cell| {
            cell.opens(Question::a("api.{zone}.svc.{zone}"), "{4:1}")?;
            cell.denies(Question::a("www.{zone}.svc.{zone}"), "{4:2}")
        },
    },
    Behaviour {
        name: "the same, and on from there by more CNAMEs",
        policy: "{egress: [{to: [{domainNames: ['api.{zone}']}]}]}",
        records: "api.{zone}. 30 IN CNAME eu.api.cdn.{zone}.
eu.api.cdn.{zone}. 30 IN CNAME edge.cdn.{zone}.
edge.cdn.{zone}. 30 IN A {4:1..3}
api.{zone}.svc.{zone}. 30 IN CNAME api.{zone}.
www.{zone}.svc.{zone}. 30 IN CNAME www.{zone}.
www.{zone}. 30 IN CNAME www.cdn.{zone}.
www.cdn.{zone}. 30 IN A {4:4}",
        check: |cell| {
            cell.opens(Question::a("api.{zone}.svc.{zone}"), "{4:1..3}")?;
            cell.denies(Question::a("www.{zone}.svc.{zone}"), "{4:4}")
        },
    },
    Behaviour {
        name: "search list with ndots",
        policy: "{egress: [{to: [{domainNames: ['api.svc.b.{zone}']}]}]}",
        records: "api.svc.b.{zone}. 30 IN A {4:1}\nwww.svc.b.{zone}. 30 IN A {4:2}",
        check: |cell| {
            let search = Some(SEARCH.to_owned());
            cell.opens(Question { search: search.clone(), ..Question::a("api.svc") }, "{4:1}")?;
            cell.denies(Question { search, ..Question::a("www.svc") }, "{4:2}")
        },
    },
    Behaviour {
        name: "search list with refuseUnmatched",
        policy: "{dns: {refuseUnmatched: true}, egress: [{to: [{domainNames: ['api.svc.b.{zone}', 'img-*.b.{zone}']}]}]}",
        records: "api.svc.b.{zone}. 30 IN A {4:1}\nimg-1.b.{zone}. 30 IN A {4:2}",
        check: |cell| {
            let question = |name| Question { search: Some(SEARCH.to_owned()), ..Question::a(name) };
            cell.opens(question("api.svc"), "{4:1}")?;
            cell.opens(question("img-1"), "{4:2}")
        },
    },
    Behaviour {
        name: "address hints in HTTPS and SVCB",
        policy: "{egress: [{to: [{domainNames: ['*.{zone}']}]}]}",
        records: "web.{zone}. 30 IN HTTPS 1 . alpn=h2 ipv4hint={4:1},{4:2} ipv6hint={6:1}
dns.{zone}. 30 IN SVCB 1 . alpn=dot ipv4hint={4:3} ipv6hint={6:3}",
        check: |cell| {
            cell.opens(Question::new(Kind::Https, "web.{zone}"), "{4:1} {4:2} {6:1}")?;
            cell.opens(Question::new(Kind::Svcb, "dns.{zone}"), "{4:3} {6:3}")
        },
    },
    Behaviour {
        name: "60 records in one answer",
        policy: "{egress: [{to: [{domainNames: ['many.{zone}']}]}]}",
        records: "many.{zone}. 30 IN A {4:1..60}",
        check: |cell| {
            let question = Question::a("many.{zone}");
            if Client::OVER_TCP.contains(&cell.client) {
                return cell.opens(question, "{4:1..60}");
            }
            cell.opens(question.edns(Edns::Usual), "{4:1..60}")
        },
    },
    Behaviour {
        name: "long names, compressed",
        policy: "{egress: [{to: [{domainNames: ['a.this-label-is-as-long-as-a-label-may-be-and-so-the-name-is-long.{zone}']}]}]}",
        records: "a.this-label-is-as-long-as-a-label-may-be-and-so-the-name-is-long.{zone}. 30 IN CNAME b.this-label-is-as-long-as-a-label-may-be-and-so-the-name-is-long.{zone}.
b.this-label-is-as-long-as-a-label-may-be-and-so-the-name-is-long.{zone}. 30 IN CNAME c.b.this-label-is-as-long-as-a-label-may-be-and-so-the-name-is-long.{zone}.
c.b.this-label-is-as-long-as-a-label-may-be-and-so-the-name-is-long.{zone}. 30 IN A {4:1..9}",
        check: |cell| {
            // Written out, the names alone would pass the 512 bytes of an answer without EDNS.
            let name = "a.this-label-is-as-long-as-a-label-may-be-and-so-the-name-is-long.{zone}";
            cell.opens(Question::a(name), "{4:1..9}")
        },
    },
    Behaviour {
        name: "TTL 0",
        policy: "{egress: [{to: [{domainNames: ['zero.{zone}']}]}]}",
        records: "zero.{zone}. 0 IN A {4:1}",
        check: |cell| cell.opens(Question::a("zero.{zone}"), "{4:1}"),
    },
    Behaviour {
        name: "NXDOMAIN arrives and opens nothing",
        policy: "{egress: [{to: [{domainNames: ['*.{zone}']}]}]}",
        records: "other.{zone}. 30 IN A {4:1}",
        check: |cell| {
            cell.has_none(Question::a("missing.{zone}"))?;
            cell.is_denied("{4:1}")
        },
    },
    Behaviour {
        name: "NODATA arrives and opens nothing",
        policy: "{egress: [{to: [{domainNames: ['*.{zone}']}]}]}",
        records: "four.{zone}. 30 IN A {4:1}",
        check: |cell| {
            cell.has_none(Question::new(Kind::Aaaa, "four.{zone}"))?;
            cell.is_denied("{4:1}")
        },
    },
];

//! Names, learned from the answers of a real DNS server.

use l7egg_ebpf_common::abi::{Masks, NAME_HEAD, Name, NameTail};
use l7egg_node_agent::datapath::Datapath;

use crate::harness::{Pod, Setup, policy};

const ZONE: &str = "
api.shop.test. 30 IN A 198.18.20.1
api.shop.test. 30 IN AAAA 2001:db8:18:20::1
other.shop.test. 30 IN A 198.18.20.2
a.b.shop.test. 30 IN A 198.18.20.3
shop.test. 30 IN A 198.18.20.4
www.alias.test. 30 IN CNAME cdn.alias.test.
cdn.alias.test. 30 IN CNAME edge.far.test.
edge.far.test. 30 IN A 198.18.20.5
short.ttl.test. 1 IN A 198.18.20.6
five.ttl.test. 5 IN A 198.18.20.8
shared-one.test. 30 IN A 198.18.20.7
shared-two.test. 30 IN A 198.18.20.7
";

fn with_policy(yaml: &str) -> Setup {
    let setup = Setup::with_policy(yaml);
    setup.pod.set_names(ZONE);
    setup
}

#[test]
fn an_exact_name_in_both_families_and_no_other() {
    let setup = with_policy("{egress: [{to: [{domainNames: [api.shop.test]}], ports: [{port: 80}]}]}");
    let got = setup.pod.connect(&[
        "tcp4://api.shop.test:80",
        "tcp6://api.shop.test:80",
        "tcp://api.shop.test:443",
        "tcp://other.shop.test:80",
    ]);
    assert_eq!(got, ["ok", "ok", "denied", "denied"]);
}

#[test]
fn names_are_matched_in_any_case() {
    let setup = with_policy("{egress: [{to: [{domainNames: [API.Shop.Test]}]}]}");
    assert_eq!(setup.pod.connect(&["tcp4://aPi.sHOP.test:80"]), ["ok"]);
}

#[test]
fn one_label_and_one_or_more_labels() {
    let setup = with_policy(
        "{egress: [{to: [{domainNames: ['*.shop.test']}], ports: [{port: 80}]}, {to: [{domainNames: ['**.shop.test']}], ports: [{port: 443}]}]}",
    );
    let got = setup.pod.connect(&[
        "tcp4://api.shop.test:80",
        "tcp4://a.b.shop.test:80",
        "tcp4://shop.test:80",
        "tcp4://api.shop.test:443",
        "tcp4://a.b.shop.test:443",
        "tcp4://shop.test:443",
    ]);
    assert_eq!(got, ["ok", "denied", "denied", "ok", "ok", "denied"]);
}

#[test]
fn regular_expressions_partial_names_and_stars_inside_labels() {
    let setup = with_policy(
        "{egress: [{to: [{domainRegex: ['(api|other)[.]shop[.]test']}], ports: [{port: 80}]}, {to: [{domainSuffixes: [hop.test]}], ports: [{port: 443}]}, {to: [{domainNames: ['a*.shop.test']}], ports: [{port: 8000}]}]}",
    );
    let got = setup.pod.connect(&[
        "tcp4://api.shop.test:80",
        "tcp4://other.shop.test:80",
        "tcp4://a.b.shop.test:80",
        "tcp4://a.b.shop.test:443",
        "tcp4://shop.test:443",
        "tcp4://cdn.alias.test:443",
        "tcp4://api.shop.test:8000",
        "tcp4://other.shop.test:8000",
    ]);
    assert_eq!(got, ["ok", "ok", "denied", "ok", "ok", "denied", "ok", "denied"]);
}

#[test]
fn an_alias_that_leads_to_an_allowed_name() {
    let setup = with_policy("{egress: [{to: [{domainNames: [edge.far.test]}]}]}");
    // Nobody allows the question, but what it turns out to be.
    assert_eq!(setup.pod.connect_one("tcp4://www.alias.test:80"), "ok");
    // That is an alias itself: as if it had been asked for.
    let setup = with_policy("{egress: [{to: [{domainNames: [cdn.alias.test]}]}]}");
    assert_eq!(setup.pod.connect_one("tcp4://www.alias.test:80"), "ok");
}

#[test]
fn address_hints_of_https_records() {
    let setup = with_policy("{egress: [{to: [{domainNames: [svc.shop.test]}]}]}");
    setup.pod.set_names(
        "svc.shop.test. 30 IN HTTPS 1 . alpn=h2 ipv4hint=198.18.20.9 ipv6hint=2001:db8:18:20::9\n",
    );
    println!("{}", setup.pod.dig(&["@198.18.0.53", "svc.shop.test", "HTTPS"]));
    let got = setup.pod.connect(&["tcp://198.18.20.9:443", "tcp://[2001:db8:18:20::9]:443"]);
    assert_eq!(got, ["ok", "ok"]);
}

#[test]
fn an_address_is_no_name() {
    let setup = with_policy("{egress: [{to: [{domainNames: [api.shop.test]}]}]}");
    assert_eq!(setup.pod.connect_one("tcp://198.18.20.1:80"), "denied", "nobody has asked yet");
    assert_eq!(setup.pod.connect_one("tcp4://api.shop.test:80"), "ok");
    assert_eq!(setup.pod.connect_one("tcp://198.18.20.1:80"), "ok", "learned now");
}

#[test]
fn the_chain_of_aliases_is_covered() {
    let setup = with_policy("{egress: [{to: [{domainNames: [www.alias.test]}]}]}");
    let got = setup.pod.connect(&["tcp4://www.alias.test:80", "tcp4://edge.far.test:443"]);
    assert_eq!(got[0], "ok");
}

#[test]
fn what_a_pod_learned_belongs_to_it() {
    let mut setup = with_policy("{egress: [{to: [{domainNames: [api.shop.test]}]}]}");
    assert_eq!(setup.pod.connect_one("tcp4://api.shop.test:80"), "ok");
    let other = Pod::new();
    let same = policy("{egress: [{to: [{domainNames: [api.shop.test]}]}]}");
    setup.kernel.enforce(other.uid(), other.cgroup(), &same).expect("a second pod");
    assert_eq!(other.connect_one("tcp://198.18.20.1:80"), "denied");
    assert_eq!(setup.pod.connect_one("tcp://198.18.20.1:80"), "ok");
}

#[test]
fn a_stranger_is_not_believed() {
    // The same server under another address: its answers are as good, but the pod does not use it.
    let setup = with_policy(
        "{egress: [{to: [{domainNames: [api.shop.test]}]}, {to: [{cidr: 198.18.0.54/32}], ports: [{protocol: UDP, port: 53}]}]}",
    );
    let dig = |server: &str| setup.pod.dig(&[server, "api.shop.test"]);
    assert_eq!(dig("@198.18.0.54"), "198.18.20.1");
    assert_eq!(setup.pod.connect_one("tcp://198.18.20.1:80"), "denied");
    assert_eq!(dig("@198.18.0.53"), "198.18.20.1");
    assert_eq!(setup.pod.connect_one("tcp://198.18.20.1:80"), "ok");
}

#[test]
fn a_ttl_that_runs_out_stops_new_connections_and_no_live_one() {
    let setup = with_policy("{egress: [{to: [{domainNames: [five.ttl.test]}]}]}");
    let held = setup.pod.hold("tcp4://five.ttl.test:80");
    assert_eq!(setup.pod.connect_one("tcp://198.18.20.8:80"), "ok");
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!(setup.pod.connect_one("tcp://198.18.20.8:80"), "denied");
    assert_eq!(held.end()["outcome"], "ok");
}

#[test]
fn a_live_connection_outlives_its_ttl_and_a_change_of_policy_that_keeps_its_name() {
    let mut setup = with_policy("{egress: [{to: [{domainNames: [short.ttl.test, api.shop.test]}]}]}");
    let kept = setup.pod.hold("tcp4://short.ttl.test:80");
    let cut = setup.pod.hold("tcp4://api.shop.test:80");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    setup.enforce("{egress: [{to: [{domainNames: ['*.ttl.test']}]}]}");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(kept.end()["outcome"], "ok");
    assert_eq!(cut.end()["outcome"], "timeout");
}

#[test]
fn what_was_learned_is_judged_by_the_new_policy() {
    let mut setup = with_policy("{egress: [{to: [{domainNames: [api.shop.test]}], ports: [{port: 80}]}]}");
    assert_eq!(setup.pod.connect_one("tcp4://api.shop.test:80"), "ok");
    setup.enforce("{egress: [{to: [{domainNames: ['**.test']}], ports: [{port: 443}]}]}");
    // No new lookup: the address was learned under the old policy.
    let got = setup.pod.connect(&["tcp://198.18.20.1:443", "tcp://198.18.20.1:80"]);
    assert_eq!(got, ["ok", "denied"]);
}

#[test]
fn so_is_what_was_learned_by_a_long_name() {
    // Longer than one entry of the table of names, and than what that table's second half begins with.
    let long = format!("{0}.{0}.{0}.shop.test", "a".repeat(60));
    let mut setup = Setup::with_policy(&format!(
        "{{egress: [{{to: [{{domainNames: ['{long}', '*.{long}']}}], ports: [{{port: 80}}]}}]}}"
    ));
    setup.pod.set_names(&format!("{long}. 30 IN A 198.18.20.1\nb.{long}. 30 IN A 198.18.20.2\n"));
    let first = [format!("tcp4://{long}:80"), format!("tcp4://b.{long}:80")];
    assert_eq!(setup.pod.connect(&[first[0].as_str(), first[1].as_str()]), ["ok", "ok"]);
    setup.enforce(&format!("{{egress: [{{to: [{{domainNames: ['*.{long}']}}], ports: [{{port: 443}}]}}]}}"));
    let got = setup.pod.connect(&["tcp://198.18.20.1:443", "tcp://198.18.20.2:443", "tcp://198.18.20.2:80"]);
    assert_eq!(got, ["denied", "ok", "denied"]);
}

#[test]
fn a_denied_name_is_denied_at_an_address_that_it_shares() {
    let setup = with_policy(
        "{egress: [{to: [{domainNames: [shared-one.test]}]}, {action: Deny, to: [{domainNames: [shared-two.test]}]}]}",
    );
    assert_eq!(setup.pod.connect_one("tcp4://shared-one.test:80"), "ok");
    assert_eq!(setup.pod.connect_one("tcp4://shared-two.test:80"), "denied");
}

#[test]
fn fresh_names_never_lose_the_race() {
    let setup = with_policy("{egress: [{to: [{domainNames: ['*.fresh.test']}]}]}");
    let report = setup.pod.probe(&["race", "--count", "1000", "--pattern", "n{}.fresh.test"]).remove(0);
    println!("race: {report}");
    assert_eq!(report["connect_failures"], 0, "{report}");
    assert_eq!(report["resolve_failures"], 0, "{report}");
    assert_eq!(report["retried_syns"], 0, "{report}");
}

#[test]
fn nothing_passes_by_a_name_that_cannot_be_judged() {
    let policy = |port| {
        format!(
            "{{egress: [{{to: [{{cidr: 198.18.0.0/15}}], ports: [{{port: 80}}, {{port: {port}}}]}}, {{action: Deny, to: [{{domainNames: [api.shop.test]}}]}}]}}"
        )
    };
    let mut setup = with_policy(&policy(443));
    assert_eq!(setup.pod.connect_one("tcp4://api.shop.test:80"), "denied");
    // The name is lost, and the new policy has not judged it yet.
    let mut names = setup.names();
    let known: Vec<u64> = names.keys().collect::<Result<_, _>>().expect("the names");
    assert!(!known.is_empty());
    for name in known {
        names.remove(&name).expect("a name");
    }
    setup.enforce(&policy(8000));
    assert_eq!(setup.pod.connect(&["tcp://198.18.20.1:80", "tcp://198.18.20.2:80"]), ["denied", "ok"]);
}

#[test]
fn tails_without_a_name_are_collected_and_others_are_not() {
    let mut setup = Setup::new();
    // More names than are kept.
    let head =
        Name { asked_ns: 1, masks: Masks::NONE, policy: 0, len: 100, subject: 0, wire: [1; NAME_HEAD] };
    let newest = Name { asked_ns: u64::MAX, ..head };
    let (mut names, mut tails) = (setup.names(), setup.name_tails());
    for name in 1..=65_600 {
        names.insert(name, head, 0).expect("room for a name");
    }
    names.insert(70_000, newest, 0).expect("room for a name");
    for name in [70_000, 70_001] {
        tails.insert(name, NameTail { wire: [1; 192] }, 0).expect("room for a tail");
    }
    setup.kernel.collect().expect("to collect");
    let left: Vec<u64> = tails.keys().collect::<Result<_, _>>().expect("the tails");
    assert_eq!(left, [70_000]);
}

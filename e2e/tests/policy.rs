//! What an Egg's rules mean to real packets of real pods.

use std::fmt::Write;
use std::net::IpAddr;

use l7egg_e2e::cluster::{Expectation, Pod, PodPlan, Setting, blocked, eventually, reached};
use l7egg_e2e::probe::Outcome;
use l7egg_e2e::world::{RESOLVER4, RESOLVER6, fresh_address4, fresh_address6};

/// A zone in which every name has its own address of each family.
fn zone(names: &[&str]) -> String {
    let mut zone = String::new();
    for (number, name) in names.iter().enumerate() {
        let _ =
            writeln!(zone, "{name}. 30 IN A 198.18.1.{number}\n{name}. 30 IN AAAA 2001:db8:18::1:{number}");
    }
    zone
}

/// The same expectation over IPv4 and IPv6: `tcp://api.test:443` becomes `tcp4://…` and `tcp6://…`.
fn both(expectation: Expectation) -> [Expectation; 2] {
    ["4", "6"].map(|family| Expectation {
        target: expectation.target.replacen("://", &format!("{family}://"), 1),
        expect: expectation.expect,
    })
}

fn egg(name: &str, app: &str, egress: &str) -> String {
    format!(
        "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {{name: {name}}}
spec:
  podSelector: {{matchLabels: {{app: {app}}}}}
  egress: {egress}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn names() -> anyhow::Result<()> {
    let Some(test) = Setting::new("names").await? else { return Ok(()) };
    let name = |host: &str| test.name(host);
    let hosts = ["api", "other", "one", "a.one", "b.a.one", "deep", "a.deep", "b.a.deep"].map(name);
    let alias = name("alias.deep");
    test.world
        .set(&format!(
            "{}{alias}. 30 IN CNAME n70.cname2.fresh.test.",
            zone(&hosts.each_ref().map(String::as_str))
        ))
        .await?;
    let [node1, node2] = test.cluster.two_nodes();
    let [shop, shop6, free] = test
        .namespace
        .start_all([
            PodPlan::new("shop").label("app", "shop").on(node1),
            PodPlan::new("shop6").label("app", "shop").on(node2).nameserver(IpAddr::V6(RESOLVER6)),
            PodPlan::new("free").on(node1),
        ])
        .await?;
    let [api, other, one, a_one, b_a_one, deep, a_deep, b_a_deep] = &hosts;
    let rules = format!(
        "[{{to: [{{domainNames: [{api}, '*.{one}', '**.{deep}']}}], ports: [{{protocol: TCP, port: 443}}]}}]"
    );
    test.namespace.enforce(&egg("shop", "shop", &rules), 2).await?;
    let expected: Vec<Expectation> = [
        reached(format!("tcp://{api}:443")),
        reached(format!("tcp://{}:443", api.to_uppercase())),
        reached(format!("tcp://{api}.:443")),
        blocked(format!("tcp://{api}:80")),
        blocked(format!("udp://{api}:443")),
        blocked(format!("icmp://{api}")),
        blocked(format!("tcp://{other}:443")),
        blocked(format!("tcp://{one}:443")),
        reached(format!("tcp://{a_one}:443")),
        blocked(format!("tcp://{b_a_one}:443")),
        blocked(format!("tcp://{deep}:443")),
        reached(format!("tcp://{a_deep}:443")),
        reached(format!("tcp://{b_a_deep}:443")),
        reached(format!("tcp://{alias}:443")),
    ]
    .into_iter()
    .flat_map(both)
    .collect();
    let everything = hosts.iter().flat_map(|host| both(reached(format!("tcp://{host}:80")))).collect();
    test.namespace.verify(&[(&shop, expected.clone()), (&shop6, expected), (&free, everything)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_and_ports() -> anyhow::Result<()> {
    let Some(test) = Setting::new("networks").await? else { return Ok(()) };
    let [pod, free] =
        test.namespace.start_all([PodPlan::new("shop").label("app", "shop"), PodPlan::new("free")]).await?;
    let rules = "
  - to:
    - {cidr: 198.18.32.0/24, except: [198.18.32.128/25]}
    - {cidr: '2001:db8:18:2::/64', except: ['2001:db8:18:2:1::/80']}
    ports: [{protocol: TCP, port: 8000, endPort: 8100}, {protocol: UDP, port: 123}, {protocol: ICMP}]
  - to: [{cidr: 198.18.40.1/32}, {cidr: '2001:db8:18:3::1/128'}]
  - to: [{cidr: 198.18.40.2/32}, {cidr: '2001:db8:18:3::2/128'}]
    ports: [{port: 443}]";
    test.namespace.enforce(&egg("shop", "shop", rules), 1).await?;
    let mut expected = Vec::new();
    // The host that a rule names with ports, its except, its neighbour; the host with all ports; the one with 443.
    let v4 = ["198.18.32.1", "198.18.32.200", "198.18.33.1", "198.18.40.1", "198.18.40.2"];
    let v6 = [
        "[2001:db8:18:2::1]",
        "[2001:db8:18:2:1::1]",
        "[2001:db8:18:4::1]",
        "[2001:db8:18:3::1]",
        "[2001:db8:18:3::2]",
    ];
    for [host, except, neighbour, all, https] in [v4, v6] {
        expected.extend([8000, 8050, 8100].map(|port| reached(format!("tcp://{host}:{port}"))));
        expected.extend([7999, 8101, 443].map(|port| blocked(format!("tcp://{host}:{port}"))));
        expected.extend([reached(format!("udp://{host}:123")), blocked(format!("udp://{host}:8000"))]);
        expected.push(reached(format!("icmp://{host}")));
        for other in [except, neighbour] {
            expected.push(blocked(format!("tcp://{other}:8000")));
            expected.push(blocked(format!("udp://{other}:123")));
            expected.push(blocked(format!("icmp://{other}")));
        }
        expected.extend([9000, 80].map(|port| reached(format!("tcp://{all}:{port}"))));
        expected.extend([reached(format!("udp://{all}:9000")), reached(format!("icmp://{all}"))]);
        expected.extend([reached(format!("tcp://{https}:443")), blocked(format!("udp://{https}:443"))]);
        expected.push(blocked(format!("tcp://{https}:8000")));
    }
    let everything = expected.iter().map(|expectation| reached(expectation.target.clone())).collect();
    test.namespace.verify(&[(&pod, expected), (&free, everything)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn deny_beats_allow_and_eggs_add_up() -> anyhow::Result<()> {
    let Some(test) = Setting::new("union").await? else { return Ok(()) };
    let pod = test.namespace.start(PodPlan::new("shop").label("app", "shop")).await?;
    let first = "
  - to: [{cidr: 198.18.0.0/16}, {cidr: '2001:db8:18::/48'}]
    ports: [{port: 80}, {port: 443}]
  - action: Deny
    to: [{cidr: 198.18.50.0/24}, {cidr: '2001:db8:18:50::/64'}]
    ports: [{port: 443}]";
    test.namespace.enforce(&egg("first", "shop", first), 1).await?;
    let second =
        "[{to: [{cidr: 198.18.50.0/24}, {cidr: '2001:db8:18:50::/64'}], ports: [{port: 443}, {port: 8000}]}]";
    test.namespace.enforce(&egg("second", "shop", second), 1).await?;
    let mut expected = Vec::new();
    for (denied, other) in [("198.18.50.1", "198.18.51.1"), ("[2001:db8:18:50::1]", "[2001:db8:18:51::1]")] {
        expected.push(blocked(format!("tcp://{denied}:443")));
        expected.push(reached(format!("tcp://{denied}:80")));
        expected.push(reached(format!("tcp://{denied}:8000")));
        expected.push(reached(format!("tcp://{other}:443")));
        expected.push(blocked(format!("tcp://{other}:8000")));
    }
    test.namespace.verify(&[(&pod, expected)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_egg_denies_what_no_egg_can_allow() -> anyhow::Result<()> {
    let Some(test) = Setting::new("cluster-egg").await? else { return Ok(()) };
    let [shop, other] = test
        .namespace
        .start_all([PodPlan::new("shop").label("app", "shop"), PodPlan::new("other").label("app", "other")])
        .await?;
    let all = "[{to: [{cidr: 0.0.0.0/0}, {cidr: '::/0'}]}]";
    test.namespace.enforce(&egg("shop", "shop", all), 1).await?;
    let name = &test.namespace.name;
    let cluster_egg = format!(
        "apiVersion: l7egg.dev/v1alpha1
kind: ClusterEgg
metadata: {{name: {name}}}
spec:
  namespaceSelector: {{matchLabels: {{l7egg.dev/e2e: {name}}}}}
  podSelector: {{}}
  egress:
  - to: [{{cidr: 198.18.60.0/24}}, {{cidr: '2001:db8:18:60::/64'}}]
  - action: Deny
    to: [{{cidr: 198.18.60.1/32}}, {{cidr: '2001:db8:18:60::1/128'}}]
"
    );
    test.namespace.enforce(&cluster_egg, 2).await?;
    let mut expected = [Vec::new(), Vec::new()];
    for (denied, allowed, elsewhere) in [
        ("198.18.60.1", "198.18.60.2", "198.18.61.1"),
        ("[2001:db8:18:60::1]", "[2001:db8:18:60::2]", "[2001:db8:18:61::1]"),
    ] {
        expected[0].push(blocked(format!("tcp://{denied}:80")));
        expected[0].push(reached(format!("tcp://{allowed}:80")));
        expected[0].push(reached(format!("tcp://{elsewhere}:80")));
        expected[1].push(blocked(format!("tcp://{denied}:80")));
        expected[1].push(reached(format!("tcp://{allowed}:80")));
        expected[1].push(blocked(format!("tcp://{elsewhere}:80")));
    }
    let [of_shop, of_other] = expected;
    test.namespace.verify(&[(&shop, of_shop), (&other, of_other)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn learned_addresses_belong_to_the_pod_that_asked() -> anyhow::Result<()> {
    let Some(test) = Setting::new("learned").await? else { return Ok(()) };
    let node = test.cluster.two_nodes()[0];
    let plan = |name| PodPlan::new(name).label("app", "shop").on(node);
    let [asks, does_not] = test.namespace.start_all([plan("asks"), plan("does-not")]).await?;
    test.namespace
        .enforce(&egg("shop", "shop", "[{to: [{domainNames: ['*.fresh.test']}], ports: [{port: 80}]}]"), 2)
        .await?;
    let by_name = || both(reached("tcp://n500.fresh.test:80")).to_vec();
    let addresses = [fresh_address4(500).to_string(), format!("[{}]", fresh_address6(500))];
    let by_address = |expect: fn(String) -> Expectation| {
        addresses.iter().map(|address| expect(format!("tcp://{address}:80"))).collect::<Vec<_>>()
    };
    // Nobody has asked: an address alone opens nothing.
    let nobody = by_address(blocked);
    test.namespace.verify(&[(&asks, nobody.clone()), (&does_not, nobody)]).await?;
    test.namespace.verify(&[(&asks, by_name())]).await?;
    test.namespace.verify(&[(&asks, by_address(reached)), (&does_not, by_address(blocked))]).await?;
    test.namespace.verify(&[(&does_not, by_name())]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_pods_own_resolvers_are_believed() -> anyhow::Result<()> {
    let Some(test) = Setting::new("resolvers").await? else { return Ok(()) };
    let plan = |name| PodPlan::new(name).label("app", "shop");
    let [pod, cluster_dns] =
        test.namespace.start_all([plan("own"), plan("cluster-dns").cluster_dns()]).await?;
    let limit = std::time::Duration::from_secs(20);
    let knows = eventually("the cluster's DNS knows the test world's names", limit, || async {
        let report = cluster_dns.connect(&["tcp4://n601.fresh.test:80"]).await?.remove(0);
        Ok(if report.outcome.is_reached() { Ok(()) } else { Err(report.outcome.to_string()) })
    })
    .await;
    let rules = "
  - to: [{domainNames: ['*.fresh.test']}]
    ports: [{port: 80}]
  - to: [{cidr: 198.18.0.54/32}, {cidr: '2001:db8:18::54/128'}]";
    test.namespace.enforce(&egg("shop", "shop", rules), 2).await?;
    // It may talk to this resolver, but what that says opens nothing.
    for server in ["@198.18.0.54", "@2001:db8:18::54"] {
        for type_ in ["A", "AAAA"] {
            let answer = pod.exec(&["dig", "+short", "+time=2", server, "n600.fresh.test", type_]).await?;
            println!("  {server} says n600.fresh.test {type_} is {}", answer.trim());
            anyhow::ensure!(!answer.trim().is_empty());
        }
    }
    let addresses = [fresh_address4(600).to_string(), format!("[{}]", fresh_address6(600))];
    let strangers = addresses.iter().map(|address| blocked(format!("tcp://{address}:80"))).collect();
    test.namespace.verify(&[(&pod, strangers)]).await?;
    test.namespace.verify(&[(&pod, both(reached("tcp://n600.fresh.test:80")).to_vec())]).await?;
    if let Err(error) = knows {
        // All but the answers of the cluster's DNS was tried.
        println!("skipped: {error:#}");
        return Ok(());
    }
    test.namespace.verify(&[(&cluster_dns, both(reached("tcp://n602.fresh.test:80")).to_vec())]).await
}

/// The pod's author names a DNS server in its `dnsConfig`; whoever writes the Egg may not trust it.
#[tokio::test(flavor = "multi_thread")]
async fn an_egg_says_which_dns_servers_are_believed() -> anyhow::Result<()> {
    let Some(test) = Setting::new("dns-servers").await? else { return Ok(()) };
    let pod = test.namespace.start(PodPlan::new("shop").label("app", "shop")).await?;
    let yaml = |servers: &str| {
        egg("shop", "shop", "[{to: [{domainNames: ['*.fresh.test']}], ports: [{port: 80}]}]")
            .replace("spec:\n", &format!("spec:\n  dns: {{servers: [{servers}]}}\n"))
    };
    let by_name = |number: u32| format!("tcp4://n{number}.fresh.test:80");
    test.namespace.enforce(&yaml("10.96.0.10/32"), 1).await?;
    let report = pod.connect(&[&by_name(650)]).await?.remove(0);
    println!("  another server is believed: {:?} after {} µs", report.outcome, report.micros);
    anyhow::ensure!(!report.outcome.is_reached(), "{report:?}");
    // It is a destination as others are, and no way out.
    test.namespace.verify(&[(&pod, vec![blocked(format!("udp://{RESOLVER4}:53"))])]).await?;
    test.namespace.enforce(&yaml(&format!("10.96.0.10/32, {RESOLVER4}/32")), 1).await?;
    test.namespace.verify(&[(&pod, vec![reached(by_name(651))])]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_to_what_came_in_pass() -> anyhow::Result<()> {
    let Some(test) = Setting::new("inbound").await? else { return Ok(()) };
    let [node1, node2] = test.cluster.two_nodes();
    let [server, near, far] = test
        .namespace
        .start_all([
            PodPlan::new("server").label("app", "server").on(node1),
            PodPlan::new("near").on(node1),
            PodPlan::new("far").on(node2),
        ])
        .await?;
    test.namespace.enforce(&egg("nothing-out", "server", "[]"), 1).await?;
    let to = |pod: &Pod, expect: fn(String) -> Expectation| {
        let mut list = Vec::new();
        for host in [pod.address4.to_string(), format!("[{}]", pod.address6)] {
            list.push(expect(format!("tcp://{host}:{}", Pod::PORT)));
            list.push(expect(format!("udp://{host}:{}", Pod::PORT)));
            list.push(expect(format!("icmp://{host}")));
            // Nobody listens there: the reset belongs to no socket of the pod.
            list.push(expect(format!("tcp://{host}:{}", Pod::PORT + 1)));
        }
        list
    };
    let mut out = [to(&near, blocked), to(&far, blocked)].concat();
    out.extend(both(blocked("tcp://n1.fresh.test:80")));
    test.namespace
        .verify(&[(&near, to(&server, reached)), (&far, to(&server, reached)), (&server, out)])
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors() -> anyhow::Result<()> {
    let Some(test) = Setting::new("selectors").await? else { return Ok(()) };
    let pods = test
        .namespace
        .start_all([
            PodPlan::new("front").label("tier", "front").label("zone", "a"),
            PodPlan::new("front-legacy").label("tier", "front").label("zone", "a").label("legacy", ""),
            PodPlan::new("front-elsewhere").label("tier", "front").label("zone", "b"),
            PodPlan::new("back").label("tier", "back").label("zone", "a"),
            PodPlan::new("bare"),
        ])
        .await?;
    let egg = "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {name: front}
spec:
  podSelector:
    matchLabels: {zone: a}
    matchExpressions:
    - {key: tier, operator: In, values: [front, middle]}
    - {key: tier, operator: NotIn, values: [back]}
    - {key: zone, operator: Exists}
    - {key: legacy, operator: DoesNotExist}
";
    test.namespace.enforce(egg, 1).await?;
    let [front, rest @ ..] = &pods;
    let mut expected = vec![(front, vec![blocked("tcp://198.18.0.80:80")])];
    expected.extend(rest.iter().map(|pod| (pod, vec![reached("tcp://198.18.0.80:80")])));
    test.namespace.verify(&expected).await?;
    println!("labels change: front leaves, back comes in");
    test.namespace.label("front", "legacy", Some("")).await?;
    test.namespace.label("back", "tier", Some("middle")).await?;
    let (front, back) = (&pods[0], &pods[3]);
    let limit = std::time::Duration::from_secs(30);
    eventually("the Egg follows the labels", limit, || async {
        let swapped =
            [(front, vec![reached("udp://198.18.0.80:123")]), (back, vec![blocked("udp://198.18.0.80:123")])];
        Ok(test.namespace.verify(&swapped).await.map_err(|error| error.to_string()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_egg_is_applied_edited_and_deleted() -> anyhow::Result<()> {
    let Some(test) = Setting::new("life").await? else { return Ok(()) };
    let [node1, node2] = test.cluster.two_nodes();
    let plan = |name, node| PodPlan::new(name).label("app", "shop").on(node);
    let [pod1, pod2] = test.namespace.start_all([plan("one", node1), plan("two", node2)]).await?;
    let see = async |first: fn(String) -> Expectation, second: fn(String) -> Expectation| {
        let mut list = Vec::new();
        for (one, two) in [("198.18.0.80", "198.18.0.81"), ("[2001:db8:18::80]", "[2001:db8:18::81]")] {
            list.extend([first(format!("tcp://{one}:80")), second(format!("tcp://{two}:80"))]);
        }
        list.extend(both(first("tcp://n700.fresh.test:80".into())));
        list.extend(both(second("tcp://n701.fresh.test:80".into())));
        test.namespace.verify(&[(&pod1, list.clone()), (&pod2, list)]).await
    };
    println!("no Egg");
    see(reached, reached).await?;
    println!("applied: the first is allowed");
    let first = "[{to: [{cidr: 198.18.0.80/32}, {cidr: '2001:db8:18::80/128'}, {domainNames: [n700.fresh.test]}], ports: [{port: 80}]}]";
    let object = test.namespace.enforce(&egg("shop", "shop", first), 2).await?;
    see(reached, blocked).await?;
    println!("edited: the second is allowed");
    let second = "[{to: [{cidr: 198.18.0.81/32}, {cidr: '2001:db8:18::81/128'}, {domainNames: [n701.fresh.test]}], ports: [{port: 80}]}]";
    test.namespace.enforce(&egg("shop", "shop", second), 2).await?;
    see(blocked, reached).await?;
    println!("deleted: both are free");
    object.delete().await?;
    eventually("both pods are free", std::time::Duration::from_secs(30), || async {
        Ok(see(reached, reached).await.map_err(|error| error.to_string()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_rule_matches_are_refused_at_once() -> anyhow::Result<()> {
    let Some(test) = Setting::new("refused").await? else { return Ok(()) };
    let (listed, unlisted) = (test.name("listed"), test.name("unlisted"));
    test.world.set(&zone(&[&listed, &unlisted])).await?;
    let [node1, node2] = test.cluster.two_nodes();
    let plan = |name, node| PodPlan::new(name).label("app", "shop").on(node);
    let pods = test.namespace.start_all([plan("one", node1), plan("two", node2)]).await?;
    let yaml = egg("shop", "shop", &format!("[{{to: [{{domainNames: [{listed}]}}]}}]"));
    test.namespace.enforce(&yaml.replace("spec:\n", "spec:\n  dns: {refuseUnmatched: true}\n"), 2).await?;
    for pod in &pods {
        let targets = [format!("tcp://{listed}:443"), format!("tcp://{unlisted}:443")];
        let reports = pod.connect(&targets.each_ref().map(String::as_str)).await?;
        anyhow::ensure!(reports[0].outcome.is_reached(), "{reports:?}");
        // A resolver that is not answered waits for five seconds, twice.
        let is_refused = reports[1].outcome == Outcome::DnsFailure && reports[1].micros < 2_000_000;
        anyhow::ensure!(is_refused, "{reports:?}");
    }
    Ok(())
}

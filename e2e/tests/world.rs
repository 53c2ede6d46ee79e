//! The test world itself, and pods that no Egg selects: everything is reached, and nothing is disturbed.

use std::net::IpAddr;

use l7egg_e2e::cluster::{Pod, PodPlan, Setting, reached};
use l7egg_e2e::probe::Outcome;
use l7egg_e2e::world::{RESOLVER6, fresh_address4, fresh_address6};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_an_egg_reaches_everything() -> anyhow::Result<()> {
    let Some(test) = Setting::new("no-egg").await? else { return Ok(()) };
    let api = test.name("api");
    test.world
        .set(&format!(
            "{api}. 30 IN A 198.18.0.80\n{api}. 30 IN AAAA 2001:db8:18::80\nwww.{api}. 30 IN CNAME {api}."
        ))
        .await?;
    let [node1, node2] = test.cluster.two_nodes();
    let plans =
        [PodPlan::new("first").on(node1), PodPlan::new("second").on(node2).nameserver(IpAddr::V6(RESOLVER6))];
    let [first, second] = test.namespace.start_all(plans).await?;
    let everywhere = |other: &Pod| {
        let mut list = Vec::new();
        for family in [4, 6] {
            list.push(reached(format!("tcp{family}://{api}:443")));
            list.push(reached(format!("tcp{family}://www.{api}:8050")));
            list.push(reached(format!("udp{family}://n1.fresh.test:123")));
            list.push(reached(format!("icmp{family}://n2.cname2.fresh.test")));
            list.push(reached(format!("tcp{family}://n3.fresh.test:81")));
        }
        list.push(reached(format!("tcp://{}:{}", other.address4, Pod::PORT)));
        list.push(reached(format!("udp://[{}]:{}", other.address6, Pod::PORT)));
        list
    };
    test.namespace.verify(&[(&first, everywhere(&second)), (&second, everywhere(&first))]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_world_tells_outcomes_apart() -> anyhow::Result<()> {
    let Some(test) = Setting::new("outcomes").await? else { return Ok(()) };
    let pod = test.namespace.start(PodPlan::new("client")).await?;
    let reports = pod
        .connect(&[
            "tcp://missing.test:80",
            "tcp4://n1.fresh.test:81",
            "tcp4://203.0.113.1:80",
            "tcp6://n7.fresh.test:80",
        ])
        .await?;
    let outcomes: Vec<&Outcome> = reports.iter().map(|report| &report.outcome).collect();
    println!("  {outcomes:?}");
    anyhow::ensure!(
        *outcomes[0] == Outcome::DnsFailure
            && *outcomes[1] == Outcome::Refused
            && *outcomes[3] == Outcome::Ok
    );
    anyhow::ensure!(
        matches!(outcomes[2], Outcome::Timeout | Outcome::Unreachable),
        "nothing is at 203.0.113.1"
    );
    anyhow::ensure!(reports[1].address == Some(fresh_address4(1).into()));
    anyhow::ensure!(reports[3].address == Some(fresh_address6(7).into()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_egg_fresh_names_are_reached_at_once() -> anyhow::Result<()> {
    let Some(test) = Setting::new("baseline").await? else { return Ok(()) };
    let pod = test.namespace.start(PodPlan::new("client")).await?;
    let report = pod.race(&["--count", "1000", "--families", "both"]).await?;
    println!("  {report:?}");
    anyhow::ensure!(report.is_clean() && report.connections == 2000, "the world is too slow for its tests");
    let mut watching = pod.watch("udp://198.18.0.80:123").await?;
    let change = watching.until(std::time::Duration::from_secs(5), |outcome| *outcome == Outcome::Ok).await?;
    let hold = pod.hold("tcp://[2001:db8:18::80]:80").await?;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let held = hold.finish().await?;
    println!("  {change:?}\n  {held:?}");
    anyhow::ensure!(held.outcome == Outcome::Ok && held.exchanges >= 5);
    Ok(())
}

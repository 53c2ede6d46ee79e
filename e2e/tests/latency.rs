//! How long a change takes until packets see it. Each figure is over 50 tries; times are wall-clock times of the
//! pods' own packets, tried every 2 ms.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use l7egg_crds::{EggAssignment, PodState};
use l7egg_e2e::cluster::{Namespace, PodPlan, Setting, Watched, Watching, eventually};
use l7egg_e2e::probe::{Change, Outcome, Percentiles, now_micros};

const TRIES: usize = 50;
const LIMIT: Duration = Duration::from_secs(30);
const ADDRESS: &str = "198.18.7.7";

fn egg(name: &str, cidr: &str) -> String {
    format!(
        "apiVersion: l7egg.dev/v1alpha1\nkind: Egg\nmetadata: {{name: {name}}}\nspec:\n  podSelector: {{matchLabels: {{app: shop}}}}\n  egress: [{{to: [{{cidr: {cidr}}}]}}]\n"
    )
}

fn row(what: &str, sample: &[Duration]) -> String {
    let Percentiles { count, p50, p99, max } = Percentiles::of(sample);
    let ms = |micros: u64| micros as f64 / 1e3;
    format!("  {what:<60} {count:>5} {:>9.1} {:>9.1} {:>9.1}", ms(p50), ms(p99), ms(max))
}

fn head() -> String {
    format!("  {:<60} {:>5} {:>9} {:>9} {:>9}", "latency of a change", "tries", "p50 ms", "p99 ms", "max ms")
}

/// Not a lost packet, which a busy machine may have too: the kernel's own word.
fn is_denied(outcome: &Outcome) -> bool {
    *outcome == Outcome::Denied
}

fn since(start: u64, change: &Change) -> Duration {
    Duration::from_micros(change.at.saturating_sub(start))
}

#[tokio::test(flavor = "multi_thread")]
async fn egg_edited_and_deleted() -> anyhow::Result<()> {
    let Some(test) = Setting::new("latency").await? else { return Ok(()) };
    let [node1, node2] = test.cluster.two_nodes();
    let plan = |name, node| PodPlan::new(name).label("app", "shop").on(node);
    let [one, two] = test.namespace.start_all([plan("one", node1), plan("two", node2)]).await?;
    let target = format!("udp://{ADDRESS}:123");
    let mut watching = [one.watch(&target).await?, two.watch(&target).await?];
    slowest(&mut watching, Outcome::is_reached, 0).await?;
    let (mut edited, mut created, mut deleted) = (Vec::new(), Vec::new(), Vec::new());

    // Each Egg is written a few times only: what is done with one again and again has a pace, which is not what is measured here.
    ensure!(TRIES.is_multiple_of(2), "each Egg is edited twice");
    for number in 0..TRIES / 2 {
        let name = format!("edited-{number}");
        test.namespace.enforce(&egg(&name, "203.0.113.0/24"), 2).await?;
        slowest(&mut watching, is_denied, 0).await?;
        for opens in [true, false] {
            let start = now_micros();
            let cidr = if opens { "198.18.0.0/15" } else { "203.0.113.0/24" };
            test.namespace.apply(&egg(&name, cidr)).await?;
            let wanted = if opens { Outcome::is_reached } else { is_denied };
            edited.push(slowest(&mut watching, wanted, start).await?);
        }
        let start = now_micros();
        test.namespace.egg(&name).delete().await?;
        slowest(&mut watching, Outcome::is_reached, start).await?;
    }
    for number in 0..TRIES {
        let name = format!("made-{number}");
        let start = now_micros();
        test.namespace.apply(&egg(&name, "203.0.113.0/24")).await?;
        created.push(slowest(&mut watching, is_denied, start).await?);
        let start = now_micros();
        test.namespace.egg(&name).delete().await?;
        deleted.push(slowest(&mut watching, Outcome::is_reached, start).await?);
    }
    println!("{}", head());
    println!("{}", row("Egg edited → enforced on both nodes", &edited));
    println!("{}", row("Egg created → enforced on both nodes", &created));
    println!("{}", row("Egg deleted → traffic free on both nodes", &deleted));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_bound() -> anyhow::Result<()> {
    let Some(test) = Setting::new("latency-pod").await? else { return Ok(()) };
    test.namespace.enforce(&egg("shop", "203.0.113.0/24"), 0).await?;
    let reports = Reports::follow(&test.namespace);
    let (mut reported, mut enforced, mut exposed, mut escaped) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for number in 0..TRIES {
        let name = format!("shop-{number}");
        let node = test.cluster.two_nodes()[number % 2];
        let target = format!("udp://{ADDRESS}:123");
        let plan = PodPlan::new(&name).label("app", "shop").on(node).command(&["/probe", "watch", &target]);
        // It names its node, so it is bound as soon as it exists.
        test.namespace.create(&plan).await?;
        let bound = now_micros();
        let Watched { first, denied, reached, .. } =
            test.namespace.until_denied(&name, LIMIT).await.with_context(|| name.clone())?;
        reported.push(Duration::from_micros(
            reports.enforced(&test.namespace, &name).await?.saturating_sub(bound),
        ));
        enforced.push(since(bound, &denied));
        exposed.push(since(first.at, &denied));
        escaped += reached;
        test.namespace.kill(&name).await?;
    }
    println!("{}", head());
    println!("{}", row("pod bound → reported as enforced by its agent", &reported));
    println!("{}", row("pod bound → first denied packet, so enforced at the latest", &enforced));
    println!("{}", row("pod's first packet → first denied packet", &exposed));
    println!("  {escaped} packets of {TRIES} pods left before their Egg was enforced");
    Ok(())
}

/// Of both watchers the later change to a wanted outcome, as time since `start`.
async fn slowest(
    watching: &mut [Watching; 2],
    wanted: fn(&Outcome) -> bool,
    start: u64,
) -> anyhow::Result<Duration> {
    let mut slowest = Duration::ZERO;
    for watcher in watching {
        let change = loop {
            // One from before the start would be a flicker of the former state.
            let change = watcher.until(LIMIT, wanted).await?;
            if change.at >= start {
                break change;
            }
        };
        slowest = slowest.max(since(start, &change));
    }
    Ok(slowest)
}

/// When the API first said of each pod that it is enforced: wall-clock microseconds by the pod's uid.
struct Reports(Arc<Mutex<HashMap<String, u64>>>);

impl Reports {
    /// Watches the assignments of a namespace's Eggs from now on.
    fn follow(namespace: &Namespace) -> Self {
        let times: Arc<Mutex<HashMap<String, u64>>> = Arc::default();
        let (api, seen) = (namespace.api::<EggAssignment>(), times.clone());
        tokio::spawn(async move {
            let mut stream =
                pin!(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
            while let Some(assignment) = stream.next().await {
                // The watcher gets over errors by itself.
                let Ok(assignment) = assignment else { continue };
                let now = now_micros();
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                for pod in assignment.status.unwrap_or_default().pods {
                    if pod.state == PodState::Enforced {
                        seen.entry(pod.uid).or_insert(now);
                    }
                }
            }
        });
        Reports(times)
    }

    async fn enforced(&self, namespace: &Namespace, pod: &str) -> anyhow::Result<u64> {
        let uid = namespace.running(pod).await?.uid;
        eventually("the agent reports the pod", LIMIT, || async {
            let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(times.get(&uid).copied().ok_or_else(|| "nothing".to_string()))
        })
        .await
    }
}

//! The harness: what a test needs of a cluster, through the Kubernetes API alone.
//!
//! ```no_run
//! # use l7egg_e2e::cluster::{Cluster, PodPlan, reached};
//! # async fn example() -> anyhow::Result<()> {
//! let cluster = Cluster::connect().await?;
//! let namespace = cluster.namespace("names").await?;
//! let pod = namespace.start(PodPlan::new("client").label("app", "shop")).await?;
//! namespace.verify(&[(&pod, vec![reached("tcp4://n1.fresh.test:80")])]).await?;
//! # Ok(())
//! # }
//! ```

mod check;
mod egg;
mod exec;
mod namespace;
mod pod;
mod product;
mod session;
mod setting;
mod signal;
mod wait;
mod watched;
mod world;

pub use check::{Checked, Expect, Expectation, blocked, check, reached};
pub use egg::EggView;
pub use exec::{Ran, exec, run};
pub use namespace::Namespace;
pub use pod::{Pod, PodPlan};
pub use session::{Hold, Watching};
pub use setting::Setting;
pub use signal::{AGENT, API_SERVER, Node, OPERATOR, Signal, pause_all, signal_all};
pub use wait::{eventually, patience, within};
pub use watched::Watched;
pub use world::World;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

/// The image that holds `world`, `probe` and a shell.
pub const TESTKIT: &str = "registry.local/l7egg-testkit:dev";
/// The probe in it.
pub const PROBE: &str = "/probe";
/// The world in it.
pub const WORLD: &str = "/world";

/// A cluster with l7egg installed.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    nodes: Vec<String>,
}

impl Cluster {
    /// Connects as kubectl would: `KUBECONFIG`, `~/.kube/config`, or a pod's service account.
    ///
    /// # Errors
    /// When there is no cluster, or no node of it is ready.
    pub async fn connect() -> anyhow::Result<Self> {
        let client =
            Client::try_default().await.context("no kubeconfig: set KUBECONFIG, or run cargo xtask e2e")?;
        let nodes = Api::<core::Node>::all(client.clone())
            .list(&ListParams::default())
            .await
            .context("the cluster of the kubeconfig does not answer")?;
        let mut nodes: Vec<String> =
            nodes.iter().filter(|node| is_ready(node)).map(ResourceExt::name_any).collect();
        nodes.sort();
        if let Some(only) = node_of_tests() {
            nodes.retain(|node| *node == only);
        }
        if nodes.is_empty() {
            bail!("no node of the cluster is ready");
        }
        Ok(Cluster { client, nodes })
    }

    /// The client, for what the harness does not do.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The ready nodes' names, sorted; at least one. Only the one of `L7EGG_E2E_NODE`, if that is set.
    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// The nodes that tests of "both nodes" use: the first two, or twice the only one.
    pub fn two_nodes(&self) -> [&str; 2] {
        [&self.nodes[0], self.nodes.get(1).unwrap_or(&self.nodes[0])]
    }
}

/// `L7EGG_E2E_NODE=NAME` is the node that all pods of the tests are on, unless they ask for another: for one that can do what the
/// others cannot.
fn node_of_tests() -> Option<String> {
    std::env::var("L7EGG_E2E_NODE").ok().filter(|name| !name.is_empty())
}

fn is_ready(node: &core::Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

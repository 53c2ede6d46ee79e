//! What an Egg says about itself.

use std::time::Duration;

use anyhow::Context;
use kube::Client;
use kube::api::{Api, DeleteParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use l7egg_crds::{
    CONDITION_ACCEPTED, CONDITION_PROGRAMMED, ClusterEgg, Condition, ConditionStatus, Egg, EggStatus,
    PodCounts,
};

use super::eventually;

const LIMIT: Duration = Duration::from_secs(60);

/// One Egg or ClusterEgg in the cluster. Its spec is not looked at, so that a malformed one does not matter.
#[derive(Clone)]
pub struct EggView {
    api: Api<DynamicObject>,
    name: String,
}

impl EggView {
    pub(super) fn egg(client: Client, namespace: &str, name: &str) -> Self {
        let api = Api::namespaced_with(client, namespace, &ApiResource::erase::<Egg>(&()));
        EggView { api, name: name.to_string() }
    }

    pub(super) fn cluster_egg(client: Client, name: &str) -> Self {
        EggView { api: Api::all_with(client, &ApiResource::erase::<ClusterEgg>(&())), name: name.to_string() }
    }

    /// Its status, empty while it has none.
    pub async fn status(&self) -> anyhow::Result<EggStatus> {
        match self.api.get(&self.name).await?.data.get("status") {
            Some(status) => Ok(serde_json::from_value(status.clone())?),
            None => Ok(EggStatus::default()),
        }
    }

    /// Waits until `generation` is enforced on just so many pods.
    pub async fn programmed(&self, generation: i64, pods: i32) -> anyhow::Result<()> {
        let all = PodCounts { selected: pods, enforced: pods, ..PodCounts::default() };
        self.until(&format!("enforced on {pods} pods"), generation, |status| status.pods == all)
            .await
            .map(drop)
    }

    /// Waits until just so many pods are audited by `generation`.
    pub async fn audited(&self, generation: i64, pods: i32) -> anyhow::Result<()> {
        let all = PodCounts { selected: pods, audited: pods, ..PodCounts::default() };
        self.until(&format!("audited on {pods} pods"), generation, |status| status.pods == all)
            .await
            .map(drop)
    }

    /// Waits until `generation` is enforced on just so many nodes; its status then.
    pub async fn programmed_on_nodes(&self, generation: i64, nodes: i32) -> anyhow::Result<EggStatus> {
        let all = PodCounts { selected: nodes, enforced: nodes, ..PodCounts::default() };
        let what = format!("enforced on {nodes} nodes");
        self.until(&what, generation, |status| status.nodes == Some(all)).await
    }

    /// Waits until just so many nodes are audited by `generation`.
    pub async fn audited_on_nodes(&self, generation: i64, nodes: i32) -> anyhow::Result<()> {
        let all = PodCounts { selected: nodes, audited: nodes, ..PodCounts::default() };
        let what = format!("audited on {nodes} nodes");
        self.until(&what, generation, |status| status.nodes == Some(all)).await.map(drop)
    }

    /// Waits until `generation` is programmed, and its status as it has to be.
    pub async fn until(
        &self,
        what: &str,
        generation: i64,
        is_done: impl Fn(&EggStatus) -> bool,
    ) -> anyhow::Result<EggStatus> {
        eventually(&format!("{} is {what}", self.name), LIMIT, || async {
            let status = self.status().await?;
            let programmed = condition(&status, CONDITION_PROGRAMMED).is_some_and(|condition| {
                condition.status == ConditionStatus::True && condition.observed_generation >= Some(generation)
            });
            Ok(if programmed && is_done(&status) { Ok(status) } else { Err(describe(&status)) })
        })
        .await
    }

    /// Waits until the operator has judged `generation`, and returns its condition `Accepted`.
    pub async fn judged(&self, generation: i64) -> anyhow::Result<Condition> {
        eventually(&format!("the operator judges {}", self.name), LIMIT, || async {
            let status = self.status().await?;
            let accepted = condition(&status, CONDITION_ACCEPTED);
            let judged = accepted.filter(|accepted| {
                accepted.status != ConditionStatus::Unknown
                    && accepted.observed_generation >= Some(generation)
            });
            Ok(judged.cloned().ok_or_else(|| describe(&status)))
        })
        .await
    }

    /// Deletes it.
    pub async fn delete(&self) -> anyhow::Result<()> {
        let deleted = self.api.delete(&self.name, &DeleteParams::default()).await;
        deleted.with_context(|| format!("cannot delete {}", self.name)).map(drop)
    }
}

fn condition<'a>(status: &'a EggStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

fn describe(status: &EggStatus) -> String {
    let pods = status.pods;
    let conditions = status.conditions.iter().map(|condition| {
        format!("{}={:?} {}: {}", condition.type_, condition.status, condition.reason, condition.message)
    });
    let conditions: Vec<String> = conditions.collect();
    format!(
        "{} selected, {} enforced, {} audited, {} failed; [{}]",
        pods.selected,
        pods.enforced,
        pods.audited,
        pods.failed,
        conditions.join("; ")
    )
}

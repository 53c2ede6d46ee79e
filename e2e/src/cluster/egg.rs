//! What an Egg says about itself.

use std::time::Duration;

use anyhow::Context;
use kube::Client;
use kube::api::{Api, DeleteParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use l7egg_crds::{
    CONDITION_ACCEPTED, CONDITION_PROGRAMMED, ClusterEgg, Condition, ConditionStatus, Egg, EggStatus,
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
        eventually(&format!("{} is enforced on {pods} pods", self.name), LIMIT, || async {
            let status = self.status().await?;
            let programmed = condition(&status, CONDITION_PROGRAMMED);
            let done = programmed.is_some_and(|condition| {
                condition.status == ConditionStatus::True && condition.observed_generation >= Some(generation)
            });
            let all = status.pods.selected == pods && status.pods.enforced == pods && status.pods.failed == 0;
            Ok(if done && all { Ok(()) } else { Err(describe(&status)) })
        })
        .await
    }

    /// Waits until `generation` is enforced on just so many nodes; its status then.
    pub async fn programmed_on_nodes(&self, generation: i64, nodes: i32) -> anyhow::Result<EggStatus> {
        eventually(&format!("{} is enforced on {nodes} nodes", self.name), LIMIT, || async {
            let status = self.status().await?;
            let done = condition(&status, CONDITION_PROGRAMMED).is_some_and(|condition| {
                condition.status == ConditionStatus::True && condition.observed_generation >= Some(generation)
            });
            let all = status.nodes.is_some_and(|it| it.selected == nodes && it.enforced == nodes);
            Ok(if done && all { Ok(status) } else { Err(describe(&status)) })
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
        "{} selected, {} enforced, {} failed; [{}]",
        pods.selected,
        pods.enforced,
        pods.failed,
        conditions.join("; ")
    )
}

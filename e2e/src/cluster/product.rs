//! l7egg itself, as the cluster runs it.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::discovery::{Scope, pinned_kind};
use l7egg_crds::SYSTEM_NAMESPACE;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Cluster, eventually, run};

impl Cluster {
    /// What the agent of a node says of itself: `l7egg-node-agent status --json`.
    ///
    /// # Errors
    /// When it does not run. That a pod failed, which other tests' pods may have, is an answer.
    pub async fn agent_status(&self, node: &str) -> anyhow::Result<Value> {
        let pods: Api<Pod> = Api::namespaced(self.client().clone(), SYSTEM_NAMESPACE);
        let name = self.agent(node).await?.name_any();
        let command = ["/l7egg-node-agent", "status", "--json"];
        let ran = run(&pods, &name, "node-agent", &command).await?;
        serde_json::from_str(&ran.stdout)
            .with_context(|| format!("{name}: {}: {}", ran.failure.unwrap_or_default(), ran.stderr.trim()))
    }

    /// The flows that the agent of a node has recorded of a pod (`NAMESPACE/NAME`) or of the node itself (`node NAME`):
    /// `l7egg-node-agent denied --json`.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn denied(&self, node: &str, whose: &str) -> anyhow::Result<Vec<Value>> {
        let pods: Api<Pod> = Api::namespaced(self.client().clone(), SYSTEM_NAMESPACE);
        let name = self.agent(node).await?.name_any();
        let command = ["/l7egg-node-agent", "denied", "--json", "--pod", whose];
        // Its exit code says whether there was any.
        let ran = run(&pods, &name, "node-agent", &command).await?;
        ensure!(ran.stderr.is_empty(), "{name}: {}", ran.stderr.trim());
        Ok(ran.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    /// How often the agent of a node was started anew.
    ///
    /// # Errors
    /// When there is none.
    pub async fn agent_restarts(&self, node: &str) -> anyhow::Result<i32> {
        let status = self.agent(node).await?.status.unwrap_or_default();
        Ok(status.container_statuses.iter().flatten().map(|container| container.restart_count).sum())
    }

    async fn agent(&self, node: &str) -> anyhow::Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client().clone(), SYSTEM_NAMESPACE);
        let of_node = ListParams::default()
            .labels("app.kubernetes.io/name=l7egg-node-agent")
            .fields(&format!("spec.nodeName={node}"));
        let list = pods.list(&of_node).await?;
        let running = list.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none());
        running.with_context(|| format!("no agent on {node}"))
    }

    /// Sets a variable of the agents' environment, and waits until all run with it.
    ///
    /// # Errors
    /// When they do not within two minutes.
    pub async fn set_agents(&self, variable: &str, value: &str) -> anyhow::Result<()> {
        let agents: Api<DaemonSet> = Api::namespaced(self.client().clone(), SYSTEM_NAMESPACE);
        set_variable(&agents, "l7egg-node-agent", "node-agent", (variable, value)).await?;
        eventually("the agents run with their new setting", Duration::from_secs(120), || async {
            let set = agents.get("l7egg-node-agent").await?;
            let (generation, status) = (set.metadata.generation, set.status.unwrap_or_default());
            let wanted = status.desired_number_scheduled;
            let is_done = status.observed_generation == generation
                && status.updated_number_scheduled == Some(wanted)
                && status.number_ready == wanted
                && status.number_unavailable.unwrap_or(0) == 0;
            Ok(if is_done { Ok(()) } else { Err(format!("{status:?}")) })
        })
        .await
    }

    /// Sets a variable of the operator's environment, and waits until it runs with it.
    ///
    /// # Errors
    /// When it does not within two minutes.
    pub async fn set_operator(&self, variable: &str, value: &str) -> anyhow::Result<()> {
        let operators: Api<Deployment> = Api::namespaced(self.client().clone(), SYSTEM_NAMESPACE);
        set_variable(&operators, "l7egg-operator", "operator", (variable, value)).await?;
        eventually("the operator runs with its new setting", Duration::from_secs(120), || async {
            let set = operators.get("l7egg-operator").await?;
            let (generation, status) = (set.metadata.generation, set.status.unwrap_or_default());
            let is_done = status.observed_generation == generation
                && status.updated_replicas == status.replicas
                && status.ready_replicas == status.replicas
                && status.replicas.is_some_and(|replicas| replicas > 0);
            Ok(if is_done { Ok(()) } else { Err(format!("{status:?}")) })
        })
        .await
    }

    /// Applies one of the project's manifests, each object in its own namespace.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn install(&self, manifest: &str) -> anyhow::Result<()> {
        for document in serde_yaml::Deserializer::from_str(manifest) {
            let object = DynamicObject::deserialize(document)?;
            let types = object.types.clone().context("the object has no kind")?;
            let (resource, capabilities) = pinned_kind(self.client(), &(&types).try_into()?).await?;
            let namespace = object.metadata.namespace.as_deref();
            let api: Api<DynamicObject> = match (capabilities.scope, namespace) {
                (Scope::Namespaced, Some(namespace)) => {
                    Api::namespaced_with(self.client().clone(), namespace, &resource)
                }
                _ => Api::all_with(self.client().clone(), &resource),
            };
            let parameters = PatchParams::apply("l7egg-e2e").force();
            api.patch(&object.name_any(), &parameters, &Patch::Apply(&object)).await?;
        }
        Ok(())
    }

    /// Deletes every pod of the product without grace, and returns how many there were.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete_product_pods(&self) -> anyhow::Result<usize> {
        let pods: Api<Pod> = Api::namespaced(self.client().clone(), SYSTEM_NAMESPACE);
        let names: Vec<String> =
            pods.list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
        ensure!(!names.is_empty(), "no pods in {SYSTEM_NAMESPACE}: is l7egg installed?");
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::background() };
        for name in &names {
            pods.delete(name, &at_once).await?;
        }
        Ok(names.len())
    }
}

async fn set_variable<K: Clone + std::fmt::Debug + DeserializeOwned>(
    api: &Api<K>,
    name: &str,
    container: &str,
    (variable, value): (&str, &str),
) -> anyhow::Result<()> {
    let container = json!({"name": container, "env": [{"name": variable, "value": value}]});
    let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

//! The test world in the cluster: one pod on every node.

use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde::Deserialize;

use super::{Cluster, WORLD, eventually, exec};

const NAMESPACE: &str = "l7egg-e2e-world";
const MANIFEST: &str = include_str!("../../world.yaml");

/// The world, on every node. It stays when the tests end, for the next ones; `kubectl delete namespace
/// l7egg-e2e-world` removes it.
pub struct World {
    pods: Api<core::Pod>,
    names: Vec<String>,
}

impl World {
    /// Applies `world.yaml` and waits until the world answers on every node.
    ///
    /// # Errors
    /// When it does not within a minute and a half.
    pub async fn ensure(cluster: &Cluster) -> anyhow::Result<Self> {
        let client = cluster.client();
        let mut documents = serde_yaml::Deserializer::from_str(MANIFEST);
        let mut next = || documents.next().ok_or_else(|| anyhow::anyhow!("world.yaml lacks an object"));
        let namespace = core::Namespace::deserialize(next()?)?;
        let daemon_set = DaemonSet::deserialize(next()?)?;
        let parameters = PatchParams::apply("l7egg-e2e").force();
        Api::<core::Namespace>::all(client.clone())
            .patch(NAMESPACE, &parameters, &Patch::Apply(&namespace))
            .await?;
        let daemon_sets: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
        daemon_sets.patch("world", &parameters, &Patch::Apply(&daemon_set)).await?;
        eventually("the test world is ready on every node", Duration::from_secs(90), || async {
            let status = daemon_sets.get("world").await?.status.unwrap_or_default();
            let (ready, wanted) = (status.number_ready, status.desired_number_scheduled);
            Ok(if ready == wanted && ready > 0 {
                Ok(())
            } else {
                Err(format!("{ready} of {wanted} pods are ready"))
            })
        })
        .await?;
        Self::running(client.clone()).await
    }

    async fn running(client: Client) -> anyhow::Result<Self> {
        let pods: Api<core::Pod> = Api::namespaced(client, NAMESPACE);
        let list = pods.list(&ListParams::default().labels("app=world")).await?;
        let names =
            list.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(ResourceExt::name_any);
        let names = names.collect();
        Ok(World { pods, names })
    }

    /// Sets records on every node, in the form of a zone file: `api.shop.test. 30 IN A 198.18.0.80`. All former
    /// records of the same name and type go.
    pub async fn set(&self, zone: &str) -> anyhow::Result<()> {
        let zone = format!("{}\n", zone.trim_end());
        let command = [WORLD, "ctl", "load", zone.as_str()];
        try_join_all(self.names.iter().map(|pod| exec(&self.pods, pod, "world", &command))).await?;
        Ok(())
    }
}

//! l7egg itself, as the cluster runs it.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use l7egg_crds::SYSTEM_NAMESPACE;

use super::Cluster;

impl Cluster {
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

//! What every test begins with.

use super::{Cluster, Namespace, World};

/// A cluster, the world, and a namespace of the test's own.
pub struct Setting {
    /// The namespace; it goes with the setting.
    pub namespace: Namespace,
    /// The world on every node.
    pub world: World,
    /// The cluster.
    pub cluster: Cluster,
}

impl Setting {
    /// Prepares a test whose namespace begins with `prefix`. None, and a line that says why, if there is no
    /// kubeconfig.
    ///
    /// # Errors
    /// When there is one, but no working cluster behind it.
    pub async fn new(prefix: &str) -> anyhow::Result<Option<Self>> {
        if let Err(error) = kube::Config::infer().await {
            println!("skipped: no kubeconfig ({error}); set KUBECONFIG, or run cargo xtask e2e");
            return Ok(None);
        }
        let cluster = Cluster::connect().await?;
        let (world, namespace) =
            futures::future::try_join(World::ensure(&cluster), cluster.namespace(prefix)).await?;
        Ok(Some(Setting { namespace, world, cluster }))
    }

    /// A name below this test's own domain, `HOST.NAMESPACE.test`.
    pub fn name(&self, host: &str) -> String {
        format!("{host}.{}.test", self.namespace.name)
    }
}

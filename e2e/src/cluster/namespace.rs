//! A namespace of a test's own, which goes when the test ends, whichever way.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures::future::{join_all, try_join_all};
use k8s_openapi::api::core::v1 as core;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::discovery::pinned_kind;
use l7egg_crds::{Condition, EggStatus};
use serde_json::json;

use super::check::{Checked, Expectation};
use super::{Cluster, EggView, Pod, PodPlan, check, eventually};
use crate::probe::now_micros;

const FIELD_MANAGER: &str = "l7egg-e2e";

/// A namespace. When it is dropped its pods are killed and it is deleted.
pub struct Namespace {
    client: Client,
    /// Its name, unique to this run.
    pub name: String,
    cluster_objects: Mutex<Vec<(kube::core::ApiResource, String)>>,
}

impl Cluster {
    /// Makes a namespace whose name begins with `prefix`; it is labelled `l7egg.dev/e2e: NAME`.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn namespace(&self, prefix: &str) -> anyhow::Result<Namespace> {
        let name = format!("{prefix}-{:05x}", (now_micros() ^ u64::from(std::process::id()) << 8) & 0xf_ffff);
        let namespace =
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"l7egg.dev/e2e": name}}}))?;
        Api::<core::Namespace>::all(self.client().clone())
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("cannot create namespace {name}"))?;
        let namespace =
            Namespace { client: self.client().clone(), name, cluster_objects: Default::default() };
        // Pods are refused until the namespace has its service account.
        let accounts: Api<core::ServiceAccount> = namespace.api();
        eventually("the namespace's default service account", Duration::from_secs(30), || async {
            Ok(accounts.get_opt("default").await?.ok_or_else(|| "none".to_string()))
        })
        .await?;
        Ok(namespace)
    }
}

impl Namespace {
    /// Makes a pod and waits until it runs.
    pub async fn start(&self, plan: PodPlan) -> anyhow::Result<Pod> {
        self.create(&plan).await?;
        self.running(plan.name()).await
    }

    /// The same for several at once; they come back in the order of their plans.
    pub async fn start_all<const N: usize>(&self, plans: [PodPlan; N]) -> anyhow::Result<[Pod; N]> {
        let pods = try_join_all(plans.map(|plan| self.start(plan))).await?;
        pods.try_into().map_err(|_| anyhow::anyhow!("as many pods as plans"))
    }

    /// Makes a pod, and does not wait.
    pub async fn create(&self, plan: &PodPlan) -> anyhow::Result<()> {
        let created = self.api::<core::Pod>().create(&PostParams::default(), &plan.object()?).await;
        created.with_context(|| format!("cannot create pod {}", plan.name())).map(drop)
    }

    /// Waits until a pod runs and has addresses.
    pub async fn running(&self, name: &str) -> anyhow::Result<Pod> {
        let pods: Api<core::Pod> = self.api();
        eventually(&format!("pod {name} of {} runs", self.name), Pod::START, || async {
            Ok(Pod::of(&self.client, &pods.get(name).await?))
        })
        .await
    }

    /// Sets a pod's label, or removes it with `None`.
    pub async fn label(&self, pod: &str, key: &str, value: Option<&str>) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"labels": {key: value}}}));
        self.api::<core::Pod>().patch(pod, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Waits for an event of a pod with this reason, and returns its message.
    pub async fn event(&self, pod: &Pod, reason: &str) -> anyhow::Result<String> {
        eventually(&format!("an event {reason} of {}", pod.name), Duration::from_secs(60), || async {
            let mut events = self.events(pod).await?.into_iter();
            let event = events.find(|(found, _)| found == reason);
            Ok(event.map(|(_, message)| message).ok_or("none".to_string()))
        })
        .await
    }

    /// Reason and message of every event of a pod.
    pub async fn events(&self, pod: &Pod) -> anyhow::Result<Vec<(String, String)>> {
        let of_pod = ListParams::default().fields(&format!("involvedObject.uid={}", pod.uid));
        let events = self.api::<core::Event>().list(&of_pod).await?.items.into_iter();
        Ok(events.map(|it| (it.reason.unwrap_or_default(), it.message.unwrap_or_default())).collect())
    }

    /// Kills a pod at once and forgets it.
    pub async fn kill(&self, pod: &str) -> anyhow::Result<()> {
        self.api::<core::Pod>().delete(pod, &kill_now()).await?;
        Ok(())
    }

    /// Applies any object in YAML, as `kubectl apply --server-side` would. One without a namespace goes here;
    /// one of a kind that has none is deleted with the namespace.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn apply(&self, yaml: &str) -> anyhow::Result<DynamicObject> {
        let object: DynamicObject =
            serde_yaml::from_str(yaml).with_context(|| format!("not an object:\n{yaml}"))?;
        let types = object.types.clone().context("the object has no kind")?;
        let (resource, capabilities) = pinned_kind(&self.client, &(&types).try_into()?)
            .await
            .with_context(|| format!("the cluster does not know {}: is l7egg installed?", types.kind))?;
        let name = object.metadata.name.clone().context("the object has no name")?;
        let api: Api<DynamicObject> = match capabilities.scope {
            kube::discovery::Scope::Cluster => {
                self.cluster_objects
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((resource.clone(), name.clone()));
                Api::all_with(self.client.clone(), &resource)
            }
            kube::discovery::Scope::Namespaced => {
                Api::namespaced_with(self.client.clone(), &self.name, &resource)
            }
        };
        let object = DynamicObject {
            metadata: kube::core::ObjectMeta { namespace: None, ..object.metadata.clone() },
            ..object
        };
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(&name, &parameters, &Patch::Apply(&object))
            .await
            .with_context(|| format!("cannot apply {} {name}", types.kind))
    }

    /// The Egg of this name.
    pub fn egg(&self, name: &str) -> EggView {
        EggView::egg(self.client.clone(), &self.name, name)
    }

    /// Applies an Egg or ClusterEgg and waits until it is enforced on just so many pods.
    ///
    /// # Errors
    /// When it is not within a minute; the message holds the last status.
    pub async fn enforce(&self, yaml: &str, pods: i32) -> anyhow::Result<EggView> {
        let (egg, generation) = self.submit(yaml).await?;
        egg.programmed(generation, pods).await?;
        Ok(egg)
    }

    /// Applies an Egg or ClusterEgg in mode Audit and waits until just so many pods are audited.
    ///
    /// # Errors
    /// When they are not within a minute; the message holds the last status.
    pub async fn audit(&self, yaml: &str, pods: i32) -> anyhow::Result<EggView> {
        let (egg, generation) = self.submit(yaml).await?;
        egg.audited(generation, pods).await?;
        Ok(egg)
    }

    /// Applies a ClusterEgg for nodes in mode Audit and waits until just so many are audited.
    ///
    /// # Errors
    /// When they are not within a minute; the message holds the last status.
    pub async fn audit_nodes(&self, yaml: &str, nodes: i32) -> anyhow::Result<EggView> {
        let (egg, generation) = self.submit(yaml).await?;
        egg.audited_on_nodes(generation, nodes).await?;
        Ok(egg)
    }

    /// Applies an Egg or ClusterEgg and waits until the operator has judged it: its condition `Accepted`.
    ///
    /// # Errors
    /// When the API server refuses it, or no judgement comes within a minute.
    pub async fn judge(&self, yaml: &str) -> anyhow::Result<Condition> {
        let (egg, generation) = self.submit(yaml).await?;
        egg.judged(generation).await
    }

    /// Applies a ClusterEgg for nodes and waits until it is enforced on just so many; with its status then.
    ///
    /// # Errors
    /// When it is not within a minute; the message holds the last status.
    pub async fn enforce_on_nodes(&self, yaml: &str, nodes: i32) -> anyhow::Result<(EggView, EggStatus)> {
        let (egg, generation) = self.submit(yaml).await?;
        let status = egg.programmed_on_nodes(generation, nodes).await?;
        Ok((egg, status))
    }

    async fn submit(&self, yaml: &str) -> anyhow::Result<(EggView, i64)> {
        let object = self.apply(yaml).await?;
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let egg = match object.metadata.namespace {
            Some(_) => self.egg(name),
            None => EggView::cluster_egg(self.client.clone(), name),
        };
        Ok((egg, object.metadata.generation.unwrap_or(0)))
    }

    /// Lets every pod connect to what is expected of it, and prints what happened.
    ///
    /// # Errors
    /// When anything happened that was not expected: the message lists all of it.
    pub async fn verify(&self, expectations: &[(&Pod, Vec<Expectation>)]) -> anyhow::Result<()> {
        let checked: Vec<Checked> = try_join_all(expectations.iter().map(|(pod, list)| check(pod, list)))
            .await?
            .into_iter()
            .flatten()
            .collect();
        checked.iter().for_each(|checked| println!("  {checked}"));
        let wrong: Vec<String> =
            checked.iter().filter(|checked| !checked.passed()).map(ToString::to_string).collect();
        anyhow::ensure!(
            wrong.is_empty(),
            "{} of {} checks failed:\n  {}",
            wrong.len(),
            checked.len(),
            wrong.join("\n  ")
        );
        Ok(())
    }

    /// The API of a namespaced kind, here.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    async fn remove(&self) {
        let objects =
            std::mem::take(&mut *self.cluster_objects.lock().unwrap_or_else(PoisonError::into_inner));
        join_all(objects.iter().map(|(resource, name)| async move {
            let _ = Api::<DynamicObject>::all_with(self.client.clone(), resource)
                .delete(name, &DeleteParams::default())
                .await;
        }))
        .await;
        // Kubelets take long to let go of pods, so they are not waited for.
        let _ = self.api::<core::Pod>().delete_collection(&kill_now(), &ListParams::default()).await;
        let _ = Api::<core::Namespace>::all(self.client.clone())
            .delete(&self.name, &DeleteParams::background())
            .await;
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(self.remove()));
    }
}

fn kill_now() -> DeleteParams {
    DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::background() }
}

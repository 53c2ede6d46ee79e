//! An API server with the CRDs, a namespace for each test, and the operator.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use l7egg_crds::{ClusterEgg, Condition, Egg, EggAssignment, EggStatus, SYSTEM_NAMESPACE};
use l7egg_operator::{Settings, run};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// The operator works on the whole cluster, so the tests take turns.
static TURN: Mutex<()> = Mutex::const_new(());

/// Longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    pub client: Client,
    pub namespace: String,
    operator: Option<Operator>,
    _turn: MutexGuard<'static, ()>,
}

/// A running operator.
pub struct Operator {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Operator {
    pub fn start(client: &Client, settings: Settings) -> Self {
        let shutdown = CancellationToken::new();
        let (client, token) = (client.clone(), shutdown.clone());
        let task =
            tokio::spawn(async move { run(client, settings, token).await.expect("the operator runs") });
        Operator { shutdown, task }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("the operator stops");
    }

    /// As SIGKILL would end it.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl World {
    /// Nothing, with the reason printed, if there is no API server and that is allowed.
    pub async fn new(name: &str) -> Option<World> {
        let turn = TURN.lock().await;
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let client = match reach().await {
            Ok(client) => client,
            Err(why) => {
                let skip = std::env::var_os("L7EGG_SKIP_OK").is_some();
                assert!(
                    skip,
                    "this test needs an API server: set KUBECONFIG, or L7EGG_SKIP_OK=1 to go without: {why}"
                );
                println!("skipped, no API server: {why}");
                return None;
            }
        };
        install(&client).await;
        refuse_company(&client).await;
        let namespace = format!("l7egg-test-{name}-{:x}", std::process::id());
        let world = World { client, namespace, operator: None, _turn: turn };
        world.make_namespace(&world.namespace, json!({})).await;
        Some(world)
    }

    pub async fn start_operator(&mut self) {
        self.start_operator_with(Settings::default()).await;
    }

    pub async fn start_operator_with(&mut self, settings: Settings) {
        assert!(self.operator.is_none(), "one operator at a time");
        self.operator = Some(Operator::start(&self.client, settings));
    }

    pub async fn stop_operator(&mut self) {
        self.operator.take().expect("an operator runs").stop().await;
    }

    pub async fn kill_operator(&mut self) {
        self.operator.take().expect("an operator runs").kill().await;
    }

    /// Removes what the test made.
    pub async fn end(mut self) {
        if let Some(operator) = self.operator.take() {
            operator.stop().await;
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for namespace in namespaces.list(&ListParams::default()).await.expect("a list of namespaces") {
            if namespace.name_any().starts_with(&self.namespace) {
                remove_all::<Pod>(&self.client, &namespace.name_any()).await;
                remove_all::<Egg>(&self.client, &namespace.name_any()).await;
                let _ = namespaces.delete(&namespace.name_any(), &DeleteParams::background()).await;
            }
        }
        let ours = ListParams::default().labels("l7egg.dev/test=true");
        let _ =
            Api::<Node>::all(self.client.clone()).delete_collection(&DeleteParams::default(), &ours).await;
    }

    pub fn eggs(&self) -> Api<Egg> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn cluster_eggs(&self) -> Api<ClusterEgg> {
        Api::all(self.client.clone())
    }

    pub fn assignments(&self) -> Api<EggAssignment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn system_assignments(&self) -> Api<EggAssignment> {
        Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE)
    }

    /// Names of all assignments of the test's namespace.
    pub async fn assignment_names(&self) -> Vec<String> {
        let list = self.assignments().list(&ListParams::default()).await.expect("a list of assignments");
        list.iter().map(ResourceExt::name_any).collect()
    }

    /// The same, for objects that cannot be read.
    pub async fn assignment_names_untyped(&self) -> Vec<String> {
        let resource = ApiResource::erase::<EggAssignment>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let list = api.list(&ListParams::default()).await.expect("a list of assignments");
        list.iter().map(ResourceExt::name_any).collect()
    }

    /// Makes or changes an Egg.
    pub async fn apply_egg(&self, name: &str, spec: Value) -> Egg {
        let object = json!({
            "apiVersion": "l7egg.dev/v1alpha1", "kind": "Egg", "metadata": {"name": name}, "spec": spec,
        });
        let params = PatchParams::apply("l7egg-test").force();
        self.eggs().patch(name, &params, &Patch::Apply(&object)).await.expect("the Egg is stored")
    }

    /// Makes a pod that is bound to a node of the test.
    pub async fn make_pod(&self, name: &str, node: &str, labels: Value) -> Pod {
        self.make_pod_in(&self.namespace, name, node, labels).await
    }

    pub async fn make_pod_in(&self, namespace: &str, name: &str, node: &str, labels: Value) -> Pod {
        self.make_node(node).await;
        let pod: Pod = from(json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "nodeName": node,
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "app", "image": "registry.local/none"}],
            },
        }));
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        // A new namespace has no default service account for a moment, and pods are forbidden until then.
        eventually("the pod can be made", || async {
            match api.create(&PostParams::default(), &pod).await {
                Ok(pod) => Ok(pod),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    pub async fn remove_pod(&self, name: &str) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        api.delete(name, &DeleteParams::default().grace_period(0)).await.expect("the pod is removed");
    }

    pub async fn finish_pod(&self, name: &str) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let patch = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
        api.patch_status(name, &PatchParams::default(), &patch).await.expect("the pod finishes");
    }

    pub async fn label_pod(&self, name: &str, labels: Value) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        api.patch(name, &PatchParams::default(), &patch).await.expect("the pod is labelled");
    }

    pub async fn annotate_pod(&self, name: &str, annotations: Value) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        api.patch(name, &PatchParams::default(), &patch).await.expect("the pod is annotated");
    }

    pub async fn make_namespace(&self, name: &str, labels: Value) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        });
        let params = PatchParams::apply("l7egg-test").force();
        api.patch(name, &params, &Patch::Apply(&object)).await.expect("the namespace is made");
    }

    /// The names of the pods of an assignment, once they are these.
    pub async fn expect_pods(&self, assignment: &str, pods: &[&str]) -> EggAssignment {
        expect_pods(&self.assignments(), assignment, pods).await
    }

    /// The Egg's status, once its condition has this truth and reason at its present generation.
    pub async fn expect_condition(&self, egg: &str, type_: &str, truth: &str, reason: &str) -> EggStatus {
        let what = format!("{egg} is {type_}={truth}, {reason}");
        eventually(&what, || async {
            let egg = self.eggs().get(egg).await.map_err(|error| error.to_string())?;
            let generation = egg.metadata.generation;
            let status = egg.status.unwrap_or_default();
            match condition(&status, type_) {
                Some(found)
                    if format!("{:?}", found.status) == truth
                        && found.reason == reason
                        && found.observed_generation == generation =>
                {
                    Ok(status)
                }
                _ => Err(format!("{status:?}")),
            }
        })
        .await
    }

    /// Reasons of all events about an object of the test's namespace.
    pub async fn event_reasons(&self, name: &str) -> Vec<String> {
        self.event_reasons_in(&self.namespace, name).await
    }

    /// The same; events about objects of no namespace are in `default`.
    pub async fn event_reasons_in(&self, namespace: &str, name: &str) -> Vec<String> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let fields = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let events = api.list(&fields).await.expect("a list of events");
        events.into_iter().filter_map(|event| event.reason).collect()
    }

    /// Has the node's kubelet tell of a boot.
    pub async fn boot_node(&self, name: &str, boot_id: &str) {
        let patch = Patch::Merge(json!({"status": {"nodeInfo": {"bootID": boot_id}}}));
        let api: Api<Node> = Api::all(self.client.clone());
        api.patch_status(name, &PatchParams::default(), &patch).await.expect("the node's boot is told");
    }

    async fn make_node(&self, name: &str) {
        let node: Node = from(json!({
            "metadata": {"name": name, "labels": {"l7egg.dev/test": "true"}},
            "spec": {"unschedulable": true},
        }));
        match Api::<Node>::all(self.client.clone()).create(&PostParams::default(), &node).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("no node: {error}"),
        }
    }
}

/// The names of the pods of an assignment, once they are these.
pub async fn expect_pods(api: &Api<EggAssignment>, name: &str, pods: &[&str]) -> EggAssignment {
    eventually(&format!("{name} has pods {pods:?}"), || async {
        let assignment = api.get(name).await.map_err(|error| error.to_string())?;
        // In order: before Kubernetes 1.24 the API server keeps that in which they came.
        let mut found: Vec<_> = assignment.spec.pods.iter().map(|pod| pod.name.as_str()).collect();
        found.sort_unstable();
        if found == pods { Ok(assignment) } else { Err(format!("{found:?}")) }
    })
    .await
}

/// Waits until there is no such object.
pub async fn expect_gone<K>(api: &Api<K>, name: &str)
where
    K: Clone + DeserializeOwned + Debug,
{
    eventually(&format!("{name} is gone"), || async {
        match api.get_opt(name).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

pub fn condition<'a>(status: &'a EggStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

/// A policy that allows one CIDR.
pub fn egg_spec(selector: Value, cidr: &str) -> Value {
    json!({"podSelector": selector, "egress": [{"to": [{"cidr": cidr}], "ports": [{"port": 443}]}]})
}

/// Tries until it succeeds, and says what was last wrong if it never does.
pub async fn eventually<T, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(why) => assert!(start.elapsed() < PATIENCE, "in vain: {what}; last seen: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of its kind")
}

async fn reach() -> Result<Client, String> {
    if std::env::var_os("KUBECONFIG").is_none() {
        return Err("KUBECONFIG is not set".to_owned());
    }
    let client = Client::try_default().await.map_err(|error| error.to_string())?;
    match tokio::time::timeout(PATIENCE, client.apiserver_version()).await {
        Ok(Ok(_)) => Ok(client),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Another operator would do what the tests expect of theirs, and what they do not.
async fn refuse_company(client: &Client) {
    let api: Api<Deployment> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let deployment = api.get_opt("l7egg-operator").await.expect("an answer about deployments");
    let replicas = deployment.and_then(|it| it.spec).map_or(0, |spec| spec.replicas.unwrap_or(1));
    assert!(
        replicas == 0,
        "an operator runs in this cluster; stop it for these tests: \
         kubectl -n {SYSTEM_NAMESPACE} scale deployment/l7egg-operator --replicas=0"
    );
}

async fn install(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (_, yaml) in l7egg_crds::manifests() {
        let crd: CustomResourceDefinition = serde_yaml::from_str(&yaml).expect("a CRD");
        // Not by server-side apply: API servers before 1.25 refuse the CEL rules there, and drop them here.
        replace(&api, &crd).await;
        eventually("the CRD is established", || async {
            let crd = api.get(&crd.name_any()).await.map_err(|error| error.to_string())?;
            let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
            let established = conditions
                .iter()
                .any(|condition| condition.type_ == "Established" && condition.status == "True");
            if established { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
    }
    let system: Namespace = from(json!({"metadata": {"name": SYSTEM_NAMESPACE}}));
    match Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &system).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => panic!("no namespace {SYSTEM_NAMESPACE}: {error}"),
    }
}

/// Makes an object or changes its spec to this one.
pub async fn replace(api: &Api<CustomResourceDefinition>, crd: &CustomResourceDefinition) {
    match api.create(&PostParams::default(), crd).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let current = api.get(&crd.name_any()).await.expect("the CRD is there");
            let mut next = crd.clone();
            next.metadata.resource_version = current.metadata.resource_version;
            api.replace(&crd.name_any(), &PostParams::default(), &next).await.expect("the CRD is changed");
        }
        Err(error) => panic!("no CRD: {error}"),
    }
}

async fn remove_all<K>(client: &Client, namespace: &str)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    K: Clone + DeserializeOwned + Debug + Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let params = DeleteParams::default().grace_period(0);
    let _ = api.delete_collection(&params, &ListParams::default()).await;
}

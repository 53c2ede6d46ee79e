//! The product as it is installed, without the kubelet: its operator and its agent against a real API server.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Config, ResourceExt};
use l7egg_crds::Egg;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::harness::{RESOLVERS, Setup, binary, cgroup2_root, run, unique};
use super::way_in;

/// Longest that something may take before the traffic begins.
const PATIENCE: Duration = Duration::from_secs(60);
/// Name of the pod and of the Egg.
const NAME: &str = "shop";

/// A pod that the API server knows, on a node that no kubelet is on, and an Egg that selects it.
pub struct Whole {
    runtime: Runtime,
    client: Client,
    namespace: String,
    /// Uid of the pod.
    pub uid: String,
    /// Directory of the pod's cgroup.
    pub cgroup: PathBuf,
    logs: PathBuf,
    bpffs: PathBuf,
}

impl Whole {
    /// Makes them, for the network of a pod of the harness.
    pub fn new(setup: &Setup, policy: &str) -> anyhow::Result<Self> {
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
        // The kubectl of Kubernetes 1.20 knows no CEL rules in CRDs.
        run("kubectl", &["apply", "--validate=false", "-k", &crds.to_string_lossy()]);
        let runtime = Runtime::new()?;
        let config = runtime.block_on(Config::infer())?;
        way_in::to_api_server(&config, &setup.pod)?;
        let client = {
            let _in_runtime = runtime.enter();
            Client::try_from(config)?
        };
        let namespace = format!("l7egg-chaos-{}", unique());
        let uid = runtime.block_on(pod(&client, &namespace))?;
        let cgroup = cgroup2_root().join(format!("{namespace}/kubepods/pod{uid}"));
        fs::create_dir_all(&cgroup)?;
        let logs = std::env::temp_dir().join(format!("{namespace}-logs"));
        fs::create_dir_all(&logs)?;
        let bpffs = setup.bpffs().to_owned();
        let whole = Self { runtime, client, namespace, uid, cgroup, logs, bpffs };
        whole.apply(policy)?;
        Ok(whole)
    }

    /// Changes the Egg's policy.
    pub fn apply(&self, policy: &str) -> anyhow::Result<()> {
        let mut spec: Value = serde_yaml::from_str(policy)?;
        spec["podSelector"] = json!({});
        let egg = json!({
            "apiVersion": "l7egg.dev/v1alpha1", "kind": "Egg", "metadata": {"name": NAME}, "spec": spec,
        });
        let params = PatchParams::apply("l7egg-chaos").force();
        self.runtime.block_on(self.eggs().patch(NAME, &params, &Patch::Apply(&egg)))?;
        Ok(())
    }

    /// Starts an agent for the pod's node, in its network.
    pub fn agent(&self, setup: &Setup) -> anyhow::Result<Child> {
        let root = self.cgroup.ancestors().nth(2).unwrap_or(&self.cgroup);
        let mut agent = setup.pod.in_node(&binary("l7egg-node-agent"));
        agent.args(["--node-name", &self.namespace, "--admin-address", "127.0.0.1:0"]);
        agent.args(["--cluster-dns", &RESOLVERS.join(",")]);
        agent.arg("--bpffs").arg(&self.bpffs).arg("--cgroup-root").arg(root);
        agent.arg("--admin-socket").arg(self.logs.join("agent.sock"));
        self.spawn(agent, "agent")
    }

    /// Starts an operator.
    pub fn operator(&self) -> anyhow::Result<Child> {
        let mut operator = Command::new(binary("l7egg-operator"));
        operator.args(["--metrics-address", "127.0.0.1:0"]);
        self.spawn(operator, "operator")
    }

    /// Waits until the Egg's status says that the pod is enforced.
    pub fn wait(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let egg = self.runtime.block_on(self.eggs().get(NAME))?;
            if egg.status.as_ref().is_some_and(|status| status.pods.enforced == 1) {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "the pod is not enforced: {:?}", egg.status);
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What operator and agent have logged, without debug messages: the end of it.
    pub fn explain(&self) -> String {
        let of = |name: &str| {
            let text = fs::read_to_string(self.logs.join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(20)..].join("\n"))
        };
        of("operator") + &of("agent")
    }

    fn eggs(&self) -> Api<Egg> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn spawn(&self, mut program: Command, log: &str) -> anyhow::Result<Child> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.logs.join(log))?;
        Ok(program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        for directory in self.cgroup.ancestors().take(3) {
            let deadline = Instant::now() + Duration::from_secs(5);
            while fs::remove_dir(directory).is_err() && directory.exists() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = fs::remove_dir_all(&self.logs);
        self.runtime.block_on(async {
            let now = DeleteParams::default().grace_period(0);
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
            let _ = pods.delete(NAME, &now).await;
            let _ = Api::<Namespace>::all(self.client.clone()).delete(&self.namespace, &now).await;
            let _ = Api::<Node>::all(self.client.clone()).delete(&self.namespace, &now).await;
        });
    }
}

/// Makes namespace, node and pod; the pod's uid.
async fn pod(client: &Client, namespace: &str) -> anyhow::Result<String> {
    let params = PostParams::default();
    let new: Namespace = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
    Api::<Namespace>::all(client.clone()).create(&params, &new).await?;
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": namespace}, "spec": {"unschedulable": true},
    }))?;
    Api::<Node>::all(client.clone()).create(&params, &node).await?;
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": NAME},
        "spec": {
            "nodeName": namespace, "automountServiceAccountToken": false,
            "containers": [{"name": "app", "image": "registry.local/none"}],
        },
    }))?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let deadline = Instant::now() + PATIENCE;
    // A new namespace has no default service account for a moment, and pods are forbidden until then.
    loop {
        match pods.create(&params, &pod).await {
            Ok(pod) => return Ok(pod.uid().unwrap_or_default()),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

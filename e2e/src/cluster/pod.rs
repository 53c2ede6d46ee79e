//! Client pods. Each runs `probe serve`, so that it can be connected to as well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, Patch, PatchParams, Request};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Hold, PROBE, TESTKIT, Watching, exec};
use crate::probe::{BulkReport, Change, ConnectReport, RaceReport, Target};
use crate::world;

/// How long a connection may take: more than any path in a cluster, and than what keeps a busy machine.
const TIMEOUT_MS: &str = "3000";

/// Name of every pod's first container.
const MAIN: &str = "main";

/// A pod to be made.
#[derive(Clone)]
pub struct PodPlan {
    name: String,
    labels: serde_json::Map<String, serde_json::Value>,
    annotations: serde_json::Map<String, serde_json::Value>,
    node: Option<String>,
    scheduled_to: Option<String>,
    nameserver: Option<IpAddr>,
    command: Vec<String>,
    init: Vec<serde_json::Value>,
    sidecars: Vec<serde_json::Value>,
    privileged: bool,
    host_network: bool,
    grace_seconds: u32,
}

impl PodPlan {
    /// A pod that asks the world's resolver over IPv4, on any node (or the one of `L7EGG_E2E_NODE`).
    pub fn new(name: &str) -> Self {
        let port = Pod::PORT.to_string();
        PodPlan {
            name: name.to_string(),
            labels: serde_json::Map::new(),
            annotations: serde_json::Map::new(),
            node: super::node_of_tests(),
            scheduled_to: None,
            nameserver: Some(IpAddr::V4(world::RESOLVER4)),
            command: [PROBE, "serve", "--tcp", &port, "--udp", &port].map(String::from).to_vec(),
            init: Vec::new(),
            sidecars: Vec::new(),
            privileged: false,
            host_network: false,
            grace_seconds: 0,
        }
    }

    /// With a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_string(), value.into());
        self
    }

    /// With an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_string(), value.into());
        self
    }

    /// Bound to a node from the beginning, without the scheduler.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.to_string());
        self
    }

    /// For the scheduler, which has this node to choose only, and tolerates no taint.
    #[must_use]
    pub fn scheduled_to(mut self, node: &str) -> Self {
        self.node = None;
        self.scheduled_to = Some(node.to_string());
        self
    }

    /// With another resolver.
    #[must_use]
    pub fn nameserver(mut self, address: IpAddr) -> Self {
        self.nameserver = Some(address);
        self
    }

    /// With the cluster's DNS as its resolver.
    #[must_use]
    pub fn cluster_dns(mut self) -> Self {
        self.nameserver = None;
        self
    }

    /// With another command than `probe serve`.
    #[must_use]
    pub fn command(mut self, command: &[&str]) -> Self {
        self.command = command.iter().map(|word| (*word).to_string()).collect();
        self
    }

    /// With a container that runs and ends before the others.
    #[must_use]
    pub fn init(mut self, name: &str, command: &[&str]) -> Self {
        self.init.push(container(name, command));
        self
    }

    /// With another container beside the first one, which is called `main`.
    #[must_use]
    pub fn sidecar(mut self, name: &str, command: &[&str]) -> Self {
        self.sidecars.push(container(name, command));
        self
    }

    /// Root of its node, with the node's processes in sight.
    #[must_use]
    pub fn privileged(mut self) -> Self {
        self.privileged = true;
        self
    }

    /// In its node's network. Its servers are on another port, which nobody of the node has.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self.command = [PROBE, "serve", "--tcp", "18080", "--udp", "18080"].map(String::from).to_vec();
        self
    }

    /// Its processes have so many seconds to end when it is deleted.
    #[must_use]
    pub fn grace(mut self, seconds: u32) -> Self {
        self.grace_seconds = seconds;
        self
    }

    /// The pod's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The object to create.
    pub fn object(&self) -> anyhow::Result<core::Pod> {
        let mut spec = json!({
            "terminationGracePeriodSeconds": self.grace_seconds,
            "enableServiceLinks": false,
            "automountServiceAccountToken": false,
            "nodeName": self.node,
            "hostPID": self.privileged,
            "hostNetwork": self.host_network,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": MAIN,
                "image": TESTKIT,
                "imagePullPolicy": "IfNotPresent",
                "command": self.command,
                "securityContext": {"privileged": self.privileged},
            }],
        });
        if let Some(node) = &self.scheduled_to {
            spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
            spec["tolerations"] = json!([]);
        }
        spec["initContainers"] = self.init.clone().into();
        if let Some(containers) = spec["containers"].as_array_mut() {
            containers.extend(self.sidecars.iter().cloned());
        }
        if let Some(nameserver) = self.nameserver {
            spec["dnsPolicy"] = "None".into();
            spec["dnsConfig"] = json!({"nameservers": [nameserver]});
        }
        Ok(serde_json::from_value(json!({
            "metadata": {"name": self.name, "labels": self.labels, "annotations": self.annotations},
            "spec": spec,
        }))?)
    }
}

fn container(name: &str, command: &[&str]) -> serde_json::Value {
    json!({"name": name, "image": TESTKIT, "imagePullPolicy": "IfNotPresent", "command": command})
}

/// A running pod.
#[derive(Clone)]
pub struct Pod {
    api: Api<core::Pod>,
    container: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its node.
    pub node: String,
    /// Its IPv4 address.
    pub address4: Ipv4Addr,
    /// Its IPv6 address.
    pub address6: Ipv6Addr,
}

impl Pod {
    /// The TCP and UDP port on which every client pod echoes.
    pub const PORT: u16 = 8080;

    /// A pod that runs, or what it still lacks.
    pub(super) fn of(client: &Client, pod: &core::Pod) -> Result<Self, String> {
        let status = pod.status.clone().unwrap_or_default();
        let containers = status.container_statuses.unwrap_or_default();
        if !containers.iter().all(|container| container.ready) || containers.is_empty() {
            let why = containers.iter().find_map(|container| container.state.clone()?.waiting?.reason);
            return Err(format!("{}: {}", status.phase.unwrap_or_default(), why.unwrap_or_default()));
        }
        let addresses: Vec<IpAddr> =
            status.pod_ips.iter().flatten().filter_map(|address| address.ip.parse().ok()).collect();
        let address4 = addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let address6 = addresses.iter().find_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        });
        let (Some(address4), Some(address6)) = (address4, address6) else {
            return Err(format!("needs an IPv4 and an IPv6 address, has {addresses:?}"));
        };
        Ok(Pod {
            api: Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default()),
            container: MAIN.to_string(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            node: pod.spec.clone().unwrap_or_default().node_name.unwrap_or_default(),
            address4,
            address6,
        })
    }

    /// The same pod, whose programs run in another of its containers.
    #[must_use]
    pub fn within(&self, container: &str) -> Self {
        Pod { container: container.to_string(), ..self.clone() }
    }

    /// Adds an ephemeral container, as `kubectl debug` does.
    pub async fn debug(&self, name: &str, command: &[&str]) -> anyhow::Result<()> {
        let containers = json!({"ephemeralContainers": [container(name, command)]});
        // Up to Kubernetes 1.21 it is the list that is patched, not the pod.
        let of_pod = Patch::Strategic(json!({"spec": containers}));
        let params = PatchParams::default();
        if self.api.patch_ephemeral_containers(&self.name, &params, &of_pod).await.is_ok() {
            return Ok(());
        }
        let request = Request::new(self.api.resource_url()).patch_subresource(
            "ephemeralcontainers",
            &self.name,
            &params,
            &Patch::Strategic(containers),
        )?;
        self.api.clone().into_client().request::<serde_json::Value>(request).await?;
        Ok(())
    }

    /// Runs a program in it; see [`exec`].
    pub async fn exec(&self, command: &[&str]) -> anyhow::Result<String> {
        exec(&self.api, &self.name, &self.container, command).await
    }

    /// Connects to every target at the same time.
    ///
    /// # Errors
    /// When a target is malformed or the probe does not run; not when connections fail.
    pub async fn connect(&self, targets: &[&str]) -> anyhow::Result<Vec<ConnectReport>> {
        for target in targets {
            target.parse::<Target>().map_err(|error| anyhow!(error))?;
        }
        let command = [&[PROBE, "connect", "--timeout-ms", TIMEOUT_MS], targets].concat();
        let output = self.exec(&command).await?;
        let reports: Vec<ConnectReport> =
            output.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        if reports.len() != targets.len() {
            bail!("{} targets, but the probe reported: {output}", targets.len());
        }
        Ok(reports)
    }

    /// Resolves and connects to fresh names: `arguments` are those of `probe race`.
    pub async fn race(&self, arguments: &[&str]) -> anyhow::Result<RaceReport> {
        self.json(&[&[PROBE, "race"], arguments].concat()).await
    }

    /// Sends as much as it can to an echo server.
    pub async fn bulk(&self, target: &str, seconds: u64) -> anyhow::Result<BulkReport> {
        self.json(&[PROBE, "bulk", target, "--seconds", &seconds.to_string()]).await
    }

    /// Opens a TCP connection and keeps it busy.
    pub async fn hold(&self, target: &str) -> anyhow::Result<Hold> {
        Hold::start(&self.api, &self.name, &self.container, target).await
    }

    /// Watches a destination, best a `udp` one.
    pub async fn watch(&self, target: &str) -> anyhow::Result<Watching> {
        Watching::start(&self.api, &self.name, &self.container, target).await
    }

    /// Its container's log so far.
    pub async fn log(&self) -> anyhow::Result<String> {
        let of = kube::api::LogParams { container: Some(self.container.clone()), ..Default::default() };
        Ok(self.api.logs(&self.name, &of).await?)
    }

    /// What a pod that watches as its first container has seen so far.
    pub async fn changes(&self) -> anyhow::Result<Vec<Change>> {
        Ok(self.log().await?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    /// How long a pod may take to start, on a busy machine.
    pub(super) const START: Duration = Duration::from_secs(90);

    async fn json<T: DeserializeOwned>(&self, command: &[&str]) -> anyhow::Result<T> {
        let output = self.exec(command).await?;
        serde_json::from_str(&output)
            .with_context(|| format!("{} in {} wrote: {output}", command.join(" "), self.name))
    }
}

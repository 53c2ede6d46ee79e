//! Looking at connections after a change of policy, as the agent does.

use std::path::Path;

use l7egg_node_agent::datapath::{Datapath, NODE_UID, Settled};
use l7egg_policy::CompiledPolicy;

use super::{Setup, fail, on_host, policy};

impl Setup {
    /// Looks at the connections of a container, as the agent does; how many were reset.
    pub fn settle_container(&mut self, name: &str, yaml: &str) -> usize {
        self.settle_containers(&[(name, yaml)])
    }

    /// The same for several at once.
    pub fn settle_containers(&mut self, containers: &[(&str, &str)]) -> usize {
        let of = |(name, yaml): &(&str, &str)| (self.pod.container(name), policy(yaml));
        let containers: Vec<_> = containers.iter().map(of).collect();
        let containers: Vec<_> = containers.iter().map(|(path, policy)| (path.as_path(), policy)).collect();
        let settled = self.kernel.settle_containers(self.pod.uid(), self.pod.cgroup(), &containers);
        settled.unwrap_or_else(fail).reset
    }

    /// Looks at the node's connections; how many were reset.
    pub fn settle_node(&mut self, cgroup: &Path, policy: &CompiledPolicy) -> usize {
        let kernel = &mut self.kernel;
        on_host(&self.pod, || kernel.settle(NODE_UID, cgroup, policy)).unwrap_or_else(fail).reset
    }

    /// Looks at the pod's connections, as the agent does after it has enforced a policy; how many were reset.
    pub fn settle(&mut self, yaml: &str) -> usize {
        self.settle_all(yaml).reset
    }

    /// The same; all that was done.
    pub fn settle_all(&mut self, yaml: &str) -> Settled {
        let (kernel, pod) = (&mut self.kernel, &self.pod);
        on_host(pod, || kernel.settle(pod.uid(), pod.cgroup(), &policy(yaml))).unwrap_or_else(fail)
    }
}

//! What is between a pod and the places that it talks to: the node, where there is one, and routers.

use std::path::Path;
use std::process::Command;

use super::{Link, Pod, ip, run};

impl Pod {
    /// A command in the node's network namespace ([`Link::ByNode`]), that sees this machine's cgroups and becomes the program.
    pub fn in_node(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}n", self.uid())).arg(program);
        command
    }

    /// Has nothing that the pod sends arrive in the world meanwhile ([`Link::ByNode`]).
    pub fn interrupt(&self, work: impl FnOnce()) {
        let node = format!("{}n", self.uid());
        ip::inside(&node, &["link set world nomaster"]);
        work();
        ip::inside(&node, &["link set world master bridge"]);
    }

    /// Has everything between the pod and its world carry packets of that size.
    pub fn set_mtu(&self, mtu: u32) {
        let set = |ns: &str, devices: &[&str]| {
            let lines: Vec<String> =
                devices.iter().map(|device| format!("link set {device} mtu {mtu}")).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            ip::inside(&format!("{}{ns}", self.uid()), &lines);
        };
        set("p", &["eth0"]);
        set("w", &["eth0"]);
        if self.link() == Link::ByNode {
            set("n", &["pod", "world", "bridge"]);
        }
    }
}

/// A place behind the world, for which the world is the router: 203.0.113.1 and 2001:db8:77::1.
pub struct Beyond {
    world: String,
    name: String,
}

impl Beyond {
    /// Makes it.
    pub fn new(pod: &Pod) -> Self {
        let (world, name) = (format!("{}w", pod.uid()), format!("{}b", pod.uid()));
        ip::host(&[&format!("netns add {name}")]);
        ip::inside(
            &world,
            &[
                &format!("link add beyond type veth peer name eth0 netns {name}"),
                "addr add 203.0.113.254/24 dev beyond",
                "addr add 2001:db8:77::fe/64 dev beyond nodad",
                "link set beyond up",
            ],
        );
        ip::inside(
            &name,
            &[
                "link set lo up",
                "addr add 203.0.113.1/24 dev eth0",
                "addr add 2001:db8:77::1/64 dev eth0 nodad",
                "link set eth0 up",
                "route add default via 203.0.113.254",
                "route add default via 2001:db8:77::fe",
            ],
        );
        for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            run("ip", &["netns", "exec", &world, "sysctl", "-qw", setting]);
        }
        Self { world, name }
    }

    /// Has the way there carry packets of that size only. What is there does not know.
    pub fn narrow(&self, mtu: u32) {
        ip::inside(&self.world, &[&format!("link set beyond mtu {mtu}")]);
    }

    /// A command there.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        ip::remove_netns(std::slice::from_ref(&self.name));
    }
}

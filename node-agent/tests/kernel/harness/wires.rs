//! How a pod's network is connected: see [`Link`](super::Link).

use super::ip;

/// A wire with an end here and one in another namespace.
pub fn veth(name: &str, other: &str, other_name: &str) -> String {
    format!("link add {name} type veth peer name {other_name} netns {other}")
}

/// Gives an interface `eth0` its addresses, and switches it on.
pub fn address(ns: &str, four: &str, six: &str) {
    ip::inside(
        ns,
        &[
            "link set lo up",
            &format!("addr add {four} dev eth0"),
            &format!("addr add {six} dev eth0 nodad"),
            "link set eth0 up",
        ],
    );
}

/// Connects a pod and a world by a node's bridge.
pub fn by_node(pod: &str, node: &str, world: &str) {
    ip::host(&[&format!("netns add {node}")]);
    ip::inside(pod, &[&veth("eth0", node, "pod")]);
    ip::inside(world, &[&veth("eth0", node, "world")]);
    let mut lines = vec!["link add bridge type bridge mcast_snooping 0".to_owned()];
    lines.extend(["pod", "world"].map(|port| format!("link set {port} master bridge")));
    lines.extend(["lo", "bridge", "pod", "world"].map(|device| format!("link set {device} up")));
    ip::inside(node, &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Has a pod's interface be a part of that by which the node is connected to the world.
pub fn on_top(pod: &str, node: &str, world: &str, kind: &str) {
    let mode = if kind == "macvlan" { "bridge" } else { "l2" };
    ip::host(&[&format!("netns add {node}")]);
    ip::inside(world, &[&veth("eth0", node, "world")]);
    let part = format!("link add link world name eth0 netns {pod} type {kind} mode {mode}");
    ip::inside(node, &["link set lo up", "link set world up", &part]);
}

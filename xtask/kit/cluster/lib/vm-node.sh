#!/usr/bin/env bash
# In a VM that is a node of the cluster on the VM's host (cluster.sh join): what cluster.sh does on the host for its own nodes.
#
#   vm-node.sh DIR NUMBER
#
# DIR is the cluster's directory, which the VM sees as all of the host's files: what is written there is lost, but for the logs.
set -euo pipefail
HERE=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
DIR=$1 NUMBER=$2 NAME=node$2 N=$DIR/node$2
net() { "${@:2}"; }   # of all machines it is always this one
. "$HERE/network.sh"
. "$DIR/cluster.env"

# kube-proxy sets what belongs to it as it starts, and ends where nothing has loaded it by then.
/sbin/modprobe nf_conntrack || true
[ -e /sys/class/net/eth0 ] || { echo "vm-node.sh: the VM has no eth0: does its kernel have virtio_net?" >&2; exit 1; }
address_node "$NUMBER"
for n in $(seq "$NODES"); do route_pods "$NAME" "$n"; done

# The node's cgroup has the same path as it would have on the host, because all agents are told theirs in the same way.
cgroup=/sys/fs/cgroup
for part in $(tr / ' ' <<<"${CGROUP2#"$cgroup"}/$NAME"); do
  cgroup+=/$part
  mkdir "$cgroup"
  for c in $(cat "$cgroup/cgroup.controllers"); do echo "+$c" >"$cgroup/cgroup.subtree_control"; done
done

# containerd makes overlays, which is not possible on the one that is our root.
mkdir "$N/lib"
mount -t tmpfs -o size=75% tmpfs "$N/lib"
mkfifo "$N/ctl"
{ until [ -e "$N/ready" ]; do sleep 0.2; done; echo boot 1<>"$N/ctl"; } &
exec unshare --mount --pid --uts --fork --kill-child=SIGKILL bash "$HERE/node-init.sh" "$NAME" "$N" "$cgroup"

#!/usr/bin/env bash
# In a VM (vm/vmrun, 4 GiB): starts a cluster of one node with all its state in memory, installs the product, and runs a command
# inside.
#
#   one-node.sh REPOSITORY IMAGE.tar... -- CMD...
#
# The machine is emulated, so everything takes some minutes. Needs root, and the binaries of Kubernetes in L7EGG_CACHE.
set -euo pipefail
HERE=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
REPOSITORY=$1; shift
IMAGES=(); while [ "$1" != -- ]; do IMAGES+=("$1"); shift; done; shift
export L7EGG_PATIENCE=${L7EGG_PATIENCE:-15}
LIMIT=$((60 * L7EGG_PATIENCE))s

# The root file system is an overlay, on which containerd cannot make another.
DIR=/mnt/l7egg-cluster
mkdir -p $DIR
mount -t tmpfs -o size=3g tmpfs $DIR
inside() { "$HERE/cluster.sh" exec --dir $DIR/cluster -- "$@"; }
ready() {
  inside kubectl -n "$1" rollout status "$2" --timeout=$LIMIT && return
  inside kubectl get pods -A -o wide
  inside kubectl get events -A --sort-by=.lastTimestamp | tail -n 20
  inside kubectl -n "$1" logs "$2" --tail=20
  return 1
} >&2

"$HERE/cluster.sh" up --dir $DIR/cluster --nodes 1
"$HERE/cluster.sh" load --dir $DIR/cluster "${IMAGES[@]}"
inside kubectl apply -f "$HERE/dns.yaml" >&2
# The kubectl of Kubernetes 1.20 knows no CEL rules in CRDs.
inside kubectl apply --validate=false -k "$REPOSITORY/manifests/local" >&2
ready kube-system deployment/l7egg-dns
ready l7egg-system deployment/l7egg-operator
ready l7egg-system daemonset/l7egg-node-agent
echo "[one node +${SECONDS}s] the product runs" >&2
inside env L7EGG_PATIENCE="$L7EGG_PATIENCE" "$@"

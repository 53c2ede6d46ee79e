# shellcheck shell=bash
# Sourced by cluster.sh: writes certificates, kubeconfigs and the services' start
# scripts below $DIR. Uses DIR, KUBE, CGROUP, CGROUP2, NODES, VM_NODE and the address functions.

write_certs() {   # EC keys, because making them takes milliseconds
  local pki=$DIR/pki ec=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
  mkdir -p "$pki"
  ca() { openssl req -x509 "${ec[@]}" -keyout "$pki/$1.key" -out "$pki/$1.crt" -days 30 -subj "/CN=$1" 2>/dev/null; }
  cert() {   # NAME CA SUBJECT EXTENSIONS
    openssl req "${ec[@]}" -keyout "$pki/$1.key" -out "$pki/$1.csr" -subj "$3" 2>/dev/null
    openssl x509 -req -in "$pki/$1.csr" -CA "$pki/$2.crt" -CAkey "$pki/$2.key" -CAcreateserial -days 30 \
      -extfile <(printf '%b' "$4") -out "$pki/$1.crt" 2>/dev/null
  }
  ca ca; ca front-proxy-ca
  cert apiserver ca /CN=kube-apiserver "extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,IP:$(node_ip 1),IP:$API_CLUSTER_IP,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local\n"
  cert kubelet-client ca /O=system:masters/CN=apiserver-kubelet-client "extendedKeyUsage=clientAuth\n"
  cert front-proxy front-proxy-ca /CN=front-proxy-client "extendedKeyUsage=clientAuth\n"
  openssl ecparam -genkey -name prime256v1 -noout -out "$pki/sa.key" 2>/dev/null
  openssl ec -in "$pki/sa.key" -pubout -out "$pki/sa.pub" 2>/dev/null
}

write_kubeconfigs() {   # one static token for each client
  local user token group n
  : >"$DIR/pki/tokens.csv"
  client() {   # FILE USER [GROUP]
    token=$(openssl rand -hex 16)
    echo "$token,$2,$2${3:+,\"$3\"}" >>"$DIR/pki/tokens.csv"
    cat >"$1" <<K
apiVersion: v1
kind: Config
clusters: [{name: l7egg, cluster: {server: "https://$(node_ip 1):6443", certificate-authority-data: $(base64 -w0 "$DIR/pki/ca.crt")}}]
users: [{name: $2, user: {token: $token}}]
contexts: [{name: l7egg, context: {cluster: l7egg, user: "$2"}}]
current-context: l7egg
K
    chmod 600 "$1"
  }
  client "$DIR/kubeconfig" admin system:masters
  client "$DIR/pki/kcm.kubeconfig" system:kube-controller-manager
  client "$DIR/pki/scheduler.kubeconfig" system:kube-scheduler
  client "$DIR/pki/proxy.kubeconfig" system:kube-proxy
  # The API server reads the tokens once, so the one of a node that may join later is made now.
  for n in $(seq "$NODES") "$VM_NODE"; do client "$DIR/pki/node$n.kubeconfig" "system:node:node$n" system:nodes; done
}

service() {   # MACHINE NAME: the start script comes on standard input
  { echo "export PATH=$KUBE/bin:\$PATH"; cat; } >"$DIR/$1/svc/$2"
}

write_control_plane() {
  local pki=$DIR/pki
  service node1 etcd <<S
exec etcd --data-dir /var/lib/etcd --unsafe-no-fsync --log-level warn --logger zap \\
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \\
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \\
  --initial-cluster default=http://127.0.0.1:2380
S
  service node1 kube-apiserver <<S
exec kube-apiserver --etcd-servers=http://127.0.0.1:2379 --secure-port=6443 --advertise-address=$(node_ip 1) \\
  --feature-gates=$GATES --service-cluster-ip-range=$SERVICE_CIDRS --allow-privileged=true \\
  --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --token-auth-file=$pki/tokens.csv \\
  --client-ca-file=$pki/ca.crt --tls-cert-file=$pki/apiserver.crt --tls-private-key-file=$pki/apiserver.key \\
  --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=$pki/sa.pub --service-account-signing-key-file=$pki/sa.key \\
  --kubelet-client-certificate=$pki/kubelet-client.crt --kubelet-client-key=$pki/kubelet-client.key --kubelet-preferred-address-types=InternalIP \\
  --requestheader-client-ca-file=$pki/front-proxy-ca.crt --requestheader-allowed-names=front-proxy-client \\
  --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \\
  --proxy-client-cert-file=$pki/front-proxy.crt --proxy-client-key-file=$pki/front-proxy.key
S
  service node1 kube-controller-manager <<S
exec kube-controller-manager --kubeconfig=$pki/kcm.kubeconfig --feature-gates=$GATES --use-service-account-credentials=true \\
  --service-account-private-key-file=$pki/sa.key --root-ca-file=$pki/ca.crt --leader-elect=false --bind-address=127.0.0.1 \\
  --node-monitor-grace-period=16s --controllers='*,-cloud-node-lifecycle,-route,-service'
S
  service node1 kube-scheduler <<S
exec kube-scheduler --kubeconfig=$pki/scheduler.kubeconfig --feature-gates=$GATES --leader-elect=false --bind-address=127.0.0.1
S
}

write_node() {   # NUMBER CGROUP [KUBELET'S OPTIONS]
  local n=$1 dir=$DIR/node$1 pki=$DIR/pki
  mkdir -p "$dir/cni"
  cat >"$dir/cni/10-bridge.conflist" <<S
{"cniVersion": "0.4.0", "name": "l7egg", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": false,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$(pod_cidr4 "$n")"}], [{"subnet": "$(pod_cidr6 "$n")"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
S
  # Default root and state directories: they are private to the machine, see node-init.sh.
  cat >"$dir/containerd.toml" <<S
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  disable_tcp_service = true
  disable_apparmor = true
  restrict_oom_score_adj = true    # lowering it needs CAP_SYS_RESOURCE, which sandboxes lack
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$KUBE/cni"
    conf_dir = "$dir/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "$KUBE/bin/runc"
S
  service "node$n" containerd <<S
exec containerd -c $dir/containerd.toml
S
  cat >"$dir/kubelet.yaml" <<S
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
featureGates: {IPv6DualStack: true, EphemeralContainers: true}
cgroupDriver: cgroupfs
cgroupRoot: $2          # kubepods goes below it, in every cgroup hierarchy
failSwapOn: false
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
clusterDNS: ["$DNS_CLUSTER_IP"]
clusterDomain: cluster.local
resolvConf: $DIR/resolv.conf        # for pods with dnsPolicy Default: the test world's server
nodeStatusUpdateFrequency: 2s       # pods and node changes show up quickly in tests
syncFrequency: 5s
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: "50Mi"}
imageGCHighThresholdPercent: 100    # images are only ever imported, so never collect them
imageGCLowThresholdPercent: 99
volumePluginDir: /var/lib/kubelet/volume-plugins
S
  service "node$n" kubelet <<S
exec kubelet --config=$dir/kubelet.yaml --kubeconfig=$pki/node$n.kubeconfig --hostname-override=node$n --node-ip=$(node_ip "$n"),$(node_ip6 "$n") \\
  --container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock \\
  --image-service-endpoint=unix:///run/containerd/containerd.sock --pod-infra-container-image=$PAUSE_IMAGE ${3:-}
S
  service "node$n" kube-proxy <<S
exec kube-proxy --kubeconfig=$pki/proxy.kubeconfig --feature-gates=$GATES --hostname-override=node$n --proxy-mode=iptables \\
  --cluster-cidr=$POD_CIDRS --conntrack-max-per-core=0
S
}

write_vm_node() {   # KERNEL IMAGE.tar...: the node in a VM, where the images are imported, and world's service that runs the VM
  local kernel=$1 name=node$VM_NODE dir=$DIR/node$VM_NODE; shift
  # Only what is meant for it: it is slow, and may end at any time.
  write_node "$VM_NODE" "${CGROUP2#/sys/fs/cgroup}/$name" --register-with-taints=l7egg.dev/emulated:NoSchedule
  service "$name" boot <<S
echo containerd >$dir/ctl
until ctr version >/dev/null 2>&1; do sleep 0.5; done
for image in $DIR/pause.tar${1:+$(printf ' %q' "$@")}; do ctr -n k8s.io images import "\$image" || exit 1; done
echo kubelet >$dir/ctl
echo kube-proxy >$dir/ctl
S
  # One CPU: two with a thread each (VM_ACCEL) take half as much again of the host's, are not ready earlier, and sometimes panic.
  service world "$name" <<S
export TMPDIR=$dir L7EGG_CACHE=$(printf %q "${L7EGG_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/l7egg}")
exec $(printf %q "$HERE/../vm/vmrun") --kernel $kernel --cpus 1 --mem 2048 --timeout 86400 --tap vm$VM_NODE --dir $dir/log -- \\
  $(printf %q "$HERE/lib/vm-node.sh") $DIR $VM_NODE
S
}

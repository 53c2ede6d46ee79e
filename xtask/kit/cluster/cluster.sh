#!/usr/bin/env bash
# A real Kubernetes 1.20.2 of one or two nodes, in namespaces of its own.
#
#   cluster.sh up         [--dir DIR] [--nodes 1|2]    start (builds the binaries if needed)
#   cluster.sh down       [--dir DIR] [--keep-logs]    stop and remove everything
#   cluster.sh status     [--dir DIR]                  what runs, and its memory
#   cluster.sh kubeconfig [--dir DIR]                  print the kubeconfig's path
#   cluster.sh exec       [--dir DIR] [--on MACHINE] -- CMD...   run CMD inside (default: on node1)
#   cluster.sh load       [--dir DIR] IMAGE.tar...     import images into every node, but not into the VM
#   cluster.sh join       [--dir DIR] [--kernel SERIES] IMAGE.tar...  start another node in a VM; import images there
#   cluster.sh joined     [--dir DIR]                  wait until that node is ready
#   cluster.sh leave      [--dir DIR]                  end the VM, and forget its node
#   cluster.sh stop|start|restart [--dir DIR] MACHINE SERVICE    e.g. restart node2 kubelet
#
# MACHINE is node1, node2 or world. Each has its own mount, network, PID and UTS
# namespaces. `world` is the nodes' default gateway and stands for the network outside
# the cluster. Nothing is reachable from, or routed to, the host's network.
# The node in a VM is node3, with Debian's kernel SERIES (default: 6.12; see ../vm/vmrun). The VM is a service
# of world, also called node3. It is tainted with l7egg.dev/emulated:NoSchedule. Commands cannot be run there.
# All state is below DIR (default: ${TMPDIR:-/tmp}/l7egg-cluster). Needs root.
# KUBE=DIR takes the binaries from DIR. L7EGG_PATIENCE=N waits N times as long, for emulated machines.
set -euo pipefail
HERE=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)

. "$HERE/lib/network.sh"

GATES=IPv6DualStack=true,EphemeralContainers=true
PAUSE_IMAGE=registry.local/pause:1
VM_NODE=3   # the number of the node in a VM, however many others there are

log() { printf '[cluster +%ds] %s\n' "$SECONDS" "$*" >&2; }
die() { log "error: $*"; exit 1; }
wait_for() {   # SECONDS WHAT CMD...
  local limit=$((SECONDS + $1 * ${L7EGG_PATIENCE:-1})) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $limit ] || { log "timed out waiting for $what"; return 1; }
    sleep 0.1
  done
}

# --- machines and their services ---------------------------------------------
machines() { local n; echo world; for n in $(seq "$NODES"); do echo "node$n"; done; }
pid_of() { cut -d' ' -f1 "$DIR/$1/init.pid"; }
alive() {   # MACHINE: true while its PID 1 runs, and is the very process that we started
  local pid ns
  # A zombie is as good as gone: the kernel has ended the rest of the PID namespace by then.
  read -r pid ns 2>/dev/null <"$DIR/$1/init.pid" && [ "$(readlink "/proc/$pid/ns/pid")" = "$ns" ] &&
    ! grep -q '^State:.Z' "/proc/$pid/status"
}
enter() {   # MACHINE: set ENTER to the command that runs another one inside
  [ -e "$DIR/$1/init.pid" ] || die "there is no $1 on this machine"
  # setpriv: killing the outer process ends the inner one, which has another PID.
  ENTER=(nsenter -t "$(pid_of "$1")" -m -u -n -p -- setpriv --pdeathsig TERM
         env PATH="$DIR/bin:$KUBE/bin:$PATH" KUBECONFIG="$DIR/kubeconfig" NO_PROXY='*' no_proxy='*')
}
inside() { enter "$1"; "${ENTER[@]}" "${@:2}"; }   # MACHINE CMD...
net() { nsenter -t "$(pid_of "$1")" -n -- "${@:2}"; }   # MACHINE CMD..., with the host's files
start() { echo "$2" 1<>"$DIR/$1/ctl"; }   # <>: do not block if nobody reads
service_pid() { inside "$1" cat "$DIR/$1/svc/$2.pid"; }
service_runs() { inside "$1" kill -0 "$(service_pid "$1" "$2")"; }
service_gone() { ! service_runs "$1" "$2" 2>/dev/null; }
stop() {
  if service_gone "$1" "$2"; then return; fi
  inside "$1" kill "$(service_pid "$1" "$2")"
  wait_for 10 "$2 on $1 to stop" service_gone "$1" "$2" && return
  # API servers wait up to a minute for their clients' watches to end.
  inside "$1" kill -KILL "$(service_pid "$1" "$2")"
  wait_for 10 "$2 on $1 to be killed" service_gone "$1" "$2"
}

boot() {   # MACHINE: new namespaces with node-init.sh as PID 1
  local d=$DIR/$1
  mkdir -p "$d/svc" "$d/log"; mkfifo "$d/ctl"
  # A clean environment, because the services would heed proxy settings; setsid, because
  # the cluster is to outlive the caller's terminal.
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
    setsid unshare --mount --net --pid --uts --fork --kill-child=SIGKILL \
    bash "$HERE/lib/node-init.sh" "$1" "$d" "$CGROUP2/$1" >"$d/log/init.log" 2>&1 </dev/null &
  echo $! >"$d/unshare.pid"
}

connect() {   # NUMBER: plug node N into the bridge in world
  net world ip link add "veth$1" type veth peer name eth0 netns "$(pid_of "node$1")"
  net world ip link set "veth$1" master lan0 up
  address_node "$1"
}
announce() {   # NUMBER: tell every other machine the way to node N's pods
  local m; for m in $(machines); do [ "$m" = "node$1" ] || route_pods "$m" "$1"; done
}

# --- cgroups: one subtree per cluster in every hierarchy, and nothing else ----
cgroup_mounts() { findmnt -rno TARGET -t cgroup,cgroup2; }
hand_down() {   # DIRECTORY: its children have the controllers that it has
  local c; for c in $(cat "$1/cgroup.controllers"); do echo "+$c" >"$1/cgroup.subtree_control"; done
}
make_cgroups() {   # kubelet wants its cgroupRoot to exist
  local m n c f
  for m in $(cgroup_mounts); do
    if [ -z "$(findmnt -rno TARGET -t cgroup)" ]; then
      mkdir "$m$CGROUP"; hand_down "$m"; hand_down "$m$CGROUP"
      for n in $(seq "$NODES"); do mkdir "$m$CGROUP/node$n"; hand_down "$m$CGROUP/node$n"; done
    fi
    for n in $(seq "$NODES"); do
      mkdir -p "$m$CGROUP/node$n"
      for c in "$CGROUP" "$CGROUP/node$n"; do   # a new v1 cpuset is empty and accepts no process
        for f in cpuset.cpus cpuset.mems; do
          if [ -e "$m/$f" ] && [ -e "$m$c/$f" ]; then cat "$m/$f" >"$m$c/$f"; fi
        done
      done
    done
  done
}
# On machines of their own nodes would not see each other's pods either.
hide_cgroups() {
  local m n o
  for m in $(findmnt -rno TARGET -t cgroup2); do
    for n in $(seq "$NODES"); do
      for o in $(seq "$NODES"); do
        [ "$n" = "$o" ] || inside "node$n" mount -t tmpfs tmpfs "$m$CGROUP/node$o"
      done
    done
  done
}
remove_cgroups() {
  local m; for m in $(cgroup_mounts); do
    [ ! -d "$m$CGROUP" ] || find "$m$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null || return 1
  done
}

# --- commands ------------------------------------------------------------------
up() {
  [ "$(id -u)" = 0 ] || die "needs root"
  case $NODES in 1|2) ;; *) die "--nodes must be 1 or 2" ;; esac
  [ ! -e "$DIR/cluster.env" ] || die "$DIR is in use; run '$0 down --dir $DIR' first"
  [[ $DIR != *[[:space:]]* ]] || die "DIR must not contain spaces"
  case $DIR/ in /run/*|/var/run/*|/var/lib/*|/var/log/*) die "DIR must not be below /run, /var/lib or /var/log" ;; esac
  [ -n "$(findmnt -rno TARGET -t cgroup2)" ] || die "needs cgroup2, alone or beside v1 controllers"
  KUBE=${KUBE:-$("$HERE/build-kube.sh")}
  [ -x "$KUBE/bin/kubelet" ] || die "no binaries in $KUBE"
  case $KUBE/ in /run/*|/var/run/*|/var/lib/*|/var/log/*) die "the binaries must not be below /run, /var/lib or /var/log" ;; esac

  SECONDS=0
  mkdir -p "$DIR"
  CGROUP=/l7egg-cluster-$(echo "$DIR" | sha256sum | cut -c1-8)
  CGROUP2=$(findmnt -rno TARGET -t cgroup2 | head -n 1)$CGROUP
  printf 'KUBE=%q\nNODES=%q\nCGROUP=%q\nCGROUP2=%q\n' "$KUBE" "$NODES" "$CGROUP" "$CGROUP2" >"$DIR/cluster.env"
  trap 'log "start failed; logs follow"; tail -n 5 "$DIR"/*/log/*.log >&2 || true; down' ERR
  set -E   # the trap holds in functions too

  local m n
  echo "nameserver $WORLD_DNS" >"$DIR/resolv.conf"
  # kubectl would keep what it discovers in the home directory, where it outlives the cluster.
  mkdir "$DIR/bin"
  printf '#!/bin/sh\nexec %q --cache-dir %q "$@"\n' "$KUBE/bin/kubectl" "$DIR/kubectl-cache" >"$DIR/bin/kubectl"
  chmod +x "$DIR/bin/kubectl"
  make_cgroups
  for m in $(machines); do boot "$m"; done
  . "$HERE/lib/config.sh"
  write_certs; write_kubeconfigs; write_control_plane
  for n in $(seq "$NODES"); do write_node "$n" "$CGROUP/node$n"; done
  "$HERE/mkimage.py" $PAUSE_IMAGE "$DIR/pause.tar" --add "$KUBE/bin/pause:/pause" --cmd /pause
  for m in $(machines); do wait_for 10 "$m" test -e "$DIR/$m/ready"; done
  hide_cgroups

  net world ip link add lan0 type bridge
  net world ip addr add $WORLD_IP/24 dev lan0
  net world ip addr add $WORLD_IP6/64 dev lan0 nodad
  net world ip link set lan0 up
  for n in $(seq "$NODES"); do connect "$n"; done
  for n in $(seq "$NODES"); do announce "$n"; done

  start node1 etcd; start node1 kube-apiserver
  for n in $(seq "$NODES"); do start "node$n" containerd; done
  for n in $(seq "$NODES"); do wait_for 20 "containerd on node$n" inside "node$n" ctr version; done
  load "$DIR/pause.tar"
  # Kubelet first looks for Docker during five seconds, so let it do that while the API server starts.
  for n in $(seq "$NODES"); do start "node$n" kubelet; done
  wait_for 60 "the API server" inside node1 kubectl get --raw /readyz
  log "API server ready"
  start node1 kube-controller-manager; start node1 kube-scheduler
  for n in $(seq "$NODES"); do wait_for 30 "node$n to register" inside node1 kubectl get node "node$n"; start "node$n" kube-proxy; done
  wait_for 60 "the nodes to be ready" nodes_are_ready
  wait_for 30 "the default service account" inside node1 kubectl get serviceaccount default
  trap - ERR
  log "$NODES node(s) ready; KUBECONFIG (inside only): $DIR/kubeconfig"
}

nodes_are_ready() {
  # They end when the API server keeps them waiting, which an emulated one does.
  local s; for s in kube-controller-manager kube-scheduler; do
    service_runs node1 $s || { log "starting $s again"; start node1 $s; }
  done
  inside node1 kubectl wait --for=condition=Ready node --all --timeout=5s
}

down() {
  [ -e "$DIR/cluster.env" ] || { log "nothing to stop in $DIR"; return 0; }
  SECONDS=0
  local m
  # The kernel ends every process of a PID namespace with its PID 1, and with the last
  # process go the mounts, interfaces, iptables rules and BPF pins of the machine.
  for m in $(machines); do
    if alive "$m"; then kill -KILL "$(pid_of "$m")"; fi
    # An `up` that was cut short may not have come as far as PID 1; it ends with its parent.
    unshare_gone "$m" || kill -KILL "$(cat "$DIR/$m/unshare.pid")" 2>/dev/null || true
  done
  for m in $(machines); do wait_for 30 "$m to end" dead "$m"; done
  # unshare, PID 1's parent, goes by itself, but the host's init may take a moment to reap it.
  for m in $(machines); do wait_for 5 "unshare of $m to end" unshare_gone "$m" || true; done
  wait_for 10 "cgroups below $CGROUP to empty" remove_cgroups
  if [ -n "$KEEP_LOGS" ]; then
    find "$DIR" -mindepth 1 -maxdepth 1 ! -name 'node*' ! -name world -exec rm -rf {} +
    find "$DIR" -mindepth 2 -maxdepth 2 ! -name log -exec rm -rf {} +
  else
    rm -rf "$DIR"
  fi
  log "down"
}
dead() { ! alive "$1"; }
unshare_gone() { [ ! -e "$DIR/$1/unshare.pid" ] || [ "$(cat "/proc/$(cat "$DIR/$1/unshare.pid")/comm" 2>/dev/null)" != unshare ]; }

status() {
  local m s
  for m in $(machines); do
    if alive "$m"; then
      echo "$m: up, PID $(pid_of "$m"), $(inside "$m" ps -eo rss= | awk '{n++; s += $1} END {printf "%d processes, %d MiB resident", n, s/1024}')"
    else
      echo "$m: down"; continue
    fi
    for s in "$DIR/$m"/svc/*.pid; do
      [ -e "$s" ] || continue; s=$(basename "$s" .pid)
      echo "  $s: $(if service_runs "$m" "$s" 2>/dev/null; then echo "running, PID $(service_pid "$m" "$s") inside"; else echo stopped; fi)"
    done
  done
  inside node1 kubectl get nodes -o wide
}

load() {
  local image n
  for n in $(seq "$NODES"); do
    for image; do inside "node$n" ctr -n k8s.io images import "$(realpath "$image")" >/dev/null; done
  done
}

join() {   # IMAGE.tar...
  local vm=node$VM_NODE image images=()
  # The VM reads them from another directory.
  for image; do image=$(realpath -e "$image") || die "no image"; images+=("$image"); done
  [ ! -e "$DIR/$vm" ] || die "there is a $vm; run '$0 leave --dir $DIR' first"
  "$HERE/../vm/fetch-kernel" "$KERNEL" >/dev/null || die "no kernel $KERNEL"
  mkdir -p "$DIR/$vm/svc" "$DIR/$vm/log"
  . "$HERE/lib/config.sh"
  write_vm_node "$KERNEL" "${images[@]}"
  net world ip tuntap add dev "vm$VM_NODE" mode tap || die "cannot make a tap device; is there a /dev/net/tun?"
  net world ip link set "vm$VM_NODE" master lan0 up
  announce "$VM_NODE"
  start world "$vm"
  wait_for 5 "the VM to start" service_runs world "$vm"
  log "$vm boots; its logs: $DIR/world/log/$vm.log, $DIR/$vm/log"
}
joined() {
  local vm=node$VM_NODE
  [ -e "$DIR/$vm" ] || die "no VM has joined; run '$0 join --dir $DIR' first"
  # An emulated machine takes some minutes.
  wait_for 600 "$vm to be ready, or its VM to end" vm_is_ready_or_gone && ! service_gone world "$vm" && return
  tail -n 20 "$DIR/world/log/$vm.log" "$DIR/$vm"/log/*.log >&2 || true
  die "the VM did not become a node; logs are above"
}
vm_is_ready_or_gone() {
  inside node1 kubectl wait --for=condition=Ready node "node$VM_NODE" --timeout=5s || service_gone world "node$VM_NODE"
}
leave() {   # also what is left of a VM that ended by itself
  local m vm=node$VM_NODE
  [ -e "$DIR/$vm" ] || { log "no VM has joined"; return 0; }
  stop world "$vm"
  for m in $(machines); do
    net "$m" ip route del "$(pod_cidr4 $VM_NODE)"; net "$m" ip -6 route del "$(pod_cidr6 $VM_NODE)"
  done 2>/dev/null || true
  net world ip link del "vm$VM_NODE" 2>/dev/null || true
  rm -rf "${DIR:?}/$vm" "$DIR/world/svc/$vm"*
  # Nobody is there to say that its pods have ended.
  inside node1 kubectl delete node "$vm" --ignore-not-found >/dev/null
  inside node1 kubectl delete pods -A --field-selector "spec.nodeName=$vm" --force --grace-period=0 >/dev/null 2>&1 ||
    log "pods of $vm are left"
  log "$vm left"
}

usage() { sed -n '2,/^set /{s/^# \{0,1\}//;/^set /!p}' "${BASH_SOURCE[0]}"; exit "${1:-0}"; }

DIR=${TMPDIR:-/tmp}/l7egg-cluster NODES=2 ON=node1 KEEP_LOGS= KERNEL=6.12
[ $# -gt 0 ] || usage 1
COMMAND=$1; shift
ARGS=()
while [ $# -gt 0 ]; do
  case $1 in
    --dir) DIR=$2; shift 2 ;;
    --nodes) NODES=$2; shift 2 ;;
    --on) ON=$2; shift 2 ;;
    --kernel) KERNEL=$2; shift 2 ;;
    --keep-logs) KEEP_LOGS=1; shift ;;
    --) shift; ARGS+=("$@"); break ;;
    -*) die "unknown option $1" ;;
    *) ARGS+=("$1"); shift ;;
  esac
done
DIR=$(realpath -m "$DIR")
if [ "$COMMAND" != up ] && [ -e "$DIR/cluster.env" ]; then . "$DIR/cluster.env"; fi
case $COMMAND in up|down|help|-h|--help) ;; *) [ -e "$DIR/cluster.env" ] || die "no cluster in $DIR" ;; esac

case $COMMAND in
  up) up ;;
  down) down ;;
  status) status ;;
  kubeconfig) echo "$DIR/kubeconfig" ;;
  exec) # back to the caller's directory, which nsenter leaves with the mount namespace
    enter "$ON"
    exec "${ENTER[@]}" sh -c 'cd "$1" 2>/dev/null || cd /; shift; exec "$@"' sh "$PWD" "${ARGS[@]}" ;;
  load) load "${ARGS[@]}" ;;
  join|joined|leave) "$COMMAND" "${ARGS[@]}" ;;
  start|stop) "$COMMAND" "${ARGS[@]}" ;;
  restart) stop "${ARGS[@]}"; start "${ARGS[@]}" ;;
  help|-h|--help) usage ;;
  *) usage 1 ;;
esac

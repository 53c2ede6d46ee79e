#!/usr/bin/env bash
# PID 1 of one machine (node1, node2 or world), started by cluster.sh in new
# mount, network, PID and UTS namespaces; or of node3 in a VM, started by vm-node.sh.
#
#   node-init.sh NAME NODEDIR CGROUP
#
# It makes the namespaces look like a machine of their own, and then starts the
# services whose names are written to NODEDIR/ctl. As PID 1 it adopts and reaps
# orphans (containerd's shims); when it is killed, the kernel ends everything else.
set -euo pipefail
NAME=$1 N=$2

# Its processes are in a cgroup2 of their own beside its pods', as a machine's are: what is
# for a node's own processes is then for these, and never for the machine that we run on.
if [ -d "$3" ]; then mkdir -p "$3/system"; echo 0 >"$3/system/cgroup.procs"; fi

# /proc still is the outer one here, so this is our PID as cluster.sh sees it.
# The namespace's inode tells us apart from a later process with the same PID.
read -r outer_pid _ </proc/self/stat
echo "$outer_pid $(readlink /proc/self/ns/pid)" >"$N/init.pid"

hostname "$NAME"
mount --make-rprivate /

# sysfs belongs to the network namespace in which it is mounted; cgroups do not.
mkdir -p "$N/cgroup"
mount --rbind /sys/fs/cgroup "$N/cgroup"
umount -R -l /sys
mount -t sysfs sysfs /sys
mount --rbind "$N/cgroup" /sys/fs/cgroup
umount -R -l "$N/cgroup"
mount -t bpf bpf /sys/fs/bpf          # private: pins vanish with the machine
mount -t proc proc /proc

# Kubelet, containerd and CNI write to fixed places (/var/lib/kubelet, /var/lib/cni,
# /var/log/pods, /run/containerd, /run/xtables.lock). Give each machine its own, so
# that paths are the usual ones inside and nothing is written outside NODEDIR.
mkdir -p "$N/run" "$N/lib"
mount --bind "$N/run" /run
mount --bind "$N/lib" /var/lib
mount --bind "$N/log" /var/log        # so the pods' logs end up beside the services'
mkdir -p /run/lock

# Ask the test world for names, not the host's resolver, which is out of reach from here.
resolv=$(readlink -m /etc/resolv.conf)
case $resolv in /run/*) mkdir -p "$(dirname "$resolv")"; touch "$resolv" ;; esac
[ ! -e "$resolv" ] || mount --bind "$N/../resolv.conf" "$resolv"

# Kubelet sets these sysctls, which are the whole kernel's, unless they already
# read as it wants. Let it read files that do.
mkdir -p "$N/sysctl"
for kv in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
          kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  key=${kv%=*} file=$N/sysctl/$(basename "${kv%=*}")
  echo "${kv#*=}" >"$file"
  mount --bind "$file" "/proc/sys/$key"
done

mount --make-rshared /                # hostPath mounts with mountPropagation need it

ip link set lo up
# Kubelet probes for clouds' metadata servers at its start; make that fail at once.
ip route add unreachable 169.254.0.0/16
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
# Pod to Service to pod on one bridge must pass kube-proxy's rules on the way back.
sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1 2>/dev/null || true

exec 3<>"$N/ctl"                      # read-write, so that read never meets end of file
touch "$N/ready"
while read -r service <&3; do
  bash "$N/svc/$service" >>"$N/log/$service.log" 2>&1 </dev/null 3<&- &
  echo $! >"$N/svc/$service.pid"
done

#!/bin/sh
# A node boots: systemd with the gate's unit and, in the kubelet's place, a service that makes the cgroups of pods and starts one.
# For a virtual machine: systemd does to /proc/sys and the like what it does when a machine boots. What it does to files stays in here.
#
# boot.sh AGENT RESULT      RESULT: what the pod could send without the gate, and what with it; the times; what the unit said
set -eu
agent=$1 result=$2 cgroup=${3-}
if [ -z "$cgroup" ]; then
    cgroup=$(awk '/ - cgroup2 /{print $5; exit}' /proc/self/mountinfo)/l7k-boot-$$
    mkdir "$cgroup"
    sh -c "echo \$\$ >'$cgroup/cgroup.procs'
           exec unshare --mount --net --pid --fork --kill-child sh '$0' '$agent' '$result' '$cgroup'" &
    unshared=$!
    for _ in $(seq 1200); do
        ! grep -q '^the end' "$result" 2>/dev/null || break
        kill -0 $unshared 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL $unshared 2>/dev/null || :
    wait $unshared 2>/dev/null || :
    for _ in $(seq 100); do
        find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || :
        [ -d "$cgroup" ] || break
        sleep 0.1
    done
    exit 0
fi

mount --make-rprivate /
mount -t proc proc /proc
for directory in /opt /etc/systemd/system; do mount -t tmpfs tmpfs $directory; done
mount -t bpf bpf /sys/fs/bpf
"$agent" gate install
mount -t tmpfs tmpfs /tmp
units=/etc/systemd/system
# Other tests have cgroups that look like pods'.
mkdir $units/l7egg-gate.service.d
sed -n "s|^ExecStart=.*|[Service]\nExecStart=\n& --cgroup-root $cgroup|p" $units/l7egg-gate.service >$units/l7egg-gate.service.d/tree.conf
# Not of a boot that is about pods.
for unit in systemd-udevd systemd-udev-trigger systemd-sysctl systemd-tmpfiles-setup systemd-tmpfiles-setup-dev systemd-modules-load \
    systemd-remount-fs systemd-random-seed systemd-update-utmp systemd-journal-flush; do
    ln -s /dev/null $units/$unit.service
done
cat >$units/kubelet.service <<UNIT
[Unit]
Description=In the kubelet's place
[Service]
Type=oneshot
ExecStart=/bin/sh /opt/kubelet
UNIT
ln -s $units/kubelet.service $units/multi-user.target.wants/
cat >/opt/kubelet <<KUBELET
exec >>'$result' 2>&1
ip link set lo up
ip netns add pod
ip link add host type veth peer name eth0 netns pod
ip address add 10.9.0.1/24 dev host; ip link set host up
ip -n pod address add 10.9.0.2/24 dev eth0; ip -n pod link set eth0 up
arrived() { awk '/^Udp: [0-9]/ {print \$3}' /proc/net/snmp; }
# Ten datagrams, to a port that nobody listens on: the host counts them.
send() {
    before=\$(arrived)
    sh -c "echo \\\$\\\$ >\$1/cgroup.procs; exec ip netns exec pod python3 -c \\"
import socket
for _ in range(10): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('10.9.0.1', 9))\\""
    echo "\$2: \$((\$(arrived) - before)) of 10 arrived"
}
mkdir -p $cgroup/other
send $cgroup/other "elsewhere"
echo "the gate is \$(systemctl show l7egg-gate -P ActiveState) as the kubelet starts"
pod=$cgroup/kubepods/burstable/pod0f3a2b1c-1111-2222-3333-444455556666/container
mkdir -p \$pod
# A kubelet takes longer from here to its first pod.
sleep 0.3
send \$pod "in a pod"
journalctl --unit l7egg-gate --output cat --no-pager
echo "the end"
KUBELET
exec env -i container=other PATH="$PATH" /lib/systemd/systemd --system --unit=multi-user.target

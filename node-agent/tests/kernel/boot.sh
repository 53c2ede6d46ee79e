# A node boots: the gate's unit and, in the kubelet's place, a service that makes the cgroups of pods and starts one. See systemd.sh.
# Argument: the agent. Said: what the pod could send without the gate, and what with it; what the unit said.
"$1" gate install
# Other tests have cgroups that look like pods'.
mkdir $units/l7egg-gate.service.d
sed -n "s|^ExecStart=.*|[Service]\nExecStart=\n& --cgroup-root $cgroup|p" $units/l7egg-gate.service >$units/l7egg-gate.service.d/tree.conf
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
# It ends when it has closed the gate. A kubelet takes longer from here to its first pod; here all takes its time.
for _ in \$(seq 100); do
    [ "\$(systemctl show l7egg-gate -P ActiveState)" = active ] || break
    sleep 0.1
done
send \$pod "in a pod"
journalctl --unit l7egg-gate --output cat --no-pager
echo "the end"
KUBELET

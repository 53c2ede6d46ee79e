# A host boots, with l7egg installed as the README says: the unit and the Eggs are those of examples/host. Units in the place of what
# brings up the network, of nginx.service and of another one say what they can reach. See systemd.sh.
# Arguments: a directory with the programs, that of the examples.
programs=$1 examples=$2
for directory in /usr/local/bin /etc/l7egg /etc/netns; do
    mkdir -p $directory
    mount -t tmpfs tmpfs $directory
done
cp "$programs/l7egg" "$programs/world" "$programs/probe" /usr/local/bin/
cp "$examples"/*.yaml /etc/l7egg/
cp "$examples/l7egg.service" $units/
ln -s $units/l7egg.service $units/multi-user.target.wants/
# Other tests have units too; and what DHCP writes when the network is up.
mkdir $units/l7egg.service.d
sed -n "s|^ExecStart=.*|[Service]\nExecStart=\n& --cgroup-root $cgroup --resolv-conf /opt/resolv.conf|p" $units/l7egg.service >$units/l7egg.service.d/here.conf
touch /opt/nothing
mount --bind /opt/nothing /etc/resolv.conf

unit() {   # NAME TYPE WHEN: runs /opt/NAME, and says its lines
    cat >$units/$1.service <<UNIT
[Unit]
$3
[Service]
Type=$2
ExecStart=/bin/sh /opt/$1
StandardOutput=append:$result
StandardError=append:$result
UNIT
    ln -s $units/$1.service $units/multi-user.target.wants/
}
unit network oneshot "After=network-pre.target
Before=network.target"
unit world notify "After=network.service"
unit nginx oneshot "After=world.service"
unit other oneshot "After=nginx.service"

cat >/opt/network <<'NETWORK'
echo "l7egg is $(systemctl show l7egg -P ActiveState) before the network is up"
ip link set lo up
ip netns add world
ip link add eth0 type veth peer name eth0 netns world
ip address add 10.77.0.2/24 dev eth0; ip link set eth0 up
ip -n world address add 10.77.0.1/24 dev eth0; ip -n world link set lo up; ip -n world link set eth0 up
ip route add default via 10.77.0.1
NETWORK
cat >/opt/world <<'WORLD'
ip netns exec world world serve >/dev/null &
while ! ip netns exec world world ctl set api.example.com A 300 198.18.0.80 2>/dev/null; do sleep 0.1; done
echo 'nameserver 198.18.0.53' | tee /opt/resolv.conf >/etc/resolv.conf
systemd-notify --ready
wait
WORLD
cat >/opt/nginx <<'NGINX'
reaches() {   # WHO
    for target in tcp4://api.example.com:443 tcp://198.18.0.81:443; do
        echo "$1: $target $(probe connect --timeout-ms 2000 $target | sed 's/.*"outcome":"\([a-z_]*\)".*/\1/')"
    done
}
# Its Egg is in force some milliseconds after it starts, and what DHCP wrote is known a second later; here all takes its time.
for _ in $(seq 60); do
    said=$(reaches nginx)
    case $said in *"com:443 ok"*"81:443 denied"*) break ;; esac
    sleep 1
done
echo "$said"
systemctl kill --signal KILL l7egg
reaches "nginx, l7egg killed"
while [ "$(systemctl show l7egg -P ActiveState)" != active ]; do sleep 0.1; done
reaches "nginx, l7egg back"
NGINX
cat >/opt/other <<'OTHER'
reaches() { echo "$1: $(probe connect --timeout-ms 2000 tcp://198.18.0.81:443 | sed 's/.*"outcome":"\([a-z_]*\)".*/\1/')"; }
reaches "other, audited"
for _ in $(seq 60); do
    recorded=$(l7egg denied --json | grep '"verdict":"audit"' | grep -c 198.18.0.81)
    [ "$recorded" = 0 ] || break
    sleep 1
done
echo "recorded: $recorded" | sed 's/[1-9][0-9]*$/some/'
sed -i 's/mode: Audit/mode: Enforce/' /etc/l7egg/host.yaml
for _ in $(seq 60); do
    said=$(reaches "other, enforced")
    case $said in *denied) break ;; esac
    sleep 1
done
echo "$said"
l7egg status
journalctl --unit l7egg --output cat --no-pager
echo "the end"
OTHER

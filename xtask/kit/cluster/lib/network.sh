# shellcheck shell=bash disable=SC2034
# Sourced by cluster.sh, and in a VM by vm-node.sh: who has which address, and what a node does with it. Who sources it has a
# function `net MACHINE CMD...`, which runs a command in that machine's network.

node_ip()   { echo "192.168.77.$1"; };   node_ip6()  { echo "fd00:77::$1"; }
pod_cidr4() { echo "10.88.$1.0/24"; };   pod_cidr6() { echo "fd00:88:0:$1::/64"; }
WORLD_IP=192.168.77.254  WORLD_IP6=fd00:77::fe
POD_CIDRS=10.88.0.0/16,fd00:88::/48
SERVICE_CIDRS=10.96.0.0/16,fd00:96::/112
API_CLUSTER_IP=10.96.0.1  DNS_CLUSTER_IP=10.96.0.10
# Where pods of dnsPolicy Default and programs on the nodes ask: the test world that e2e runs on every node.
WORLD_DNS=198.18.0.53

address_node() {   # NUMBER: node N's eth0, which is plugged in
  net "node$1" ip addr add "$(node_ip "$1")/24" dev eth0
  net "node$1" ip addr add "$(node_ip6 "$1")/64" dev eth0 nodad
  net "node$1" ip link set eth0 up
  net "node$1" ip route add default via $WORLD_IP
  net "node$1" ip -6 route add default via $WORLD_IP6
}
route_pods() {   # MACHINE NUMBER: the way from a machine to node N's pods; nothing is masqueraded
  net "$1" ip route add "$(pod_cidr4 "$2")" via "$(node_ip "$2")"
  net "$1" ip -6 route add "$(pod_cidr6 "$2")" via "$(node_ip6 "$2")"
}

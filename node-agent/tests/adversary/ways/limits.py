"""Ways that are known and not tried, with the reason."""

from attack import *


@way(out_of_scope="what follows the question reaches the pod's own resolver and goes no further: resolvers pass on questions, "
                  "not the bytes that came with them")
def behind_the_question():
    """Bytes behind the question of a query for an allowed name: records, EDNS options, padding. And over TCP those of a
    message that never is whole."""


@way(out_of_scope="who may make the pod's resolver or an allowed server forward bytes is theirs to say: what an allowed "
                  "destination does with what it was sent cannot be seen from here")
def allowed_servers_that_forward():
    """An open proxy, a mail server or a paste service among the allowed destinations."""


@way(out_of_scope="membership reports (IGMP, MLD) of the pod's kernel reach the link only, and carry no more than the "
                  "group's address; without them multicast reception ends")
def membership_reports():
    """Bits in the addresses of multicast groups that a program joins."""


@way(out_of_scope="what is read is what the socket was given, and not what another thread writes there before it is sent; over UDP it is "
                  "copied first, over TCP it would have to be for every segment. It reaches a resolver on the same node at most")
def pages_that_change():
    """Pages that are spliced into a TCP connection to the resolver, and written to after they were judged."""


@way(out_of_scope="timing, order and length of allowed packets can carry bits to an allowed destination's network; no "
                  "filter of destinations ends that")
def timing():
    """Covert channels in what is allowed."""


@way(out_of_scope="what the pod's kernel asks its neighbours (ARP, neighbour discovery) reaches the link only, and carries no "
                  "more than the address that is asked for; without it nothing is reachable")
def neighbour_questions():
    """Bits in the addresses that a program with CAP_NET_ADMIN lets the kernel ask for."""


@way(out_of_scope="the pod was free when it opened them, and the kernel does not tell who opened a connection: one from a "
                  "port on which the pod listens counts as one that came in. A pod that is new when its first Egg is there "
                  "has no such connections")
def connections_from_the_port_of_a_listener():
    """Connections that were opened before the first Egg, from a port on which the pod listens."""


@way(out_of_scope="it leaves by no interface of the pod's network, and no program on cgroups or interfaces sees it. Seccomp's "
                  "RuntimeDefault refuses AF_VSOCK since containerd 1.7 and Docker 23; devices are the cluster's to give")
def other_families():
    """AF_VSOCK to the machine that the node runs on, Bluetooth, RDMA devices."""

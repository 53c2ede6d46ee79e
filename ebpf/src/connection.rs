//! TCP: the verdict is on the connection, and stays in its socket.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{
    BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, bpf_sock, bpf_sock_ops,
};
use aya_ebpf::helpers::bpf_get_socket_cookie;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::programs::SockOpsContext;
use l7egg_ebpf_common::abi::{Address, Connection, DNS_PORT, Direction, protocol};
use l7egg_ebpf_common::packet::{Packet, TCP_ACK, TCP_SYN, TcpEnds};

use crate::maps::{ARRIVING, CONNECTIONS, INHERITED};
use crate::skb::{self, AF_INET, Frame, Skb};
use crate::subject::{Current, Known};
use crate::{EARLIER, JUDGED, NEW, Recalled, backstop, ended, listener, network, subject};

/// `BPF_TCP_LISTEN` of include/uapi/linux/bpf.h.
const LISTEN: u32 = 10;

/// Whether a packet is one of a connection that the policy in force has allowed or the other side opened. What
/// [`recall`] finds too, with no more reading than this needs: no other packet is as frequent.
#[inline(always)]
pub fn is_open(skb: Skb) -> bool {
    skb.usual_tcp().is_some_and(|ends| find_open(skb.any_socket(), &ends).is_some())
}

/// The same of a frame that leaves the pod: it must come from one of the pod's own addresses, too. Not of the last one.
#[inline(always)]
pub fn has_left(frame: Frame) -> bool {
    let Some(ends) = frame.usual_tcp() else { return false };
    !ended::is_end(ends.flags)
        && find_open(frame.any_socket(), &ends).is_some_and(|known| known.own == ends.source)
}

#[inline(always)]
fn find_open(socket: Option<*mut bpf_sock>, ends: &TcpEnds) -> Option<&'static Connection> {
    let known = storage(socket?, core::ptr::null_mut(), 0)?;
    // SAFETY: the socket's own storage; a packet of it is sent by one CPU at a time.
    let known = unsafe { &*known };
    let is_open = known.generation != 0
        && known.generation == subject::generation()
        && known.remote_port == ends.destination_port
        && known.local_port == ends.source_port
        && known.remote == ends.destination;
    if is_open { Some(known) } else { None }
}

/// What is known of the connection of a packet that leaves. `name` becomes the one of [`Recalled::Earlier`].
#[inline(always)]
pub fn recall(skb: Skb, subject: &Current, packet: &Packet, name: &mut u64) -> Recalled {
    Recalled::from_number(recall_connection(skb, subject, packet, name))
}

crate::global! {
    fn recall_connection(skb: Skb, subject: &Current, packet: &Packet, name: &mut u64) -> i32 {
        // A raw socket's packet has no connection to be remembered in.
        let Some(socket) = skb.socket() else { return NEW };
        // A listener sends SYN-ACKs only, to whoever asked for a connection.
        // SAFETY: checked for null; the verifier checks the offset.
        if unsafe { (*socket).state } == LISTEN {
            return JUDGED;
        }
        if let Some(known) = storage(socket, core::ptr::null_mut(), 0) {
            // SAFETY: the socket's own storage; a packet of it is sent by one CPU at a time.
            let known = unsafe { &mut *known };
            if is_same(known, packet) {
                if known.policy == subject.policy || known.direction == Direction::Ingress as u32 {
                    known.local_port = packet.source_port;
                    known.generation = generation(subject, packet);
                    return JUDGED;
                }
                *name = known.name;
                return EARLIER;
            }
        }
        if packet.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN {
            return NEW;
        }
        // Open before the programs were attached: otherwise it would have been judged or marked.
        match inherited(skb, subject, packet) {
            1 => {
                came_in(socket, subject, packet);
                return JUDGED;
            }
            2 => return EARLIER,
            _ => {}
        }
        if !subject.is_classified && listener::tcp(skb.as_ptr().cast(), &packet.source, packet.source_port) == 1 {
            // Not told apart yet. Accepted, as somebody listens on its port.
            came_in(socket, subject, packet);
            return JUDGED;
        }
        NEW
    }
}

/// Whether a packet that leaves replies to who opened a connection, whichever of the pod's containers it is of.
#[inline(always)]
pub fn replies(skb: Skb) -> bool {
    is_reply_of_socket(skb) == 1
}

crate::global! {
    fn is_reply_of_socket(skb: Skb) -> i32 {
        let Some(socket) = skb.socket() else { return 0 };
        let mut packet = MaybeUninit::uninit();
        let packet = skb::nothing(&mut packet);
        // Others that listen (SCTP) send by the same socket.
        if !skb.parse(packet) || packet.protocol != protocol::TCP {
            return 0;
        }
        // SAFETY: checked for null; the verifier checks the offset.
        if unsafe { (*socket).state } == LISTEN {
            return 1;
        }
        let Some(known) = storage(socket, core::ptr::null_mut(), 0) else { return 0 };
        // SAFETY: the socket's own storage; a packet of it is sent by one CPU at a time.
        let known = unsafe { &*known };
        i32::from(known.direction == Direction::Ingress as u32 && is_same(known, packet))
    }
}

/// What its socket remembers of the connection of a packet that leaves the pod, from one of its own addresses; as
/// [`recall`], but `name` becomes the one of [`Recalled::Judged`], too.
#[inline(always)]
pub fn known(frame: Frame, subject: &Current, packet: &Packet, name: &mut u64) -> Recalled {
    Recalled::from_number(recall_known(frame, subject.pod(), subject.policy, packet, name))
}

crate::global! {
    fn recall_known(frame: Frame, pod: u32, policy: u32, packet: &Packet, name: &mut u64) -> i32 {
        let Some(known) = frame.socket().and_then(|socket| storage(socket, core::ptr::null_mut(), 0)) else {
            return NEW;
        };
        // SAFETY: the socket's own storage. Whoever else writes its address at the same time writes the same.
        let known = unsafe { &mut *known };
        if !is_same(known, packet) {
            return NEW;
        }
        *name = known.name;
        let came_in = known.direction == Direction::Ingress as u32;
        if came_in && ended::is_end(packet.tcp_flags) {
            // What comes after this has no socket. It may have come in before there was a backstop, or so long ago that it is forgotten.
            backstop::came_in_before(pod, packet);
        }
        if known.policy == policy || came_in {
            known.own = packet.source;
            return JUDGED;
        }
        EARLIER
    }
}

/// Remembers that the policy in force allows the connection of a packet, by a name or 0.
#[inline(always)]
pub fn remember(skb: Skb, subject: &Current, packet: &Packet, name: u64) {
    if let Some(socket) = skb.socket() {
        store(socket, subject, packet, Direction::Egress, name);
    }
}

/// The same for a connection that a program asks for, whose own port is not known yet.
#[inline(always)]
pub fn remember_asked(socket: Option<*mut bpf_sock>, subject: &Current, packet: &Packet, name: u64) {
    if let Some(socket) = socket {
        store(socket, subject, &Packet { source_port: 0, ..*packet }, Direction::Egress, name);
    }
}

/// Notes whether a packet for a listener came in by the pod's own network. If it opens a connection, [`accepted`] runs
/// before the next packet of this CPU.
#[inline(always)]
pub fn arriving(skb: Skb, pod: u32, is_node: bool) {
    // SAFETY: checked for null; the verifier checks the offset.
    if skb.any_socket().is_some_and(|socket| unsafe { (*socket).state } == LISTEN)
        && let Some(arriving) = ARRIVING.get_ptr_mut(0)
    {
        // What the node's programs do in network namespaces of their own (containers that are no pods) is not told apart.
        let is_own = skb.is_of_pod_itself() || !(is_node || network::is_of(skb, pod));
        // SAFETY: this CPU's element.
        unsafe { *arriving = pod << 1 | u32::from(is_own) };
        if !is_own
            && network::has_backstop(pod)
            && let Some(ends) = skb.usual_tcp()
            && ends.flags & (TCP_SYN | TCP_ACK) == TCP_SYN
        {
            backstop::opens(pod, &ends);
        }
    }
}

/// Notes that a packet is for a listener that the subject leaves alone, as far as it had noted an earlier one.
#[inline(always)]
pub fn arriving_elsewhere(subject: &Current) {
    let Some(arriving) = ARRIVING.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's element.
    unsafe {
        if *arriving >> 1 == subject.id {
            *arriving = 0;
        }
    }
}

/// Marks a connection that the other side opened.
#[inline(always)]
pub fn accepted(ctx: &SockOpsContext) {
    if ctx.op() != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        return;
    }
    // Whichever container it is: the verdict is its direction.
    let Known::Policy(pod) = subject::pod() else { return };
    let ops: *mut bpf_sock_ops = ctx.ops;
    // SAFETY: the context is valid; its socket is tested before it is used.
    let socket = unsafe { (*ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        return;
    }
    // SAFETY: as above. All fields are read, one by one, whatever the family: the verifier refuses a pointer
    // that was computed.
    let (v4, v6) = unsafe {
        (
            (&raw const (*ops).remote_ip4).read_volatile(),
            [
                (&raw const (*ops).remote_ip6[0]).read_volatile(),
                (&raw const (*ops).remote_ip6[1]).read_volatile(),
                (&raw const (*ops).remote_ip6[2]).read_volatile(),
                (&raw const (*ops).remote_ip6[3]).read_volatile(),
            ],
        )
    };
    // From the pod itself: its packets over loopback are free, and it may not go on by another way.
    // SAFETY: this CPU's element.
    let arriving = ARRIVING.get_ptr_mut(0).map_or(0, |arriving| unsafe { *arriving });
    // Pods have programs of their own for that, or need none: what this program is called for it cannot ask for a cgroup.
    if pod.is_node() && arriving >> 1 != pod.id {
        return;
    }
    let is_own = arriving & 1 == 1;
    let direction = if is_own { Direction::Unknown } else { Direction::Ingress };
    let remote =
        if ctx.family() == AF_INET { Address::mapped(v4.to_ne_bytes()) } else { Address::from_words(v6) };
    let mut connection = Connection {
        name: 0,
        remote,
        // The kernel keeps it in network order, in the upper half on little endian.
        remote_port: u32::from_be(ctx.remote_port()) as u16,
        local_port: ctx.local_port() as u16,
        policy: 0,
        direction: direction as u32,
        subject: pod.id,
        generation: 0,
        own: Address::UNSPECIFIED,
    };
    storage(socket, &raw mut connection, u64::from(BPF_SK_STORAGE_GET_F_CREATE));
}

/// What the agent has found out about a connection from before: 1 if it came in, 2 if the pod opened it, 0 if
/// nothing is known. Not inlined: the cookie leaves the stack when it is done.
#[inline(never)]
fn inherited(skb: Skb, subject: &Current, packet: &Packet) -> i32 {
    // SAFETY: the context is valid.
    let cookie = unsafe { bpf_get_socket_cookie(skb.as_ptr().cast()) };
    let Some(known) = INHERITED.get_ptr(&cookie) else { return 0 };
    // SAFETY: map memory; only user space writes it, before the entry is there.
    let known = unsafe { &*known };
    if known.subject != subject.pod() || !is_same(known, packet) {
        return 0;
    }
    if known.direction == Direction::Ingress as u32 { 1 } else { 2 }
}

/// Remembers that a connection from before came in; the backstop has not seen it either.
#[inline(always)]
fn came_in(socket: *mut bpf_sock, subject: &Current, packet: &Packet) {
    store(socket, subject, packet, Direction::Ingress, 0);
    if network::has_backstop(subject.pod()) {
        backstop::came_in_before(subject.pod(), packet);
    }
}

#[inline(always)]
fn is_same(known: &Connection, packet: &Packet) -> bool {
    // No packet is sent from port 0: it stands for one that was not known yet.
    known.remote_port == packet.destination_port
        && (known.local_port == packet.source_port || known.local_port == 0)
        && known.remote == packet.destination
}

#[inline(always)]
fn store(socket: *mut bpf_sock, subject: &Current, packet: &Packet, direction: Direction, name: u64) {
    let Some(known) = storage(socket, core::ptr::null_mut(), u64::from(BPF_SK_STORAGE_GET_F_CREATE)) else {
        return;
    };
    // SAFETY: the socket's own storage. It may be an older one, of another destination.
    unsafe {
        (*known).name = name;
        (*known).remote = packet.destination;
        (*known).remote_port = packet.destination_port;
        (*known).local_port = packet.source_port;
        (*known).direction = direction as u32;
        (*known).policy = subject.policy;
        (*known).subject = subject.id;
        (*known).generation = generation(subject, packet);
        (*known).own = Address::UNSPECIFIED;
    }
}

/// What is said to a name server is always read.
#[inline(always)]
fn generation(subject: &Current, packet: &Packet) -> u64 {
    if packet.destination_port == DNS_PORT || packet.source_port == 0 { 0 } else { subject.generation }
}

#[inline(always)]
fn storage(socket: *mut bpf_sock, value: *mut Connection, flags: u64) -> Option<*mut Connection> {
    // SAFETY: `socket` was tested for null, and the helper finds nothing for one that is not a full socket; `value`
    // is null or a whole connection.
    let found = unsafe {
        bpf_sk_storage_get((&raw const CONNECTIONS).cast_mut().cast(), socket.cast(), value.cast(), flags)
    };
    if found.is_null() { None } else { Some(found.cast()) }
}

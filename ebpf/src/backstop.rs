//! The host's side of a pod's interface: what the programs on the cgroup do not see, or what was changed behind them.
//!
//! Packet sockets write past them; the pod's kernel replies by sockets of nobody; a pod with CAP_NET_ADMIN forwards,
//! rewrites and redirects. So everything is judged once more as it leaves, by what the socket or the flow was allowed,
//! or by the policy, and comes from the pod's own addresses.

use core::mem::MaybeUninit;

use l7egg_ebpf_common::abi::{
    Address, AddressKey, Counter, DNS_PORT, EventKind, FLOW_IDLE_NS, FRAGMENT_NS, FlowKey, FragmentKey,
    protocol,
};
use l7egg_ebpf_common::age::age_ns;
use l7egg_ebpf_common::judge::Verdict;
use l7egg_ebpf_common::link::{Control, Fragment, arp_sender, control, ethertype, fragment};
use l7egg_ebpf_common::packet::{Packet, TCP_ACK, TCP_SYN, TcpEnds};

use crate::asked::Destination;
use crate::maps::{ADDRESSES, ATTACHED, FRAGMENTS, INBOUND};
use crate::refuse::Said;
use crate::skb::{self, Frame, Parsed};
use crate::subject::{self, Current, Known};
use crate::{Recalled, Refusal, asked, connection, destination, ended, event, flow, refuse, unless_audited};

/// How old the time in `INBOUND` may be before it is written anew, in ns.
const INBOUND_TOLD_NS: u64 = 1_000_000_000;

/// Judges a frame that leaves a pod.
#[inline(always)]
pub fn leaving(frame: Frame) -> Result<Said, Refusal> {
    // What most frames are.
    if connection::has_left(frame) {
        return Ok(Said::Pass);
    }
    let Some(attached) = ATTACHED.get_ptr(&frame.interface()) else { return Ok(Said::Pass) };
    // SAFETY: written by user space as a whole, before the program is attached.
    let id = unsafe { (*attached).subject };
    let subject = match subject::of_frame(frame, id) {
        // What belongs to nobody may reply.
        Known::Policy(subject) | Known::Nobody(subject) => subject,
        Known::Free => {
            // What its kernel still has to say has no socket, and so nobody's, which is not free.
            if let Some(ends) = frame.usual_tcp().filter(|ends| ended::is_end(ends.flags)) {
                ended::closed_by(id, &ends);
            }
            return Ok(Said::Pass);
        }
        Known::Attaching | Known::Unconfigured { .. } => {
            // Whoever wants to reach a held pod must find it.
            let is_of_link = match frame.ethertype() {
                ethertype::ARP => is_own_arp(frame, id) == OWN,
                ethertype::IPV6 => is_of_link(frame, id) == 1,
                _ => false,
            };
            return if is_of_link { Ok(Said::Pass) } else { Err(Refusal::Unconfigured) };
        }
    };
    judge(frame, &subject).or_else(|refusal| unless_audited(&subject, refusal).map(|()| Said::Pass))
}

#[inline(always)]
fn judge(frame: Frame, subject: &Current) -> Result<Said, Refusal> {
    match frame.ethertype() {
        ethertype::IPV4 | ethertype::IPV6 => packet(frame, subject),
        ethertype::ARP => match is_own_arp(frame, subject.pod()) {
            OWN => Ok(Said::Pass),
            MALFORMED => Err(Refusal::Malformed),
            _ => Err(Refusal::Spoofed),
        },
        _ => Err(Refusal::Malformed),
    }
}

const SPOOFED: i32 = 0;
const OWN: i32 = 1;
const MALFORMED: i32 = 2;

crate::global! {
    /// One of these.
    fn is_own_arp(frame: Frame, subject: u32) -> i32 {
        match arp_sender(&frame, frame.len()) {
            // A probe (RFC 5227 §1.1) says nothing of itself.
            Some(sender) if sender == Address::mapped([0; 4]) || is_own_address(subject, &sender) == 1 => OWN,
            Some(_) => SPOOFED,
            None => MALFORMED,
        }
    }
}

crate::global! {
    /// 1 if it is of the link only, from one of the pod's own addresses, as its kernel says it.
    fn is_of_link(frame: Frame, subject: u32) -> i32 {
        let mut packet = MaybeUninit::uninit();
        let packet = skb::nothing(&mut packet);
        if frame.is_of_link_socket() || frame.parse(packet) != Parsed::Whole {
            return 0;
        }
        let is_own = is_link_local(&packet.source) || is_own_address(subject, &packet.source) == 1;
        i32::from(is_own && control(&frame, packet) == Control::Link)
    }
}

/// Remembers what comes in for a pod and may be replied to without a socket.
#[inline(always)]
pub fn entering(frame: Frame) {
    // Of TCP only what opens a connection.
    if frame.usual_tcp().is_some_and(|ends| ends.flags & (TCP_SYN | TCP_ACK) != TCP_SYN) {
        return;
    }
    let Some(attached) = ATTACHED.get_ptr(&frame.interface()) else { return };
    let mut packet = MaybeUninit::uninit();
    let packet = skb::nothing(&mut packet);
    if frame.parse(packet) != Parsed::Whole {
        return;
    }
    // SAFETY: as above.
    let subject = unsafe { (*attached).subject };
    // What answers the pod's queries is as free as they are, and too frequent to be written down.
    if packet.source_port == DNS_PORT && is_free_resolver(subject, &packet.source) == 1 {
        return;
    }
    let (local_port, remote_port) = match packet.protocol {
        protocol::TCP if packet.tcp_flags & (TCP_SYN | TCP_ACK) != TCP_SYN => return,
        protocol::TCP | protocol::UDP | protocol::SCTP => (packet.destination_port, packet.source_port),
        protocol::ICMP => match control(&frame, packet) {
            Control::EchoRequest(ident) => (0, ident),
            _ => return,
        },
        _ => return,
    };
    came_in(subject, packet, u32::from(local_port) << 16 | u32::from(remote_port));
}

crate::global! {
    /// 1 for one of the pod's resolvers, to which everything may be said.
    fn is_free_resolver(subject: u32, address: &Address) -> i32 {
        match subject::of(subject) {
            Known::Policy(subject) => i32::from(subject.trusts(address) && !refuses(&subject)),
            _ => 0,
        }
    }
}

/// A function of its own, so that its key leaves the stack.
#[inline(never)]
fn came_in(subject: u32, packet: &Packet, ports: u32) -> i32 {
    remember_inbound(&FlowKey {
        subject,
        local_port: (ports >> 16) as u16,
        remote_port: ports as u16,
        remote: packet.source,
        protocol: packet.protocol,
        reserved: [0; 3],
    })
}

/// The same of what opens a connection to a listener: CNIs that hand packets over to the pod's side of its interface
/// (`bpf_redirect_peer`) pass the host's side by.
#[inline(never)]
pub fn opens(subject: u32, ends: &TcpEnds) -> i32 {
    remember_inbound(&FlowKey {
        subject,
        local_port: ends.destination_port,
        remote_port: ends.source_port,
        remote: ends.source,
        protocol: protocol::TCP,
        reserved: [0; 3],
    })
}

/// The same of a connection that was open before there was a backstop, by a packet that leaves.
#[inline(never)]
pub fn came_in_before(subject: u32, packet: &Packet) -> i32 {
    remember_inbound(&FlowKey {
        subject,
        local_port: packet.source_port,
        remote_port: packet.destination_port,
        remote: packet.destination,
        protocol: protocol::TCP,
        reserved: [0; 3],
    })
}

#[inline(always)]
fn remember_inbound(key: &FlowKey) -> i32 {
    let now_ns = event::now_ns();
    if let Some(seen_ns) = INBOUND.get_ptr_mut(key) {
        // SAFETY: a number in map memory; the worst that a race does is an older time. Not written for every packet.
        unsafe {
            if age_ns(now_ns, *seen_ns) > INBOUND_TOLD_NS {
                *seen_ns = now_ns;
            }
        }
        return 1;
    }
    // An answer is of the pod's own flow, which a change of policy ends.
    if key.protocol != protocol::ICMP && flow::is_own(key) {
        return 1;
    }
    i32::from(INBOUND.insert(key, &now_ns, 0).is_ok())
}

#[inline(always)]
fn packet(frame: Frame, subject: &Current) -> Result<Said, Refusal> {
    let mut packet = MaybeUninit::uninit();
    let packet = skb::nothing(&mut packet);
    let parsed = frame.parse(packet);
    if parsed == Parsed::Malformed {
        return Err(Refusal::Malformed);
    }
    if !is_link_local(&packet.source) && !is_own(subject, &packet.source) {
        return Err(Refusal::Spoofed);
    }
    if parsed == Parsed::Fragment {
        return if follows(frame, subject, packet) == 1 { Ok(Said::Pass) } else { Err(Refusal::Malformed) };
    }
    let mut to = Destination { address: packet.destination, port: packet.destination_port };
    if subject.has_socket_balancer() {
        asked::translate(frame.as_skb(), packet, &mut to);
    }
    if to.port == DNS_PORT
        && matches!(packet.protocol, protocol::UDP | protocol::TCP)
        && subject.trusts(&to.address)
    {
        if refuses(subject) {
            match refuse::judge(frame, subject, packet)? {
                Said::Pass => {}
                said => return Ok(said),
            }
        }
        if subject.has_socket_balancer()
            && packet.protocol == protocol::TCP
            && ended::is_end(packet.tcp_flags)
        {
            ended::closed(subject, packet);
        }
    } else {
        judge_packet(frame, subject, packet, &to)?;
    }
    if packet.piece_at != 0 {
        begins(frame, subject, packet);
    }
    Ok(Said::Pass)
}

/// Whether queries are refused.
#[inline(always)]
fn refuses(subject: &Current) -> bool {
    !subject.enforcement.is_nothing() && subject.refuses()
}

#[inline(always)]
fn judge_packet(frame: Frame, subject: &Current, packet: &Packet, to: &Destination) -> Result<(), Refusal> {
    let mut name = 0;
    let recalled = match packet.protocol {
        protocol::TCP => connection::known(frame, subject, packet, &mut name),
        protocol::UDP | protocol::SCTP => flow::recall(subject, packet, &mut name),
        _ => Recalled::New,
    };
    if recalled == Recalled::Judged {
        if packet.protocol == protocol::TCP && ended::is_end(packet.tcp_flags) {
            // Other connections are judged the same without a socket.
            if name != 0 || subject.is_container() || subject.has_socket_balancer() {
                ended::closed(subject, packet);
            }
        }
        return Ok(());
    }
    match destination::judge(subject, &to.address, packet.protocol, to.port, &mut name) {
        Verdict::Allow => Ok(()),
        // What the pod has opened itself and may not say any more is no reply, whatever came back.
        _ if !is_own_flow(packet, recalled) && is_reply(frame, subject, packet) == 1 => Ok(()),
        // Which of several sends of one socket this is, its storage does not tell: the pod's own program has judged it.
        _ if subject.has_socket_balancer() && asked::is_of_socket(frame.as_skb(), packet) == 1 => Ok(()),
        _ if says_the_last(frame, subject, packet) => Ok(()),
        Verdict::Audit => {
            event::count(Counter::AuditDenied);
            event::refused(EventKind::AuditDenied, subject, packet);
            Ok(())
        }
        Verdict::Deny => {
            event::refused(EventKind::Denied, subject, packet);
            Err(Refusal::Denied)
        }
    }
}

/// Whether the pod has opened the flow of a packet. Of connections that is asked of their sockets.
#[inline(always)]
fn is_own_flow(packet: &Packet, recalled: Recalled) -> bool {
    packet.protocol != protocol::TCP && recalled == Recalled::Earlier
}

/// Whether it belongs to the end of a connection that was allowed. A packet socket has none.
#[inline(always)]
fn says_the_last(frame: Frame, subject: &Current, packet: &Packet) -> bool {
    !frame.is_of_link_socket() && ended::is_last(subject, packet, frame.len()) == 1
}

crate::global! {
    /// 1 if it replies to what came in, or is of the link. A packet socket says such things on its own account only.
    fn is_reply(frame: Frame, subject: &Current, packet: &Packet) -> i32 {
        let ports = u32::from(packet.source_port) << 16 | u32::from(packet.destination_port);
        match control(&frame, packet) {
            Control::Link => i32::from(!frame.is_of_link_socket()),
            Control::EchoReply(ident) => replies(subject, &packet.destination, protocol::ICMP, u32::from(ident)),
            Control::Error(at) => {
                let mut quoted = MaybeUninit::uninit();
                let quoted = skb::nothing(&mut quoted);
                if frame.parse_quoted(at, quoted) != Parsed::Whole || quoted.source != packet.destination {
                    return 0;
                }
                if quoted.source_port == DNS_PORT && is_free_resolver(subject.pod(), &quoted.source) == 1 {
                    return 1;
                }
                // The quoted one came in, so its sides are the other way round.
                let ports = u32::from(quoted.destination_port) << 16 | u32::from(quoted.source_port);
                // Or it answers what the pod may say.
                i32::from(
                    replies(subject, &quoted.source, quoted.protocol, ports) == 1
                        || flow::is_judged(subject, &quoted.source, quoted.protocol, ports) == 1,
                )
            }
            Control::EchoRequest(_) => 0,
            Control::Other => replies(subject, &packet.destination, packet.protocol, ports),
        }
    }
}

#[inline(never)]
fn replies(subject: &Current, remote: &Address, protocol: u8, ports: u32) -> i32 {
    let key = FlowKey {
        subject: subject.pod(),
        local_port: (ports >> 16) as u16,
        remote_port: ports as u16,
        remote: *remote,
        protocol,
        reserved: [0; 3],
    };
    let Some(seen_ns) = INBOUND.get_ptr_mut(&key) else { return 0 };
    let now_ns = event::now_ns();
    // SAFETY: a number in map memory; the worst that a race does is an older time.
    let idle_ns = age_ns(now_ns, unsafe { *seen_ns });
    // A connection may end with a reset long after it was opened.
    if protocol != protocol::TCP && idle_ns >= FLOW_IDLE_NS {
        return 0;
    }
    if idle_ns > INBOUND_TOLD_NS {
        // SAFETY: as above.
        unsafe { *seen_ns = now_ns };
    }
    1
}

#[inline(never)]
fn is_own_address(subject: u32, address: &Address) -> i32 {
    i32::from(ADDRESSES.get_ptr(&AddressKey { subject, address: *address }).is_some())
}

#[inline(always)]
fn is_own(subject: &Current, address: &Address) -> bool {
    is_own_address(subject.pod(), address) == 1
}

/// fe80::/10, and the unspecified addresses, with which a host begins: they reach the link only.
#[inline(always)]
fn is_link_local(address: &Address) -> bool {
    address.is_v6_link_local() || address.is_unspecified()
}

crate::global! {
    /// Remembers the first piece of a packet that has passed.
    fn begins(frame: Frame, subject: &Current, packet: &Packet) -> i32 {
        match fragment(&frame, packet) {
            Some(piece) if piece.is_first => remember_piece(subject, packet, &piece),
            _ => 0,
        }
    }
}

#[inline(never)]
fn remember_piece(subject: &Current, packet: &Packet, piece: &Fragment) -> i32 {
    let key = piece_key(subject, packet, piece);
    i32::from(FRAGMENTS.insert(&key, &event::now_ns(), 0).is_ok())
}

/// 1 if the first piece of the packet has passed.
#[inline(never)]
fn follows(frame: Frame, subject: &Current, packet: &Packet) -> i32 {
    let Some(piece) = fragment(&frame, packet) else { return 0 };
    let key = piece_key(subject, packet, &piece);
    // SAFETY: a number, read at once.
    match unsafe { FRAGMENTS.get(&key) } {
        Some(passed_ns) => i32::from(age_ns(event::now_ns(), *passed_ns) < FRAGMENT_NS),
        None => 0,
    }
}

#[inline(always)]
fn piece_key(subject: &Current, packet: &Packet, piece: &Fragment) -> FragmentKey {
    FragmentKey {
        subject: subject.pod(),
        ident: piece.ident,
        destination: packet.destination,
        protocol: piece.protocol,
        reserved: [0; 3],
    }
}

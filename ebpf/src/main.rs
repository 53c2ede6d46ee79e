//! The kernel programs. Each entry point is a match from what was found to what the kernel is told; the
//! work is in the modules, and the algorithms are in `l7egg-ebpf-common`.
//!
//! | program | attached to the pod's cgroup as | what it does |
//! |---|---|---|
//! | `egress` | cgroup_skb egress | judges every packet that leaves, notes DNS queries |
//! | `ingress` | cgroup_skb ingress | learns from DNS answers, remembers who opened a flow |
//! | `accepted` | sock_ops | marks accepted TCP connections, and those that the kernel opens; has those of held pods tried again soon, and for long; forgets those to name servers when they end |
//! | `created` | sock_create | marks sockets with their network namespace |
//! | `connect4`, `connect6` | connect hooks | refuse at once what the packets would be dropped for |
//! | `sendmsg4`, `sendmsg6` | sendmsg hooks | the same for UDP sockets that are not connected |
//!
//! And on the cgroups that hold all pods, where new pods are held however long that takes:
//!
//! | program | attached as | what it does |
//! |---|---|---|
//! | `gate_created` | sock_create | marks sockets of pods that the agent has not decided about |
//! | `gate_patience` | sock_ops | has their TCP connections tried again soon, and for long |
//! | `gate_egress` | cgroup_skb egress | loses what leaves by them |
//!
//! And on the host's side of the pod's interfaces, for what the cgroup does not see:
//!
//! | program | attached as | what it does |
//! |---|---|---|
//! | `leaving` | tc ingress | judges every frame once more, and whether it comes from the pod's own addresses |
//! | `entering` | tc egress | remembers what may be replied to without a socket |

#![no_std]
#![no_main]
// The target has the instructions, but no stable way to them.
#![allow(internal_features)]
#![feature(core_intrinsics)]

mod answer;
mod asked;
mod atomic;
mod backstop;
mod connect;
mod connection;
mod container;
mod destination;
mod ended;
mod event;
mod flow;
mod gate;
mod global;
mod listener;
mod maps;
mod name;
mod network;
mod node;
mod patience;
mod queries;
mod query;
mod refuse;
mod scratch;
mod sendmsg;
mod share;
mod skb;
mod sock_addr;
mod stream;
mod subject;
mod verdict;

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_TCP_CONNECT_CB};
use aya_ebpf::macros::{cgroup_skb, cgroup_sock, cgroup_sock_addr, classifier, sock_ops};
use aya_ebpf::programs::{SkBuffContext, SockAddrContext, SockContext, SockOpsContext, TcContext};
use l7egg_ebpf_common::abi::{Counter, DNS_PORT, EventKind, protocol};
use l7egg_ebpf_common::judge::Verdict;

use crate::asked::Destination;
use crate::refuse::Said;
use crate::skb::{Frame, Skb};
use crate::sock_addr::SockAddr;
use crate::subject::{Current, Known};
use crate::verdict::{EARLIER, JUDGED, NEW, Recalled, Refusal};

/// What the kernel is told of a packet or a connect.
const PASS: i32 = 1;
const DROP: i32 = 0;
/// Of `egress` alone: the packet is lost on the way (`NET_XMIT_DROP`), which no sender is told as an error. TCP tries
/// again every half second (`TCP_RESOURCE_PROBE_INTERVAL`), as it does where a queue is full, and not ever more seldom.
const LOSE: i32 = 2;
/// What the kernel is told of a frame: whoever comes next may judge it (`TC_ACT_UNSPEC`), or it goes no further
/// (`TC_ACT_SHOT`; include/uapi/linux/pkt_cls.h).
const NEXT: i32 = -1;
const SHOT: i32 = 2;

#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    match try_egress(Skb::new(&ctx)) {
        Ok(()) => PASS,
        Err(refusal) => {
            event::count(refusal.counter());
            if matches!(refusal, Refusal::Unconfigured) { LOSE } else { DROP }
        }
    }
}

#[inline(always)]
fn try_egress(skb: Skb) -> Result<(), Refusal> {
    // What most packets are. The rest is for the others.
    if connection::is_open(skb) {
        return Ok(());
    }
    // What stays in the pod is free: loopback, and the pod's own addresses, which are routed over it. But a raw
    // socket can speak in anybody's name, and the reply would not stay.
    if skb.is_loopback() && skb.socket().is_some() {
        return Ok(());
    }
    let subject = match subject::of_packet(skb) {
        Known::Policy(subject) => subject,
        Known::Attaching | Known::Free => return Ok(()),
        Known::Unconfigured { .. } => return Err(Refusal::Unconfigured),
        Known::Nobody(_) if connection::replies(skb) => return Ok(()),
        Known::Nobody(pod) => return unless_audited(&pod, Refusal::Unconfigured),
    };
    if node::leaves_alone(&subject, skb) {
        return Ok(());
    }
    let mut packet = MaybeUninit::uninit();
    let packet = skb::nothing(&mut packet);
    if !skb.parse(packet) {
        return unless_audited(&subject, Refusal::Malformed);
    }
    // Asked again, because a remembered answer would have the verifier go through the parser twice.
    if skb.is_loopback() {
        let stays = packet.source == packet.destination || packet.source.is_loopback();
        return if stays { Ok(()) } else { Err(Refusal::Malformed) };
    }
    if subject.is_node() && node::is_of_kernel(skb, packet) {
        return Ok(());
    }
    if subject.in_host_network() {
        asked::undo_nat(skb, packet);
    }
    let mut to = Destination { address: packet.destination, port: packet.destination_port };
    if subject.has_socket_balancer() {
        asked::translate(skb, packet, &mut to);
    }
    if to.port == DNS_PORT
        && matches!(packet.protocol, protocol::UDP | protocol::TCP)
        && subject.trusts(&to.address)
    {
        let noted = match packet.protocol {
            protocol::UDP => query::note(skb, &subject, packet),
            _ => stream::sent(skb, &subject, packet),
        };
        return noted.or_else(|refusal| match refusal {
            // The backstop answers it.
            Refusal::Query if network::is_covered(skb, &subject) => Ok(()),
            _ => unless_audited(&subject, refusal),
        });
    }
    let mut name = 0;
    let recalled = match packet.protocol {
        protocol::TCP => connection::recall(skb, &subject, packet, &mut name),
        protocol::UDP | protocol::SCTP => flow::recall(&subject, packet, &mut name),
        _ => Recalled::New,
    };
    if recalled == Recalled::Judged {
        return Ok(());
    }
    match destination::judge(&subject, &to.address, packet.protocol, to.port, &mut name) {
        Verdict::Allow => event::count(Counter::Allowed),
        Verdict::Audit => {
            event::count(Counter::AuditDenied);
            event::refused(EventKind::AuditDenied, &subject, packet);
        }
        // The end of a connection that is not allowed any more: the other side is to notice.
        Verdict::Deny if recalled == Recalled::Earlier && ended::is_reset(packet, skb.len() as usize) => {
            ended::reset(&subject, packet);
            return Ok(());
        }
        Verdict::Deny => {
            event::refused(EventKind::Denied, &subject, packet);
            return Err(Refusal::Denied);
        }
    }
    match packet.protocol {
        protocol::TCP => connection::remember(skb, &subject, packet, name),
        protocol::UDP | protocol::SCTP => {
            flow::remember(&subject, packet, name);
        }
        _ => {}
    }
    Ok(())
}

/// A packet that is refused for another reason than a rule passes all the same where nothing is enforced.
#[inline(always)]
fn unless_audited(subject: &Current, refusal: Refusal) -> Result<(), Refusal> {
    if !subject.enforcement.is_nothing() {
        return Err(refusal);
    }
    event::count(Counter::AuditDenied);
    Ok(())
}

#[cgroup_skb]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    let skb = Skb::new(&ctx);
    match try_ingress(skb) {
        Ok(()) => PASS,
        // An answer that cannot be learned now must not be read now either: the resolver asks again.
        Err(refusal) => {
            event::count(refusal.counter());
            DROP
        }
    }
}

#[inline(always)]
fn try_ingress(skb: Skb) -> Result<(), Refusal> {
    // Nothing that arrives is judged. What the pod sent itself neither opens flows nor teaches names.
    let known = subject::of_packet(skb);
    match &known {
        Known::Attaching => return Ok(()),
        Known::Policy(subject) if node::leaves_alone(subject, skb) => {
            connection::arriving_elsewhere(subject);
            return Ok(());
        }
        _ => {}
    }
    let is_node = matches!(&known, Known::Policy(subject) if subject.is_node());
    connection::arriving(skb, subject::own(), is_node);
    let Known::Policy(subject) = known else { return Ok(()) };
    if skb.is_of_pod_itself() {
        return Ok(());
    }
    // What most packets are. Of TCP only DNS is read.
    if !subject.has_socket_balancer() && skb.usual_tcp().is_some_and(|ends| ends.source_port != DNS_PORT) {
        return Ok(());
    }
    let mut packet = MaybeUninit::uninit();
    let packet = skb::nothing(&mut packet);
    if !skb.parse(packet) || packet.protocol == protocol::ICMP {
        return Ok(());
    }
    let is_of_resolver = (packet.source_port == DNS_PORT && subject.trusts(&packet.source))
        || (subject.has_socket_balancer() && asked::is_of_resolver(skb, &subject) == 1);
    // Only what comes from outside opens flows and teaches names.
    if (packet.protocol != protocol::TCP || is_of_resolver) && !network::is_own(skb, &subject) {
        return Ok(());
    }
    match packet.protocol {
        protocol::UDP if is_of_resolver => unless_free(&subject, answer::learn(skb, &subject, packet)),
        protocol::TCP if is_of_resolver => unless_free(&subject, stream::received(skb, &subject, packet)),
        protocol::UDP | protocol::SCTP => {
            flow::ingress(&subject, packet);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// An answer that cannot be read goes on where nothing is enforced: addresses that were not learned are as good.
#[inline(always)]
fn unless_free(subject: &Current, learned: Result<(), Refusal>) -> Result<(), Refusal> {
    match learned {
        Err(Refusal::Answer) if subject.enforcement.is_nothing() => Ok(()),
        other => other,
    }
}

#[cgroup_sock(sock_create)]
pub fn created(ctx: SockContext) -> i32 {
    if network::created(&ctx) { PASS } else { DROP }
}

#[cgroup_sock(sock_create)]
pub fn gate_created(ctx: SockContext) -> i32 {
    if gate::created(&ctx) { PASS } else { DROP }
}

#[sock_ops]
pub fn gate_patience(ctx: SockOpsContext) -> u32 {
    patience::heed_at_gate(&ctx);
    PASS as u32
}

#[cgroup_skb(egress)]
pub fn gate_egress(ctx: SkBuffContext) -> i32 {
    if gate::passes(Skb::new(&ctx)) {
        return PASS;
    }
    event::count(Counter::Unconfigured);
    LOSE
}

#[classifier]
pub fn leaving(ctx: TcContext) -> i32 {
    let frame = Frame::new(&ctx);
    match backstop::leaving(frame) {
        Ok(Said::Pass) => NEXT,
        Ok(Said::Answer) => refuse::send(frame),
        Ok(Said::Nothing) => SHOT,
        Err(refusal) => {
            event::count(refusal.counter());
            SHOT
        }
    }
}

#[classifier]
pub fn entering(ctx: TcContext) -> i32 {
    backstop::entering(Frame::new(&ctx));
    NEXT
}

#[sock_ops]
pub fn accepted(ctx: SockOpsContext) -> u32 {
    if ctx.op() == BPF_SOCK_OPS_TCP_CONNECT_CB {
        network::connects(&ctx);
        stream::connects(&ctx);
    } else if ctx.op() == BPF_SOCK_OPS_STATE_CB {
        stream::changes(&ctx);
    } else if !patience::heed(&ctx) {
        connection::accepted(&ctx);
    }
    PASS as u32
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    refused_at_once(connect::judge(&SockAddr::v4(&ctx)))
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    refused_at_once(connect::judge(&SockAddr::v6(&ctx)))
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    refused_at_once(sendmsg::judge(&SockAddr::v4(&ctx), |asked| asked.source_v4()))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    refused_at_once(sendmsg::judge(&SockAddr::v6(&ctx), |asked| asked.source_v6()))
}

#[inline(always)]
fn refused_at_once(result: Result<(), Refusal>) -> i32 {
    match result {
        Ok(()) => PASS,
        Err(_) => {
            event::count(Counter::Denied);
            DROP
        }
    }
}

/// The licence that the kernel asks for: some helpers are only for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // SAFETY: the verifier refuses a program in which this can be reached, so it never is.
    unsafe { core::hint::unreachable_unchecked() }
}

//! sendmsg(2) and sendto(2) on UDP sockets, with a destination: refused before a packet is made. What goes
//! over a connected socket is refused by the packet program, whose verdict the call returns as well.

use core::ffi::c_void;

use l7egg_ebpf_common::abi::{Address, AskedBy, Counter, EventKind, protocol};
use l7egg_ebpf_common::judge::Verdict;
use l7egg_ebpf_common::packet::Packet;

use crate::sock_addr::SockAddr;
use crate::subject::Known;
use crate::{Recalled, Refusal, asked as kept, destination, event, flow, listener, node, subject};

/// Judges a datagram. `source` is its source, which may be unspecified: asked last, because the stack is short.
#[inline(always)]
pub fn judge(asked: &SockAddr<'_>, source: impl Fn(&SockAddr<'_>) -> Address) -> Result<(), Refusal> {
    // Without a policy the packets are held back, not refused.
    let Known::Policy(subject) = subject::of_call() else { return Ok(()) };
    if node::leaves_alone_running(&subject) {
        return Ok(());
    }
    if subject.is_translated() {
        kept::remember(asked, AskedBy::Send, Some(&subject));
    }
    // Which interface multicast leaves by, the loopback maybe, only its packet knows.
    if asked.is_loopback() {
        return Ok(());
    }
    if asked.is_multicast() {
        kept::distrust(asked.as_ptr());
        return Ok(());
    }
    let packet = asked.packet();
    let mut name = 0;
    if flow::recall(&subject, &packet, &mut name) == Recalled::Judged {
        return Ok(());
    }
    let port = packet.destination_port;
    let verdict = destination::judge(&subject, &packet.destination, protocol::UDP, port, &mut name);
    if verdict == Verdict::Allow || stays_here(asked.as_ptr(), &source(asked), &packet) == 1 {
        return Ok(());
    }
    if verdict == Verdict::Audit {
        event::count(Counter::AuditDenied);
        event::refused_call(EventKind::AuditDenied, &subject, &packet);
        // So that its packet is not recorded once more.
        flow::remember(&subject, &packet, name);
        return Ok(());
    }
    event::refused_call(EventKind::Denied, &subject, &packet);
    Err(Refusal::Denied)
}

/// Whether a socket of the pod itself takes it if the address is the pod's own, which cannot be known here; if
/// it is not, the packet says so. What goes to an own address comes from the same one, unless it says otherwise.
/// Not inlined: the stack is short here.
#[inline(never)]
fn stays_here(ctx: *mut c_void, source: &Address, packet: &Packet) -> i32 {
    let source = if source.is_unspecified() { &packet.destination } else { source };
    let ports = u32::from(packet.source_port) << 16 | u32::from(packet.destination_port);
    let stays = listener::udp(ctx, source, &packet.destination, ports);
    if stays == 1 {
        // Nobody has judged where it goes otherwise.
        kept::distrust(ctx);
    }
    stays
}

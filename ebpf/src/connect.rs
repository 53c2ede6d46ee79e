//! connect(2): refuses at once what the packets would be dropped for, so that a program fails with EPERM
//! rather than after its timeout. The packet programs remain the authority.

use l7egg_ebpf_common::abi::{AskedBy, Counter, DNS_PORT, EventKind, protocol};
use l7egg_ebpf_common::judge::Verdict;

use crate::sock_addr::SockAddr;
use crate::subject::Known;
use crate::{Refusal, asked as kept, connection, destination, event, listener, node, subject};

/// `IPPROTO_TCP` and `IPPROTO_UDP`.
const IPPROTO_TCP: u32 = protocol::TCP as u32;
const IPPROTO_UDP: u32 = protocol::UDP as u32;

/// Judges a connect. One of UDP is never refused: getaddrinfo does it to sort addresses.
#[inline(always)]
pub fn judge(asked: &SockAddr<'_>) -> Result<(), Refusal> {
    let subject = match subject::of_call() {
        Known::Policy(subject) => subject,
        // The packets are held back, not refused: they are sent again, and judged, once there is a policy.
        Known::Unconfigured { is_translated } => {
            if is_translated {
                kept::remember(asked, AskedBy::Connect, None);
            }
            return Ok(());
        }
        Known::Nobody(pod) => {
            if pod.is_translated() {
                kept::remember(asked, AskedBy::Connect, None);
            }
            return Ok(());
        }
        Known::Attaching | Known::Free => return Ok(()),
    };
    if node::leaves_alone_running(&subject) {
        return Ok(());
    }
    if subject.is_translated() {
        kept::remember(asked, AskedBy::Connect, Some(&subject));
    }
    let kind = asked.protocol();
    let is_judged = kind == IPPROTO_TCP || (kind == IPPROTO_UDP && subject.is_translated());
    if !is_judged || asked.is_loopback() {
        return Ok(());
    }
    let packet = asked.packet();
    let (mut name, port) = (0, packet.destination_port);
    let verdict = destination::judge(&subject, &packet.destination, kind as u8, port, &mut name);
    if verdict == Verdict::Allow {
        if kind == IPPROTO_TCP && port != DNS_PORT && !subject.is_translated() {
            // So that its packets are not judged once more. What is said to a name server is always read.
            connection::remember_asked(asked.socket(), &subject, &packet, name);
            event::count(Counter::Allowed);
        }
        return Ok(());
    }
    if kind == IPPROTO_UDP {
        if verdict == Verdict::Deny {
            kept::distrust(asked.as_ptr());
        }
        return Ok(());
    }
    // A listener of the pod itself takes it if the address is the pod's own, which cannot be known here;
    // if it is not, the packets say so.
    if listener::tcp(asked.as_ptr(), &packet.destination, packet.destination_port) == 1 {
        return Ok(());
    }
    if verdict == Verdict::Audit {
        event::count(Counter::AuditDenied);
        event::refused_call(EventKind::AuditDenied, &subject, &packet);
        // So that its packets are not recorded once more.
        connection::remember_asked(asked.socket(), &subject, &packet, name);
        return Ok(());
    }
    event::refused_call(EventKind::Denied, &subject, &packet);
    Err(Refusal::Denied)
}

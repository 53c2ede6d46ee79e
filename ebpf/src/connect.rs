//! connect(2): refuses at once what the packets would be dropped for, so that a program fails with EPERM
//! rather than after its timeout. The packet programs remain the authority.

use l7egg_ebpf_common::abi::{AskedBy, protocol};
use l7egg_ebpf_common::judge::Verdict;

use crate::sock_addr::SockAddr;
use crate::{Refusal, asked as kept, destination, event, listener, subject};

/// `IPPROTO_TCP` and `IPPROTO_UDP`.
const IPPROTO_TCP: u32 = protocol::TCP as u32;
const IPPROTO_UDP: u32 = protocol::UDP as u32;

/// Judges a connect. One of UDP is never refused: getaddrinfo does it to sort addresses.
#[inline(always)]
pub fn judge(asked: &SockAddr<'_>) -> Result<(), Refusal> {
    // Without a policy the packets are held back, not refused.
    let Some(subject) = subject::current() else { return Ok(()) };
    if subject.has_socket_balancer() {
        kept::remember(asked, AskedBy::Connect);
    }
    let kind = asked.protocol();
    let is_judged = kind == IPPROTO_TCP || (kind == IPPROTO_UDP && subject.has_socket_balancer());
    if !is_judged || asked.is_loopback() {
        return Ok(());
    }
    let port = asked.port();
    let judgement = destination::judge(&subject, &asked.address, kind as u8, port, 0);
    if judgement.verdict == Verdict::Allow {
        return Ok(());
    }
    if kind == IPPROTO_UDP {
        kept::distrust(asked);
        return Ok(());
    }
    // A listener of the pod itself takes it if the address is the pod's own, which cannot be known here;
    // if it is not, the packets say so.
    if listener::tcp(asked.as_ptr(), &asked.address, port) == 1 {
        return Ok(());
    }
    event::denied(&subject, &asked.address, protocol::TCP, port);
    Err(Refusal::Denied)
}

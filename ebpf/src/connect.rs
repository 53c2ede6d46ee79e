//! connect(2): refuses at once what the packets would be dropped for, so that a program fails with EPERM
//! rather than after its timeout. The packet programs remain the authority.

use l7egg_ebpf_common::abi::protocol;
use l7egg_ebpf_common::judge::Verdict;

use crate::sock_addr::SockAddr;
use crate::{Refusal, destination, event, listener, subject};

/// `IPPROTO_TCP`. UDP is connected for other reasons too: getaddrinfo does it to sort addresses.
const IPPROTO_TCP: u32 = protocol::TCP as u32;

/// Judges a connect.
#[inline(always)]
pub fn judge(asked: &SockAddr<'_>) -> Result<(), Refusal> {
    if asked.protocol() != IPPROTO_TCP || asked.is_loopback() {
        return Ok(());
    }
    // Without a policy the packets are held back, not refused.
    let Some(subject) = subject::current() else { return Ok(()) };
    let port = asked.port();
    let judgement = destination::judge(&subject, &asked.address, protocol::TCP, port, 0);
    // A listener of the pod itself takes it if the address is the pod's own, which cannot be known here;
    // if it is not, the packets say so.
    if judgement.verdict == Verdict::Allow || listener::tcp(asked.as_ptr(), &asked.address, port) == 1 {
        return Ok(());
    }
    event::denied(&subject, &asked.address, protocol::TCP, port);
    Err(Refusal::Denied)
}

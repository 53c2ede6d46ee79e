//! connect(2): refuses at once what the packets would be dropped for, so that a program fails with EPERM
//! rather than after its timeout. The packet programs remain the authority.

use aya_ebpf::EbpfContext;
use aya_ebpf::programs::SockAddrContext;
use l7egg_ebpf_common::abi::{Address, mapped, protocol};
use l7egg_ebpf_common::judge::Verdict;

use crate::connection::words;
use crate::{Refusal, destination, event, listener, subject};

/// `IPPROTO_TCP`. UDP is connected for other reasons too: getaddrinfo does it to sort addresses.
const IPPROTO_TCP: u32 = protocol::TCP as u32;

/// Judges a connect to an IPv4 address.
#[inline(always)]
pub fn v4(ctx: &SockAddrContext) -> Result<(), Refusal> {
    // SAFETY: the context is valid; the verifier checks the offset.
    let address = unsafe { (*ctx.sock_addr).user_ip4 }.to_ne_bytes();
    judge(ctx, &mapped(address))
}

/// Judges a connect to an IPv6 address, IPv4-mapped ones too.
#[inline(always)]
pub fn v6(ctx: &SockAddrContext) -> Result<(), Refusal> {
    let addr = ctx.sock_addr;
    // SAFETY: as above. Word by word, as the verifier wants this field.
    let address = unsafe {
        [
            core::ptr::read_volatile(&raw const (*addr).user_ip6[0]),
            core::ptr::read_volatile(&raw const (*addr).user_ip6[1]),
            core::ptr::read_volatile(&raw const (*addr).user_ip6[2]),
            core::ptr::read_volatile(&raw const (*addr).user_ip6[3]),
        ]
    };
    judge(ctx, &words(address))
}

#[inline(always)]
fn judge(ctx: &SockAddrContext, address: &Address) -> Result<(), Refusal> {
    // SAFETY: as above.
    let (kind, port) = unsafe { ((*ctx.sock_addr).protocol, (*ctx.sock_addr).user_port) };
    if kind != IPPROTO_TCP || is_loopback(address) {
        return Ok(());
    }
    // Without a policy the packets are held back, not refused.
    let Some(subject) = subject::current() else { return Ok(()) };
    let port = u16::from_be(port as u16);
    let judgement = destination::judge(&subject, address, protocol::TCP, port, 0);
    // A listener of the pod itself takes it if the address is the pod's own, which cannot be known here;
    // if it is not, the packets say so.
    if judgement.verdict == Verdict::Allow || listener::exists(ctx.as_ptr(), address, port) == 1 {
        return Ok(());
    }
    event::denied(&subject, address, protocol::TCP, port);
    Err(Refusal::Denied)
}

/// 127.0.0.0/8 and ::1, and the unspecified addresses, which connect treats as them.
#[inline(always)]
fn is_loopback(address: &Address) -> bool {
    if listener::is_v4(address) {
        return address[12] == 127 || address[12..] == [0; 4];
    }
    address[..15] == [0; 15] && address[15] <= 1
}

//! Memory to work in: a DNS message and the walks over it do not fit on the stack of 512 bytes.
//!
//! Not a per-CPU array: a program may be preempted, or interrupted by a packet that arrives, and another
//! program on the same CPU would then write into a name that is being judged. Every CPU has several buffers
//! and each run claims one for itself.

use core::sync::atomic::AtomicU64;

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use l7egg_ebpf_common::abi::{Counter, Learned, LearnedKey, Name, NameTail, SCRATCH_PER_CPU};
use l7egg_ebpf_common::answer::{AnswerWalk, Message, QUERY_MAX, QueryStart};
use l7egg_ebpf_common::atomics::Atomics;
use l7egg_ebpf_common::name::NameWalk;

use crate::answer::Learning;
use crate::atomic::{Bpf, swap};
use crate::maps::SCRATCH;
use crate::skb::Skb;
use crate::{Refusal, event};

/// One buffer.
#[repr(C)]
pub struct Scratch {
    busy: AtomicU64,
    /// Walk over a name.
    pub walk: NameWalk,
    /// Walk over an answer.
    pub answers: AnswerWalk,
    /// What is being learned.
    pub learning: Learning,
    /// A name to be stored.
    pub name: Name,
    /// See there.
    pub name_tail: NameTail,
    /// An address to be stored, and its key.
    pub learned: Learned,
    /// See there.
    pub learned_key: LearnedKey,
    /// Its place in the map, for [`claimed`].
    pub index: u32,
    /// The message.
    pub message: Message,
}

impl Scratch {
    /// Takes a query's beginning over as the message.
    #[inline(always)]
    pub fn set_message(&mut self, query: &QueryStart) {
        // SAFETY: a part of map memory that nothing else touches while the scratch is claimed; both buffers are as long as
        // what is copied, which both keep at a multiple of 8.
        unsafe {
            let message = &raw mut self.message;
            let from = query.bytes.as_ptr().cast::<u64>();
            let to = (&raw mut (*message).bytes).cast::<u64>();
            let mut i = 0;
            while i < QUERY_MAX / 8 {
                to.add(i).write(from.add(i).read());
                i += 1;
            }
            (*message).len = query.len;
            (*message).cut = query.cut;
        }
    }
}

/// Runs `work` with a buffer that nobody else uses.
#[inline(always)]
pub fn with<T>(work: impl FnOnce(&mut Scratch) -> Result<T, Refusal>) -> Result<T, Refusal> {
    let scratch = claim().ok_or(Refusal::ScratchBusy)?;
    // SAFETY: claimed, so this is the only reference; map memory lives as long as the program.
    let scratch = unsafe { &mut *scratch };
    let result = work(scratch);
    Bpf::store(&scratch.busy, 0);
    result
}

/// What [`hold`] says if no buffer is free.
pub const NONE: i32 = -1;

crate::global! {
    /// Claims a buffer for longer than one function: its place, for [`claimed`], until [`let_go`]; or [`NONE`].
    pub fn hold() -> i32 {
        match claim() {
            // SAFETY: claimed.
            Some(scratch) => unsafe { (*scratch).index as i32 },
            None => NONE,
        }
    }
}

/// Lets others claim a buffer.
#[inline(always)]
pub fn let_go(index: u32) {
    if let Some(scratch) = claimed(index) {
        Bpf::store(&scratch.busy, 0);
    }
}

/// What [`with_payload`] says of a payload that is shorter than the packet says.
pub const SHORT: i32 = -1;

/// The same with the `len` bytes at `at`, the beginning of a datagram's payload, as its message: what `work` says of it, and 0 if
/// no buffer is free. A payload that is shorter is counted as `unreadable`, and [`SHORT`].
#[inline(always)]
pub fn with_payload(
    skb: Skb,
    at: u32,
    len: u32,
    unreadable: Counter,
    work: impl FnOnce(&mut Scratch, &mut Message) -> i32,
) -> i32 {
    let result = with(|scratch| {
        let message = &raw mut scratch.message;
        // SAFETY: the scratch is ours, and the message is one of its parts that nothing else touches.
        let message = unsafe { &mut *message };
        if skb.copy(at, len, message) {
            Ok(work(scratch, message))
        } else {
            event::count(unreadable);
            Ok(SHORT)
        }
    });
    result.unwrap_or(0)
}

/// The buffer at this place, for a global function whose caller has claimed it: not by reference, because only memory that
/// the verifier knows for a map's may be a key or a value of another (up to Linux 6.3).
#[inline(always)]
pub fn claimed(index: u32) -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(index)?;
    // SAFETY: an element of the array; the caller does not use it until the function is done.
    Some(unsafe { &mut *scratch })
}

#[inline(always)]
fn claim() -> Option<*mut Scratch> {
    // SAFETY: the helper has no preconditions.
    let first = unsafe { bpf_get_smp_processor_id() } * SCRATCH_PER_CPU;
    let mut i = 0;
    while i < SCRATCH_PER_CPU {
        let scratch = SCRATCH.get_ptr_mut(first + i)?;
        // SAFETY: an element of the array; `busy` is only ever accessed atomically.
        if swap(unsafe { &(*scratch).busy }, 1) == 0 {
            // SAFETY: it is ours now.
            unsafe { (*scratch).index = first + i };
            return Some(scratch);
        }
        i += 1;
    }
    None
}

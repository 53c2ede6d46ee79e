//! DNS answers that arrive.

use aya_ebpf::helpers::bpf_loop;
use l7egg_ebpf_common::abi::{Counter, EventKind, LearnedKey, QueryKey};
use l7egg_ebpf_common::answer::{ANSWER_STEPS, HEADER, Header, MESSAGE_MAX, Step};
use l7egg_ebpf_common::learned;
use l7egg_ebpf_common::packet::{Bytes, Packet};

use crate::atomic::Bpf;
use crate::maps::{CONFIG, LEARNED, QUERIES};
use crate::scratch::Scratch;
use crate::skb::Skb;
use crate::subject::Current;
use crate::{Refusal, event, name, scratch};

/// `BPF_NOEXIST` of include/uapi/linux/bpf.h.
const NO_EXIST: u64 = 1;
/// `-EEXIST`.
const EXISTS: i32 = -17;

/// Learns the addresses of an answer from one of the pod's resolvers, if it answers a query that was noted.
/// Whatever it is, it passes: what was not learned opens nothing.
#[inline(always)]
pub fn learn(skb: &Skb, subject: &Current, packet: &Packet) -> Result<(), Refusal> {
    let Some(header) = skb.read::<{ HEADER as usize }>(packet.payload as usize) else { return Ok(()) };
    let header = Header::parse(&header);
    let key = QueryKey {
        subject: subject.id,
        local_port: packet.destination_port,
        id: header.id,
        resolver: packet.source,
    };
    // SAFETY: the value is read at once.
    let Some(asked) = (unsafe { QUERIES.get(&key) }).map(|query| query.name) else {
        event::count(Counter::AnswersUnasked);
        return Ok(());
    };
    let len = u32::from(packet.payload_len);
    if !header.is_usable_answer() || len as usize > MESSAGE_MAX {
        event::count(Counter::AnswersUnreadable);
        return Ok(());
    }
    scratch::with(|scratch| {
        if !skb.copy(u32::from(packet.payload), len, &mut scratch.message) || !name::read(scratch, HEADER) {
            event::count(Counter::AnswersUnreadable);
            return Ok(());
        }
        name::judge(&mut scratch.walk, subject.policy);
        if scratch.walk.value() != asked {
            event::count(Counter::AnswersUnasked);
            return Ok(());
        }
        let _ = QUERIES.remove(&key);
        if header.rcode == 0 && !read_answers(scratch, subject, asked, header.answers) {
            event::count(Counter::AnswersUnreadable);
        }
        Ok(())
    })
}

/// Learns every address up to the first record that is wrong; whether there was none.
#[inline(always)]
fn read_answers(scratch: &mut Scratch, subject: &Current, name: u64, answers: u16) -> bool {
    let behind_qname = scratch.walk.offset() as u32;
    scratch.answers.start(behind_qname, answers);
    let mut walk = Walk {
        scratch,
        name,
        now_ns: event::now_ns(),
        subject: subject.id,
        policy: subject.policy,
        complete: 0,
    };
    // SAFETY: the callback has the type that the kernel calls, and `walk` outlives the loop.
    unsafe { bpf_loop(ANSWER_STEPS, answer_step as *const () as *mut _, (&raw mut walk).cast(), 0) };
    walk.complete == 1
}

#[repr(C)]
struct Walk {
    scratch: *mut Scratch,
    name: u64,
    now_ns: u64,
    subject: u32,
    policy: u32,
    complete: u64,
}

extern "C" fn answer_step(_index: u32, walk: *mut Walk) -> i64 {
    // SAFETY: `walk` is the one of the call above, and its scratch is claimed.
    unsafe {
        let scratch = &mut *(*walk).scratch;
        match scratch.answers.step(&scratch.message) {
            Step::More => 0,
            Step::Address => {
                learn_address(&*walk, scratch);
                0
            }
            Step::Done => {
                (*walk).complete = 1;
                1
            }
            Step::Stop => 1,
        }
    }
}

#[inline(always)]
fn learn_address(walk: &Walk, scratch: &mut Scratch) {
    let Some(config) = CONFIG.get(0) else { return };
    let expires_ns = learned::expiry(walk.now_ns, scratch.answers.ttl_s(), config);
    let address = scratch.answers.address();
    // In map memory: there is no room for them on the stack of a callback.
    scratch.learned_key = LearnedKey { subject: walk.subject, address: *address };
    let key = &scratch.learned_key;
    let known = match LEARNED.get_ptr_mut(key) {
        Some(known) => Some(known),
        None => {
            learned::set_first(&mut scratch.learned, walk.name, expires_ns);
            match LEARNED.insert(key, &scratch.learned, NO_EXIST) {
                Ok(()) => None,
                // Another CPU was first.
                Err(EXISTS) => LEARNED.get_ptr_mut(key),
                Err(_) => {
                    event::count(Counter::LearnedFull);
                    event::learned(walk.subject, walk.policy, walk.name, address, EventKind::LearnedFull);
                    return;
                }
            }
        }
    };
    if let Some(known) = known {
        // SAFETY: map memory, accessed atomically by all programs.
        let slots = unsafe { learned::slots(known) };
        learned::renew::<Bpf>(slots, walk.name, expires_ns, walk.now_ns);
    }
    event::count(Counter::AddressesLearned);
    event::learned(walk.subject, walk.policy, walk.name, address, EventKind::Learned);
}

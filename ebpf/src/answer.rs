//! DNS answers that arrive.

use aya_ebpf::helpers::bpf_loop;
use l7egg_ebpf_common::abi::{Address, Counter, EventKind, Learned, LearnedKey, PolicySettings};
use l7egg_ebpf_common::answer::{ANSWER_STEPS, HEADER, MESSAGE_MAX, Message, Step};
use l7egg_ebpf_common::chain::Chain;
use l7egg_ebpf_common::learned::{self, Belief};
use l7egg_ebpf_common::packet::Packet;
use l7egg_ebpf_common::share::Table;

use crate::atomic::Bpf;
use crate::maps::{CONFIG, LEARNED, SETTINGS};
use crate::scratch::Scratch;
use crate::skb::Skb;
use crate::subject::Current;
use crate::{Refusal, event, name, queries, scratch, share};

/// `BPF_NOEXIST` of include/uapi/linux/bpf.h.
const NO_EXIST: u64 = 1;
/// `-EEXIST`.
const EXISTS: i32 = -17;
/// `-EDQUOT`: our own, not the kernel's.
const SHARE_REACHED: i32 = -122;

/// Learns the addresses of an answer from one of the pod's resolvers, if it answers a query that was noted. Answers
/// that fit no query pass: they open nothing. One to a matched query that cannot be read to its end does not: the
/// pod would use addresses that were not learned.
#[inline(always)]
pub fn learn(skb: Skb, subject: &Current, packet: &Packet) -> Result<(), Refusal> {
    match learn_answer(skb, subject, packet) {
        0 => Err(Refusal::ScratchBusy),
        UNREADABLE => Err(Refusal::Answer),
        _ => Ok(()),
    }
}

/// What [`learn_message`] says of an answer that must not go on.
pub const UNREADABLE: i32 = 2;

crate::global! {
    /// 0 if there is no memory to work in, else as [`learn_message`]. A function of its own, so that its buffers leave the stack.
    fn learn_answer(skb: Skb, subject: &Current, packet: &Packet) -> i32 {
        let all = u32::from(packet.payload_len);
        let len = if all > MESSAGE_MAX as u32 { MESSAGE_MAX as u32 } else { all };
        scratch::with_payload(skb, packet.payload.into(), len, Counter::AnswersUnreadable, |scratch, message| {
            message.cut = u32::from(all > MESSAGE_MAX as u32);
            learn_message(scratch.index, message, subject, &packet.source, packet.destination_port.into())
        })
    }
}

crate::global! {
    /// Learns, in a claimed scratch, from the answer that a message is, or its beginning: 1, or [`UNREADABLE`].
    pub fn learn_message(
        scratch: u32,
        message: &Message,
        subject: &Current,
        resolver: &Address,
        local_port: u32,
    ) -> i32 {
        let Some(scratch) = scratch::claimed(scratch) else { return 0 };
        let header = message.header();
        let who = local_port << 16 | u32::from(header.id);
        if find_query(subject, who, resolver, &mut scratch.learning) == 0 {
            event::count(Counter::AnswersUnasked);
            return 1;
        }
        let is_usable = message.len >= HEADER && header.is_usable_answer();
        let behind_qname = if is_usable { read_question(scratch, message, subject) } else { 0 };
        if behind_qname == 0 {
            event::count(Counter::AnswersUnreadable);
            // Some errors come without the question.
            return if scratch.learning.matched != 0 && header.rcode == 0 { UNREADABLE } else { 1 };
        }
        if scratch.walk.value() != scratch.learning.asked {
            find_other(subject.id, who, resolver, &mut scratch.learning);
            if scratch.walk.value() != scratch.learning.asked {
                event::count(Counter::AnswersUnasked);
                return 1;
            }
        }
        if header.rcode == 0
            && header.answers != 0
            && !read_answers(scratch, message, subject, behind_qname as u32, header.answers) {
            event::count(Counter::AnswersUnreadable);
            // A truncated one says itself that it is to be asked again, over TCP; of one that is too long, most is learned.
            // After any other the query stays noted: the true answer may still come.
            if scratch.learning.matched != 0 && !header.truncated && message.cut == 0 {
                return UNREADABLE;
            }
        }
        forget_query(subject, who, resolver, &scratch.learning);
        1
    }
}

/// The offset behind the question's name, or 0 if it is none. What no rule matched when it was asked for, one may match by now: it
/// was judged then, in the same scratch as a rule, and need not be again.
#[inline(never)]
fn read_question(scratch: &mut Scratch, message: &Message, subject: &Current) -> i32 {
    let header = message.header();
    if scratch.learning.matched != 0 || header.rcode != 0 || header.answers == 0 {
        return name::hash_question(&mut scratch.walk, message);
    }
    if name::judge_question(&mut scratch.walk, message, subject.policy) == 0 {
        return 0;
    }
    let end = scratch.walk.offset() as i32;
    if scratch.walk.value() == scratch.learning.asked
        && !scratch.walk.masks().is_empty()
        && name::remember(scratch, subject.id, subject.policy)
    {
        scratch.learning.matched = SINCE;
    }
    end
}

/// 1 if there is a query from this port with this ID. What was asked goes to map memory: on the stack the verifier would know
/// it, and follow all that comes for either case.
#[inline(never)]
fn find_query(subject: &Current, port_and_id: u32, resolver: &Address, learning: &mut Learning) -> i32 {
    // A container may have asked before its pod was divided, as the pod.
    i32::from(
        find_query_of(subject.id, port_and_id, resolver, learning) == 1
            || subject.is_container() && find_query_of(subject.pod(), port_and_id, resolver, learning) == 1,
    )
}

#[inline(never)]
fn find_query_of(subject: u32, port_and_id: u32, resolver: &Address, learning: &mut Learning) -> i32 {
    let Some(query) = queries::of(subject, port_and_id, resolver) else { return 0 };
    learning.asked = queries::find(&query, true);
    if learning.asked != 0 {
        learning.matched = 1;
        return 1;
    }
    learning.asked = queries::find(&query, false);
    learning.matched = 0;
    i32::from(learning.asked != 0)
}

/// A matched query that nobody answered stays noted: another one with its port and ID may have come since, for a name that no rule
/// matches.
#[inline(never)]
fn find_other(subject: u32, port_and_id: u32, resolver: &Address, learning: &mut Learning) -> i32 {
    if learning.matched != 0
        && let Some(query) = queries::of(subject, port_and_id, resolver)
    {
        learning.asked = queries::find(&query, false);
        learning.matched = 0;
    }
    1
}

#[inline(never)]
fn forget_query(subject: &Current, port_and_id: u32, resolver: &Address, learning: &Learning) -> i32 {
    forget_query_of(subject.id, port_and_id, resolver, learning);
    if subject.is_container() {
        forget_query_of(subject.pod(), port_and_id, resolver, learning);
    }
    1
}

#[inline(never)]
fn forget_query_of(subject: u32, port_and_id: u32, resolver: &Address, learning: &Learning) -> i32 {
    let Some(query) = queries::of(subject, port_and_id, resolver) else { return 0 };
    queries::forget(&query, learning.matched == 1);
    1
}

/// Learns every address up to the first record that is wrong; whether there was none.
#[inline(always)]
fn read_answers(
    scratch: &mut Scratch,
    message: &Message,
    subject: &Current,
    behind_qname: u32,
    answers: u16,
) -> bool {
    scratch.answers.start(behind_qname, answers);
    // Field by field: a whole one would be built on the stack first.
    let learning = &mut scratch.learning;
    learning.name = if learning.matched != 0 { learning.asked } else { 0 };
    learning.chain.start(learning.asked);
    learning.found = NOTHING;
    learning.now_ns = event::now_ns();
    learning.subject = subject.id;
    learning.policy = subject.policy;
    learning.complete = 0;
    set_belief(learning, u32::from(subject.has_settings()));
    let mut walk = Walk { scratch, message };
    // SAFETY: the callback has the type that the kernel calls, and `walk` outlives the loop.
    unsafe { bpf_loop(ANSWER_STEPS, answer_step as *const () as *mut _, (&raw mut walk).cast(), 0) };
    scratch.learning.complete == 1
}

/// A function of its own: the verifier follows its branches once, not with all that comes after them.
#[inline(never)]
fn set_belief(learning: &mut Learning, has_settings: u32) -> i32 {
    let Some(config) = CONFIG.get(0) else { return 0 };
    // SAFETY: the value is read at once.
    match if has_settings == 1 { unsafe { SETTINGS.get(&learning.policy) } } else { None } {
        Some(settings) => learning.belief.set(config, settings),
        None => learning.belief.set(config, &PolicySettings::NONE),
    }
    1
}

/// What is being learned, in map memory.
#[repr(C)]
pub struct Learning {
    /// The name that addresses are learned by: that of the question if a rule matches it, else that of the
    /// chain.
    name: u64,
    /// Hash of the name that was asked for, and 1 if a rule matches it, or [`SINCE`].
    asked: u64,
    matched: u64,
    chain: Chain,
    /// What the last step found, one of the constants below.
    found: u64,
    /// Where the name is that is read.
    at: u64,
    now_ns: u64,
    belief: Belief,
    subject: u32,
    policy: u32,
    complete: u64,
}

/// A rule matches the name by now; it did not when the query was noted.
const SINCE: u64 = 2;

const NOTHING: u64 = 0;
/// An address.
const ADDRESS: u64 = 1;
/// An alias.
const ALIAS: u64 = 2;
/// An alias of the chain, whose target is read in the next step.
const FOLLOWED: u64 = 3;
/// That target.
const TARGET: u64 = 4;

struct Walk {
    scratch: *mut Scratch,
    message: *const Message,
}

extern "C" fn answer_step(_index: u32, walk: *mut Walk) -> i64 {
    // SAFETY: `walk` is the one of the call above, and its scratch is claimed.
    unsafe {
        let scratch = &mut *(*walk).scratch;
        let found = if scratch.learning.found == FOLLOWED {
            TARGET
        } else {
            match scratch.answers.step(&*(*walk).message) {
                Step::More => return 0,
                Step::Address => ADDRESS,
                Step::Alias => ALIAS,
                Step::Done => {
                    scratch.learning.complete = 1;
                    return 1;
                }
                Step::Stop => return 1,
            }
        };
        let mut found = forget(&mut scratch.learning.found, found);
        if scratch.learning.matched == 0 {
            found = of_chain(&*walk, scratch, found);
        }
        if found == ADDRESS {
            learn_address(scratch);
        }
        0
    }
}

/// The value, by way of map memory: the verifier forgets how it came about, and looks at what follows once.
#[inline(always)]
fn forget(place: &mut u64, value: u64) -> u64 {
    // SAFETY: a place that is borrowed.
    unsafe {
        core::ptr::write_volatile(place, value);
        core::ptr::read_volatile(place)
    }
}

/// What remains of a find where no rule matches the question: what the chain of aliases holds. One name is read
/// in a step, and in one place only.
#[inline(always)]
fn of_chain(walk: &Walk, scratch: &mut Scratch, found: u64) -> u64 {
    if found == ADDRESS && scratch.learning.name == 0 {
        return NOTHING;
    }
    let at = if found == TARGET { scratch.answers.target() } else { scratch.answers.owner() };
    let at = forget(&mut scratch.learning.at, at.into());
    let name = hash_of(walk, scratch, at as u32);
    let found = scratch.learning.found;
    let remains = if found == TARGET {
        go_on(scratch, name);
        NOTHING
    } else if name == 0 || !scratch.learning.chain.holds(name) {
        NOTHING
    } else if found == ALIAS {
        FOLLOWED
    } else {
        ADDRESS
    };
    forget(&mut scratch.learning.found, remains)
}

/// An alias of the chain stands for this name, which was just judged.
#[inline(always)]
fn go_on(scratch: &mut Scratch, target: u64) {
    let learning = &scratch.learning;
    let policy = learning.policy;
    let mut matched = target != 0 && learning.name == 0 && !scratch.walk.masks().is_empty();
    if matched && !name::remember(scratch, learning.subject, policy) {
        matched = false;
    }
    scratch.learning.chain.go_on(target, matched);
    scratch.learning.name = scratch.learning.chain.name();
}

/// Hash of the name at this place of the answer, 0 if it is none; judged, in the scratch's walk.
#[inline(never)]
fn hash_of(walk: &Walk, scratch: &mut Scratch, at: u32) -> u64 {
    // SAFETY: the message of the answer, which outlives the walk.
    if !name::read_compressed(&mut scratch.walk, unsafe { &*walk.message }, at) {
        return 0;
    }
    name::judge_name(&mut scratch.walk, scratch.learning.policy);
    scratch.walk.value()
}

/// Learns the address that the walk is at; 1 if there was room for it.
#[inline(never)]
fn learn_address(scratch: &mut Scratch) -> i32 {
    let expires_ns = scratch.learning.belief.until(scratch.learning.now_ns, scratch.answers.ttl_s());
    let address = scratch.answers.address();
    // In map memory: there is no room for them on the stack of a callback.
    scratch.learned_key = LearnedKey { subject: scratch.learning.subject, address: *address };
    let key = &scratch.learned_key;
    let known = match LEARNED.get_ptr_mut(key) {
        Some(known) => Some(known),
        None => {
            learned::set_first(&mut scratch.learned, scratch.learning.name, expires_ns);
            let inserted = if share::has_room(scratch.learning.subject, Table::Learned) {
                LEARNED.insert(key, &scratch.learned, NO_EXIST)
            } else {
                Err(SHARE_REACHED)
            };
            match inserted {
                Ok(()) => {
                    share::add(scratch.learning.subject, Table::Learned);
                    None
                }
                // Another CPU was first.
                Err(EXISTS) => LEARNED.get_ptr_mut(key),
                Err(error) => {
                    if error != SHARE_REACHED {
                        event::count(Counter::LearnedFull);
                    }
                    event::learned(
                        scratch.learning.subject,
                        scratch.learning.policy,
                        scratch.learning.name,
                        address,
                        EventKind::LearnedFull,
                    );
                    return 0;
                }
            }
        }
    };
    if let Some(known) = known {
        renew(known, &scratch.learning, expires_ns);
    }
    event::count(Counter::AddressesLearned);
    event::learned(
        scratch.learning.subject,
        scratch.learning.policy,
        scratch.learning.name,
        address,
        EventKind::Learned,
    );
    1
}

/// A function of its own, so that what it looks at leaves the stack.
#[inline(never)]
fn renew(known: *mut Learned, learning: &Learning, expires_ns: u64) -> i32 {
    // SAFETY: map memory, accessed atomically by all programs.
    let slots = unsafe { learned::slots(known) };
    learned::renew::<Bpf>(slots, learning.name, expires_ns, learning.now_ns);
    1
}

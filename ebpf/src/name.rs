//! Names: the loops around `l7egg_ebpf_common::name`, and the names that are remembered.

use core::hint::black_box;

use aya_ebpf::helpers::bpf_loop;
use l7egg_ebpf_common::abi::{Counter, Masks, NAME_HEAD, NAME_MAX, NameVerdictKey, PatternKey, SEARCHED_BIT};
use l7egg_ebpf_common::answer::{HEADER, Message};
use l7egg_ebpf_common::matcher::LabelCounts;
use l7egg_ebpf_common::name::{COMPRESSED_STEPS, HASH_STEPS, NameWalk, READ_STEPS, SEARCHES_MAX, Step};
use l7egg_ebpf_common::share::Table;

use crate::event::about_now_ns;
use crate::maps::{CONFIG, MATCHERS, NAME_TAILS, NAME_VERDICTS, NAMES, PATTERNS, STATES};
use crate::scratch::Scratch;
use crate::{Refusal, event, scratch, share};

/// Reads the name at `at` of a message; whether it is one.
#[inline(always)]
pub fn read(walk: &mut NameWalk, message: &Message, at: u32) -> bool {
    walk.start(at);
    read_name(walk, message, READ_STEPS) == 1
}

/// The same for a name that may be compressed.
#[inline(always)]
pub fn read_compressed(walk: &mut NameWalk, message: &Message, at: u32) -> bool {
    walk.start_compressed(at);
    read_name(walk, message, COMPRESSED_STEPS) == 1
}

crate::global! {
    /// Reads the question's name and judges it: 1 if it is a name. One that was judged just before need not be read again.
    pub fn judge_question(walk: &mut NameWalk, message: &Message, policy: u32) -> i32 {
        if walk.question().is_judged_by(policy) && walk.question().is_of(message) {
            return 1;
        }
        if !read(walk, message, HEADER) {
            return 0;
        }
        let end = walk.offset() as u32;
        judge_name(walk, policy);
        walk.question().keep(message, end, policy);
        1
    }
}

crate::global! {
    /// Reads the question's name and hashes it: the offset behind it, or 0 if it is none.
    pub fn hash_question(walk: &mut NameWalk, message: &Message) -> i32 {
        if walk.question().is_of(message) {
            return walk.question().end() as i32;
        }
        if !read(walk, message, HEADER) {
            return 0;
        }
        let end = walk.offset() as u32;
        hash_name(walk);
        walk.question().keep(message, end, 0);
        end as i32
    }
}

crate::global! {
    fn read_name(walk: &mut NameWalk, message: &Message, steps: u32) -> i32 {
        let mut read = Read { walk, message, complete: 0 };
        // SAFETY: the callback has the type that the kernel calls, and `read` outlives the loop.
        unsafe { bpf_loop(steps.div_ceil(AT_ONCE), read_step as *const () as *mut _, (&raw mut read).cast(), 0) };
        read.complete as i32
    }
}

crate::global! {
    /// Hashes the name that was read and finds what the policy says about it.
    pub fn judge_name(walk: &mut NameWalk, policy: u32) -> i32 {
        let Some(config) = CONFIG.get(0) else { return 0 };
        let mut hash = Hash { walk, key: config.hash_key, policy, base: NO_AUTOMATON };
        // SAFETY: the value is read at once.
        match unsafe { MATCHERS.get(&hash.policy) } {
            Some(matcher) => {
                walk.rewind(matcher.labels);
                if matcher.states.len != 0 {
                    hash.base = matcher.states.base;
                }
            }
            None => walk.rewind(LabelCounts::default()),
        }
        // SAFETY: the callback has the type that the kernel calls, and `hash` outlives the loop.
        unsafe { bpf_loop(HASH_STEPS + 1, hash_step as *const () as *mut _, (&raw mut hash).cast(), 0) };
        if hash.base != NO_AUTOMATON {
            // SAFETY: the walk is in a claimed scratch.
            let walk = unsafe { &mut *hash.walk };
            if let Some(state) = STATES.get(hash.base + walk.state()) {
                walk.add_masks(state.masks);
            }
        }
        1
    }
}

crate::global! {
    /// Hashes the name that was read, and no more: what the policy says about it is not found.
    fn hash_name(walk: &mut NameWalk) -> i32 {
        let Some(config) = CONFIG.get(0) else { return 0 };
        walk.rewind(LabelCounts::default());
        let mut only = HashOnly { walk, key: config.hash_key };
        // SAFETY: the callback has the type that the kernel calls, and `only` outlives the loop.
        unsafe { bpf_loop((HASH_STEPS + 1).div_ceil(AT_ONCE), hash_only_step as *const () as *mut _, (&raw mut only).cast(), 0) };
        1
    }
}

struct HashOnly {
    walk: *mut NameWalk,
    key: [u32; 2],
}

extern "C" fn hash_only_step(_index: u32, only: *mut HashOnly) -> i64 {
    // SAFETY: `only` is the one of the call above, and its walk is in a claimed scratch.
    let only = unsafe { &mut *only };
    let mut i = 0;
    while i < AT_ONCE {
        // SAFETY: as above.
        match unsafe { (*only.walk).hash(&only.key) } {
            Step::More | Step::Suffix(_) => i += 1,
            Step::Done | Step::Stop => return 1,
        }
    }
    0
}

/// Whether an Allow rule matches the name that was judged without one of the search domains behind it, or with another one there.
/// The whole name is lost by it.
#[inline(always)]
pub fn may_be_searched(walk: &mut NameWalk, policy: u32) -> bool {
    let mut search = Search { walk, policy, found: 0 };
    // SAFETY: the callback has the type that the kernel calls, and `search` outlives the loop.
    unsafe {
        bpf_loop(2 * SEARCHES_MAX as u32, search_step as *const () as *mut _, (&raw mut search).cast(), 0)
    };
    search.found == 1
}

struct Search {
    walk: *mut NameWalk,
    policy: u32,
    found: u32,
}

extern "C" fn search_step(index: u32, search: *mut Search) -> i64 {
    // SAFETY: `search` is the one of the call above, and its walk is in a claimed scratch.
    unsafe {
        let walk = &mut *(*search).walk;
        if !walk.leave_out_search(index / 2) {
            return 1;
        }
        // By itself, and then as one to search for. One call, because the verifier would follow each.
        judge_name(walk, (*search).policy | (index & 1) << SEARCHED_BIT);
        (*search).found = u32::from(walk.masks().allow != 0);
        i64::from((*search).found)
    }
}

/// Remembers the name that was judged, so that a later policy can judge it again, and what this one said.
/// False, and counted, if there is no room: then nothing may be learned by it.
#[inline(always)]
pub fn remember(scratch: &Scratch, subject: u32, policy: u32) -> bool {
    remember_name(scratch.index, subject, policy) == 1
}

crate::global! {
    fn remember_name(scratch: u32, subject: u32, policy: u32) -> i32 {
        let Some(scratch) = scratch::claimed(scratch) else { return 0 };
        let name = scratch.walk.value();
        let now = about_now_ns();
        match NAMES.get_ptr_mut(&name) {
            // SAFETY: map memory; a torn read of the time by another CPU does no harm, and the policy stays what it is.
            Some(known) => unsafe {
                (*known).asked_ns = now;
                if (*known).policy == policy {
                    return 1;
                }
            },
            None => {
                if !share::has_room(subject, Table::Names) {
                    return 0;
                }
                scratch.name.asked_ns = now;
                scratch.name.masks = scratch.walk.masks();
                scratch.name.policy = policy;
                let len = scratch.walk.len();
                scratch.name.len = len as u16;
                scratch.name.subject = subject as u16;
                let (head, tail) = scratch.walk.wire().split_at(NAME_HEAD);
                copy_words::<HEAD_WORDS>(head, &mut scratch.name.wire);
                if len > NAME_HEAD {
                    copy_words::<TAIL_WORDS>(tail, &mut scratch.name_tail.wire);
                    if NAME_TAILS.insert(&name, &scratch.name_tail, 0).is_err() {
                        event::count(Counter::LearnedFull);
                        return 0;
                    }
                }
                if NAMES.insert(&name, &scratch.name, 0).is_err() {
                    event::count(Counter::LearnedFull);
                    return 0;
                }
                share::add(subject, Table::Names);
                return 1;
            }
        }
        let key = NameVerdictKey { name, policy, reserved: 0 };
        // What a policy says of a name does not change, and a lookup costs less than a write.
        if NAME_VERDICTS.get_ptr(&key).is_none() {
            let masks = scratch.walk.masks();
            let _ = NAME_VERDICTS.insert(&key, &masks, 0);
        }
        1
    }
}

crate::global! {
    /// What the policy says about a remembered name.
    pub fn masks_of_name(policy: u32, name: u64, found: &mut Masks) -> i32 {
        *found = Masks::NONE;
        let key = NameVerdictKey { name, policy, reserved: 0 };
        // SAFETY: the values are read at once, and do not change.
        if let Some(known) = unsafe { NAMES.get(&key.name) }
            && known.policy == policy
        {
            *found = known.masks;
            return 1;
        }
        // SAFETY: the value is read at once; the cache may drop it afterwards.
        if let Some(masks) = unsafe { NAME_VERDICTS.get(&key) } {
            *found = *masks;
            return 1;
        }
        let result = scratch::with(|scratch| judge_again(scratch, &key));
        match result {
            Ok(masks) => {
                *found = masks;
                let _ = NAME_VERDICTS.insert(&key, &masks, 0);
                1
            }
            Err(_) => 0,
        }
    }
}

#[inline(always)]
fn judge_again(scratch: &mut Scratch, of: &NameVerdictKey) -> Result<Masks, Refusal> {
    // SAFETY: only the agent removes names, and then nothing refers to them any more.
    let known = unsafe { NAMES.get(&of.name) }.ok_or(Refusal::Denied)?;
    // Back into a message, with its root label, so that there is one way to read a name.
    let len = known.len as usize;
    if len > NAME_MAX {
        return Err(Refusal::Malformed);
    }
    let message = scratch.message.bytes.first_chunk_mut::<256>().ok_or(Refusal::Malformed)?;
    let (head, rest) = message.split_at_mut(NAME_HEAD);
    copy_words::<HEAD_WORDS>(&known.wire, head);
    if len > NAME_HEAD {
        // SAFETY: as above.
        let tail = unsafe { NAME_TAILS.get(&of.name) }.ok_or(Refusal::Denied)?;
        copy_words::<TAIL_WORDS>(&tail.wire, rest);
    }
    scratch.message.bytes[len & 255] = 0;
    scratch.message.len = len as u32 + 1;
    if !read(&mut scratch.walk, &scratch.message, 0) {
        return Err(Refusal::Malformed);
    }
    judge_name(&mut scratch.walk, of.policy);
    // The bytes are those that the hash was made of, or the name is not this one.
    if scratch.walk.value() == of.name { Ok(scratch.walk.masks()) } else { Err(Refusal::Malformed) }
}

/// Bytes of a name that one turn of a loop looks at: a call for each costs more than the look.
const AT_ONCE: u32 = 4;

struct Read {
    walk: *mut NameWalk,
    message: *const Message,
    complete: u64,
}

extern "C" fn read_step(_index: u32, read: *mut Read) -> i64 {
    // SAFETY: `read` is the one of the call above; its walk and message are claimed.
    unsafe {
        let walk = &mut *(*read).walk;
        let mut i = 0;
        while i < AT_ONCE {
            match walk.read((*(*read).message).byte(walk.offset() as u32)) {
                Step::More | Step::Suffix(_) => i += 1,
                Step::Done => {
                    (*read).complete = 1;
                    return 1;
                }
                Step::Stop => return 1,
            }
        }
        0
    }
}

struct Hash {
    walk: *mut NameWalk,
    key: [u32; 2],
    policy: u32,
    /// Of the policy's automaton in `STATES`.
    base: u32,
}

const NO_AUTOMATON: u32 = u32::MAX;

extern "C" fn hash_step(_index: u32, hash: *mut Hash) -> i64 {
    // SAFETY: `hash` is the one of the call above, and its walk is in a claimed scratch.
    unsafe {
        let walk = &mut *(*hash).walk;
        let step = walk.hash(&(*hash).key);
        if (*hash).base != NO_AUTOMATON
            && step != Step::Done
            && let Some(class) = walk.class()
            && let Some(state) = STATES.get((*hash).base + walk.state())
            // The compiler knows that classes are few, the verifier does not.
            && let Some(next) = state.next.get(black_box(class) as usize)
        {
            walk.enter(*next);
        }
        match step {
            Step::Suffix(suffix) => {
                let key = PatternKey { name: suffix, policy: (*hash).policy, reserved: 0 };
                if let Some(masks) = PATTERNS.get(&key) {
                    walk.add(masks);
                }
                0
            }
            Step::More => 0,
            Step::Done | Step::Stop => 1,
        }
    }
}

const HEAD_WORDS: usize = NAME_HEAD / 4;
const TAIL_WORDS: usize = (256 - NAME_HEAD) / 4;

/// Copies `WORDS` times 4 bytes, of which both have as many, and which both begin at a multiple of 4.
#[inline(always)]
fn copy_words<const WORDS: usize>(from: &[u8], to: &mut [u8]) {
    // SAFETY: see above. Word by word, so that it is unrolled rather than a call.
    unsafe {
        let from = from.as_ptr().cast::<u32>();
        let to = to.as_mut_ptr().cast::<u32>();
        let mut i = 0;
        while i < WORDS {
            to.add(i).write(from.add(i).read());
            i += 1;
        }
    }
}

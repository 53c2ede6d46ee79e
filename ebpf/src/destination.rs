//! What the policy says about a destination.
//!
//! Small functions that are not inlined: their keys leave the stack when they are done.

use aya_ebpf::helpers::bpf_loop;
use aya_ebpf::maps::lpm_trie::Key;
use l7egg_ebpf_common::abi::{
    Address, CidrData, DNS_PORT, LEARNED_NAMES, Learned, LearnedKey, Masks, PortData, protocol,
};
use l7egg_ebpf_common::judge::{Verdict, combine};
use l7egg_ebpf_common::learned::{self, Seen};

use crate::atomic::Bpf;
use crate::maps::{CIDRS, LEARNED, PORTS};
use crate::subject::Current;
use crate::{event, name};

/// Judges a destination. `name` is the name by which an earlier policy allowed it, or 0: it counts though its TTL may
/// have run out, because that ends no live connection. Afterwards it is the one that allows it now, or 0 where no name is
/// needed.
#[inline(always)]
pub fn judge(subject: &Current, address: &Address, protocol: u8, port: u16, name: &mut u64) -> Verdict {
    let protocol_and_port = u32::from(protocol) << 16 | u32::from(port);
    match judge_destination(subject, address, protocol_and_port, name) {
        ALLOW => Verdict::Allow,
        AUDIT => Verdict::Audit,
        _ => Verdict::Deny,
    }
}

const DENY: i32 = 0;
const AUDIT: i32 = 1;
const ALLOW: i32 = 2;

crate::global! {
    /// One of the verdicts above.
    fn judge_destination(
        subject: &Current,
        address: &Address,
        protocol_and_port: u32,
        name: &mut u64,
    ) -> i32 {
        let allowed_by = *name;
        *name = 0;
        let (protocol, port) = ((protocol_and_port >> 16) as u8, protocol_and_port as u16);
        let is_dns = port == DNS_PORT && (protocol == protocol::TCP || protocol == protocol::UDP);
        if is_dns && subject.trusts(address) {
            return ALLOW;
        }
        let groups = port_groups(subject.policy, protocol_and_port);
        if groups == 0 {
            return number(combine(Masks::NONE, 0, subject.enforcement));
        }
        let mut said = Said { masks: Masks::NONE, groups, name: 0, policy: subject.policy, unknown: 0 };
        add_cidr(address, &mut said);
        let by_cidr = said.masks.allow & groups != 0;
        if allowed_by != 0 {
            add_name(&mut said, allowed_by);
        }
        add_learned(subject.id, address, &mut said, allowed_by != 0);
        // A name that cannot be judged now may be a denied one: nothing passes on what is not known.
        let masks = if said.unknown == 0 { said.masks } else { Masks::NONE };
        *name = if by_cidr { 0 } else { said.name };
        number(combine(masks, groups, subject.enforcement))
    }
}

#[inline(always)]
fn number(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Deny => DENY,
        Verdict::Audit => AUDIT,
        Verdict::Allow => ALLOW,
    }
}

/// What has been said about a destination so far.
struct Said {
    masks: Masks,
    groups: u64,
    /// A name that allows it.
    name: u64,
    policy: u32,
    /// 1 if the address was learned by a name that could not be judged.
    unknown: u32,
}

/// Adds what is said about a name; whether it could be judged.
#[inline(always)]
fn add_name(said: &mut Said, name: u64) -> bool {
    let mut masks = Masks::NONE;
    let judged = name::masks_of_name(said.policy, name, &mut masks) == 1;
    // The first one stays: that of an open connection is not given up for another while it allows it.
    if said.name == 0 && masks.allow & said.groups != 0 {
        said.name = name;
    }
    said.masks = said.masks.union(masks);
    judged
}

/// Adds what is said for a name, and nothing that is said against it: new connections are not denied by it either.
#[inline(always)]
fn add_name_that_is_over(said: &mut Said, name: u64) {
    let mut masks = Masks::NONE;
    name::masks_of_name(said.policy, name, &mut masks);
    let allow = masks.allow & said.groups;
    if allow != 0 && masks.deny & said.groups == 0 {
        said.masks.allow |= allow;
        if said.name == 0 {
            said.name = name;
        }
    }
}

/// Adds every name that the pod learned the address by and that has not run out. Of an open connection (`is_open`) those that have
/// are no less a reason to let it be: it may have been allowed by several, and has kept one.
#[inline(never)]
fn add_learned(subject: u32, address: &Address, said: &mut Said, is_open: bool) -> i32 {
    let key = LearnedKey { subject, address: *address };
    let Some(found) = LEARNED.get_ptr_mut(&key) else { return 0 };
    let mut slots = Slots { learned: found, said, now_ns: event::now_ns(), is_open: u64::from(is_open) };
    // SAFETY: the callback has the type that the kernel calls, and `slots` outlives the loop.
    unsafe { bpf_loop(LEARNED_NAMES as u32, add_slot as *const () as *mut _, (&raw mut slots).cast(), 0) };
    1
}

struct Slots {
    learned: *mut Learned,
    said: *mut Said,
    now_ns: u64,
    is_open: u64,
}

extern "C" fn add_slot(index: u32, slots: *mut Slots) -> i64 {
    // SAFETY: `slots` is the one of the call above; map memory is accessed atomically by all programs.
    unsafe {
        let slot = &learned::slots((*slots).learned)[index as usize & (LEARNED_NAMES - 1)];
        let said = &mut *(*slots).said;
        match slot.look::<Bpf>((*slots).now_ns) {
            // The first free one ends them.
            Seen::Free => 1,
            Seen::Live(name) => {
                if !add_name(said, name) {
                    said.unknown = 1;
                }
                0
            }
            Seen::Over(name) => {
                if (*slots).is_open == 1 {
                    add_name_that_is_over(said, name);
                }
                0
            }
            Seen::Nothing => 0,
        }
    }
}

#[inline(never)]
fn add_cidr(address: &Address, said: &mut Said) -> i32 {
    let key = Key::new(32 + 128, CidrData { policy: said.policy.to_be_bytes(), address: *address });
    match CIDRS.get(&key) {
        Some(masks) => {
            said.masks = said.masks.union(*masks);
            1
        }
        None => 0,
    }
}

#[inline(never)]
fn port_groups(policy: u32, protocol_and_port: u32) -> u64 {
    let data = PortData {
        policy: policy.to_be_bytes(),
        protocol: (protocol_and_port >> 16) as u8,
        port: (protocol_and_port as u16).to_be_bytes(),
        reserved: 0,
    };
    match PORTS.get(&Key::new(32 + 24, data)) {
        Some(groups) => *groups,
        None => 0,
    }
}

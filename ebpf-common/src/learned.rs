//! Which names an address was learned by, in a fixed number of slots.

use core::sync::atomic::AtomicU64;

use crate::abi::{Config, LEARNED_NAMES, Learned, LearnedName, PolicySettings, UNSET};
use crate::atomics::Atomics;

/// A [`LearnedName`] in map memory, which several CPUs may change at once.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Slot {
    /// [`LearnedName::name`].
    pub name: AtomicU64,
    /// [`LearnedName::expires_ns`].
    pub expires_ns: AtomicU64,
}

/// The shortest TTL that counts as it is, in seconds.
const LEAST_TTL_S: u32 = 1;

/// How long answers are believed, in ns.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Belief {
    min_ns: u64,
    max_ns: u64,
    grace_ns: u64,
}

impl Belief {
    /// Sets it to what the policy says, and where that says nothing, the node.
    #[inline(always)]
    pub fn set(&mut self, config: &Config, settings: &PolicySettings) {
        self.min_ns = set_or(settings.min_ttl_ns, config.min_ttl_ns);
        self.max_ns = set_or(settings.max_ttl_ns, config.max_ttl_ns);
        self.grace_ns = set_or(settings.ttl_grace_ns, config.ttl_grace_ns);
    }

    /// Until when an answer of this moment is believed: its TTL, within the bounds, and then the grace. One with a TTL of zero may be
    /// used for what it was asked for (RFC 1035 §3.2.1), which takes a moment: it counts as [`LEAST_TTL_S`].
    #[inline(always)]
    pub fn until(&self, now_ns: u64, ttl_s: u32) -> u64 {
        let ttl_s = if ttl_s < LEAST_TTL_S { LEAST_TTL_S } else { ttl_s };
        let ttl_ns = u64::from(ttl_s) * 1_000_000_000;
        let low = if ttl_ns < self.min_ns { self.min_ns } else { ttl_ns };
        let believed = if low > self.max_ns { self.max_ns } else { low };
        // The settings are bounded to days: no overflow for centuries.
        now_ns.wrapping_add(believed).wrapping_add(self.grace_ns)
    }
}

#[inline(always)]
fn set_or(time_ns: u64, otherwise_ns: u64) -> u64 {
    if time_ns == UNSET { otherwise_ns } else { time_ns }
}

/// Makes the value for an address that was not known yet.
#[inline(always)]
pub fn set_first(learned: &mut Learned, name: u64, expires_ns: u64) {
    learned.names = [LearnedName { name: 0, expires_ns: 0 }; LEARNED_NAMES];
    learned.names[0] = LearnedName { name, expires_ns };
}

/// When the name in a slot that is being written ends: who looks believes none of it, and who writes leaves it alone.
pub const CLAIMED: u64 = u64::MAX;

/// Adds a name to a known address, or renews it. Several CPUs may do this at once: a slot is claimed by
/// compare-and-swap of its time, so that no name is lost. With all slots live, the one that would end first gives way.
#[inline(always)]
pub fn renew<A: Atomics>(slots: &[Slot; LEARNED_NAMES], name: u64, expires_ns: u64, now_ns: u64) {
    let mut victim = 0usize;
    let mut victim_expires = u64::MAX;
    for (index, Slot { name: slot_name, expires_ns: slot_expires }) in slots.iter().enumerate() {
        let known = A::load(slot_name);
        let expires = A::load(slot_expires);
        // It is being written, or was between the two looks.
        if expires == CLAIMED || A::load(slot_name) != known {
            continue;
        }
        if known == name {
            // Where it ran out just now another name may be about to have the slot.
            if expires >= expires_ns || A::compare_and_swap(slot_expires, expires, expires_ns) {
                return;
            }
        } else if expires < now_ns {
            if A::compare_and_swap(slot_expires, expires, CLAIMED) {
                A::store(slot_name, name);
                A::store(slot_expires, expires_ns);
                return;
            }
        } else if expires < victim_expires {
            victim = index;
            victim_expires = expires;
        }
    }
    let slot = &slots[victim & (LEARNED_NAMES - 1)];
    A::store(&slot.expires_ns, CLAIMED);
    A::store(&slot.name, name);
    A::store(&slot.expires_ns, expires_ns);
}

impl Slot {
    /// What is in it.
    #[inline(always)]
    pub fn look<A: Atomics>(&self, now_ns: u64) -> Seen {
        let name = A::load(&self.name);
        let expires_ns = A::load(&self.expires_ns);
        // Another name may have come between.
        let is_whole = expires_ns != CLAIMED && A::load(&self.name) == name;
        match (name | expires_ns, is_whole) {
            (0, _) => Seen::Free,
            (_, true) if expires_ns >= now_ns => Seen::Live(name),
            (_, true) => Seen::Over(name),
            (_, false) => Seen::Nothing,
        }
    }
}

/// What is in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing, nor is there in those behind it.
    Free,
    /// A name that is believed.
    Live(u64),
    /// One that has run out.
    Over(u64),
    /// It is being written.
    Nothing,
}

/// The slots of a value in a map, as atomics.
///
/// # Safety
/// `learned` points to a value that lives as long as `'a` and that is only accessed atomically meanwhile.
#[inline(always)]
pub unsafe fn slots<'a>(learned: *mut Learned) -> &'a [Slot; LEARNED_NAMES] {
    // SAFETY: `LearnedName` and `Slot` are both repr(C), of two u64; an atomic has the layout of its integer.
    unsafe { &*learned.cast() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atomics::Std;

    fn first(name: u64, expires_ns: u64) -> Learned {
        let mut learned = Learned::default();
        set_first(&mut learned, name, expires_ns);
        learned
    }

    fn names(learned: &Learned) -> Vec<u64> {
        learned.names.iter().map(|slot| slot.name).filter(|name| *name != 0).collect()
    }

    fn add(learned: &mut Learned, name: u64, expires: u64, now: u64) {
        // SAFETY: `learned` is borrowed for as long as the slots are used.
        renew::<Std>(unsafe { slots(learned) }, name, expires, now);
    }

    #[test]
    fn several_names_share_an_address() {
        let mut learned = first(1, 100);
        add(&mut learned, 2, 50, 0);
        add(&mut learned, 1, 90, 0);
        assert_eq!(names(&learned), [1, 2]);
        assert_eq!(learned.names[0].expires_ns, 100, "a renewal never shortens");
    }

    #[test]
    fn an_expired_slot_is_used_again_and_the_first_to_end_gives_way() {
        let mut learned = first(1, 10);
        add(&mut learned, 2, 100, 20);
        assert_eq!(names(&learned), [2]);
        for name in 3..=9 {
            add(&mut learned, name, 100 + name, 20);
        }
        assert_eq!(names(&learned).len(), LEARNED_NAMES);
        add(&mut learned, 10, 500, 20);
        assert!(names(&learned).contains(&10) && !names(&learned).contains(&2));
    }

    /// The first time that a slot is claimed, another CPU adds a name before this one goes on.
    #[test]
    fn no_name_is_lost_where_two_come_at_once() {
        struct Interrupted;
        impl Atomics for Interrupted {
            fn load(cell: &AtomicU64) -> u64 {
                Std::load(cell)
            }
            fn store(cell: &AtomicU64, value: u64) {
                Std::store(cell, value);
            }
            fn add(cell: &AtomicU64, value: u64) {
                Std::add(cell, value);
            }
            fn compare_and_swap(cell: &AtomicU64, from: u64, to: u64) -> bool {
                let is_swapped = Std::compare_and_swap(cell, from, to);
                if let Some(interrupt) = INTERRUPT.with(std::cell::Cell::take) {
                    interrupt();
                }
                is_swapped
            }
        }
        thread_local! {
            static INTERRUPT: std::cell::Cell<Option<Box<dyn FnOnce()>>> = const { std::cell::Cell::new(None) };
        }
        for others in [2, 8] {
            let mut learned = first(1, 10);
            // Of names that ran out, and free.
            (2..=others).for_each(|name| add(&mut learned, name, 10, 0));
            let slots: &'static [Slot; LEARNED_NAMES] =
                Box::leak(Box::new(std::array::from_fn(|slot: usize| Slot {
                    name: learned.names[slot].name.into(),
                    expires_ns: learned.names[slot].expires_ns.into(),
                })));
            INTERRUPT.set(Some(Box::new(move || renew::<Std>(slots, 20, 200, 100))));
            renew::<Interrupted>(slots, 30, 200, 100);
            let mut live: Vec<Seen> = slots.iter().map(|slot| slot.look::<Std>(100)).collect();
            live.retain(|seen| matches!(seen, Seen::Live(_)));
            assert_eq!(live, [Seen::Live(30), Seen::Live(20)]);
        }
    }

    #[test]
    fn a_slot_that_is_being_written_is_nobodys_and_no_end() {
        let slot = |name: u64, expires_ns: u64| Slot { name: name.into(), expires_ns: expires_ns.into() };
        let seen = |name, expires_ns| slot(name, expires_ns).look::<Std>(10);
        assert_eq!([seen(0, 0), seen(0, CLAIMED)], [Seen::Free, Seen::Nothing]);
        assert_eq!(
            [seen(7, CLAIMED), seen(7, 10), seen(7, 9)],
            [Seen::Nothing, Seen::Live(7), Seen::Over(7)]
        );
    }

    #[test]
    fn ttl_is_bounded_both_ways() {
        const S: u64 = 1_000_000_000;
        let config = Config { hash_key: [0; 2], min_ttl_ns: 5 * S, max_ttl_ns: 60 * S, ttl_grace_ns: 2 * S };
        let none = PolicySettings::NONE;
        let expiry = |now_ns, ttl_s, config: &Config, settings: &PolicySettings| {
            let mut belief = Belief::default();
            belief.set(config, settings);
            belief.until(now_ns, ttl_s)
        };
        assert_eq!(expiry(1, 0, &config, &none), 7 * S + 1);
        assert_eq!(expiry(1, 30, &config, &none), 32 * S + 1);
        assert_eq!(expiry(1, u32::MAX, &config, &none), 62 * S + 1);
        let own = PolicySettings { max_ttl_ns: 20 * S, ttl_grace_ns: 0, ..none };
        assert_eq!(expiry(1, 0, &config, &own), 5 * S + 1);
        assert_eq!(expiry(1, 30, &config, &own), 20 * S + 1);
        let none_at_all = PolicySettings { min_ttl_ns: 0, ttl_grace_ns: 0, ..none };
        assert_eq!(expiry(1, 0, &config, &none_at_all), S + 1, "time to connect");
        let never = PolicySettings { max_ttl_ns: 0, ..none_at_all };
        assert_eq!(expiry(1, 0, &config, &never), 1, "as it is written");
        let longer = PolicySettings { min_ttl_ns: 90 * S, max_ttl_ns: 80 * S, ..none };
        assert_eq!(expiry(1, 0, &config, &longer), 82 * S + 1, "the shorter one wins");
    }
}

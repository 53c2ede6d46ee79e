//! Which names an address was learned by, in a fixed number of slots.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::abi::{Config, LEARNED_NAMES, Learned, LearnedName};

/// A [`LearnedName`] in map memory, which several CPUs may change at once.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Slot {
    /// [`LearnedName::name`].
    pub name: AtomicU64,
    /// [`LearnedName::expires_ns`].
    pub expires_ns: AtomicU64,
}

/// Until when an answer is believed: its TTL, within the bounds of the settings.
#[inline(always)]
pub fn expiry(now_ns: u64, ttl_s: u32, config: &Config) -> u64 {
    let ttl_ns = u64::from(ttl_s) * 1_000_000_000;
    let low = if ttl_ns < config.min_ttl_ns { config.min_ttl_ns } else { ttl_ns };
    now_ns + if low > config.max_ttl_ns { config.max_ttl_ns } else { low }
}

/// A value for an address that was not known yet.
#[inline(always)]
pub fn first(name: u64, expires_ns: u64) -> Learned {
    let mut learned = Learned { names: [LearnedName { name: 0, expires_ns: 0 }; LEARNED_NAMES] };
    learned.names[0] = LearnedName { name, expires_ns };
    learned
}

/// Adds a name to a known address, or renews it. Several CPUs may do this at once: a slot is claimed by
/// compare-and-swap, so that no name is lost. With all slots live, the one that would end first gives way.
#[inline(always)]
pub fn renew(slots: &[Slot; LEARNED_NAMES], name: u64, expires_ns: u64, now_ns: u64) {
    let mut victim = 0usize;
    let mut victim_expires = u64::MAX;
    for (index, Slot { name: slot_name, expires_ns: slot_expires }) in slots.iter().enumerate() {
        let known = slot_name.load(Ordering::Relaxed);
        let expires = slot_expires.load(Ordering::Relaxed);
        if known == name {
            if expires < expires_ns {
                slot_expires.store(expires_ns, Ordering::Relaxed);
            }
            return;
        }
        if known == 0 || expires < now_ns {
            if slot_name.compare_exchange(known, name, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                slot_expires.store(expires_ns, Ordering::Relaxed);
                return;
            }
        } else if expires < victim_expires {
            victim = index;
            victim_expires = expires;
        }
    }
    let slot = &slots[victim & (LEARNED_NAMES - 1)];
    slot.expires_ns.store(expires_ns, Ordering::Relaxed);
    slot.name.store(name, Ordering::Relaxed);
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

    fn names(learned: &Learned) -> Vec<u64> {
        learned.names.iter().map(|slot| slot.name).filter(|name| *name != 0).collect()
    }

    fn add(learned: &mut Learned, name: u64, expires: u64, now: u64) {
        // SAFETY: `learned` is borrowed for as long as the slots are used.
        renew(unsafe { slots(learned) }, name, expires, now);
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

    #[test]
    fn ttl_is_bounded_both_ways() {
        let config = Config { hash_key: [0; 2], min_ttl_ns: 5_000_000_000, max_ttl_ns: 60_000_000_000 };
        assert_eq!(expiry(1, 0, &config), 5_000_000_001);
        assert_eq!(expiry(1, 30, &config), 30_000_000_001);
        assert_eq!(expiry(1, u32::MAX, &config), 60_000_000_001);
    }
}

//! Which names an address was learned by, in a fixed number of slots.

use core::sync::atomic::AtomicU64;

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

/// Access to a cell of map memory. The kernel's target has the instructions, but Rust's own atomics do not
/// offer them there.
pub trait Atomics {
    /// The value.
    fn load(cell: &AtomicU64) -> u64;
    /// Sets the value.
    fn store(cell: &AtomicU64, value: u64);
    /// Sets the value to `to` if it is `from`; whether it was.
    fn compare_and_swap(cell: &AtomicU64, from: u64, to: u64) -> bool;
}

/// Until when an answer is believed: its TTL, within the bounds of the settings.
#[inline(always)]
pub fn expiry(now_ns: u64, ttl_s: u32, config: &Config) -> u64 {
    let ttl_ns = u64::from(ttl_s) * 1_000_000_000;
    let low = if ttl_ns < config.min_ttl_ns { config.min_ttl_ns } else { ttl_ns };
    now_ns + if low > config.max_ttl_ns { config.max_ttl_ns } else { low }
}

/// Makes the value for an address that was not known yet.
#[inline(always)]
pub fn set_first(learned: &mut Learned, name: u64, expires_ns: u64) {
    learned.names = [LearnedName { name: 0, expires_ns: 0 }; LEARNED_NAMES];
    learned.names[0] = LearnedName { name, expires_ns };
}

/// Adds a name to a known address, or renews it. Several CPUs may do this at once: a slot is claimed by
/// compare-and-swap, so that no name is lost. With all slots live, the one that would end first gives way.
#[inline(always)]
pub fn renew<A: Atomics>(slots: &[Slot; LEARNED_NAMES], name: u64, expires_ns: u64, now_ns: u64) {
    let mut victim = 0usize;
    let mut victim_expires = u64::MAX;
    for (index, Slot { name: slot_name, expires_ns: slot_expires }) in slots.iter().enumerate() {
        let known = A::load(slot_name);
        let expires = A::load(slot_expires);
        if known == name {
            if expires < expires_ns {
                A::store(slot_expires, expires_ns);
            }
            return;
        }
        if known == 0 || expires < now_ns {
            if A::compare_and_swap(slot_name, known, name) {
                A::store(slot_expires, expires_ns);
                return;
            }
        } else if expires < victim_expires {
            victim = index;
            victim_expires = expires;
        }
    }
    let slot = &slots[victim & (LEARNED_NAMES - 1)];
    A::store(&slot.expires_ns, expires_ns);
    A::store(&slot.name, name);
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
    use core::sync::atomic::Ordering;

    use super::*;

    struct Std;

    impl Atomics for Std {
        fn load(cell: &AtomicU64) -> u64 {
            cell.load(Ordering::Relaxed)
        }
        fn store(cell: &AtomicU64, value: u64) {
            cell.store(value, Ordering::Relaxed);
        }
        fn compare_and_swap(cell: &AtomicU64, from: u64, to: u64) -> bool {
            cell.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        }
    }

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

    #[test]
    fn ttl_is_bounded_both_ways() {
        let config = Config { hash_key: [0; 2], min_ttl_ns: 5_000_000_000, max_ttl_ns: 60_000_000_000 };
        assert_eq!(expiry(1, 0, &config), 5_000_000_001);
        assert_eq!(expiry(1, 30, &config), 30_000_000_001);
        assert_eq!(expiry(1, u32::MAX, &config), 60_000_000_001);
    }
}

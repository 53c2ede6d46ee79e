//! DNS queries under way, in a table of buckets: of whom an answer is believed.
//!
//! Not a hash map of the kernel: every name that a pod looks up for the first time is two notes and two removals, and those are the
//! dearest thing that the kernel's maps do. A bucket is one line of the CPU's cache, and nothing in it is locked. Where CPUs race for
//! a slot twice a note may be lost: the answer to it arrives, and teaches nothing. A note that has half been written believes nothing,
//! because an answer must hold the very name that is noted.

use core::sync::atomic::AtomicU64;

use crate::abi::{Address, QUERY_SLOTS};
use crate::atomics::Atomics;

/// A query that is waiting for its answer, in map memory.
#[repr(C)]
#[derive(Debug, Default)]
pub struct QuerySlot {
    /// The [`Noted::tag`] of who asks whom, and when it was asked. 0 where the slot is free.
    tag: AtomicU64,
    /// Hash of its qname.
    name: AtomicU64,
}

/// Value of `QUERIES` and `OTHER_QUERIES`: the queries whose [`Noted::place`] is here.
#[repr(C)]
#[derive(Debug, Default)]
pub struct QueryBucket([QuerySlot; QUERY_SLOTS]);

/// Who asks whom, as the table knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    place: u32,
    tag: u64,
}

/// The lower bits of a tag are the time, in units of 67 ms: they go round in 73 minutes.
const TIME_BITS: u32 = 16;
const TIME_SHIFT: u32 = 26;
const TIME: u64 = (1 << TIME_BITS) - 1;
/// What gives way before the oldest: one's own, before that what nobody waits for any more, and before that what is free.
const OWN: u64 = TIME + 1;
const OLD: u64 = 2 * OWN;
const FREE: u64 = 3 * OWN;
/// So long somebody may wait for an answer, in units of a tag's time: 20 s. Who has given up does not say so.
const WAITING: u64 = 300;
/// The highest bits say who asks, so that whoever asks much pushes out what it has asked itself.
const WHO_BITS: u32 = 8;
const WHO: u64 = ((1 << WHO_BITS) - 1) << (64 - WHO_BITS);
/// Odd constants that mix well: those of MurmurHash3's 64-bit finalizer (Austin Appleby, public domain).
const MIX: [u64; 2] = [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53];

impl Noted {
    /// The query with an ID (RFC 1035 §4.1.1) that a subject sends from a port to a resolver. `secret` keeps pods from choosing
    /// whose queries theirs push out, and who they pass for: with it, two queries of a subject are taken for one with a chance of 2^-39.
    #[inline(always)]
    #[must_use]
    pub fn of(subject: u32, local_port: u16, id: u16, resolver: &Address, secret: &[u32; 2]) -> Self {
        let [a, b, c, d] = resolver.words();
        let secret = join(secret[0], secret[1]);
        let who = mix(secret, u64::from(subject)).wrapping_mul(MIX[1]) & WHO;
        let mut hash = mix(secret, join(subject, u32::from(local_port) << 16 | u32::from(id)));
        hash = mix(hash, join(a, b));
        hash = mix(hash, join(c, d));
        hash = (hash ^ hash >> 29).wrapping_mul(MIX[1]);
        hash ^= hash >> 32;
        // Never 0 in the tag's own bits, which is a free slot.
        Self { place: (hash >> 48) as u32, tag: ((hash | 1) << TIME_BITS) & !WHO | who }
    }

    /// Which of so many buckets, a power of two of at most 65,536, it belongs in.
    #[inline(always)]
    #[must_use]
    pub fn place(&self, buckets: u32) -> u32 {
        self.place & (buckets - 1)
    }
}

impl QueryBucket {
    /// Notes a query. Where there is no room, one gives way that nobody waits for any more, then the oldest of who asks, and only where
    /// that has none here the oldest of all.
    #[inline(always)]
    pub fn note<A: Atomics>(&self, query: &Noted, name: u64, now_ns: u64) {
        let now = now_ns >> TIME_SHIFT & TIME;
        let mut place = self.place_for::<A>(query, now);
        if !self.claim::<A>(place, query, now) {
            // Another CPU was faster. It is not here twice: what has become free or old elsewhere shows by another look.
            place = self.place_for::<A>(query, now);
            if !self.claim::<A>(place, query, now) {
                A::store(&self.0[place.0 & (QUERY_SLOTS - 1)].tag, query.tag | now);
            }
        }
        A::store(&self.0[place.0 & (QUERY_SLOTS - 1)].name, name);
    }

    #[inline(always)]
    fn claim<A: Atomics>(&self, (index, tag): (usize, u64), query: &Noted, now: u64) -> bool {
        A::compare_and_swap(&self.0[index & (QUERY_SLOTS - 1)].tag, tag, query.tag | now)
    }

    /// Which slot a query is to have, and what is in it.
    #[inline(always)]
    fn place_for<A: Atomics>(&self, query: &Noted, now: u64) -> (usize, u64) {
        let mut oldest = 0;
        let mut oldest_age = 0;
        let mut oldest_tag = 0;
        for (index, slot) in self.0.iter().enumerate() {
            let known = A::load(&slot.tag);
            // Asked again before the answer came.
            let is_same = known & !TIME == query.tag;
            let age = if known == 0 || is_same {
                FREE
            } else {
                let age = now.wrapping_sub(known) & TIME;
                // Another CPU has noted it since the time was read.
                let age = if age == TIME { 0 } else { age };
                let is_own = known & WHO == query.tag & WHO;
                age + if age > WAITING {
                    OLD
                } else if is_own {
                    OWN
                } else {
                    0
                }
            };
            if index == 0 || age > oldest_age || is_same {
                (oldest, oldest_age, oldest_tag) = (index, age, known);
            }
            if is_same {
                break;
            }
        }
        (oldest, oldest_tag)
    }

    /// Hash of the name that is noted, or 0 if the query is not.
    #[inline(always)]
    #[must_use]
    pub fn find<A: Atomics>(&self, query: &Noted) -> u64 {
        for slot in &self.0 {
            if A::load(&slot.tag) & !TIME == query.tag {
                return A::load(&slot.name);
            }
        }
        0
    }

    /// Forgets a query, if it is noted; wherever it is, as CPUs that note the same at one time can use two slots.
    #[inline(always)]
    pub fn forget<A: Atomics>(&self, query: &Noted) {
        for slot in &self.0 {
            let known = A::load(&slot.tag);
            if known & !TIME == query.tag {
                A::compare_and_swap(&slot.tag, known, 0);
            }
        }
    }
}

#[inline(always)]
fn join(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[inline(always)]
fn mix(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(MIX[0]);
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::atomics::Std;

    const SECRET: [u32; 2] = [0x1234_5678, 0x0bcd_ef01];
    /// A unit of a tag's time, in ns.
    const UNIT: u64 = 1 << TIME_SHIFT;

    fn query(subject: u32, port: u16, id: u16, resolver: &str) -> Noted {
        let std::net::IpAddr::V4(v4) = resolver.parse().unwrap() else { unreachable!() };
        Noted::of(subject, port, id, &Address::mapped(v4.octets()), &SECRET)
    }

    /// Of one bucket.
    fn queries(count: u16) -> Vec<Noted> {
        (0..count).map(|id| query(1, 40_000, id, "10.0.0.10")).collect()
    }

    #[test]
    fn a_query_is_found_until_it_is_forgotten_and_no_other_is() {
        let bucket = QueryBucket::default();
        let asked = query(1, 40_000, 7, "10.0.0.10");
        bucket.note::<Std>(&asked, 99, 0);
        for other in [
            query(2, 40_000, 7, "10.0.0.10"),
            query(1, 40_001, 7, "10.0.0.10"),
            query(1, 40_000, 8, "10.0.0.10"),
            query(1, 40_000, 7, "10.0.0.11"),
        ] {
            assert_eq!(bucket.find::<Std>(&other), 0);
            bucket.forget::<Std>(&other);
        }
        assert_eq!(bucket.find::<Std>(&asked), 99);
        bucket.forget::<Std>(&asked);
        assert_eq!(bucket.find::<Std>(&asked), 0);
    }

    #[test]
    fn what_another_cpu_has_noted_since_is_not_old() {
        let (bucket, asked) = (QueryBucket::default(), queries(QUERY_SLOTS as u16 + 1));
        let (last, others) = asked.split_last().unwrap();
        for (query, units) in others.iter().zip([5, 9, 8, 10]) {
            bucket.note::<Std>(query, 7, units * UNIT);
        }
        bucket.note::<Std>(last, 7, 9 * UNIT);
        let noted: Vec<bool> = asked.iter().map(|query| bucket.find::<Std>(query) != 0).collect();
        assert_eq!(
            noted,
            [false, true, true, true, true],
            "the oldest goes, and not the one of a moment ahead"
        );
    }

    #[test]
    fn who_loses_a_slot_to_another_cpu_takes_what_is_free_and_nobodys() {
        /// The other CPU takes each slot a moment before.
        struct Slower;
        impl Atomics for Slower {
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
                let others = query(9, 40_000, 9, "10.0.0.10");
                let is_first = std::mem::take(&mut *IS_FIRST.lock().unwrap());
                if is_first {
                    Std::compare_and_swap(cell, from, others.tag);
                }
                Std::compare_and_swap(cell, from, to)
            }
        }
        static IS_FIRST: std::sync::Mutex<bool> = std::sync::Mutex::new(true);
        let (bucket, asked) = (QueryBucket::default(), queries(3));
        bucket.note::<Std>(&asked[0], 1, 0);
        bucket.note::<Std>(&asked[1], 2, 0);
        bucket.forget::<Std>(&asked[0]);
        bucket.note::<Slower>(&asked[2], 3, 0);
        let names: Vec<u64> = asked[1..].iter().map(|asked| bucket.find::<Std>(asked)).collect();
        assert_eq!(names, [2, 3]);
    }

    #[test]
    fn one_that_is_asked_again_takes_no_second_slot() {
        let bucket = QueryBucket::default();
        let all = queries(QUERY_SLOTS as u16);
        for (name, asked) in (1..).zip(&all) {
            bucket.note::<Std>(asked, name, 0);
        }
        bucket.note::<Std>(&all[1], 50, 9 * UNIT);
        let names: Vec<u64> = all.iter().map(|asked| bucket.find::<Std>(asked)).collect();
        assert_eq!(names, [1, 50, 3, 4]);
    }

    #[test]
    fn the_oldest_gives_way_also_when_the_time_has_gone_round() {
        let bucket = QueryBucket::default();
        let all = queries(QUERY_SLOTS as u16 + 1);
        let start = (TIME - 1) * UNIT;
        for (age, asked) in (0..).zip(&all) {
            bucket.note::<Std>(asked, 1 + age, start + age * UNIT);
        }
        let names: Vec<u64> = all.iter().map(|asked| bucket.find::<Std>(asked)).collect();
        assert_eq!(names, [0, 2, 3, 4, 5]);
    }

    #[test]
    fn who_asks_much_pushes_out_its_own() {
        let bucket = QueryBucket::default();
        let (mine, late) = (query(2, 40_000, 1, "10.0.0.10"), query(2, 40_000, 2, "10.0.0.10"));
        bucket.note::<Std>(&mine, 99, 0);
        for (age, asked) in (1..).zip(&queries(1_000)) {
            bucket.note::<Std>(asked, 1, age * UNIT / 10);
        }
        assert_eq!(bucket.find::<Std>(&mine), 99);
        // Where others have all the slots, there is room for one that has none.
        let full = QueryBucket::default();
        queries(50).iter().for_each(|asked| full.note::<Std>(asked, 1, 0));
        full.note::<Std>(&late, 7, UNIT);
        queries(50).iter().for_each(|asked| full.note::<Std>(asked, 1, 2 * UNIT));
        assert_eq!(full.find::<Std>(&late), 7);
    }

    #[test]
    fn what_nobody_waits_for_any_more_gives_way_first() {
        let bucket = QueryBucket::default();
        // Left behind by others, one after the other.
        for (number, asked) in (0..).zip(queries(QUERY_SLOTS as u16)) {
            bucket.note::<Std>(&asked, 1, number * UNIT);
        }
        let mine = [1, 2].map(|id| query(2, 40_000, id, "10.0.0.10"));
        for asked in &mine {
            bucket.note::<Std>(asked, 9, (WAITING + 10) * UNIT);
        }
        assert_eq!(mine.map(|asked| bucket.find::<Std>(&asked)), [9, 9]);
    }

    #[test]
    fn subjects_pass_for_others_seldom() {
        let who: HashSet<u64> =
            (1..=250).map(|subject| query(subject, 1, 1, "10.0.0.10").tag & WHO).collect();
        // Of 250 balls in 256 bins, about 160 bins have one.
        assert!(who.len() > 130, "{}", who.len());
    }

    #[test]
    fn queries_spread_over_the_buckets() {
        const BUCKETS: u32 = 1024;
        let all = (0..BUCKETS as u16).map(|id| query(7, 33_333, id, "10.96.0.10").place(BUCKETS));
        let places: HashSet<u32> = all.collect();
        // Of as many balls as bins, 1 - 1/e of the bins get one.
        assert!((600..700).contains(&places.len()), "{} of {BUCKETS}", places.len());
    }

    proptest! {
        #[test]
        fn no_query_is_taken_for_another(a: (u32, u16, u16, [u32; 4]), b: (u32, u16, u16, [u32; 4])) {
            let noted = |(subject, port, id, words): (u32, u16, u16, [u32; 4])| {
                Noted::of(subject, port, id, &Address::from_words(words), &SECRET)
            };
            prop_assert_eq!(a == b, noted(a) == noted(b));
            prop_assert_ne!(noted(a).tag, 0);
        }
    }
}

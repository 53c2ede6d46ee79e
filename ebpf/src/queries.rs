//! The table of queries under way. Those that a rule of the subject's policy matches are in `QUERIES`; of the answers to the
//! others, only the addresses of an alias that a rule matches are learned. Two maps, so that a pod that asks for all the names
//! in the world makes nobody's matched query forgotten.

use l7egg_ebpf_common::abi::Address;
use l7egg_ebpf_common::queries::{Noted, QueryBucket};

use crate::atomic::Bpf;
use crate::event;
use crate::maps::{CONFIG, OTHER_QUERIES, OTHER_QUERY_BUCKETS, QUERIES, QUERY_BUCKETS};

/// A query as the table knows it: the one with this port and ID, as `port_and_id` has them.
#[inline(always)]
pub fn of(subject: u32, port_and_id: u32, resolver: &Address) -> Option<Noted> {
    let config = CONFIG.get(0)?;
    Some(Noted::of(subject, (port_and_id >> 16) as u16, port_and_id as u16, resolver, &config.hash_key))
}

/// Notes a query for a name.
#[inline(always)]
pub fn note(query: &Noted, name: u64, matched: bool) {
    if let Some(bucket) = bucket(query, matched) {
        bucket.note::<Bpf>(query, name, event::about_now_ns());
    }
}

/// Hash of the name that a query asks for, among those that a rule matches or the others; 0 if it is not there.
#[inline(always)]
pub fn find(query: &Noted, matched: bool) -> u64 {
    bucket(query, matched).map_or(0, |bucket| bucket.find::<Bpf>(query))
}

/// Forgets a query that has its answer.
#[inline(always)]
pub fn forget(query: &Noted, matched: bool) {
    if let Some(bucket) = bucket(query, matched) {
        bucket.forget::<Bpf>(query);
    }
}

#[inline(always)]
fn bucket(query: &Noted, matched: bool) -> Option<&'static QueryBucket> {
    if matched {
        QUERIES.get(query.place(QUERY_BUCKETS))
    } else {
        OTHER_QUERIES.get(query.place(OTHER_QUERY_BUCKETS))
    }
}

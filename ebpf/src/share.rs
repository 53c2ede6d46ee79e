//! What subjects have of the tables that all share.

use l7egg_ebpf_common::abi::{Counter, SHARES_OF_ALL};
use l7egg_ebpf_common::share::{self, Table};

use crate::atomic::{Bpf, increment};
use crate::event;
use crate::maps::SHARES;

/// Whether the subject may have another entry; counted where not.
#[inline(always)]
pub fn has_room(subject: u32, table: Table) -> bool {
    has_room_in(subject, table as u32) == 1
}

/// Notes that a subject can have no more of something.
#[inline(always)]
pub fn turn_away(subject: u32) {
    if let Some(own) = SHARES.get(subject) {
        increment(&own.turned_away);
    }
}

/// Counts an entry that the subject has now.
#[inline(always)]
pub fn add(subject: u32, table: Table) {
    for id in [subject, SHARES_OF_ALL] {
        if let Some(cells) = SHARES.get(id) {
            increment(cells.of(table));
        }
    }
}

/// A function of its own, where the verifier comes by once.
#[inline(never)]
fn has_room_in(subject: u32, table: u32) -> i32 {
    let (Some(own), Some(all)) = (SHARES.get(subject), SHARES.get(SHARES_OF_ALL)) else { return 0 };
    let table = if table == Table::Names as u32 { Table::Names } else { Table::Learned };
    let has_room = share::has_room::<Bpf>(own, all, table);
    if !has_room {
        increment(&own.turned_away);
        event::count(Counter::ShareReached);
    }
    i32::from(has_room)
}

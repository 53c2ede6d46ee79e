//! The ring buffer.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use l7egg_ebpf_common::abi::Event;

use crate::datapath::EventSource;

/// The programs' events.
pub struct Ring {
    ring: RingBuf<MapData>,
}

impl Ring {
    /// Takes over the ring buffer.
    pub fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the map's, which lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl EventSource for Ring {
    fn next(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            if item.len() == size_of::<Event>() {
                // SAFETY: as long as an event, and any bytes are one; read unaligned.
                return Some(unsafe { item.as_ptr().cast::<Event>().read_unaligned() });
            }
        }
    }
}

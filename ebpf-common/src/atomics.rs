//! Atomic access to map memory, where several CPUs change a value at once.

use core::sync::atomic::AtomicU64;
#[cfg(test)]
use core::sync::atomic::Ordering;

/// Access to a cell of map memory. The kernel's target has the instructions, but Rust's own atomics do not
/// offer them there.
pub trait Atomics {
    /// The value.
    fn load(cell: &AtomicU64) -> u64;
    /// Sets the value.
    fn store(cell: &AtomicU64, value: u64);
    /// Adds to the value.
    fn add(cell: &AtomicU64, value: u64);
    /// Sets the value to `to` if it is `from`; whether it was.
    fn compare_and_swap(cell: &AtomicU64, from: u64, to: u64) -> bool;
}

/// User space's, for tests.
#[cfg(test)]
pub struct Std;

#[cfg(test)]
impl Atomics for Std {
    fn load(cell: &AtomicU64) -> u64 {
        cell.load(Ordering::Relaxed)
    }
    fn store(cell: &AtomicU64, value: u64) {
        cell.store(value, Ordering::Relaxed);
    }
    fn add(cell: &AtomicU64, value: u64) {
        cell.fetch_add(value, Ordering::Relaxed);
    }
    fn compare_and_swap(cell: &AtomicU64, from: u64, to: u64) -> bool {
        cell.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

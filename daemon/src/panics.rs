//! A panic ends the process, not the one thread or task that it is in: the others would go on with what they last knew from it, and
//! probes would find everything well.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    cell::Cell,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook},
    process::abort,
    thread,
};

thread_local! {
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// From now on a panic is logged, with `consequence`, which is what that means to a person, and ends the process at once, but for those that are
/// [`caught`].
pub fn end_the_process(consequence: &'static str) {
    let usual = take_hook();
    set_hook(Box::new(move |panic| {
        if IS_CAUGHT.get() {
            return usual(panic);
        }
        tell(panic, consequence);
        abort();
    }));
}

/// What `work` makes, or what it panicked with, which ends nothing else. It is to leave nothing half done behind.
///
/// # Errors
/// It panicked.
pub fn caught<T>(work: impl FnOnce() -> T) -> thread::Result<T> {
    let before = IS_CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(before);
    result
}

/// What a panic says, if it says it in words.
pub fn message(panic: &(dyn Any + Send)) -> &str {
    let words = panic.downcast_ref::<&str>().copied();
    let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    words.unwrap_or("a panic without words")
}

fn tell(panic: &PanicHookInfo<'_>, consequence: &str) {
    let thread = thread::current();
    let place = panic.location().map(tracing::field::display);
    // Only where RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    tracing::error!(
        thread = thread.name(),
        place,
        panic = panic.payload_as_str().unwrap_or("a panic without words"),
        backtrace = backtrace.as_ref().map(tracing::field::display),
        "a part of the program failed, which is a fault of l7egg: please report it; the program ends, {consequence}"
    );
}

#[cfg(test)]
mod tests;

//! From what the kernel or aya says to what the user is told.

use std::error::Error;

use crate::datapath::DatapathError;

/// An error of the kernel, with what was tried and on which object.
pub fn kernel<E: Into<Box<dyn Error + Send + Sync>>>(
    what: impl Into<String>,
) -> impl FnOnce(E) -> DatapathError {
    let what = what.into();
    move |source| DatapathError::Kernel { what, source: source.into() }
}

/// The same for an insertion into a map, where the likely reason is that the map is full.
pub fn insertion(map: &'static str, error: aya::maps::MapError) -> DatapathError {
    if os_error(&error) == Some(libc::E2BIG) || os_error(&error) == Some(libc::ENOSPC) {
        let advice = match map {
            "ADMITTED" | "CONTAINERS" | "ATTACHED" | "ADDRESSES" => {
                "what is enforced stays so; this node has more pods than can be enforced: have some on other nodes"
            }
            _ => "what is enforced stays so; use fewer or larger CIDRs and patterns on this node",
        };
        return DatapathError::MapFull { map, advice: advice.into() };
    }
    DatapathError::Kernel { what: format!("writing to map {map}"), source: error.into() }
}

/// The number that the system call came back with, if there was one.
pub fn os_error(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        next = error.source();
    }
    None
}

//! Functions that the verifier follows once, by themselves.
//!
//! A function that is only ours is followed anew at every call, with all that is known of its arguments there, and what it
//! found out is carried on through everything behind it: a few branches in a row multiply. A global one (the kernel's
//! Documentation/bpf/verifier.rst and `do_check_subprogs` in kernel/bpf/verifier.c) is checked for any argument of its type, and a
//! caller knows nothing of what it did but that it returned a number. The price: references arrive as pointers that
//! may be null, and one number is all that comes back.

use aya_ebpf::bindings::__sk_buff;

use crate::skb::{Frame, Skb};

/// What a global function can be given.
pub trait Argument: Sized {
    /// As the kernel knows it.
    type Raw;

    /// For the call.
    fn into_raw(self) -> Self::Raw;

    /// In the function; `None` for a null pointer.
    ///
    /// # Safety
    /// It comes from [`Argument::into_raw`], or the verifier knows it for what it says.
    unsafe fn from_raw(raw: Self::Raw) -> Option<Self>;
}

macro_rules! number {
    ($($number:ty),*) => {$(
        impl Argument for $number {
            type Raw = Self;
            #[inline(always)]
            fn into_raw(self) -> Self {
                self
            }
            #[inline(always)]
            unsafe fn from_raw(raw: Self) -> Option<Self> {
                Some(raw)
            }
        }
    )*};
}
number!(u32, u64);

impl<T> Argument for &T {
    type Raw = *const T;
    #[inline(always)]
    fn into_raw(self) -> *const T {
        self
    }
    #[inline(always)]
    unsafe fn from_raw(raw: *const T) -> Option<Self> {
        // SAFETY: see above.
        unsafe { raw.as_ref() }
    }
}

impl<T> Argument for &mut T {
    type Raw = *mut T;
    #[inline(always)]
    fn into_raw(self) -> *mut T {
        self
    }
    #[inline(always)]
    unsafe fn from_raw(raw: *mut T) -> Option<Self> {
        // SAFETY: see above.
        unsafe { raw.as_mut() }
    }
}

/// The program's context, which the kernel knows by the name of its type.
impl Argument for Skb {
    type Raw = *mut __sk_buff;
    #[inline(always)]
    fn into_raw(self) -> *mut __sk_buff {
        self.as_ptr()
    }
    #[inline(always)]
    unsafe fn from_raw(raw: *mut __sk_buff) -> Option<Self> {
        Some(Self::from_raw(raw))
    }
}

impl Argument for Frame {
    type Raw = *mut __sk_buff;
    #[inline(always)]
    fn into_raw(self) -> *mut __sk_buff {
        self.as_ptr()
    }
    #[inline(always)]
    unsafe fn from_raw(raw: *mut __sk_buff) -> Option<Self> {
        Some(Self::from_raw(raw))
    }
}

/// Makes a function a global one. It takes five arguments at most ([`Argument`]), whose types have no padding: the
/// verifier wants every byte of what a reference leads to written. It returns an `i32`, 0 for a null pointer.
#[macro_export]
macro_rules! global {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> i32 $body:block) => {
        $(#[$meta])*
        #[inline(always)]
        $vis fn $name($($argument: $type),*) -> i32 {
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $name($($argument: <$type as $crate::global::Argument>::Raw),*) -> i32 {
                $(
                    // SAFETY: made by `into_raw` below.
                    let Some($argument) = (unsafe { <$type as $crate::global::Argument>::from_raw($argument) }) else {
                        return 0;
                    };
                )*
                $body
            }
            $name($($crate::global::Argument::into_raw($argument)),*)
        }
    };
}

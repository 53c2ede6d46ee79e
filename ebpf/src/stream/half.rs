//! What is kept of a connection to a name server, in its socket's storage.

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use core::sync::atomic::AtomicU64;
use l7egg_ebpf_common::answer::{MESSAGE_MAX, Message, QUERY_MAX, QueryStart};
use l7egg_ebpf_common::stream::{Segment, Stream};

use crate::Refusal;
use crate::atomic::swap;
use crate::maps::{DNS_ENDED, DNS_STREAMS};
use crate::skb::Skb;

/// Value of the socket storage `DNS_STREAMS`: both directions of one connection.
#[repr(C)]
pub struct Conversation {
    /// The pod whose it is, by subject id, once it has been counted.
    pub counted_for: AtomicU64,
    /// What leaves.
    pub sent: Half<QueryStart>,
    /// What arrives.
    pub received: Half<Message>,
}

/// One direction.
#[repr(C)]
pub struct Half<M> {
    busy: AtomicU64,
    /// 1 once a message must not go on: then nothing does, as its sender would only repeat it.
    pub ended: u64,
    /// What has been taken of it.
    pub stream: Stream,
    /// The message that is put together.
    pub message: M,
}

/// What a message is put together in. A socket's storage has room for one long one only: 20 KiB
/// (`net.core.optmem_max`).
pub trait Body {
    /// Bytes that it keeps.
    const MAX: u32;
    /// Puts `len` bytes of a packet in its place.
    fn copy(&mut self, skb: Skb, offset: u32, len: u32, place: u32);
    /// Ends it.
    fn set_len(&mut self, len: u32);
    /// The direction of the connection that it is for.
    fn half(conversation: *mut Conversation) -> *mut Half<Self>
    where
        Self: Sized;
    /// Whether that is the one that leaves.
    const IS_SENT: bool;
}

macro_rules! body {
    ($type:ident, $max:expr, $field:ident, $is_sent:literal) => {
        impl Body for $type {
            const MAX: u32 = $max as u32;
            const IS_SENT: bool = $is_sent;
            #[inline(always)]
            fn copy(&mut self, skb: Skb, offset: u32, len: u32, place: u32) {
                skb.copy_to::<{ $max }>(offset, len, self.bytes.as_mut_ptr(), place);
            }
            #[inline(always)]
            fn set_len(&mut self, len: u32) {
                self.cut = u32::from(len > Self::MAX);
                self.len = if len > Self::MAX { Self::MAX } else { len };
            }
            #[inline(always)]
            fn half(conversation: *mut Conversation) -> *mut Half<Self> {
                // SAFETY: a place in the storage, not looked at.
                unsafe { &raw mut (*conversation).$field }
            }
        }
    };
}
body!(QueryStart, QUERY_MAX, sent, true);
body!(Message, MESSAGE_MAX, received, false);

/// A query that must not go on, so that nothing on its connection does.
pub struct LastQuery<'a> {
    half: &'a Half<QueryStart>,
}

/// The one that was sent on the socket's connection, if there is one.
#[inline(always)]
pub fn last_query<'a>(socket: *mut bpf_sock) -> Option<LastQuery<'a>> {
    let conversation = storage(socket)?;
    // SAFETY: the socket's own storage, in which nothing changes any more for as long as the connection lasts.
    let half = unsafe { &(*conversation).sent };
    if half.ended == 0 { None } else { Some(LastQuery { half }) }
}

/// Whether a query was refused on a connection of the socket that is over.
#[inline(always)]
pub fn has_end(socket: *mut bpf_sock) -> bool {
    end(socket, 0)
}

/// Notes that.
#[inline(always)]
pub fn remember_end(socket: *mut bpf_sock) {
    end(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE));
}

#[inline(always)]
fn end(socket: *mut bpf_sock, flags: u64) -> bool {
    let map = (&raw const DNS_ENDED).cast_mut().cast();
    // SAFETY: `socket` is a full socket, tested for null.
    !unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), flags) }.is_null()
}

/// Whether the queries in a segment of so many bytes from this sequence number on have been read, as it left.
#[inline(always)]
pub fn has_read(socket: *mut bpf_sock, sequence: u32, len: u32) -> bool {
    // SAFETY: the socket's own storage. What is read later only adds to what has been.
    storage(socket).is_some_and(
        |conversation| unsafe { (*conversation).sent.stream.accept(sequence, len) } == Segment::Old,
    )
}

impl LastQuery<'_> {
    /// Its beginning.
    #[inline(always)]
    pub fn message(&self) -> &QueryStart {
        &self.half.message
    }

    /// Whether a segment from this sequence number on has bytes of it, or of what was before it.
    #[inline(always)]
    pub fn is_in(&self, sequence: u32) -> bool {
        self.half.stream.has_taken(sequence)
    }
}

/// Claims one direction of a connection for this run, which has to release it.
#[inline(always)]
pub fn take_hold<M>(half: *mut Half<M>) -> Result<(), Refusal> {
    // SAFETY: in the socket's own storage, which lives as long as the program runs.
    if swap(unsafe { &(*half).busy }, 1) != 0 { Err(Refusal::ScratchBusy) } else { Ok(()) }
}

/// One direction of the connection, for this run alone; `None` if there is no connection.
#[inline(always)]
pub fn claim<M: Body>(skb: Skb) -> Result<Option<*mut Half<M>>, Refusal> {
    let Some(conversation) = skb.socket().and_then(storage) else { return Ok(None) };
    let half = M::half(conversation);
    take_hold(half).map(|()| Some(half))
}

/// Whether a message has ended it.
#[inline(always)]
pub fn has_ended<M>(half: *mut Half<M>) -> bool {
    // SAFETY: claimed by this run.
    unsafe { (*half).ended != 0 }
}

/// Lets others claim it.
#[inline(always)]
pub fn release<M>(half: *mut Half<M>) {
    // Not a plain store: whoever sees it has to see what was written before, on every machine.
    // SAFETY: claimed by this run.
    swap(unsafe { &(*half).busy }, 0);
}

/// What is kept of a socket's connection.
#[inline(always)]
pub fn storage(socket: *mut bpf_sock) -> Option<*mut Conversation> {
    get(socket, 0)
}

/// The same; it is made where there is nothing yet.
#[inline(always)]
pub fn create(socket: *mut bpf_sock) -> Option<*mut Conversation> {
    get(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE))
}

#[inline(always)]
fn get(socket: *mut bpf_sock, flags: u64) -> Option<*mut Conversation> {
    // SAFETY: `socket` is a full socket, tested for null.
    let found = unsafe {
        bpf_sk_storage_get(
            (&raw const DNS_STREAMS).cast_mut().cast(),
            socket.cast(),
            core::ptr::null_mut(),
            flags,
        )
    };
    if found.is_null() { None } else { Some(found.cast()) }
}

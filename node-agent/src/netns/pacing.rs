//! What an interface needs so that packets leave when they are told to: `fq` as its root qdisc
//! (net/sched/sch_fq.c), and segments small enough for the rate; and how it was before.

use std::{io, thread};

use netlink_packet_core::{DefaultNla, Emitable, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption, TcStats2};
use nix::sched::{CloneFlags, unshare};

use super::rtnetlink::Rtnetlink;

/// `TCA_OPTIONS` of include/uapi/linux/rtnetlink.h.
const TCA_OPTIONS: u16 = 2;
/// `TCA_FQ_PLIMIT` and `TCA_FQ_FLOW_PLIMIT` of include/uapi/linux/pkt_sched.h.
const TCA_FQ_PLIMIT: u16 = 1;
const TCA_FQ_FLOW_PLIMIT: u16 = 2;
/// Packets that wait at an interface, and of one flow. The horizon of the caps bounds the queue in time,
/// and sockets their own part of it; these only bound memory.
const PACKETS: u32 = 20_000;
const FLOW_PACKETS: u32 = 2_000;
/// Index of every namespace's loopback interface.
const LOOPBACK: u32 = 1;
/// By this handle we know our own.
const HANDLE: TcHandle = TcHandle { major: 0x6c37, minor: 0 };
/// Qdiscs with classes of their own: what is in them could not be put back.
const WITH_CLASSES: [&str; 9] = ["htb", "hfsc", "prio", "mq", "mqprio", "drr", "ets", "qfq", "taprio"];

/// A root qdisc.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootQdisc {
    /// `noqueue`, `fq_codel`, …
    pub kind: String,
    /// Its handle; 0 for one that the kernel chose.
    pub handle: u32,
    /// Its options, as rtnetlink(7) has them.
    pub options: Vec<u8>,
}

impl RootQdisc {
    /// Whether it is the `fq` that [`set_fq`] makes.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.kind == "fq" && TcHandle::from(self.handle) == HANDLE
    }

    /// Whether it can be put back once it was replaced.
    #[must_use]
    pub fn can_be_put_back(&self) -> bool {
        self.handle == 0 || !WITH_CLASSES.contains(&self.kind.as_str())
    }
}

/// The root qdisc of an interface of the present namespace.
///
/// # Errors
/// The kernel does not tell.
pub fn root_qdisc(interface: u32) -> io::Result<RootQdisc> {
    let message = TcMessage::with_index(interface as i32);
    let answers = Rtnetlink::open()?.dump(RouteNetlinkMessage::GetQueueDiscipline(message))?;
    for answer in answers {
        let RouteNetlinkMessage::NewQueueDiscipline(message) = answer else { continue };
        if message.header.index == interface as i32 && message.header.parent == TcHandle::ROOT {
            return Ok(read(message));
        }
    }
    // Where nothing was ever attached, nothing is listed.
    Ok(RootQdisc::default())
}

/// How many packets wait in the root qdisc of an interface of the present namespace.
///
/// # Errors
/// The kernel does not tell.
pub fn waiting(interface: u32) -> io::Result<u32> {
    let message = TcMessage::with_index(interface as i32);
    let answers = Rtnetlink::open()?.dump(RouteNetlinkMessage::GetQueueDiscipline(message))?;
    let is_root = |message: &TcMessage| {
        message.header.index == interface as i32 && message.header.parent == TcHandle::ROOT
    };
    let attributes = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewQueueDiscipline(message) if is_root(&message) => Some(message.attributes),
        _ => None,
    });
    Ok(attributes.flatten().find_map(queued).unwrap_or(0))
}

fn queued(attribute: TcAttribute) -> Option<u32> {
    let TcAttribute::Stats2(stats) = attribute else { return None };
    stats.into_iter().find_map(|stats| match stats {
        TcStats2::Queue(queue) => Some(queue.qlen),
        _ => None,
    })
}

/// Makes `fq` the root qdisc.
///
/// # Errors
/// `NotFound` if the kernel has no `fq`.
pub fn set_fq(interface: u32) -> io::Result<()> {
    let limit = |kind, value: u32| TcOption::Other(DefaultNla::new(kind, value.to_ne_bytes().to_vec()));
    let mut message = root(interface, HANDLE, "fq");
    message.attributes.push(TcAttribute::Options(vec![
        limit(TCA_FQ_PLIMIT, PACKETS),
        limit(TCA_FQ_FLOW_PLIMIT, FLOW_PACKETS),
    ]));
    set(message)
}

/// Puts a root qdisc back.
///
/// # Errors
/// The kernel refuses.
pub fn put_back(interface: u32, qdisc: &RootQdisc) -> io::Result<()> {
    if qdisc.handle == 0 {
        let message = root(interface, HANDLE, "fq");
        return Rtnetlink::open()?.change(RouteNetlinkMessage::DelQueueDiscipline(message), 0);
    }
    let mut message = root(interface, qdisc.handle.into(), &qdisc.kind);
    if !qdisc.options.is_empty() {
        message.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, qdisc.options.clone())));
    }
    set(message)
}

/// Whether the kernel has `fq`: tried in a network namespace of its own, which ends with this.
///
/// # Errors
/// The agent may not make one, or the kernel refuses for another reason.
pub fn has_fq() -> io::Result<bool> {
    let attempt = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        set_fq(LOOPBACK)
    };
    let result = thread::scope(|scope| scope.spawn(attempt).join());
    match result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Most segments of one packet that the stack leaves to the interface. Connections that are made from then
/// on heed it.
///
/// # Errors
/// The kernel refuses.
pub fn set_gso_max_segs(interface: u32, segments: u32) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = interface;
    message.attributes.push(LinkAttribute::GsoMaxSegs(segments));
    Rtnetlink::open()?.change(RouteNetlinkMessage::NewLink(message), 0)
}

fn set(message: TcMessage) -> io::Result<()> {
    Rtnetlink::open()?.change(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_REPLACE)
}

fn root(interface: u32, handle: TcHandle, kind: &str) -> TcMessage {
    let mut message = TcMessage::with_index(interface as i32);
    message.header.parent = TcHandle::ROOT;
    message.header.handle = handle;
    message.attributes.push(TcAttribute::Kind(kind.into()));
    message
}

fn read(message: TcMessage) -> RootQdisc {
    let mut qdisc = RootQdisc { handle: message.header.handle.into(), ..RootQdisc::default() };
    for attribute in message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => qdisc.kind = kind,
            TcAttribute::Options(options) => qdisc.options = bytes(&options),
            _ => {}
        }
    }
    qdisc
}

/// Options that the library does not know come whole, as one that is named like their container.
fn bytes(options: &[TcOption]) -> Vec<u8> {
    use netlink_packet_core::Nla;
    let mut bytes;
    match options {
        [TcOption::Other(whole)] if whole.kind() & 0x3fff == TCA_OPTIONS => {
            bytes = vec![0; whole.value_len()];
            whole.emit_value(&mut bytes);
        }
        options => {
            bytes = vec![0; options.buffer_len()];
            options.emit(&mut bytes);
        }
    }
    bytes
}

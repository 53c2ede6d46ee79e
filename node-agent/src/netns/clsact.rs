//! The clsact qdisc and its filters: net/sched/sch_ingress.c and net/sched/cls_bpf.c.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::rtnetlink::Rtnetlink;
use super::tc::Direction;

/// Before all others.
const PRIORITY: u32 = 1;
/// `ETH_P_ALL` of include/uapi/linux/if_ether.h, in network order as `tcm_info` wants it.
const PROTOCOL_ALL: u32 = 3u16.to_be() as u32;

/// One of our filters.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    /// Index of its interface.
    pub interface: u32,
    /// The side it is on.
    pub direction: Direction,
    /// Its name, from which its handle comes.
    pub name: &'a str,
}

impl Filter<'_> {
    /// Always the same for the same name, so that a later agent finds it: FNV-1a, and above the handles that
    /// the kernel gives.
    fn handle(self) -> u32 {
        let hash = self
            .name
            .bytes()
            .fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        0x6c00_0000 | hash & 0x00ff_ffff
    }

    fn message(self) -> TcMessage {
        let mut message = TcMessage::with_index(self.interface as i32);
        message.header.parent = parent(self.direction);
        message.header.handle = self.handle().into();
        message.header.info = PRIORITY << 16 | PROTOCOL_ALL;
        message.attributes.push(TcAttribute::Kind("bpf".into()));
        message
    }
}

/// Adds the clsact qdisc; whether it was not there before.
pub fn add_qdisc(interface: u32) -> io::Result<bool> {
    let request = RouteNetlinkMessage::NewQueueDiscipline(qdisc(interface));
    match Rtnetlink::open()?.change(request, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether it is there, whoever has made it.
pub fn has_qdisc(interface: u32) -> io::Result<bool> {
    let message = TcMessage::with_index(interface as i32);
    let answers = Rtnetlink::open()?.dump(RouteNetlinkMessage::GetQueueDiscipline(message))?;
    // An old kernel tells of those of all interfaces.
    Ok(answers.iter().any(|answer| match answer {
        RouteNetlinkMessage::NewQueueDiscipline(message) => {
            let is_clsact = |one: &TcAttribute| matches!(one, TcAttribute::Kind(kind) if kind == "clsact");
            message.header.index == interface as i32 && message.attributes.iter().any(is_clsact)
        }
        _ => false,
    }))
}

/// Removes it, and with it all filters.
pub fn remove_qdisc(interface: u32) -> io::Result<()> {
    gone_is_done(Rtnetlink::open()?.change(RouteNetlinkMessage::DelQueueDiscipline(qdisc(interface)), 0))
}

/// Adds a filter, or replaces its program in one step.
pub fn add_filter(filter: Filter<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut message = filter.message();
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32)),
        TcOption::Bpf(TcFilterBpfOption::ProgName(filter.name.into())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    Rtnetlink::open()?.change(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE)
}

/// Removes a filter, if it is there.
pub fn remove_filter(filter: Filter<'_>) -> io::Result<()> {
    gone_is_done(Rtnetlink::open()?.change(RouteNetlinkMessage::DelTrafficFilter(filter.message()), 0))
}

/// Whether a filter is there.
pub fn has_filter(filter: Filter<'_>) -> io::Result<bool> {
    let filters = filters(filter.interface, filter.direction)?;
    Ok(filters.iter().any(|message| u32::from(message.header.handle) == filter.handle()))
}

/// Id of the program of a filter, if that is there.
pub fn program_of(filter: Filter<'_>) -> io::Result<Option<u32>> {
    let filters = filters(filter.interface, filter.direction)?;
    let ours = filters.iter().filter(|message| u32::from(message.header.handle) == filter.handle());
    let mut attributes = ours.flat_map(|message| &message.attributes);
    Ok(attributes.find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
            _ => None,
        }),
        _ => None,
    }))
}

/// Whether anybody's filter is on the interface.
pub fn has_filters(interface: u32) -> io::Result<bool> {
    Ok(!filters(interface, Direction::Ingress)?.is_empty()
        || !filters(interface, Direction::Egress)?.is_empty())
}

fn filters(interface: u32, direction: Direction) -> io::Result<Vec<TcMessage>> {
    let mut message = TcMessage::with_index(interface as i32);
    message.header.parent = parent(direction);
    let answers = Rtnetlink::open()?.dump(RouteNetlinkMessage::GetTrafficFilter(message));
    let answers = match answers {
        // No qdisc, no interface: no filters.
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        answers => answers?,
    };
    let filters = answers.into_iter().filter_map(|answer| match answer {
        // One without options stands for its whole priority.
        RouteNetlinkMessage::NewTrafficFilter(message)
            if message.attributes.iter().any(|one| matches!(one, TcAttribute::Options(_))) =>
        {
            Some(message)
        }
        _ => None,
    });
    Ok(filters.collect())
}

fn qdisc(interface: u32) -> TcMessage {
    let mut message = TcMessage::with_index(interface as i32);
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message.attributes.push(TcAttribute::Kind("clsact".into()));
    message
}

fn parent(direction: Direction) -> TcHandle {
    let minor = match direction {
        Direction::Ingress => TcHandle::MIN_INGRESS,
        Direction::Egress => TcHandle::MIN_EGRESS,
    };
    TcHandle { major: TcHandle::CLSACT.major, minor }
}

fn gone_is_done(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_gone(&error) => Ok(()),
        result => result,
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EINVAL))
}

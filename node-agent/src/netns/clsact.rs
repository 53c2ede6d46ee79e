//! The clsact qdisc and its filters: net/sched/sch_ingress.c and net/sched/cls_bpf.c.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::rtnetlink::Rtnetlink;
use super::tc::{Direction, Rank};

/// The lowest, which others take, too: filters of one priority are one list, and who comes last is its head.
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

    /// The one that it has while it is moved to the front.
    fn spare_handle(self) -> u32 {
        self.handle() ^ 0x0100_0000
    }

    fn is(self, message: &TcMessage) -> bool {
        [self.handle(), self.spare_handle()].contains(&message.header.handle.into())
    }

    fn message(self, handle: u32) -> TcMessage {
        let mut message = TcMessage::with_index(self.interface as i32);
        message.header.parent = parent(self.direction);
        message.header.handle = handle.into();
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

/// Adds a filter before all others, or replaces its program in one step. Where another has come before it, it is moved: it is there
/// twice for a moment, and never not.
pub fn add_filter(filter: Filter<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let filters = filters(filter.interface, filter.direction)?;
    let mut there = end_move_among(filter, &filters)?;
    let is_first = foremost(&filters).is_some_and(|one| filter.is(one));
    if there == Some(filter.handle()) && !is_first {
        add(filter, filter.spare_handle(), program)?;
        remove(filter, filter.handle())?;
        there = Some(filter.spare_handle());
    }
    add(filter, filter.handle(), program)?;
    match there {
        Some(spare) if spare == filter.spare_handle() => remove(filter, spare),
        _ => Ok(()),
    }
}

/// Leaves one of a filter where it is there twice, as who ends while moving it leaves it: the one in front.
pub fn end_move(filter: Filter<'_>) -> io::Result<()> {
    end_move_among(filter, &filters(filter.interface, filter.direction)?).map(drop)
}

/// The handle that is left.
fn end_move_among(filter: Filter<'_>, filters: &[TcMessage]) -> io::Result<Option<u32>> {
    let mut ours = filters.iter().filter(|one| filter.is(one)).map(|one| one.header.handle.into());
    let first = ours.next();
    ours.try_for_each(|handle| remove(filter, handle))?;
    Ok(first)
}

/// Removes a filter, as far as it has one of these programs.
pub fn remove_filter(filter: Filter<'_>, programs: &[u32]) -> io::Result<()> {
    let filters = filters(filter.interface, filter.direction)?;
    let mut ours = filters.iter().filter(|one| filter.is(one));
    ours.try_for_each(|one| match program(one) {
        Some(id) if programs.contains(&id) => remove(filter, one.header.handle.into()),
        _ => Ok(()),
    })
}

/// Where a filter is among those of its side.
pub fn rank(filter: Filter<'_>) -> io::Result<Rank> {
    let filters = filters(filter.interface, filter.direction)?;
    if !filters.iter().any(|one| filter.is(one)) {
        return Ok(Rank::Absent);
    }
    Ok(match foremost(&filters) {
        Some(first) if !filter.is(first) => Rank::Behind(describe(first)),
        _ => Rank::First,
    })
}

/// Id of the program of a filter, if that is there.
pub fn program_of(filter: Filter<'_>) -> io::Result<Option<u32>> {
    let filters = filters(filter.interface, filter.direction)?;
    Ok(filters.iter().find(|one| filter.is(one)).and_then(program))
}

/// Whether anybody's filter is on the interface.
pub fn has_filters(interface: u32) -> io::Result<bool> {
    Ok(!filters(interface, Direction::Ingress)?.is_empty()
        || !filters(interface, Direction::Egress)?.is_empty())
}

fn add(filter: Filter<'_>, handle: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut message = filter.message(handle);
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32)),
        TcOption::Bpf(TcFilterBpfOption::ProgName(filter.name.into())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    Rtnetlink::open()?.change(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE)
}

fn remove(filter: Filter<'_>, handle: u32) -> io::Result<()> {
    gone_is_done(Rtnetlink::open()?.change(RouteNetlinkMessage::DelTrafficFilter(filter.message(handle)), 0))
}

/// Of filters in the order of a dump, the one that sees packets first. Other chains are those that a filter sends them to.
fn foremost(filters: &[TcMessage]) -> Option<&TcMessage> {
    let is_elsewhere = |one: &TcAttribute| matches!(one, TcAttribute::Chain(chain) if *chain != 0);
    filters.iter().find(|message| !message.attributes.iter().any(is_elsewhere))
}

fn bpf_options(message: &TcMessage) -> impl Iterator<Item = &TcFilterBpfOption> {
    let options = message.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.flatten().filter_map(|option| match option {
        TcOption::Bpf(option) => Some(option),
        _ => None,
    })
}

fn program(message: &TcMessage) -> Option<u32> {
    bpf_options(message).find_map(|option| match option {
        TcFilterBpfOption::ProgId(id) => Some(*id),
        _ => None,
    })
}

fn describe(message: &TcMessage) -> String {
    let name = bpf_options(message).find_map(|option| match option {
        TcFilterBpfOption::ProgName(name) => Some(name.as_str()),
        _ => None,
    });
    let (priority, handle) = (message.header.info >> 16, u32::from(message.header.handle));
    let program = program(message).map(|id| format!(", program {id}")).unwrap_or_default();
    format!(
        "filter {} of priority {priority} (handle {handle:#x}{program})",
        name.unwrap_or("without a name")
    )
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

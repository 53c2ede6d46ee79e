//! Tells on which interfaces filters come and go, whoever's they are.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::net::if_::if_nameindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// `RTNLGRP_TC` and the messages that come to it, include/uapi/linux/rtnetlink.h. With a qdisc its filters go, of which nothing is
/// said.
const RTNLGRP_TC: u32 = 4;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
/// What takes away one filter takes away others with it, and it is told once of all of them.
const GATHER: Duration = Duration::from_millis(50);
/// So many bytes of messages wait, as of a plugin that changes all pods' interfaces at once.
const ROOM: u32 = 1 << 20;

/// A socket in the network namespace of the thread that made it.
pub struct FilterWatch(Socket);

impl FilterWatch {
    /// Hears of the present namespace's interfaces from now on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_rx_buf_sz(ROOM)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.add_membership(RTNLGRP_TC)?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Waits until something has changed, and a moment longer: the indices of the interfaces. All of them where messages were lost.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn wait(&self) -> io::Result<BTreeSet<u32>> {
        let mut changed = BTreeSet::new();
        let mut until = None;
        loop {
            let rest = until.map(|until: Instant| until.saturating_duration_since(Instant::now()));
            if rest.is_some_and(|rest| rest.is_zero()) || !self.has_more(rest)? {
                return Ok(changed);
            }
            self.take(&mut changed)?;
            if !changed.is_empty() {
                until.get_or_insert_with(|| Instant::now() + GATHER);
            }
        }
    }

    /// Whether something is there to be read within this time, if it is given.
    fn has_more(&self, within: Option<Duration>) -> io::Result<bool> {
        // A part of a millisecond would be none.
        let milliseconds = within.map(|within| within.as_millis() as i32 + 1);
        let timeout = milliseconds.map_or(PollTimeout::NONE, |it| it.try_into().unwrap_or(PollTimeout::MAX));
        match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn take(&self, changed: &mut BTreeSet<u32>) -> io::Result<()> {
        match self.0.recv_from_full() {
            Ok((datagram, _)) => changed.extend(interfaces(&datagram)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                changed.extend(if_nameindex()?.iter().map(|interface| interface.index()));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The interfaces that a datagram's messages are about. Nothing else of them is read, so no kind of filter need be known.
fn interfaces(mut datagram: &[u8]) -> BTreeSet<u32> {
    let mut interfaces = BTreeSet::new();
    // `struct nlmsghdr`, and of `struct tcmsg` the index behind four bytes.
    while let Some(header) = datagram.get(..24) {
        let word = |at: usize| {
            header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok().map(u32::from_ne_bytes))
        };
        let (length, index) = (word(0).unwrap_or_default() as usize, word(20).unwrap_or_default());
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if matches!(kind, RTM_DELQDISC | RTM_NEWTFILTER | RTM_DELTFILTER) {
            interfaces.insert(index);
        }
        // Each begins at a multiple of four bytes.
        datagram = datagram.get(length.max(16).next_multiple_of(4)..).unwrap_or_default();
    }
    interfaces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, index: u32, rest: usize) -> Vec<u8> {
        let mut bytes = vec![0; 36 + rest];
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[20..24].copy_from_slice(&index.to_ne_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn of_each_message_its_interface() {
        let all = [
            message(RTM_NEWTFILTER, 7, 101),
            message(36, 8, 0),
            message(RTM_DELTFILTER, 9, 0),
            message(RTM_DELQDISC, 10, 3),
        ];
        assert_eq!(interfaces(&all.concat()), BTreeSet::from([7, 9, 10]));
    }

    #[test]
    fn what_is_cut_or_says_nonsense_ends() {
        let whole = [message(RTM_NEWTFILTER, 7, 8), message(RTM_DELTFILTER, 9, 0)].concat();
        (0..whole.len()).for_each(|length| _ = interfaces(&whole[..length]));
        for length in [0u32, 1, 15, u32::MAX, u32::MAX - 1] {
            let mut wrong = whole.clone();
            wrong[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(interfaces(&wrong).contains(&7));
        }
    }
}

//! sock_diag(7): the TCP and UDP sockets of a network namespace, and their end. Layouts from
//! include/uapi/linux/inet_diag.h and sock_diag.h.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use l7egg_ebpf_common::abi::Connection;
use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NetlinkDeserializable, NetlinkHeader, NetlinkPayload,
    NetlinkSerializable, NlaBuffer, NlasIterator,
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::netlink::Netlink;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// `struct inet_diag_msg`.
const ANSWER: usize = 72;
/// `struct inet_diag_sockid`.
const ID: usize = 48;
/// `INET_DIAG_REQ_SK_BPF_STORAGES`, and `SK_DIAG_BPF_STORAGE_REQ_MAP_FD` in it.
const REQUEST_STORAGES: u16 = 2;
const REQUEST_MAP: u16 = 1;
/// `INET_DIAG_SK_BPF_STORAGES`, `SK_DIAG_BPF_STORAGE` in it, and `SK_DIAG_BPF_STORAGE_MAP_VALUE` in that.
const STORAGES: u16 = 20;
const STORAGE: u16 = 1;
const STORAGE_VALUE: u16 = 3;
/// `INET_DIAG_CGROUP_ID`.
const CGROUP: u16 = 21;

/// States of include/net/tcp_states.h, as bits.
pub mod states {
    /// `TCP_ESTABLISHED`; a connected UDP socket too.
    pub const ESTABLISHED: u32 = 1 << 1;
    /// `TCP_CLOSE`: a UDP socket that is not connected.
    pub const CLOSE: u32 = 1 << 7;
    /// `TCP_LISTEN`.
    pub const LISTEN: u32 = 1 << 10;
    /// Every state of a TCP connection with a socket of its own: `ESTABLISHED`, `SYN_SENT`, `FIN_WAIT1`,
    /// `FIN_WAIT2`, `CLOSE_WAIT`, `LAST_ACK` and `CLOSING`.
    pub const CONNECTIONS: u32 = 0xb36;
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its own address and port.
    pub local: SocketAddr,
    /// The other side's.
    pub remote: SocketAddr,
    /// State, as a bit of [`states`].
    pub state: u32,
    /// Unique among all sockets since boot.
    pub cookie: u64,
    /// Id of the cgroup that it was made in; always there from Linux 5.8 on.
    pub cgroup: Option<u64>,
    /// Whether the programs have something in the storage that was asked for.
    pub is_stored: bool,
    /// What they have there, where it is one of connections.
    pub connection: Option<Connection>,
    /// What the kernel knows it by.
    pub id: Id,
}

/// What the kernel knows a socket by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    family: u8,
    socket: [u8; ID],
}

/// A netlink socket in the network namespace of the thread that made it.
pub struct SockDiag(Netlink);

impl SockDiag {
    /// A socket in the present namespace.
    pub fn open() -> io::Result<Self> {
        Netlink::open(NETLINK_SOCK_DIAG).map(Self)
    }

    /// Shows all sockets of both families, of an IP protocol and in these states, with their value in a socket storage. One by one:
    /// a host may have a million. The protocol's diag module is loaded if it is not there.
    pub fn each(
        &mut self,
        protocol: u8,
        states: u32,
        storage: BorrowedFd<'_>,
        mut see: impl FnMut(Found),
    ) -> io::Result<()> {
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            let mut bytes = request(family, protocol, states, &[0; ID]);
            bytes.extend(attribute(
                REQUEST_STORAGES,
                &attribute(REQUEST_MAP, &storage.as_raw_fd().to_ne_bytes()),
            ));
            let question = Diag { kind: SOCK_DIAG_BY_FAMILY, bytes };
            self.0.each_answer(question, NLM_F_DUMP, |answer| {
                if let Some(found) = read(&answer.bytes) {
                    see(found);
                }
            })?;
        }
        Ok(())
    }

    /// Ends a TCP connection: both sides get an error (`tcp_abort`). Not an error if it has ended meanwhile.
    pub fn destroy(&mut self, id: &Id) -> io::Result<()> {
        let bytes = request(id.family, libc::IPPROTO_TCP as u8, u32::MAX, &id.socket);
        match self.0.request(Diag { kind: SOCK_DESTROY, bytes }, NLM_F_ACK) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }
}

/// A message of this family, not read further.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Diag {
    kind: u16,
    bytes: Vec<u8>,
}

impl NetlinkSerializable for Diag {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.bytes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.bytes);
    }
}

impl NetlinkDeserializable for Diag {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Diag { kind: header.message_type, bytes: payload.to_vec() })
    }
}

impl From<Diag> for NetlinkPayload<Diag> {
    fn from(message: Diag) -> Self {
        NetlinkPayload::InnerMessage(message)
    }
}

fn request(family: u8, protocol: u8, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REQUEST + 16);
    bytes.extend([family, protocol, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

/// An attribute (netlink(7)); its value is a multiple of four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len() as u16;
    [length.to_ne_bytes().as_slice(), &kind.to_ne_bytes(), value].concat()
}

fn read(answer: &[u8]) -> Option<Found> {
    let (head, attributes) = answer.split_at_checked(ANSWER)?;
    let [family, state] = *head.first_chunk()?;
    let id: &[u8; ID] = head.get(4..)?.first_chunk()?;
    let mut found = Found {
        local: address(family, id, 0, 4)?,
        remote: address(family, id, 2, 20)?,
        state: 1u32.checked_shl(state.into())?,
        cookie: u64::from(u32::from_ne_bytes(*id.get(40..)?.first_chunk()?))
            | u64::from(u32::from_ne_bytes(*id.get(44..)?.first_chunk()?)) << 32,
        cgroup: None,
        is_stored: false,
        connection: None,
        id: Id { family, socket: *id },
    };
    for (kind, value) in each(attributes) {
        match kind {
            CGROUP => found.cgroup = value.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes)),
            STORAGES => {
                let value = stored(value);
                found.is_stored = value.is_some();
                found.connection = value.and_then(connection);
            }
            _ => {}
        }
    }
    Some(found)
}

/// Port and address at these offsets, an IPv4-mapped one as IPv4.
fn address(family: u8, id: &[u8; ID], port: usize, at: usize) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(*id.get(port..)?.first_chunk()?);
    let address = if i32::from(family) == libc::AF_INET {
        IpAddr::from(Ipv4Addr::from(*id.get(at..)?.first_chunk::<4>()?))
    } else {
        IpAddr::from(Ipv6Addr::from(*id.get(at..)?.first_chunk::<16>()?)).to_canonical()
    };
    Some(SocketAddr::new(address, port))
}

/// The value in the storage that was asked for.
fn stored(storages: &[u8]) -> Option<&[u8]> {
    let (_, storage) = each(storages).find(|(kind, _)| *kind == STORAGE)?;
    each(storage).find(|(kind, _)| *kind == STORAGE_VALUE).map(|(_, value)| value)
}

fn connection(value: &[u8]) -> Option<Connection> {
    if value.len() < size_of::<Connection>() {
        return None;
    }
    // SAFETY: long enough, and any bytes are one; read unaligned.
    Some(unsafe { value.as_ptr().cast::<Connection>().read_unaligned() })
}

fn each(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(attributes).map_while(Result::ok).map(|attribute: NlaBuffer<&[u8]>| {
        let value = attribute.into_inner();
        let length = NlaBuffer::new(value).length() as usize;
        (NlaBuffer::new(value).kind(), &value[4..length])
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An established connection from 10.0.0.9.
    pub fn found(remote: &str, local_port: u16) -> Found {
        Found {
            local: SocketAddr::new(Ipv4Addr::new(10, 0, 0, 9).into(), local_port),
            remote: remote.parse().unwrap(),
            state: states::ESTABLISHED,
            cookie: 1,
            cgroup: None,
            is_stored: false,
            connection: None,
            id: Id { family: 2, socket: [0; ID] },
        }
    }

    fn answer(family: u8, local: &[u8], remote: &[u8], attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; ANSWER];
        bytes[..2].copy_from_slice(&[family, 1]);
        bytes[4..6].copy_from_slice(&8080u16.to_be_bytes());
        bytes[6..8].copy_from_slice(&443u16.to_be_bytes());
        bytes[8..8 + local.len()].copy_from_slice(local);
        bytes[24..24 + remote.len()].copy_from_slice(remote);
        bytes[44..52].copy_from_slice(&0x0102_0304_0506_0708u64.to_le_bytes());
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn reads_both_families() {
        let found = read(&answer(2, &[10, 0, 0, 1], &[192, 0, 2, 7], &[])).unwrap();
        assert_eq!(found.local, "10.0.0.1:8080".parse().unwrap());
        assert_eq!(found.remote, "192.0.2.7:443".parse().unwrap());
        assert_eq!((found.state, found.cookie), (states::ESTABLISHED, 0x0102_0304_0506_0708));
        let mapped: Ipv6Addr = "::ffff:192.0.2.7".parse().unwrap();
        let six: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let found = read(&answer(10, &six.octets(), &mapped.octets(), &[])).unwrap();
        assert_eq!(found.remote, "192.0.2.7:443".parse().unwrap());
        assert_eq!(found.local, "[2001:db8::7]:8080".parse().unwrap());
    }

    #[test]
    fn reads_the_cgroup_and_what_is_remembered() {
        let value = [7u8; size_of::<Connection>()];
        let storage = attribute(STORAGE, &attribute(STORAGE_VALUE, &value));
        let attributes = [attribute(CGROUP, &9u64.to_ne_bytes()), attribute(STORAGES, &storage)].concat();
        let found = read(&answer(2, &[10, 0, 0, 1], &[192, 0, 2, 7], &attributes)).unwrap();
        assert_eq!((found.cgroup, found.is_stored), (Some(9), true));
        assert_eq!(found.connection.unwrap().policy, 0x0707_0707);
    }

    #[test]
    fn what_is_cut_short_is_nothing() {
        let whole = answer(2, &[10, 0, 0, 1], &[192, 0, 2, 7], &attribute(CGROUP, &9u64.to_ne_bytes()));
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_none_or(|found| found.cgroup.is_none()));
        }
    }
}

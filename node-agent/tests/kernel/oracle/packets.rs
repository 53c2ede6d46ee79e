//! Packets as a pod sends and receives them, with an Ethernet header in front as `BPF_PROG_TEST_RUN` wants.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use l7egg_ebpf_common::abi::protocol;

const POD4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const POD6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);

/// The pod's address of the same family.
pub fn pod(other: IpAddr) -> IpAddr {
    if other.is_ipv4() { POD4.into() } else { POD6.into() }
}

/// A frame from one address to another.
pub fn frame(from: IpAddr, to: IpAddr, number: u8, transport: &[u8]) -> Vec<u8> {
    let mut frame = vec![0u8; 12];
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + transport.len() as u16).to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, number, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((transport.len() as u16).to_be_bytes());
            frame.extend([number, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => panic!("two families in one packet"),
    }
    frame.extend(transport);
    frame
}

/// A transport header with these ports; a SYN for TCP, an echo request for ICMP.
pub fn first_of(number: u8, local: u16, remote: u16) -> Vec<u8> {
    let ports = [local.to_be_bytes(), remote.to_be_bytes()].concat();
    match number {
        protocol::TCP => [ports.as_slice(), &[0; 8], &[0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]].concat(),
        protocol::UDP => udp(local, remote, b"hello"),
        protocol::ICMP => vec![8, 0, 0, 0, 0, 1, 0, 1],
        protocol::ICMPV6 => vec![128, 0, 0, 0, 0, 1, 0, 1],
        _ => [ports.as_slice(), &[0; 8]].concat(),
    }
}

/// A UDP datagram.
pub fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    [from.to_be_bytes().as_slice(), &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

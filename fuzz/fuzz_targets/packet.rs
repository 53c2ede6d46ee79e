//! Any bytes as a packet: refused, or the addresses and ports are those at the places where the headers say; and what is read
//! as a usual packet is what any other way of reading finds.

#![no_main]

use l7egg_ebpf_common::abi::{Address, protocol};
use l7egg_ebpf_common::packet::{Bytes, Packet, parse, parse_usual_v4, parse_usual_v6};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut usual = Packet::default();
    let is_usual = bytes.words(0).is_some_and(|first| parse_usual_v4(&first, &mut usual))
        || bytes.words(0).is_some_and(|first| parse_usual_v6(&first, &mut usual));
    if is_usual {
        assert_eq!(parse(bytes), Ok(usual));
    }
    let Ok(packet) = parse(bytes) else { return };
    match bytes[0] >> 4 {
        4 => {
            let v4 = |at: usize| Address::mapped([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            assert_eq!((packet.source, packet.destination), (v4(12), v4(16)));
            assert_eq!(usize::from(packet.transport), usize::from(bytes[0] & 15) * 4);
            assert_eq!(bytes[6] & 0x1f | bytes[7], 0, "a later fragment has no ports");
        }
        6 => {
            assert_eq!((packet.source, packet.destination), (address(&bytes[8..]), address(&bytes[24..])));
            assert!(packet.transport >= 40);
        }
        version => panic!("IP version {version}"),
    }
    let transport = usize::from(packet.transport);
    let port = |at: usize| u16::from_be_bytes([bytes[transport + at], bytes[transport + at + 1]]);
    match packet.protocol {
        protocol::TCP => {
            assert_eq!((packet.source_port, packet.destination_port), (port(0), port(2)));
            assert_eq!(packet.tcp_flags, bytes[transport + 13]);
        }
        protocol::UDP => {
            assert_eq!((packet.source_port, packet.destination_port), (port(0), port(2)));
            assert_eq!(usize::from(packet.payload), transport + 8);
            assert_eq!(packet.payload_len, port(4).saturating_sub(8));
        }
        protocol::SCTP => assert_eq!((packet.source_port, packet.destination_port), (port(0), port(2))),
        _ => assert_eq!((packet.source_port, packet.destination_port), (0, 0)),
    }
});

fn address(bytes: &[u8]) -> Address {
    Address::from_bytes(*bytes.first_chunk().expect("a whole header"))
}

use super::*;

fn v4(number: u8, options: usize, fragment: u16, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0u8; 20 + options];
    packet[0] = 0x40 | ((20 + options) / 4) as u8;
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[9] = number;
    packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
    packet[16..20].copy_from_slice(&[192, 0, 2, 7]);
    packet.extend(rest);
    packet
}

fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0u8; 40];
    packet[0] = 0x60;
    packet[6] = next;
    packet[39] = 9;
    packet.extend(rest);
    packet
}

const UDP: [u8; 8] = [0x12, 0x34, 0, 53, 0, 20, 0, 0];

#[test]
fn udp_over_v4_with_options() {
    let packet = parse(v4(17, 8, 0, &UDP).as_slice()).unwrap();
    assert_eq!(packet.destination, Address::mapped([192, 0, 2, 7]));
    assert_eq!((packet.source_port, packet.destination_port), (0x1234, 53));
    assert_eq!((packet.payload, packet.payload_len), (36, 12));
}

fn with_options(options: &[u8]) -> Result<Packet, Malformed> {
    let mut packet = v4(17, options.len(), 0, &UDP);
    packet[20..20 + options.len()].copy_from_slice(options);
    parse(packet.as_slice())
}

#[test]
fn options_are_refused_but_for_the_router_alert() {
    assert_eq!(with_options(&[131, 7, 4, 192, 0, 2, 1, 0]), Err(Malformed::Options), "loose source route");
    assert_eq!(with_options(&[137, 7, 4, 192, 0, 2, 1, 0]), Err(Malformed::Options), "strict source route");
    assert_eq!(with_options(&[1, 1, 1, 131, 3, 4, 0, 0]), Err(Malformed::Options));
    assert_eq!(with_options(&[0x94, 4, 0, 0, 131, 3, 4, 0]), Err(Malformed::Options));
    let mut last = [1u8; 40];
    last[37] = 131;
    assert_eq!(with_options(&last), Err(Malformed::Options));
    assert_eq!(with_options(&[0x44, 4, 5, 0]), Err(Malformed::Options), "timestamp");
    assert_eq!(with_options(&[0x94, 8, 0, 0, 1, 1, 1, 1]), Err(Malformed::Options), "a long alert");
    assert!(with_options(&[0x94, 4, 0, 0]).is_ok());
    assert!(with_options(&[1; 40]).is_ok());
    assert!(with_options(&[1, 1, 0, 0]).is_ok());
}

#[test]
fn mapped_addresses_are_no_ipv6() {
    let mut packet = v6(17, &UDP);
    packet[24..40].copy_from_slice(&Address::mapped([192, 0, 2, 7]).bytes());
    assert_eq!(parse(packet.as_slice()), Err(Malformed::Mapped));
    let mut packet = v6(17, &UDP);
    packet[8..24].copy_from_slice(&Address::mapped([192, 0, 2, 7]).bytes());
    assert_eq!(parse(packet.as_slice()), Err(Malformed::Mapped));
}

#[test]
fn only_the_first_fragment_has_ports() {
    assert!(parse(v4(17, 0, 0x2000, &UDP).as_slice()).is_ok());
    assert_eq!(parse(v4(17, 0, 0x2001, &UDP).as_slice()), Err(Malformed::Fragment));
    let fragment = [[17, 0, 0, 8].as_slice(), &[0; 4], &UDP].concat();
    assert_eq!(parse(v6(44, &fragment).as_slice()), Err(Malformed::Fragment));
    let first = [[17, 0, 0, 1].as_slice(), &[0; 4], &UDP].concat();
    assert_eq!(parse(v6(44, &first).as_slice()).unwrap().destination_port, 53);
}

#[test]
fn extension_headers_are_walked_and_bounded() {
    let mut rest = Vec::new();
    for _ in 0..3 {
        rest.extend([60, 0, 0, 0, 0, 0, 0, 0]);
    }
    rest.extend([17, 1]);
    rest.extend([0; 14]);
    rest.extend(UDP);
    assert_eq!(parse(v6(0, &rest).as_slice()).unwrap().destination_port, 53);
    let endless = [60u8, 0, 0, 0, 0, 0, 0, 0].repeat(20);
    assert_eq!(parse(v6(60, &endless).as_slice()), Err(Malformed::Extensions));
    assert_eq!(parse(v6(43, &endless).as_slice()), Err(Malformed::Routing));
}

#[test]
fn icmpv6_is_icmp_and_unknown_protocols_have_no_ports() {
    assert_eq!(parse(v6(58, &[128, 0]).as_slice()).unwrap().protocol, protocol::ICMP);
    assert_eq!(parse(v4(47, 0, 0, &[]).as_slice()).unwrap().destination_port, 0);
}

#[test]
fn short_and_strange_packets_are_refused() {
    assert_eq!(parse([].as_slice()), Err(Malformed::Short));
    assert_eq!(parse([0x50; 60].as_slice()), Err(Malformed::Version));
    assert_eq!(parse([0x44; 60].as_slice()), Err(Malformed::Version));
    assert_eq!(parse(v4(6, 0, 0, &[0; 13]).as_slice()), Err(Malformed::Short));
    assert_eq!(parse(v6(60, &[]).as_slice()), Err(Malformed::Short));
}

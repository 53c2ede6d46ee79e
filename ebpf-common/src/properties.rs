//! Properties over arbitrary bytes: nothing panics, nothing runs past its bounds, and what is read is what a
//! full DNS library reads.

use std::str::FromStr;

use hickory_proto::op::{Message as Dns, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::abi::Address;
use crate::answer::{HEADER, Message, addresses};
use crate::name::{COMPRESSED_STEPS, NameWalk, READ_STEPS, Step, hash, judge_name};
use crate::packet::{self, Bytes, Packet};
use crate::stream::{Piece, Segment, Stream};

const KEY: [u32; 2] = [0x1234_5678, 0x0bcd_ef01];

fn cases() -> ProptestConfig {
    ProptestConfig::with_cases(20_000)
}

/// Reads a name the way the kernel does.
fn read(bytes: &[u8], at: u32, compressed: bool) -> (NameWalk, Step) {
    let mut walk = NameWalk::default();
    let steps = if compressed {
        walk.start_compressed(at);
        COMPRESSED_STEPS
    } else {
        walk.start(at);
        READ_STEPS
    };
    for _ in 0..steps {
        let step = walk.read(bytes.get(walk.offset()).copied());
        if step != Step::More {
            return (walk, step);
        }
    }
    (walk, Step::More)
}

fn label() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9_])?"
}

fn name() -> impl Strategy<Value = Name> {
    vec(label(), 1..6).prop_map(|labels| Name::from_str(&format!("{}.", labels.join("."))).expect("a name"))
}

fn record(owner: Name) -> impl Strategy<Value = Record> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|bytes| RData::A(A(bytes.into()))),
        any::<[u8; 16]>().prop_map(|bytes| RData::AAAA(AAAA(bytes.into()))),
        name().prop_map(|target| RData::CNAME(CNAME(target))),
    ]
    .prop_map(move |data| Record::from_rdata(owner.clone(), 60, data))
}

fn answer() -> impl Strategy<Value = Dns> {
    (name(), name()).prop_flat_map(|(question, other)| {
        let records = vec(prop_oneof![record(question.clone()), record(other)], 0..40);
        records.prop_map(move |records| {
            let mut message = Dns::new(7, MessageType::Response, OpCode::Query);
            message.add_query(Query::query(question.clone(), RecordType::A));
            for record in records {
                message.add_answer(record);
            }
            message
        })
    })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_bytes_as_a_name(bytes in vec(any::<u8>(), 0..300), at in 0u32..320, compressed: bool) {
        let (walk, step) = read(&bytes, at, compressed);
        prop_assert_ne!(step, Step::More, "the bound on the steps is enough");
        prop_assert!(walk.len() <= crate::abi::NAME_MAX);
        if step == Step::Done && !compressed {
            let end = walk.offset();
            let wire = bytes[at as usize..end - 1].to_ascii_lowercase();
            prop_assert_eq!(&walk.wire()[..walk.len()], wire.as_slice());
            prop_assert_eq!(judge_name(&wire, &KEY, |_| None, &[]).0, hash(&wire, &KEY));
        }
    }

    #[test]
    fn any_bytes_as_an_answer(bytes in vec(any::<u8>(), 0..600), behind in 0u32..700, answers: u16) {
        let message = Message::new(&bytes).expect("short enough");
        let (found, _) = addresses(&message, behind, answers);
        prop_assert!(found.len() <= bytes.len());
    }

    #[test]
    fn any_bytes_as_a_packet(bytes in vec(any::<u8>(), 0..200), version in 0u8..8) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = version << 4 | *first & 15;
        }
        let _ = packet::parse(bytes.as_slice());
    }

    #[test]
    fn a_usual_packet_is_read_as_any_other(
        bytes in vec(any::<u8>(), 56..100),
        header in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        number in prop_oneof![Just(6u8), Just(17), any::<u8>()],
        fragment in prop_oneof![Just([0x40u8, 0]), any::<[u8; 2]>()],
    ) {
        let mut bytes = bytes;
        bytes[0] = header;
        if header >> 4 == 4 {
            bytes[6..8].copy_from_slice(&fragment);
            bytes[9] = number;
        } else {
            bytes[6] = number;
        }
        let (v4, v6) = (bytes.words(0).unwrap(), bytes.words(0).unwrap());
        let parsed = packet::parse(bytes.as_slice());
        let mut usual = Packet::default();
        let is_usual = packet::parse_usual_v4(&v4, &mut usual) || packet::parse_usual_v6(&v6, &mut usual);
        let ends = packet::usual_v4(&v4).or_else(|| packet::usual_v6(&v6));
        if is_usual {
            prop_assert_eq!(parsed, Ok(usual));
        }
        if let Some(ends) = ends {
            let packet = parsed.expect("a usual packet");
            prop_assert_eq!((packet.protocol, packet.piece_at), (crate::abi::protocol::TCP, 0));
            prop_assert_eq!((packet.destination, packet.source), (ends.destination, ends.source));
            prop_assert_eq!(packet.tcp_flags, ends.flags);
            prop_assert_eq!((packet.destination_port, packet.source_port), (ends.destination_port, ends.source_port));
        }
    }

    #[test]
    fn any_segments_of_a_stream(segments in vec((0u32..4000, 1u32..3000), 0..20), start: u32) {
        let mut stream = Stream::default();
        stream.begin(start);
        for (at, len) in segments {
            let sequence = start.wrapping_add(at);
            while let Segment::New(skip) = stream.accept(sequence, len) {
                let left = len - skip;
                let taken = match stream.piece(left, 4096) {
                    Piece::Length => {
                        stream.length_byte(at as u8);
                        1
                    }
                    Piece::Body { at, keep, take } => {
                        prop_assert!(keep <= take && take <= left && take > 0);
                        prop_assert!((at + keep) as usize <= 4096 || keep == 0);
                        stream.body(take);
                        take
                    }
                };
                stream.advance(taken);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn answers_are_read_as_hickory_reads_them(dns in answer()) {
        let bytes = dns.to_vec().expect("a message");
        prop_assume!(bytes.len() <= crate::answer::MESSAGE_MAX);
        let (walk, step) = read(&bytes, HEADER, false);
        prop_assert_eq!(step, Step::Done);
        let message = Message::new(&bytes).expect("short enough");
        prop_assert_eq!(usize::from(message.header().answers), dns.answers.len());
        let (found, complete) = addresses(&message, walk.offset() as u32, message.header().answers);
        prop_assert!(complete);
        let meant: Vec<Address> =
            dns.answers.iter().filter_map(|record| record.data.ip_addr()).map(Address::from).collect();
        prop_assert_eq!(found.into_iter().map(|(address, _)| address).collect::<Vec<_>>(), meant);
    }

    #[test]
    fn an_answer_cut_anywhere_gives_a_part_of_what_is_in_it(dns in answer(), cut in 0usize..4096) {
        let bytes = dns.to_vec().expect("a message");
        prop_assume!(bytes.len() <= crate::answer::MESSAGE_MAX);
        let (walk, _) = read(&bytes, HEADER, false);
        let whole = Message::new(&bytes).expect("short enough");
        let behind = walk.offset() as u32;
        let (all, _) = addresses(&whole, behind, whole.header().answers);
        let part = Message::new(&bytes[..cut.min(bytes.len())]).expect("short enough");
        let (some, _) = addresses(&part, behind, whole.header().answers);
        prop_assert_eq!(&all[..some.len()], some.as_slice());
    }
}

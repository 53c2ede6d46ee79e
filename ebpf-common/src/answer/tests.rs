use super::*;

/// An answer to `a.b` with records of (name in wire form, type, rdata).
fn answer(records: &[(&[u8], u16, &[u8])]) -> Message {
    let mut bytes = vec![0x12, 0x34, 0x81, 0x80, 0, 1];
    bytes.extend((records.len() as u16).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend([1, b'a', 1, b'b', 0, 0, 1, 0, 1]);
    for (name, kind, data) in records {
        bytes.extend(*name);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 60]);
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(*data);
    }
    Message::new(&bytes).unwrap()
}

const QNAME_END: u32 = 12 + 5;

#[test]
fn addresses_of_both_families_behind_a_chain() {
    let message = answer(&[
        (&[0xc0, 12], 5, &[1, b'c', 0]),
        (&[1, b'c', 0], 1, &[192, 0, 2, 1]),
        (&[1, b'C', 0xc0, 12], 28, &[9; 16]),
    ]);
    let (found, complete) = addresses(&message, QNAME_END, 3);
    assert!(complete);
    assert_eq!(found, vec![(Address::mapped([192, 0, 2, 1]), 60), (Address::from_bytes([9; 16]), 60)]);
}

#[test]
fn an_alias_and_whose_address_it_is() {
    let message =
        answer(&[(&[0xc0, 12], 5, &[1, b'c', 0xc0, 14]), (&[1, b'c', 0xc0, 14], 1, &[192, 0, 2, 1])]);
    let mut walk = AnswerWalk::default();
    walk.start(QNAME_END, 2);
    let mut steps = Vec::new();
    loop {
        match walk.step(&message) {
            Step::More => {}
            Step::Done => break,
            step => steps.push((step, walk.owner(), walk.target())),
        }
    }
    let first = QNAME_END + 4;
    let (target, second) = (first + 12, first + 16);
    assert_eq!(steps, [(Step::Alias, first, target), (Step::Address, second, target)]);
}

#[test]
fn address_hints_of_service_bindings() {
    let rdata = [
        &[0, 1, 0][..],
        &[0, 1, 0, 3, 2, b'h', b'2'],
        &[0, 4, 0, 8, 192, 0, 2, 1, 192, 0, 2, 2],
        &[[0, 6, 0, 16].as_slice(), &[9; 16]].concat(),
    ]
    .concat();
    let message = answer(&[(&[0xc0, 12], 65, &rdata), (&[0xc0, 12], 1, &[192, 0, 2, 3])]);
    let (found, complete) = addresses(&message, QNAME_END, 2);
    assert!(complete);
    let v4 = |host| (Address::mapped([192, 0, 2, host]), 60);
    assert_eq!(found, [v4(1), v4(2), (Address::from_bytes([9; 16]), 60), v4(3)]);
    // A hint that is no whole address, and a parameter past its record.
    for bad in [&[0, 1, 0, 0, 4, 0, 3, 1, 2, 3][..], &[0, 1, 0, 0, 4, 0, 9, 1, 2, 3, 4]] {
        assert_eq!(addresses(&answer(&[(&[0xc0, 12], 65, bad)]), QNAME_END, 1), (vec![], false));
    }
}

#[test]
fn sixty_records() {
    let records = vec![([0xc0u8, 12].as_slice(), 1u16, [192u8, 0, 2, 1].as_slice()); 60];
    let (found, complete) = addresses(&answer(&records), QNAME_END, 60);
    assert!(complete);
    assert_eq!(found.len(), 60);
}

#[test]
fn more_records_promised_than_there_are() {
    let message = answer(&[(&[0xc0, 12], 1, &[192, 0, 2, 1])]);
    assert_eq!(addresses(&message, QNAME_END, 2), (vec![(Address::mapped([192, 0, 2, 1]), 60)], false));
}

#[test]
fn rdata_of_the_wrong_length_or_past_the_end_stops() {
    assert_eq!(addresses(&answer(&[(&[0], 1, &[1, 2, 3])]), QNAME_END, 1), (vec![], false));
    let mut message = answer(&[(&[0], 1, &[1, 2, 3, 4])]);
    message.len -= 1;
    assert_eq!(addresses(&message, QNAME_END, 1), (vec![], false));
}

#[test]
fn reserved_labels_stop() {
    assert_eq!(addresses(&answer(&[(&[0x80, 0], 1, &[1, 2, 3, 4])]), QNAME_END, 1), (vec![], false));
}

#[test]
fn header_bits() {
    let header = Header::parse(&[0x12, 0x34, 0x87, 0x83, 0, 1, 0, 2, 0, 0, 0, 0]);
    assert_eq!(
        header,
        Header {
            id: 0x1234,
            is_answer: true,
            opcode: 0,
            truncated: true,
            rcode: 3,
            questions: 1,
            answers: 2
        }
    );
    assert!(!header.is_query());
}

//! Any bytes as a name in a message: read, and looked up by the hashes of its ends, as comparing labels says.
//!
//! The first byte is where the name begins in the rest; its top bit allows pointers. The second is how many labels
//! of the name the policy has.

#![no_main]

use l7egg_ebpf_common::abi::{Masks, NAME_MAX, NameMasks};
use l7egg_ebpf_common::answer::Message;
use l7egg_ebpf_common::name::{hash, judge_name};
use l7egg_fuzz::{KEY, read_name, wire};
use l7egg_policy::DomainName;
use libfuzzer_sys::fuzz_target;

const SAID: NameMasks = NameMasks {
    exact: Masks { allow: 1, deny: 8 },
    one_label: Masks { allow: 2, deny: 0 },
    any_labels: Masks { allow: 4, deny: 0 },
    search: 0,
};

fuzz_target!(|input: &[u8]| {
    let [begin, labels, bytes @ ..] = input else { return };
    let Some(message) = Message::new(bytes) else { return };
    let at = u32::from(begin & 0x7f);
    let compressed = begin & 0x80 != 0;
    let Some(walk) = read_name(&message, at, compressed) else { return };
    let name = wire(&walk);
    assert!(name.len() <= NAME_MAX);
    if !compressed {
        let end = walk.offset();
        assert_eq!(bytes[at as usize..end - 1].to_ascii_lowercase(), name);
        assert_eq!(bytes[end - 1], 0);
    }
    let Some(parsed) = DomainName::from_wire(name) else {
        assert!(name.is_empty(), "only the root is no name: {name:?}");
        return;
    };
    assert_eq!(parsed.wire(), name, "it is in lower case");

    // A policy with the last labels of this name, and one with a name that only looks like them.
    let ends = ends(name);
    let known = &name[ends[usize::from(*labels) % ends.len()]..];
    let mut asked = Vec::new();
    let (value, masks) = judge_name(
        name,
        &KEY,
        |suffix| {
            asked.push(suffix);
            (suffix == hash(known, &KEY)).then_some(SAID)
        },
        &[],
    );
    assert_eq!(value, hash(name, &KEY));
    assert_eq!(asked, ends.iter().rev().map(|end| hash(&name[*end..], &KEY)).collect::<Vec<_>>());
    let known = DomainName::from_wire(known).expect("the end of a name");
    let meant = match parsed.labels_before(&known) {
        _ if !parsed.is_host() => Masks::NONE,
        None => Masks::NONE,
        Some(0) => SAID.exact,
        Some(1) => SAID.one_label.union(SAID.any_labels),
        Some(_) => SAID.any_labels,
    };
    assert_eq!(masks, meant);
});

/// Where its labels begin.
fn ends(wire: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < wire.len() {
        ends.push(at);
        at += usize::from(wire[at]) + 1;
    }
    ends
}

use super::hash::PRIME;
use super::*;

const KEY: [u32; 2] = [0x1234_5678, 0x0bcd_ef01];

fn wire(name: &str) -> Vec<u8> {
    name.split('.').flat_map(|l| std::iter::once(l.len() as u8).chain(l.bytes())).collect()
}

fn read(message: &[u8], at: u32) -> (NameWalk, Step) {
    let mut walk = NameWalk::default();
    walk.start(at);
    for _ in 0..READ_STEPS {
        let step = walk.read(message.get(walk.offset()).copied());
        if step != Step::More {
            return (walk, step);
        }
    }
    (walk, Step::More)
}

fn masks(bit: u64) -> Masks {
    Masks { allow: bit, deny: 0 }
}

#[test]
fn reads_lower_cases_and_ends_behind_the_root() {
    let mut message = vec![0xAA; 12];
    message.extend(wire("API.Example.COM"));
    message.extend([0, 0, 1, 0, 1]);
    let (walk, step) = read(&message, 12);
    assert_eq!(step, Step::Done);
    assert_eq!(&walk.wire()[..walk.len()], wire("api.example.com").as_slice());
    assert_eq!(walk.offset(), 12 + 17);
}

#[test]
fn every_suffix_is_found_with_its_own_masks() {
    let names = [("a.b.c", 1), ("b.c", 2), ("c", 4)].map(|(n, bit)| (hash(&wire(n), &KEY), bit));
    let lookup = |suffix| {
        names.iter().find(|(h, _)| *h == suffix).map(|(_, bit)| NameMasks {
            exact: masks(*bit),
            one_label: masks(bit << 8),
            any_labels: masks(bit << 16),
            search: 0,
        })
    };
    let (value, found) = judge_name(&wire("a.b.c"), &KEY, lookup, &[]);
    assert_eq!(value, hash(&wire("a.b.c"), &KEY));
    assert_eq!(found.allow, 1 | 2 << 8 | 2 << 16 | 4 << 16);
}

#[test]
fn a_byte_that_looks_like_a_dot_matches_nothing() {
    let odd = [b"\x05x.com".as_slice()].concat();
    let all = |_| Some(NameMasks { exact: masks(1), one_label: masks(1), any_labels: masks(1), search: 0 });
    assert_eq!(judge_name(&odd, &KEY, all, &[]).1, Masks::NONE);
}

#[test]
fn longest_name_and_one_more() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    let mut message = wire(&longest);
    assert_eq!(message.len(), NAME_MAX);
    message.push(0);
    assert_eq!(read(&message, 0).1, Step::Done);
    let mut longer = wire(&format!("{label}.{label}.{label}.{}", "a".repeat(62)));
    longer.push(0);
    let (walk, step) = read(&longer, 0);
    assert_eq!((step, walk.unreadable()), (Step::Stop, Unreadable::Long));
}

#[test]
fn compression_and_truncation_stop() {
    assert_eq!(read(&[3, b'a', b'b'], 0).0.unreadable(), Unreadable::Short);
    assert_eq!(read(&[0xc0, 12], 0).0.unreadable(), Unreadable::Label);
    assert_eq!(read(&[0x41, 12], 0).0.unreadable(), Unreadable::Label);
}

#[test]
fn pointers_are_followed_and_loops_end() {
    let compressed = |message: &[u8], at| {
        let mut walk = NameWalk::default();
        walk.start_compressed(at);
        for _ in 0..COMPRESSED_STEPS {
            let step = walk.read(message.get(walk.offset()).copied());
            if step != Step::More {
                return (step, walk.wire()[..walk.len()].to_vec());
            }
        }
        panic!("no end");
    };
    let message = b"\x01c\x00\x01b\xc0\x00\x01A\xc0\x03";
    assert_eq!(compressed(message, 7), (Step::Done, wire("a.b.c")));
    assert_eq!(compressed(b"\x01a\xc0\x00", 0).0, Step::Stop);
    assert_eq!(compressed(b"\xc0\x00", 0).0, Step::Stop);
    assert_eq!(compressed(b"\xc0", 0).0, Step::Stop);
}

#[test]
fn root_has_no_suffix() {
    let (_, found) = judge_name(&[], &KEY, |_| panic!("no suffix to ask for"), &[]);
    assert_eq!(found, Masks::NONE);
}

#[test]
fn keys_stay_below_the_prime() {
    for random in [0, 1, 0x7fff_ffff, u32::MAX] {
        assert!((1 << 16..PRIME as u32).contains(&hash_key(random)));
    }
}

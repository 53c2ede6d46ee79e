//! What happens when something is full: the new is denied and counted, the old stays.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map, MapData};
use l7egg_ebpf_common::abi::{Address, Counter, Learned, LearnedKey, LearnedName, Name};
use l7egg_node_agent::datapath::Datapath;
use l7egg_policy::{CompiledPolicy, Network};

use crate::harness::{Pod, Setup, cgroup2_root, policy, unique};

fn counted(setup: &Setup, counter: Counter) -> u64 {
    setup.kernel.counters().expect("the counters")[counter as usize]
}

fn learned(setup: &Setup) -> HashMap<MapData, LearnedKey, Learned> {
    let map = MapData::from_pin(setup.pins("maps/LEARNED")).expect("the pin");
    HashMap::try_from(Map::from_map_data(map).expect("the map")).expect("a hash map")
}

/// The n-th address of 10.0.0.0/8.
fn address(number: u32) -> [u8; 4] {
    (0x0a00_0000 | number).to_be_bytes()
}

#[test]
fn a_full_table_of_learned_addresses_keeps_the_old_and_denies_the_new() {
    let mut setup = Setup::with_policy("{egress: [{to: [{domainNames: ['*.fresh.test']}]}]}");
    assert_eq!(setup.pod.connect_one("tcp4://n1.fresh.test:80"), "ok");
    let mut map = learned(&setup);
    let (key, mut value) = map.iter().next().expect("an address").expect("to read it");
    // The copies are there as long as the test takes, however long that is.
    value.names.iter_mut().filter(|slot| slot.name != 0).for_each(|slot| slot.expires_ns = u64::MAX / 2);
    let key = |number| LearnedKey { address: Address::mapped(address(number)), ..key };
    for number in 0..100_000 {
        map.insert(key(number), value, 0).expect("100,000 addresses");
    }
    assert_eq!(setup.pod.connect(&["tcp4://n1.fresh.test:80", "tcp4://n2.fresh.test:80"]), ["ok", "ok"]);
    // New pods wait for the loop that does this every ten seconds.
    let start = Instant::now();
    setup.kernel.collect().expect("to collect");
    println!("looked through 100,000 addresses in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let full = (100_000..200_000).find(|number| map.insert(key(*number), value, 0).is_err());
    println!("full with {} more", full.expect("it is full at some point") - 100_000);
    assert_eq!(counted(&setup, Counter::LearnedFull), 0);

    assert_eq!(setup.pod.connect(&["tcp4://n1.fresh.test:80", "tcp4://n3.fresh.test:80"]), ["ok", "denied"]);
    assert_eq!(setup.pod.connect_one("tcp4://n2.fresh.test:80"), "ok");
    assert!(counted(&setup, Counter::LearnedFull) > 0);
    // A restart loses nothing either.
    setup.restart_agent();
    assert_eq!(setup.pod.connect_one("tcp4://n1.fresh.test:80"), "ok");

    // Some free places are the others': a pod that has so many gets no more of them.
    for number in 0..30_000 {
        map.remove(&key(number)).expect("to remove one");
    }
    setup.kernel.collect().expect("to collect");
    assert_eq!(setup.pod.connect_one("tcp4://n3.fresh.test:80"), "ok");
}

#[test]
fn a_pod_that_fills_its_share_leaves_the_others_room() {
    let names = "{egress: [{to: [{domainNames: ['*.fresh.test']}]}]}";
    let mut greedy = Setup::with_policy(names);
    assert_eq!(greedy.pod.connect_one("tcp4://n1.fresh.test:80"), "ok");
    let mut map = learned(&greedy);
    let (key, mut value) = map.iter().next().expect("an address").expect("to read it");
    value.names.iter_mut().filter(|slot| slot.name != 0).for_each(|slot| slot.expires_ns = u64::MAX / 2);
    // Four fifths of the map's 131,072.
    for number in 0..104_900 {
        map.insert(LearnedKey { address: Address::mapped(address(number)), ..key }, value, 0).expect("room");
    }
    assert_eq!(greedy.kernel.collect().expect("to collect"), BTreeSet::new(), "nothing was turned away yet");
    assert_eq!(greedy.pod.connect(&["tcp4://n1.fresh.test:80", "tcp4://n2.fresh.test:80"]), ["ok", "denied"]);
    // Who was turned away is told of, though by then he has less.
    map.remove(&LearnedKey { address: Address::mapped(address(0)), ..key }).expect("to remove one");
    let turned_away = greedy.kernel.collect().expect("to collect");
    assert_eq!(turned_away, BTreeSet::from([greedy.pod.uid().to_owned()]));
    assert_eq!(greedy.kernel.collect().expect("to collect"), BTreeSet::new(), "told once");
    assert!(counted(&greedy, Counter::ShareReached) > 0);
    assert_eq!(counted(&greedy, Counter::LearnedFull), 0);

    let other = Pod::new();
    greedy.kernel.enforce(other.uid(), other.cgroup(), &policy(names)).expect("to enforce");
    assert_eq!(other.connect(&["tcp4://n3.fresh.test:80", "tcp4://n4.fresh.test:80"]), ["ok", "ok"]);

    for number in 1..1_000 {
        map.remove(&LearnedKey { address: Address::mapped(address(number)), ..key }).expect("to remove one");
    }
    assert_eq!(greedy.kernel.collect().expect("to collect"), BTreeSet::new());
    assert_eq!(greedy.pod.connect_one("tcp4://n5.fresh.test:80"), "ok");
}

#[test]
fn a_pod_that_becomes_divided_leaves_the_others_room() {
    let names = "{egress: [{to: [{domainNames: ['*.fresh.test']}]}]}";
    let mut setup = Setup::with_policy(names);
    assert_eq!(setup.pod.connect_one("tcp4://n1.fresh.test:80"), "ok");
    let mut map = learned(&setup);
    let (key, mut value) = map.iter().next().expect("an address").expect("to read it");
    value.names.iter_mut().filter(|slot| slot.name != 0).for_each(|slot| slot.expires_ns = u64::MAX / 2);
    // With those of five containers there would be more than the map has room for.
    for number in 0..30_000 {
        map.insert(LearnedKey { address: Address::mapped(address(number)), ..key }, value, 0).expect("room");
    }
    setup.kernel.collect().expect("to collect");
    setup.divide(&["a", "b", "c", "d", "e"].map(|name| (name, Some(names))));
    let known = map.keys().count();
    assert!((110_000..130_000).contains(&known), "{known}");

    let other = Pod::new();
    setup.kernel.enforce(other.uid(), other.cgroup(), &policy(names)).expect("to enforce");
    assert_eq!(other.connect(&["tcp4://n3.fresh.test:80", "tcp4://n4.fresh.test:80"]), ["ok", "ok"]);
    assert_eq!(counted(&setup, Counter::LearnedFull), 0);
}

#[test]
fn a_pod_that_asks_for_names_without_end_leaves_the_others_room() {
    let names = "{egress: [{to: [{domainNames: ['*.fresh.test']}]}]}";
    let mut greedy = Setup::with_policy(names);
    assert_eq!(greedy.pod.connect_one("tcp4://n1.fresh.test:80"), "ok");
    let mut names_known = greedy.names();
    let (_, name) = names_known.iter().next().expect("a name").expect("to read it");
    let mut learned = learned(&greedy);
    let (key, mut value) = learned.iter().next().expect("an address").expect("to read it");
    // Each address has eight: names of addresses that are believed are not forgotten.
    let mut hash = 0;
    for number in 0..13_113 {
        for slot in &mut value.names {
            hash += 1;
            *slot = LearnedName { name: hash, expires_ns: u64::MAX / 2 };
            names_known.insert(hash, name, 0).expect("room");
        }
        learned
            .insert(LearnedKey { address: Address::mapped(address(number)), ..key }, value, 0)
            .expect("room");
    }
    greedy.kernel.collect().expect("to collect");
    assert_eq!(greedy.pod.connect(&["tcp4://n1.fresh.test:80", "tcp4://n2.fresh.test:80"]), ["ok", "denied"]);
    assert_eq!(greedy.kernel.collect().expect("to collect"), BTreeSet::from([greedy.pod.uid().to_owned()]));
    let other = Pod::new();
    greedy.kernel.enforce(other.uid(), other.cgroup(), &policy(names)).expect("to enforce");
    assert_eq!(other.connect(&["tcp4://n3.fresh.test:80", "tcp4://n4.fresh.test:80"]), ["ok", "ok"]);

    // Nothing is long ago on a machine that has just begun.
    let uptime = std::fs::read_to_string("/proc/uptime").expect("/proc/uptime");
    let uptime: f64 = uptime.split(' ').next().and_then(|it| it.parse().ok()).expect("seconds");
    std::thread::sleep(Duration::from_secs(61).saturating_sub(Duration::from_secs_f64(uptime)));
    // Of nobody's addresses any more: the greedy one's, and one that it has just asked for; another pod's.
    let long_ago = Name { asked_ns: 1, ..name };
    let gives_up = [
        (u64::MAX, long_ago, true),
        (u64::MAX - 1, Name { asked_ns: u64::MAX / 2, ..name }, false),
        (u64::MAX - 2, Name { subject: name.subject + 1, ..long_ago }, false),
    ];
    for (hash, name, _) in gives_up {
        names_known.insert(hash, name, 0).expect("room");
    }
    greedy.kernel.collect().expect("to collect");
    for (hash, _, is_gone) in gives_up {
        assert_eq!(names_known.get(&hash, 0).is_err(), is_gone, "{}", u64::MAX - hash);
    }
}

/// A policy that allows one address of the world, and so many of 10.0.0.0/8 from `first` on. Compiled for one of them: a
/// compiler without optimisation takes long for all.
fn policy_of(first: u32, count: u32) -> CompiledPolicy {
    let mut policy = policy("{egress: [{to: [{cidr: 198.18.0.80/32}, {cidr: 10.0.0.0/32}]}]}");
    let (one, masks) =
        policy.cidrs.iter().find(|(it, _)| it.address == number_of(0)).expect("10.0.0.0/32 is in it");
    let (one, masks) = (*one, *masks);
    let networks =
        (first..first + count).map(|number| (Network { address: number_of(number), ..one }, masks));
    policy.cidrs.extend(networks);
    policy.digest[..4].copy_from_slice(&first.to_be_bytes());
    policy
}

fn number_of(number: u32) -> u128 {
    u128::from_be_bytes(Address::mapped(address(number)).bytes())
}

#[test]
fn a_policy_that_does_not_fit_leaves_the_old_one_and_has_a_new_pod_held() {
    let mut setup = Setup::with_policy("{egress: [{to: [{cidr: 198.18.0.80/32}]}]}");
    // The map has room for 262,144.
    let big = [0, 1, 2].map(|part| policy_of(part * 100_000, 100_000));
    let others: Vec<PathBuf> = (0..2).map(|_| cgroup()).collect();
    for (other, policy) in others.iter().zip(&big) {
        let start = Instant::now();
        setup.kernel.enforce(&name(other), other, policy).expect("100,000 networks");
        println!("{} networks in force after {:?}", policy.cidrs.len(), start.elapsed());
    }
    let before = setup.kernel.enforced().expect("what is enforced");
    let error = setup.kernel.enforce(setup.pod.uid(), setup.pod.cgroup(), &big[2]).expect_err("no room");
    assert_eq!(error.reason(), "MapFull");
    assert!(error.to_string().contains("map CIDRS is full"), "{error}");
    assert_eq!(setup.kernel.enforced().expect("what is enforced"), before);
    assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "tcp://198.18.0.81:80"]), ["ok", "denied"]);

    setup.release();
    setup.kernel.enforce(setup.pod.uid(), setup.pod.cgroup(), &big[2]).expect_err("no room");
    setup.hold();
    assert_eq!(setup.pod.connect_in_vain("tcp://198.18.0.81:80"), "timeout");

    setup.kernel.release(&name(&others[0])).expect("to release one");
    setup.kernel.collect().expect("a collection");
    setup.enforce_compiled(&big[2]);
    assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "tcp://198.18.0.81:80"]), ["ok", "denied"]);
    remove(&others);
}

#[test]
fn what_a_policy_has_replaced_makes_room_for_the_next() {
    let mut setup = Setup::with_policy("{egress: [{to: [{cidr: 198.18.0.80/32}]}]}");
    // The map has room for two of them; nothing is collected meanwhile.
    for part in 0..4 {
        setup.enforce_compiled(&policy_of(part * 100_000, 100_000));
        assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "tcp://198.18.0.81:80"]), ["ok", "denied"]);
    }
    let kept = policy_of(400_000, 100_000);
    setup.enforce_compiled(&kept);
    let other = cgroup();
    setup.kernel.enforce(&name(&other), &other, &policy_of(500_000, 100_000)).expect("room for two");
    let error = setup.kernel.enforce(setup.pod.uid(), setup.pod.cgroup(), &policy_of(600_000, 100_000));
    assert_eq!(error.expect_err("no room for three").reason(), "MapFull");
    assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "tcp://198.18.0.81:80"]), ["ok", "denied"]);
    setup.kernel.release(&name(&other)).expect("to release it");
    remove(&[other]);
}

#[test]
fn two_hundred_and_fifty_pods_on_one_node() {
    let mut setup = Setup::with_policy("{egress: [{to: [{cidr: 198.18.0.80/32}]}]}");
    let cgroups: Vec<PathBuf> = (0..249).map(|_| cgroup()).collect();
    let start = Instant::now();
    for (number, cgroup) in cgroups.iter().enumerate() {
        // Every other pod has a policy of its own.
        let own = policy(&format!("{{egress: [{{to: [{{cidr: 10.{}.0.0/16}}]}}]}}", number / 2));
        setup.kernel.hold(&name(cgroup), cgroup).expect("to hold a pod");
        setup.kernel.enforce(&name(cgroup), cgroup, &own).expect("to enforce a pod");
    }
    println!("249 pods held and enforced in {:?}", start.elapsed());
    let before = setup.kernel.enforced().expect("what is enforced");
    assert_eq!(before.len(), 250);
    let start = Instant::now();
    setup.restart_agent();
    println!("an agent took over 250 pods in {:?}", start.elapsed());
    assert_eq!(setup.kernel.enforced().expect("what is enforced"), before);
    assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "tcp://198.18.0.81:80"]), ["ok", "denied"]);
    for cgroup in &cgroups {
        setup.kernel.release(&name(cgroup)).expect("to release a pod");
    }
    setup.kernel.collect().expect("a collection");
    assert_eq!(setup.kernel.enforced().expect("what is enforced").len(), 1);
    assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "tcp://198.18.0.81:80"]), ["ok", "denied"]);
    remove(&cgroups);
}

#[test]
fn events_that_nobody_reads_are_lost_and_counted_and_nothing_else() {
    let mut setup = Setup::with_policy("{egress: [{to: [{cidr: 198.18.0.80/32}]}]}");
    let script = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(20000):
    try: s.sendto(b'x', ('198.18.0.81', 1 + number))
    except PermissionError: continue
    raise SystemExit('it was sent')
";
    let output = setup.pod.command("python3".as_ref(), &["-c", script]).output().expect("python3");
    assert!(output.status.success(), "{output:?}");
    let lost = counted(&setup, Counter::EventsLost);
    println!("{lost} of 20,000 events lost");
    assert!(lost > 1_000, "{lost}");
    assert_eq!(counted(&setup, Counter::Denied), 20_000);
    assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "tcp://198.18.0.81:80"]), ["ok", "denied"]);
    // Once they are read there is room again.
    let mut events = setup.kernel.events().expect("the events");
    while events.next().is_some() {}
    let lost = counted(&setup, Counter::EventsLost);
    assert_eq!(setup.pod.connect_one("tcp://198.18.0.81:80"), "denied");
    assert!(events.next().is_some());
    assert_eq!(counted(&setup, Counter::EventsLost), lost);
}

/// The cgroup of a pod without processes.
fn cgroup() -> PathBuf {
    let path = cgroup2_root().join(format!("l7k-limits-{}", unique()));
    std::fs::create_dir(&path).expect("a cgroup");
    path
}

fn name(cgroup: &std::path::Path) -> String {
    cgroup.file_name().expect("a name").to_string_lossy().into_owned()
}

fn remove(cgroups: &[PathBuf]) {
    cgroups.iter().for_each(|cgroup| drop(std::fs::remove_dir(cgroup)));
}

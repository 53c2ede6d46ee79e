//! Another version whose maps have another layout in earnest: what is pinned where its maps were has larger values, and so cannot be
//! read by who does not know them. Its programs go on with the maps that they have.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya::maps::{Array, Map, MapData, MapInfo, MapType};
use l7egg_ebpf_common::abi::{NarrowNetwork, Network};

use crate::harness::{POD4, Setup, is_without_a_pause};
use crate::sandbox::sent_raw;

const NAMES: &str = "{egress: [{to: [{domainNames: ['*.fresh.test']}]}]}";
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_OBJ_PIN: libc::c_int = 6;
/// By how much values are larger.
const MORE: u32 = 8;

/// Has the agent's pins look as if an agent had left them whose maps of these names, or all, are other ones.
fn become_another_layout(setup: &Setup, changed: &[&str]) {
    setup.become_another_version();
    let maps = setup.bpffs().join("l7egg/v0/maps");
    let mut many = 0;
    for pin in maps.read_dir().expect("pins").map(|pin| pin.expect("a pin").path()) {
        let name = pin.file_name().expect("a name").to_string_lossy().into_owned();
        let info = MapInfo::from_pin(&pin).expect("a map");
        let is_table = matches!(
            info.map_type(),
            Ok(MapType::Hash | MapType::LruHash | MapType::Array | MapType::LpmTrie)
        );
        if is_table && (changed.is_empty() || changed.contains(&name.as_str())) {
            std::fs::remove_file(&pin).expect("to remove a pin");
            make(&info, &pin, info.value_size() + MORE);
            many += 1;
        }
    }
    assert!(many > 0, "no map is called {changed:?}");
}

/// Pins a map like this one, but for its values, which are so long.
fn make(info: &MapInfo, pin: &Path, value: u32) {
    let kind = info.map_type().expect("a type") as u32;
    let mut create = [kind, info.key_size(), value, info.max_entries(), info.map_flags()];
    let map = bpf(BPF_MAP_CREATE, &mut create).expect("a map");
    let path = CString::new(pin.as_os_str().as_bytes()).expect("a path");
    let mut at = [path.as_ptr() as u64, map as u64];
    bpf(BPF_OBJ_PIN, &mut at).expect("to pin it");
    // SAFETY: `bpf` has just made this descriptor, and nobody else has it.
    unsafe { libc::close(map) };
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the head of `union bpf_attr` for the command; its pointers live as long as the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

#[test]
fn a_version_whose_maps_cannot_be_read_is_replaced_and_nothing_opens() {
    for changed in [&[][..], &["LEARNED"], &["SUBJECTS"]] {
        let mut setup = Setup::on_node(NAMES);
        let _server = setup.pod.serve(8080, 8080);
        let inbound = setup.pod.world_hold(&format!("tcp://{POD4}:8080"));
        assert_eq!(setup.pod.connect_one("tcp4://n1.fresh.test:80"), "ok");
        become_another_layout(&setup, changed);
        setup.restart_agent();
        let is_enforced = |setup: &Setup, name: &str, when: &str| {
            let outcomes = setup.pod.connect(&[name, "tcp://198.18.0.80:80", "udp://198.18.0.80:123"]);
            assert_eq!(outcomes, ["ok", "denied", "denied"], "{changed:?}, {when}");
            assert_eq!(sent_raw(setup), ["ARP"], "{changed:?}, {when}");
        };
        is_enforced(&setup, "tcp4://n2.fresh.test:80", "by the other version");
        setup.retire_older(true);
        is_enforced(&setup, "tcp4://n3.fresh.test:80", "by the other version, as it is still needed");
        setup.enforce_uncovered(NAMES);
        is_enforced(&setup, "tcp4://n4.fresh.test:80", "in between");
        setup.enforce(NAMES);
        setup.settle(NAMES);
        is_enforced(&setup, "tcp4://n1.fresh.test:80", "by both");
        setup.retire_older(true);
        assert_eq!(setup.versions().len(), 1, "{changed:?}");
        is_enforced(&setup, "tcp4://n5.fresh.test:80", "by the new one");
        let inbound = inbound.end();
        assert!(inbound["outcome"] == "ok" && is_without_a_pause(&inbound), "{changed:?}: {inbound}");
        setup.remove_everything();
        assert_eq!(setup.backstop(), [""; 0], "{changed:?}");
        setup.becomes_free();
    }
}

#[test]
fn which_network_is_a_pods_is_known_from_versions_that_told_fewer_interfaces_apart() {
    let mut setup = Setup::on_node(NAMES);
    let (before, subject) = (setup.believed(), setup.subject());
    setup.become_another_version();
    let pin = setup.bpffs().join("l7egg/v0/maps/NETWORKS");
    let info = MapInfo::from_pin(&pin).expect("a map");
    std::fs::remove_file(&pin).expect("to remove a pin");
    make(&info, &pin, size_of::<NarrowNetwork>() as u32);
    let Network { netns, interfaces, flags, .. } = before.network;
    let [first, ..] = interfaces;
    let narrow = NarrowNetwork { netns, interfaces: [first, 0, 0, 0], covered: 1, flags };
    let map = Map::from_map_data(MapData::from_pin(&pin).expect("the pin")).expect("the map");
    let mut networks: Array<MapData, NarrowNetwork> = map.try_into().expect("an array");
    networks.set(subject, narrow, 0).expect("to write it");
    // By now the pod says something else.
    crate::netns::in_pod(&setup.pod, &["ip", "addr", "add", "10.77.0.99/24", "dev", "eth0"]);
    setup.restart_agent();
    setup.enforce(NAMES);
    assert_eq!(setup.believed().network, before.network);
    assert_eq!(setup.believed().addresses, before.addresses);
}

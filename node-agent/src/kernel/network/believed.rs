//! What the programs believe of pods' networks, which the agent writes to the maps.

use std::collections::BTreeSet;
use std::net::IpAddr;

use l7egg_ebpf_common::abi::{Address, AddressKey, Attached, Network, POD_INTERFACES, UNFINISHED};

use crate::datapath::{Cover, DatapathError};
use crate::kernel::error::{insertion, kernel};
use crate::kernel::programs::Maps;
use crate::netns::{Interface, by_who_made_them};

/// Cookie of no namespace (the kernel counts them from 1): nothing that arrives is believed.
const NOWHERE: u64 = u64::MAX;

/// So many addresses of each family a pod has of its own: all pods together have room for 65,536.
pub const POD_ADDRESSES: usize = 128;

/// Whether an interface of the host is known to be of another subject.
pub fn is_anothers(maps: &Maps, interface: u32, subject: u32) -> bool {
    maps.attached.get(&interface, 0).is_ok_and(|it| it.subject != subject)
}

/// Everything that the programs want to know, before they are attached.
pub fn tell(
    maps: &mut Maps,
    uid: &str,
    subject: u32,
    interfaces: &[Interface],
    addresses: &[IpAddr],
    cookie: u64,
) -> Result<(), DatapathError> {
    let what = || kernel(format!("the network of subject {subject}"));
    let before = maps.networks.get(&subject, 0).map_err(what())?;
    // An agent before this one has seen it when it was new: who may add addresses and interfaces now is the pod.
    let is_new = before.netns != cookie;
    let mut network = before;
    if is_new {
        warn_of_too_many(uid, interfaces, addresses);
        network = Network { netns: cookie, interfaces: slots(interfaces), covered: 0, flags: UNFINISHED };
        // First, whether or not there is room for the rest: until then everything is believed.
        maps.networks.set(subject, network, 0).map_err(what())?;
    }
    // Where it has no addresses yet, they come later.
    if network.flags & UNFINISHED != 0 && !addresses.is_empty() {
        tell_addresses(maps, subject, &[], addresses)?;
        network.flags &= !UNFINISHED;
        maps.networks.set(subject, network, 0).map_err(what())?;
    }
    // A wire that came later has an address that nobody believes: it goes on without the backstop, as it did.
    let counts = |one: &&Interface| is_new || network.interfaces.contains(&one.index);
    for peer in interfaces.iter().filter(counts).filter_map(|one| one.host_peer) {
        let attached = Attached { subject, reserved: 0 };
        maps.attached.insert(peer, attached, 0).map_err(|error| insertion("ATTACHED", error))?;
    }
    Ok(())
}

/// Has a pod's own addresses be these and not those from `before` that are none of them.
pub fn tell_addresses(
    maps: &mut Maps,
    subject: u32,
    before: &[IpAddr],
    addresses: &[IpAddr],
) -> Result<(), DatapathError> {
    let key = |address| AddressKey { subject, address: Address::from(address) };
    for address in own(addresses) {
        maps.addresses.insert(key(address), 1, 0).map_err(|error| insertion("ADDRESSES", error))?;
    }
    for gone in before.iter().filter(|address| !addresses.contains(address)) {
        let _ = maps.addresses.remove(&key(*gone));
    }
    Ok(())
}

/// Those that are told apart.
fn slots(interfaces: &[Interface]) -> [u32; POD_INTERFACES] {
    let mut slots = [0; POD_INTERFACES];
    let first = by_who_made_them(interfaces);
    slots.iter_mut().zip(first).for_each(|(slot, interface)| *slot = interface.index);
    slots
}

/// Those that count as its own.
fn own(addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(IpAddr::is_ipv4);
    v4.into_iter().take(POD_ADDRESSES).chain(v6.into_iter().take(POD_ADDRESSES))
}

fn warn_of_too_many(uid: &str, interfaces: &[Interface], addresses: &[IpAddr]) {
    let others = by_who_made_them(interfaces).skip(POD_INTERFACES);
    let others: Vec<&str> = others.map(|one| one.name.as_str()).collect();
    if !others.is_empty() {
        tracing::warn!(
            uid,
            interfaces = others.join(" "),
            "a pod has more than {POD_INTERFACES} interfaces: what arrives by the others opens nothing and teaches nothing"
        );
    }
    let left_out = addresses.len() - own(addresses).count();
    if left_out > 0 {
        tracing::warn!(
            uid,
            left_out,
            "a pod has more than {POD_ADDRESSES} addresses of a family: what it sends from the others is dropped"
        );
    }
}

/// Whether a network was found for whom the maps say this.
pub fn is_known(network: &Network) -> bool {
    network.netns != 0 && network.netns != NOWHERE
}

/// A pod is only in networks of its own making: nothing from there counts. What is known of another one stays.
pub fn believe_nobody(maps: &mut Maps, subject: u32) -> Result<(), DatapathError> {
    let what = || kernel(format!("the network of subject {subject}"));
    if maps.networks.get(&subject, 0).map_err(what())?.netns == 0 {
        let nowhere = Network { netns: NOWHERE, ..Network::default() };
        maps.networks.set(subject, nowhere, 0).map_err(what())?;
    }
    Ok(())
}

/// Refused queries may go as far as the backstop, which answers them, where there is one.
pub fn tell_covered(
    maps: &mut Maps,
    subject: u32,
    interfaces: &[Interface],
    cover: &Cover,
) -> Result<(), DatapathError> {
    let uncovered = match cover {
        Cover::NotYet | Cover::Host => return Ok(()),
        Cover::Whole => &[][..],
        Cover::Part { uncovered } => uncovered,
    };
    let what = || kernel(format!("the network of subject {subject}"));
    let mut network = maps.networks.get(&subject, 0).map_err(what())?;
    // Those that the programs know, which are those that an earlier agent has found.
    let is_covered = |index: u32| {
        interfaces.iter().any(|one| one.index == index && index != 0 && !uncovered.contains(&one.name))
    };
    let known = network.interfaces.iter().enumerate().take(POD_INTERFACES);
    network.covered = known.filter(|(_, index)| is_covered(**index)).map(|(bit, _)| 1 << bit).sum();
    maps.networks.set(subject, network, 0).map_err(what())
}

/// Removes what the maps know of the networks of pods that are no more.
pub fn forget_unknown(maps: &mut Maps, is_known: impl Fn(u32) -> bool) -> Result<(), DatapathError> {
    let mut unknown = BTreeSet::new();
    for key in maps.addresses.keys() {
        let key = key.map_err(kernel("reading map ADDRESSES"))?;
        unknown.extend((!is_known(key.subject)).then_some(key.subject));
    }
    for entry in maps.attached.iter() {
        let (_, attached) = entry.map_err(kernel("reading map ATTACHED"))?;
        unknown.extend((!is_known(attached.subject)).then_some(attached.subject));
    }
    unknown.into_iter().try_for_each(|subject| forget(maps, subject))
}

/// The same for one subject.
pub fn forget(maps: &mut Maps, subject: u32) -> Result<(), DatapathError> {
    forget_network(maps, subject)?;
    forget_interfaces(maps, subject)
}

/// For a subject that is another pod now: what stands there may be from one that ended while no agent ran.
pub fn forget_network(maps: &mut Maps, subject: u32) -> Result<(), DatapathError> {
    maps.networks
        .set(subject, Network::default(), 0)
        .map_err(kernel(format!("clearing the network of subject {subject}")))
}

/// The same of its interfaces and addresses alone.
pub fn forget_interfaces(maps: &mut Maps, subject: u32) -> Result<(), DatapathError> {
    let attached: Result<Vec<_>, _> = maps.attached.iter().collect();
    for (interface, of) in attached.map_err(kernel("reading map ATTACHED"))? {
        if of.subject == subject {
            let _ = maps.attached.remove(&interface);
        }
    }
    let addresses: Result<Vec<_>, _> = maps.addresses.keys().collect();
    for key in addresses.map_err(kernel("reading map ADDRESSES"))? {
        if key.subject == subject {
            let _ = maps.addresses.remove(&key);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn interface(index: u32, given: bool) -> Interface {
        Interface {
            index,
            name: format!("eth{index}"),
            kind: "veth".into(),
            mtu: 1500,
            loopback: false,
            up: true,
            host_peer: None,
            given,
            gso_max_segs: 65_535,
        }
    }

    #[test]
    fn what_a_pod_has_made_itself_takes_no_place_from_what_it_was_given() {
        let mut interfaces: Vec<Interface> = (2..20).map(|index| interface(index, false)).collect();
        assert_eq!(slots(&interfaces), [2, 3, 4, 5, 6, 7, 8, 9]);
        interfaces.extend([interface(31, true), interface(30, true)]);
        assert_eq!(slots(&interfaces), [30, 31, 2, 3, 4, 5, 6, 7]);
        assert_eq!(slots(&interfaces[..2]), [2, 3, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn addresses_of_one_family_take_no_place_from_the_other() {
        let v4 = |number: u32| IpAddr::from(Ipv4Addr::from_bits(number));
        let v6 = IpAddr::from(Ipv6Addr::from_bits(1));
        let addresses: Vec<IpAddr> = (0..1000).map(v4).chain([v6]).collect();
        let expected: Vec<IpAddr> = (0..128).map(v4).chain([v6]).collect();
        assert_eq!(own(&addresses).collect::<Vec<_>>(), expected);
    }
}

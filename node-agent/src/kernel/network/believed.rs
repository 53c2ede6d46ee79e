//! What the programs believe of pods' networks, which the agent writes to the maps.

use std::collections::BTreeSet;
use std::net::IpAddr;

use l7egg_ebpf_common::abi::{Address, AddressKey, Attached, Network, POD_INTERFACES};

use crate::datapath::{Cover, DatapathError};
use crate::kernel::error::{insertion, kernel};
use crate::kernel::programs::Maps;
use crate::netns::Interface;

/// Cookie of no namespace (the kernel counts them from 1): nothing that arrives is believed.
const NOWHERE: u64 = u64::MAX;

/// Whether an interface of the host is known to be of another subject.
pub fn is_anothers(maps: &Maps, interface: u32, subject: u32) -> bool {
    maps.attached.get(&interface, 0).is_ok_and(|it| it.subject != subject)
}

/// Everything that the programs want to know, before they are attached.
pub fn tell(
    maps: &mut Maps,
    subject: u32,
    interfaces: &[Interface],
    addresses: &[IpAddr],
    cookie: u64,
) -> Result<(), DatapathError> {
    let what = || kernel(format!("the network of subject {subject}"));
    let before = maps.networks.get(&subject, 0).map_err(what())?;
    // An agent before this one has seen it when it was new: who may add addresses and interfaces now is the pod.
    let is_new = before.netns != cookie;
    if is_new {
        for address in addresses {
            let key = AddressKey { subject, address: Address::from(*address) };
            maps.addresses.insert(key, 1, 0).map_err(|error| insertion("ADDRESSES", error))?;
        }
        let mut network = Network { netns: cookie, ..Network::default() };
        for (slot, interface) in network.interfaces.iter_mut().zip(interfaces) {
            *slot = interface.index;
        }
        maps.networks.set(subject, network, 0).map_err(what())?;
    }
    // A wire that came later has an address that nobody believes: it goes on without the backstop, as it did.
    let counts = |one: &&Interface| is_new || before.interfaces.contains(&one.index);
    for peer in interfaces.iter().filter(counts).filter_map(|one| one.host_peer) {
        let attached = Attached { subject, reserved: 0 };
        maps.attached.insert(peer, attached, 0).map_err(|error| insertion("ATTACHED", error))?;
    }
    Ok(())
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

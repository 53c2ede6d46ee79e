//! Keys and values of every map, byte for byte. All are `repr(C)` without padding, so that equal values are
//! equal bytes; addresses are [`Address`]es.
//!
//! Words used here and everywhere: a *subject* is a pod on this node, or a container of a pod that some Egg divides
//! (`spec.containers`); a *policy* is what its Eggs together mean, and its id is the *epoch*: whatever changes for a pod gives it a new policy id, and no id is used
//! twice. A *port group* is one distinct list of ports, and one bit of a `u64`.

mod address;
mod connection;
mod dns;
mod event;
mod policy;
mod shape;
mod subject;

pub use address::Address;
pub use connection::*;
pub use dns::*;
pub use event::*;
pub use policy::*;
pub use shape::*;
pub use subject::*;

/// Version of this layout. Pins live below a directory of this number; a change here is a new number.
pub const ABI_VERSION: u32 = 9;

/// Entries of [`SubjectState`]: subject ids are below this. 0 is no pod: programs under test run for it.
pub const SUBJECTS_MAX: u32 = 65_536;
/// Working buffers of the programs for each CPU: process, softirq, and two that were preempted. The agent
/// makes the map `SCRATCH` as large.
pub const SCRATCH_PER_CPU: u32 = 4;
/// Port groups of one policy.
pub const PORT_GROUPS_MAX: usize = 64;
/// Queries under way that are noted in one place, a power of two.
pub const QUERY_SLOTS: usize = 4;
/// Names that one address can have been learned by at the same time.
pub const LEARNED_NAMES: usize = 8;
/// Entries of `STATES`: states of all policies' automata.
pub const STATES_MAX: u32 = 65_536;
/// Entries of `PATTERNS`.
pub const PATTERNS_MAX: u32 = 262_144;
/// Entries of `CIDRS`.
pub const CIDRS_MAX: u32 = 262_144;
/// Entries of `PORTS`.
pub const PORTS_MAX: u32 = 65_536;
/// Entries of `LEARNED`.
pub const LEARNED_MAX: u32 = 131_072;
/// Entries of `NAMES`, and of `NAME_TAILS`.
pub const NAMES_MAX: u32 = 131_072;
/// Entries of `FLOWS`.
pub const FLOWS_MAX: u32 = 65_536;
/// Longest DNS name in wire form without the root label (RFC 1035 §2.3.4 counts 255 with it).
pub const NAME_MAX: usize = 254;

/// Port of DNS (RFC 1035 §4.2).
pub const DNS_PORT: u16 = 53;

/// IP protocol numbers that rules can name. ICMPv6 (58) is normalised to ICMP.
pub mod protocol {
    /// Any protocol: in a [`super::PortData`] of prefix length 0.
    pub const ANY: u8 = 0;
    /// ICMP, and ICMPv6 as well.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6 as it is in packets.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

#[cfg(feature = "aya")]
mod pod {
    use super::*;
    use crate::automaton::State;
    use crate::matcher::Matcher;

    macro_rules! pod {
        ($($t:ident),*) => {
            // SAFETY: repr(C), plain data, no padding (see the test below), any bytes are valid.
            $(unsafe impl aya::Pod for $t {})*
        };
    }
    pod!(
        Masks,
        NameMasks,
        Config,
        PolicySettings,
        Subject,
        SubjectState,
        PatternKey,
        CidrData,
        PortData,
        ResolverKey
    );
    pod!(State, Matcher);
    pod!(ShapedPod, Cap, CapClock, FlowClockKey, FlowClock, ShapeCounts);
    pod!(SavedInterfaceKey, SavedInterface);
    pod!(
        LearnedKey,
        Learned,
        Name,
        NameTail,
        Shares,
        FlowKey,
        Flow,
        Connection,
        Event,
        Network,
        NarrowNetwork,
        Attached,
        PodsCgroup,
        Container
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_an_older_layout_is_the_same_network() {
        let older = NarrowNetwork { netns: 7, interfaces: [2, 3, 0, 0], covered: 0b11, flags: ANY_INTERFACE };
        let network =
            Network { netns: 7, interfaces: [2, 3, 0, 0, 0, 0, 0, 0], covered: 0b11, flags: ANY_INTERFACE };
        assert_eq!(Network::from(older), network);
        const { assert!(POD_INTERFACES <= u32::BITS as usize) };
    }

    #[test]
    fn no_type_has_padding() {
        // Padding would make equal keys unequal: the kernel compares bytes.
        assert_eq!(size_of::<PatternKey>(), 16);
        assert_eq!(size_of::<CidrData>(), 20);
        assert_eq!(size_of::<PortData>(), 8);
        assert_eq!(size_of::<ResolverKey>(), 20);
        assert_eq!(size_of::<crate::queries::QueryBucket>(), 16 * QUERY_SLOTS);
        assert_eq!(size_of::<LearnedKey>(), 20);
        assert_eq!(size_of::<Learned>(), 16 * LEARNED_NAMES);
        assert_eq!(size_of::<Name>(), 8 + 16 + 8 + NAME_HEAD);
        assert_eq!(size_of::<Shares>(), size_of::<crate::share::Cells>());
        assert_eq!(size_of::<FlowKey>(), 28);
        assert_eq!(size_of::<Flow>(), 24);
        assert_eq!(size_of::<Connection>(), 64);
        assert_eq!(size_of::<FragmentKey>(), 28);
        assert_eq!(size_of::<Network>(), 8 + 4 * POD_INTERFACES + 8);
        assert_eq!(size_of::<NarrowNetwork>(), 32);
        assert_eq!(size_of::<Container>(), 72);
        assert_eq!(size_of::<Asked>(), 24);
        assert_eq!(size_of::<Event>(), 72);
        assert_eq!(size_of::<SubjectState>(), 8);
        assert_eq!(size_of::<Config>(), 32);
        assert_eq!(size_of::<PolicySettings>(), 32);
        assert_eq!(size_of::<NameMasks>(), 56);
        assert_eq!(size_of::<ShapedPod>(), 4 * CAPS_PER_POD);
        assert_eq!(size_of::<Cap>(), 40);
        assert_eq!(size_of::<CapClock>(), 24);
        assert_eq!(size_of::<FlowClockKey>(), 8);
        assert_eq!(size_of::<FlowClock>(), 16);
        assert_eq!(size_of::<ShapeCounts>(), 48);
        assert_eq!(size_of::<SavedInterfaceKey>(), 16);
        assert_eq!(size_of::<SavedInterface>(), 16 + 16 + 464);
        assert_eq!(size_of::<crate::matcher::Matcher>(), 16);
        assert_eq!(size_of::<crate::automaton::State>(), 16 + 2 * crate::automaton::CLASSES);
    }
}

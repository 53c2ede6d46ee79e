//! Whose packet it is.

use core::sync::atomic::AtomicU64;

use l7egg_ebpf_common::abi::{Address, CLASSIFIED, HOST_NETWORK, ResolverKey, SOCKET_BALANCER, SubjectState};
use l7egg_ebpf_common::judge::Enforcement;
use l7egg_ebpf_common::learned::Atomics;

use crate::atomic::Bpf;
use crate::maps::{GENERATION, RESOLVERS, SUBJECT, SUBJECTS};

/// A pod and the policy in force for it. Without padding, for global functions.
#[repr(C)]
pub struct Current {
    /// Subject id.
    pub id: u32,
    /// Policy id.
    pub policy: u32,
    /// What of the policy denies.
    pub enforcement: Enforcement,
    /// Whether all its connections from before the programs were attached are known.
    pub is_classified: bool,
    /// Whether programs of others may change the destinations that it asks for.
    pub has_socket_balancer: bool,
    /// Whether its packets are seen behind the host's NAT.
    pub in_host_network: bool,
    reserved: u8,
    /// The generation that this is of, or 0 if connections are not to rest on it.
    pub generation: u64,
}

/// What is known of the pod that the program runs for.
pub enum Known {
    /// Not which pod it is: the agent is attaching the programs this moment. What the pod did before goes on.
    Attaching,
    /// The pod, but not its policy: it is held. Nothing may leave it.
    Unconfigured {
        /// Whether its packets can go elsewhere than its programs ask.
        is_translated: bool,
    },
    /// Its policy.
    Policy(Current),
}

/// The pod that the program runs for.
#[inline(always)]
pub fn known() -> Known {
    // SAFETY: the storage is there as long as the program is attached, and only user space writes it.
    of(unsafe { (*SUBJECT.get_ptr_mut()).id })
}

/// The pod with this id.
#[inline(always)]
pub fn of(id: u32) -> Known {
    // Before the state: the agent writes them the other way round, so that nothing older passes for this generation.
    let generation = generation();
    let Some(state) = SUBJECTS.get_ptr_mut(id) else {
        return Known::Unconfigured { is_translated: false };
    };
    // SAFETY: an element of the array, aligned to its eight bytes. Read at once, as it is written.
    let state = SubjectState::from_word(Bpf::load(unsafe { &*state.cast::<AtomicU64>() }));
    match (id, state.policy) {
        (0, 0) => Known::Attaching,
        (_, 0) => Known::Unconfigured { is_translated: state.flags & (SOCKET_BALANCER | HOST_NETWORK) != 0 },
        (id, policy) => {
            let enforcement = Enforcement::from_flags(state.flags);
            Known::Policy(Current {
                id,
                policy,
                enforcement,
                is_classified: state.flags & CLASSIFIED != 0,
                has_socket_balancer: state.flags & SOCKET_BALANCER != 0,
                in_host_network: state.flags & HOST_NETWORK != 0,
                reserved: 0,
                generation: if state.flags & SOCKET_BALANCER == 0 { generation } else { 0 },
            })
        }
    }
}

/// How often the state of any pod has changed.
#[inline(always)]
pub fn generation() -> u64 {
    GENERATION.get(0).map_or(0, Bpf::load)
}

/// The pod, if its policy is known.
#[inline(always)]
pub fn current() -> Option<Current> {
    match known() {
        Known::Policy(current) => Some(current),
        Known::Attaching | Known::Unconfigured { .. } => None,
    }
}

impl Current {
    /// Whether its packets can go elsewhere than its programs ask.
    #[inline(always)]
    pub fn is_translated(&self) -> bool {
        self.has_socket_balancer || self.in_host_network
    }

    /// Whether it is one of the pod's own resolvers.
    #[inline(always)]
    pub fn trusts(&self, address: &Address) -> bool {
        is_resolver(self.policy, address) == 1
    }
}

/// A function of its own, so that its key leaves the stack when it is done.
#[inline(never)]
fn is_resolver(policy: u32, address: &Address) -> i32 {
    let key = ResolverKey { policy, address: *address };
    i32::from(RESOLVERS.get_ptr(&key).is_some())
}

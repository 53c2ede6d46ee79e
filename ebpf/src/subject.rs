//! Whose packet it is.

use core::sync::atomic::AtomicU64;

use l7egg_ebpf_common::abi::{
    Address, CLASSIFIED, DIVIDED, HOST_NETWORK, LEVEL_SHIFT, NODE, REFUSES, ResolverKey, SETTINGS,
    SOCKET_BALANCER, SUBJECTS_MAX, SubjectState, WAS_FREE,
};
use l7egg_ebpf_common::atomics::Atomics;
use l7egg_ebpf_common::judge::Enforcement;

use crate::atomic::Bpf;
use crate::container;
use crate::maps::{GENERATION, RESOLVERS, SUBJECT, SUBJECTS};
use crate::skb::{Frame, Skb};

/// Those flags of a state that [`Current`] keeps as they are begin here.
const PATHS_SHIFT: u32 = 8;

/// A subject and the policy in force for it. Without padding, for global functions.
#[repr(C)]
pub struct Current {
    /// Subject id: a pod, or a container of a divided one.
    pub id: u32,
    /// Policy id.
    pub policy: u32,
    /// What of the policy denies.
    pub enforcement: Enforcement,
    /// Whether all its connections from before the programs were attached are known.
    pub is_classified: bool,
    paths: u8,
    pod: u16,
    /// The generation that this is of, or 0 if connections are not to rest on it.
    pub generation: u64,
}

/// What is known of whom the program runs for.
pub enum Known {
    /// Not which pod it is: the agent is attaching the programs this moment. What the pod did before goes on.
    Attaching,
    /// The pod, but not its policy: it is held. Nothing may leave it.
    Unconfigured {
        /// Whether its packets can go elsewhere than its programs ask.
        is_translated: bool,
    },
    /// A container that no Egg is for, in a pod where some are for others.
    Free,
    /// None of a divided pod's containers that the agent has named; with the policy for such.
    Nobody(Current),
    /// Its policy.
    Policy(Current),
}

/// The pod that the program runs for, whichever of its containers it is.
#[inline(always)]
pub fn pod() -> Known {
    of(own())
}

/// Whose packet it is that a program on the pod's cgroup runs for.
#[inline(always)]
pub fn of_packet(skb: Skb) -> Known {
    within(own(), |pod, level| container::of_packet(skb, pod, level))
}

/// Whose frame it is that leaves a pod.
#[inline(always)]
pub fn of_frame(frame: Frame, pod: u32) -> Known {
    within(pod, |pod, level| container::of_packet(frame.as_skb(), pod, level))
}

/// Who makes the call that a program on the pod's cgroup runs for.
#[inline(always)]
pub fn of_call() -> Known {
    within(own(), container::of_call)
}

/// The pod with this id.
#[inline(always)]
pub fn of(id: u32) -> Known {
    // Before the state: the agent writes them the other way round, so that nothing older passes for this generation.
    let generation = generation();
    let Some(state) = state(id) else { return Known::Unconfigured { is_translated: false } };
    match (id, state.policy) {
        (0, 0) => Known::Attaching,
        (_, 0) => unconfigured(state),
        _ => Known::Policy(Current::new(id, id, state, generation)),
    }
}

/// The subject that a pod's packet or call is of. `container` looks for it where the pod is divided.
#[inline(always)]
fn within(pod: u32, container: impl FnOnce(u32, u32) -> i32) -> Known {
    let generation = generation();
    let Some(mut known) = state(pod) else { return Known::Unconfigured { is_translated: false } };
    let (mut id, mut is_nobody) = (pod, false);
    if known.flags & DIVIDED != 0 {
        match container(pod, known.flags >> LEVEL_SHIFT) {
            container::FREE => return Known::Free,
            container::NONE => is_nobody = true,
            found => {
                id = found as u32;
                let Some(found) = state(id) else { return Known::Unconfigured { is_translated: false } };
                known = found;
            }
        }
    }
    match (id, known.policy) {
        (0, 0) => Known::Attaching,
        (_, 0) => unconfigured(known),
        _ if is_nobody => Known::Nobody(Current::new(id, pod, known, generation)),
        _ => Known::Policy(Current::new(id, pod, known, generation)),
    }
}

#[inline(always)]
fn unconfigured(state: SubjectState) -> Known {
    Known::Unconfigured { is_translated: state.flags & (SOCKET_BALANCER | HOST_NETWORK) != 0 }
}

/// Id of the pod that the program runs for, 0 while it is being attached.
#[inline(always)]
pub fn own() -> u32 {
    // SAFETY: the storage is there as long as the program is attached, and only user space writes it.
    unsafe { (*SUBJECT.get_ptr_mut()).id }
}

#[inline(always)]
fn state(id: u32) -> Option<SubjectState> {
    let state = SUBJECTS.get_ptr_mut(id)?;
    // SAFETY: an element of the array, aligned to its eight bytes. Read at once, as it is written.
    Some(SubjectState::from_word(Bpf::load(unsafe { &*state.cast::<AtomicU64>() })))
}

/// How often the state of any pod has changed.
#[inline(always)]
pub fn generation() -> u64 {
    GENERATION.get(0).map_or(0, Bpf::load)
}

impl Current {
    #[inline(always)]
    fn new(id: u32, pod: u32, state: SubjectState, generation: u64) -> Self {
        const { assert!(SUBJECTS_MAX <= 1 << 16) };
        Self {
            id,
            policy: state.policy,
            enforcement: Enforcement::from_flags(state.flags),
            is_classified: state.flags & CLASSIFIED != 0,
            paths: (state.flags >> PATHS_SHIFT) as u8,
            // Subject ids are below SUBJECTS_MAX.
            pod: pod as u16,
            generation: if state.flags & SOCKET_BALANCER == 0 { generation } else { 0 },
        }
    }

    /// Whether programs of others may change the destinations that it asks for.
    #[inline(always)]
    pub fn has_socket_balancer(&self) -> bool {
        self.paths & (SOCKET_BALANCER >> PATHS_SHIFT) as u8 != 0
    }

    /// Whether its packets are seen behind the host's NAT.
    #[inline(always)]
    pub fn in_host_network(&self) -> bool {
        self.paths & (HOST_NETWORK >> PATHS_SHIFT) as u8 != 0
    }

    /// Whether it is the node, and not a pod.
    #[inline(always)]
    pub fn is_node(&self) -> bool {
        self.paths & (NODE >> PATHS_SHIFT) as u8 != 0
    }

    /// Whether its policy says something about DNS itself.
    #[inline(always)]
    pub fn has_settings(&self) -> bool {
        self.paths & (SETTINGS >> PATHS_SHIFT) as u8 != 0
    }

    /// Whether queries for names that no Allow rule matches are refused.
    #[inline(always)]
    pub fn refuses(&self) -> bool {
        self.paths & (REFUSES >> PATHS_SHIFT) as u8 != 0
    }

    /// Whether it was free until a short time ago.
    #[inline(always)]
    pub fn was_free(&self) -> bool {
        self.paths & (WAS_FREE >> PATHS_SHIFT) as u8 != 0
    }

    /// Whether its packets can go elsewhere than its programs ask.
    #[inline(always)]
    pub fn is_translated(&self) -> bool {
        self.has_socket_balancer() || self.in_host_network()
    }

    /// Subject id of the pod: its network is that of all its containers.
    #[inline(always)]
    pub fn pod(&self) -> u32 {
        self.pod.into()
    }

    /// Whether it is a container of a divided pod.
    #[inline(always)]
    pub fn is_container(&self) -> bool {
        self.id != self.pod()
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

//! Loading the programs and opening their maps.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use aya::maps::{Array, HashMap, LpmTrie, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{Program, ProgramError, ProgramType};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfLoader};
use l7egg_ebpf_common::abi::{
    AddressKey, Attached, CidrData, Config, Connection, Container, Flow, FlowKey, Learned, LearnedKey, Masks,
    NameMasks, NameVerdictKey, Network, PatternKey, PodsCgroup, PolicySettings, PortData, ResolverKey,
    SCRATCH_PER_CPU, Shares, SubjectState,
};

use l7egg_ebpf_common::automaton::State;
use l7egg_ebpf_common::matcher::Matcher;

use super::error::kernel;
use super::gate::GATE;
use super::names::Names;
use crate::clock::boot_ns;
use crate::datapath::DatapathError;

/// The object that `cargo xtask build` compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("L7EGG_EBPF_OBJECT"));

/// A program and where it is attached in a pod's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the program and of the link's pin.
    pub name: &'static str,
    /// `enum bpf_attach_type` of include/uapi/linux/bpf.h.
    pub attach_type: u32,
}

/// In the order of attaching. Marks and lessons come before judgement, so that nothing that was going on is
/// judged without them.
pub const HOOKS: [Hook; 8] = [
    Hook { name: "created", attach_type: 2 },
    Hook { name: "ingress", attach_type: 0 },
    Hook { name: "accepted", attach_type: 3 },
    Hook { name: "egress", attach_type: 1 },
    Hook { name: "connect4", attach_type: 10 },
    Hook { name: "connect6", attach_type: 11 },
    Hook { name: "sendmsg4", attach_type: 14 },
    Hook { name: "sendmsg6", attach_type: 15 },
];

impl Hook {
    /// Whether it runs where a program hands over a destination: connect and sendmsg, `BPF_CGROUP_INET4_CONNECT` and
    /// `INET6_CONNECT`, `UDP4_SENDMSG` and `UDP6_SENDMSG`.
    pub fn sees_destinations(self) -> bool {
        matches!(self.attach_type, 10 | 11 | 14 | 15)
    }
}

/// How often a program is given to the verifier before it is given up.
pub const LOAD_TRIES: u32 = 10;

/// Every map that outlives the agent, by name.
const PINNED: [&str; 37] = [
    "CONTAINERS",
    "CONFIG",
    "SUBJECT",
    "SUBJECTS",
    "POLICIES",
    "SETTINGS",
    "PATTERNS",
    "CIDRS",
    "PORTS",
    "RESOLVERS",
    "QUERIES",
    "OTHER_QUERIES",
    "MATCHERS",
    "STATES",
    "LEARNED",
    "NAMES",
    "NAME_TAILS",
    "NAME_VERDICTS",
    "SHARES",
    "FLOWS",
    "CONNECTIONS",
    "ASKED",
    "INHERITED",
    "ARRIVING",
    "PODS",
    "NETWORKS",
    "NETNS",
    "ATTACHED",
    "ADDRESSES",
    "INBOUND",
    "ENDED",
    "FRAGMENTS",
    "DNS_STREAMS",
    "DNS_ENDED",
    "CONVERSATIONS",
    "ADMITTED",
    "WAITING",
];
/// Programs on interfaces.
const CLASSIFIERS: [&str; 2] = ["entering", "leaving"];
const PINNED_COUNTERS: [&str; 2] = ["COUNTS", "EVENTS"];

/// The maps that user space uses.
pub struct Maps {
    pub config: Array<MapData, Config>,
    pub generation: Array<MapData, u64>,
    pub subjects: Array<MapData, SubjectState>,
    pub containers: HashMap<MapData, u64, Container>,
    pub policies: HashMap<MapData, u32, [u8; 32]>,
    pub settings: HashMap<MapData, u32, PolicySettings>,
    pub patterns: HashMap<MapData, PatternKey, NameMasks>,
    pub matchers: HashMap<MapData, u32, Matcher>,
    pub states: Array<MapData, State>,
    pub cidrs: LpmTrie<MapData, CidrData, Masks>,
    pub ports: LpmTrie<MapData, PortData, u64>,
    pub resolvers: HashMap<MapData, ResolverKey, u8>,
    pub learned: HashMap<MapData, LearnedKey, Learned>,
    pub names: Names,
    pub name_verdicts: HashMap<MapData, NameVerdictKey, Masks>,
    pub shares: Array<MapData, Shares>,
    pub conversations: Array<MapData, u64>,
    pub flows: HashMap<MapData, FlowKey, Flow>,
    pub inherited: HashMap<MapData, u64, Connection>,
    pub inbound: HashMap<MapData, FlowKey, u64>,
    pub ended: HashMap<MapData, FlowKey, u64>,
    pub pods: Array<MapData, PodsCgroup>,
    pub networks: Array<MapData, Network>,
    pub attached: HashMap<MapData, u32, Attached>,
    pub addresses: HashMap<MapData, AddressKey, u8>,
    pub admitted: HashMap<MapData, u64, u64>,
    pub counts: PerCpuArray<MapData, u64>,
    pub events: Option<RingBuf<MapData>>,
    /// `SUBJECT`: cgroup storage, by cgroup and attach type.
    pub subject: SubjectStorage,
}

#[allow(deprecated)]
/// `SUBJECT`.
pub type SubjectStorage = aya::maps::CgroupStorage<MapData, l7egg_ebpf_common::abi::Subject>;

/// The loaded programs.
pub struct Programs {
    ebpf: Ebpf,
}

/// A program as the verifier saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Name of the program.
    pub program: &'static str,
    /// Instructions that the verifier looked at (Linux 5.16 and later).
    pub instructions: Option<u32>,
}

/// Loads every program; the maps are those pinned below `directory`, or are made and pinned there. `tell_learned` is of
/// [`crate::datapath::DatapathSettings`].
pub fn load(directory: &Path, tell_learned: bool) -> Result<(Programs, Maps), DatapathError> {
    fs::create_dir_all(directory).map_err(kernel(format!(
        "creating {}: is bpffs mounted there (mount -t bpf bpf /sys/fs/bpf)?",
        directory.display()
    )))?;
    let cpus = aya::util::nr_cpus().map_err(|(file, error)| DatapathError::Kernel {
        what: format!("reading {file}"),
        source: error.into(),
    })? as u32;
    let mut loader = EbpfLoader::new();
    loader.map_max_entries("SCRATCH", cpus * SCRATCH_PER_CPU);
    let tell_learned = u32::from(tell_learned);
    loader.override_global("TELL_LEARNED", &tell_learned, true);
    let helper = is_helper_supported(ProgramType::CgroupSkb, BpfHelper::BPF_FUNC_get_netns_cookie);
    // Where that cannot be found out the programs go by their own marks.
    let tells_netns = u32::from(helper.unwrap_or(false));
    loader.override_global("TELLS_NETNS", &tells_netns, true);
    for name in PINNED.into_iter().chain(PINNED_COUNTERS) {
        loader.map_pin_path(name, directory.join(name));
    }
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(kernel(format!("loading the kernel programs with their maps in {}", directory.display())))?;
    for name in names() {
        load_program(&mut ebpf, name)?;
    }
    let maps = take_maps(&mut ebpf)?;
    Ok((Programs { ebpf }, maps))
}

impl Maps {
    /// Changes what is known of a pod, by one write of eight bytes.
    pub fn set_state(&mut self, subject: u32, state: SubjectState) -> Result<(), MapError> {
        self.subjects.set(subject, state, 0)?;
        self.begin_generation()
    }

    /// Has every connection looked at again, at its next packet. Numbers are never used twice, by no agent since the machine was
    /// booted: sockets that nobody has sent by since keep an old one.
    pub fn begin_generation(&mut self) -> Result<(), MapError> {
        let generation = self.generation.get(&0, 0)?;
        self.generation.set(0, boot_ns().max(generation + 1), 0)
    }
}

impl Programs {
    /// The program of a hook.
    pub fn fd(&self, hook: Hook) -> Result<BorrowedFd<'_>, DatapathError> {
        let program = self.ebpf.program(hook.name).ok_or_else(|| missing("program", hook.name))?;
        let fd = match program {
            Program::CgroupSkb(program) => program.fd(),
            Program::CgroupSock(program) => program.fd(),
            Program::SockOps(program) => program.fd(),
            Program::CgroupSockAddr(program) => program.fd(),
            _ => return Err(missing("program", hook.name)),
        };
        fd.map(AsFd::as_fd).map_err(kernel(format!("using program {}", hook.name)))
    }

    /// Id of the program of a hook.
    pub fn id(&self, hook: Hook) -> Result<u32, DatapathError> {
        let program = self.ebpf.program(hook.name).ok_or_else(|| missing("program", hook.name))?;
        let info = program.info().map_err(kernel(format!("asking about program {}", hook.name)))?;
        Ok(info.id())
    }

    /// A program for interfaces.
    pub fn classifier(&self, name: &str) -> Result<BorrowedFd<'_>, DatapathError> {
        match self.ebpf.program(name) {
            Some(Program::SchedClassifier(program)) => {
                program.fd().map(AsFd::as_fd).map_err(kernel(format!("using program {name}")))
            }
            _ => Err(missing("program", name)),
        }
    }

    /// What the verifier says of each.
    pub fn verified(&self) -> Result<Vec<Verified>, DatapathError> {
        names()
            .map(|name| {
                let program = self.ebpf.program(name).ok_or_else(|| missing("program", name))?;
                let info = program.info().map_err(kernel(format!("asking about program {name}")))?;
                Ok(Verified { program: name, instructions: info.verified_instruction_count() })
            })
            .collect()
    }

    /// The programs themselves, for tests that run them.
    pub fn program_mut(&mut self, name: &str) -> Option<&mut Program> {
        self.ebpf.program_mut(name)
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    HOOKS.iter().chain(&GATE).map(|hook| hook.name).chain(CLASSIFIERS)
}

fn load_program(ebpf: &mut Ebpf, name: &'static str) -> Result<(), DatapathError> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing("program", name))?;
    let mut load = || match program {
        Program::CgroupSkb(program) => Ok(program.load()),
        Program::CgroupSock(program) => Ok(program.load()),
        Program::SchedClassifier(program) => Ok(program.load()),
        Program::SockOps(program) => Ok(program.load()),
        Program::CgroupSockAddr(program) => Ok(program.load()),
        _ => Err(missing("program", name)),
    };
    let mut result = load()?;
    // The verifier gives up when a signal comes, and wants to be asked again (kernel/bpf/verifier.c).
    for _ in 1..LOAD_TRIES {
        if !result.as_ref().is_err_and(was_interrupted) {
            break;
        }
        result = load()?;
    }
    result.map_err(|error| load_error(name, error))
}

/// What to say when the kernel does not take a program.
pub fn load_error(name: &str, error: ProgramError) -> DatapathError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => DatapathError::Kernel {
            what: format!(
                "the kernel refuses program {name}; the end of its reasons:\n{}",
                last_lines(&verifier_log.to_string())
            ),
            source: io_error.into(),
        },
        other => DatapathError::Kernel { what: format!("loading program {name}"), source: other.into() },
    }
}

pub fn was_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EAGAIN))
}

/// The verifier's logs run to megabytes; what matters is how they end.
fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.trim_end().lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

fn take_maps(ebpf: &mut Ebpf) -> Result<Maps, DatapathError> {
    macro_rules! take {
        ($name:literal) => {
            ebpf.take_map($name).ok_or_else(|| missing("map", $name))?.try_into().map_err(
                |error: MapError| DatapathError::Kernel {
                    what: concat!("opening map ", $name).into(),
                    source: error.into(),
                },
            )?
        };
    }
    Ok(Maps {
        config: take!("CONFIG"),
        generation: take!("GENERATION"),
        subjects: take!("SUBJECTS"),
        containers: take!("CONTAINERS"),
        policies: take!("POLICIES"),
        settings: take!("SETTINGS"),
        patterns: take!("PATTERNS"),
        matchers: take!("MATCHERS"),
        states: take!("STATES"),
        cidrs: take!("CIDRS"),
        ports: take!("PORTS"),
        resolvers: take!("RESOLVERS"),
        learned: take!("LEARNED"),
        names: Names { heads: take!("NAMES"), tails: take!("NAME_TAILS") },
        name_verdicts: take!("NAME_VERDICTS"),
        shares: take!("SHARES"),
        conversations: take!("CONVERSATIONS"),
        flows: take!("FLOWS"),
        inherited: take!("INHERITED"),
        inbound: take!("INBOUND"),
        ended: take!("ENDED"),
        pods: take!("PODS"),
        networks: take!("NETWORKS"),
        attached: take!("ATTACHED"),
        addresses: take!("ADDRESSES"),
        admitted: take!("ADMITTED"),
        counts: take!("COUNTS"),
        events: Some(take!("EVENTS")),
        subject: take!("SUBJECT"),
    })
}

pub fn missing(kind: &str, name: &str) -> DatapathError {
    DatapathError::Kernel {
        what: format!("the embedded object has no {kind} {name}: it is not of this build"),
        source: "build again with `cargo xtask build`".into(),
    }
}

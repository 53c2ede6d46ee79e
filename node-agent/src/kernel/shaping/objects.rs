//! The shaping object: its maps, and a copy of its program for each pod.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::{Program, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use l7egg_ebpf_common::abi::{Cap, CapName, SavedInterface, SavedInterfaceKey, ShapeCounts, ShapedPod};

use crate::datapath::DatapathError;
use crate::kernel::error::kernel;
use crate::kernel::programs::{LOAD_TRIES, load_error, missing, was_interrupted};

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("L7EGG_SHAPE_OBJECT"));
const PROGRAM: &str = "shape";
/// Every map, by name: all outlive the agent.
const PINNED: [&str; 8] = [
    "SHAPED_PODS",
    "CAPS",
    "CAP_CLOCKS",
    "FLOW_CLOCKS",
    "SHAPED_COUNTS",
    "CAP_COUNTS",
    "CAP_IDS",
    "SAVED_INTERFACES",
];

/// The maps that user space uses.
pub struct Maps {
    pub pods: Array<MapData, ShapedPod>,
    pub caps: Array<MapData, Cap>,
    pub pod_counts: PerCpuArray<MapData, ShapeCounts>,
    pub cap_counts: PerCpuArray<MapData, ShapeCounts>,
    pub cap_ids: HashMap<MapData, CapName, u32>,
    pub saved: HashMap<MapData, SavedInterfaceKey, SavedInterface>,
}

/// Makes programs.
pub struct Factory {
    maps: PathBuf,
}

/// The program for one pod. It ends with this, unless it is attached.
pub struct PodProgram {
    ebpf: Ebpf,
}

impl Factory {
    /// Opens the maps that are pinned in `directory`, or makes them there.
    pub fn open(directory: &Path) -> Result<(Self, Maps), DatapathError> {
        let factory = Factory { maps: directory.to_owned() };
        let mut ebpf = factory.object(0)?;
        macro_rules! take {
            ($name:literal) => {
                ebpf.take_map($name)
                    .ok_or_else(|| missing("map", $name))?
                    .try_into()
                    .map_err(kernel(concat!("opening map ", $name)))?
            };
        }
        let maps = Maps {
            pods: take!("SHAPED_PODS"),
            caps: take!("CAPS"),
            pod_counts: take!("SHAPED_COUNTS"),
            cap_counts: take!("CAP_COUNTS"),
            cap_ids: take!("CAP_IDS"),
            saved: take!("SAVED_INTERFACES"),
        };
        Ok((factory, maps))
    }

    /// Loads the program for the pod of a slot.
    pub fn program(&self, slot: u32) -> Result<PodProgram, DatapathError> {
        let mut ebpf = self.object(slot)?;
        let program = classifier(&mut ebpf)?;
        let mut result = program.load();
        for _ in 1..LOAD_TRIES {
            if !result.as_ref().is_err_and(was_interrupted) {
                break;
            }
            result = program.load();
        }
        result.map_err(|error| load_error(PROGRAM, error))?;
        Ok(PodProgram { ebpf })
    }

    fn object(&self, slot: u32) -> Result<Ebpf, DatapathError> {
        let mut loader = EbpfLoader::new();
        loader.override_global("SLOT", &slot, true);
        for name in PINNED {
            loader.map_pin_path(name, self.maps.join(name));
        }
        loader
            .load(OBJECT)
            .map_err(kernel(format!("reading the shaping program with its maps in {}", self.maps.display())))
    }
}

impl PodProgram {
    /// What is attached.
    pub fn with_fd<T>(
        &mut self,
        work: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> T,
    ) -> Result<T, DatapathError> {
        let program = classifier(&mut self.ebpf)?;
        let fd = program.fd().map_err(kernel("using the shaping program"))?;
        Ok(work(fd.as_fd()))
    }

    /// Instructions that the verifier looked at (Linux 5.16 and later).
    pub fn verified(&mut self) -> Result<Option<u32>, DatapathError> {
        let info = classifier(&mut self.ebpf)?.info().map_err(kernel("asking about the shaping program"))?;
        Ok(info.verified_instruction_count())
    }
}

fn classifier(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, DatapathError> {
    match ebpf.program_mut(PROGRAM) {
        Some(Program::SchedClassifier(program)) => Ok(program),
        _ => Err(missing("program", PROGRAM)),
    }
}

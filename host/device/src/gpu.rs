//! What a driver tells of GPUs: plain data, in the words of NVML.

use partita_core::model::Engines;
use serde::{Deserialize, Serialize};

/// A GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuInfo {
    /// Its UUID, which is the same after every restart.
    pub uuid: String,
    /// Its index as the driver counts now; another after a GPU is lost or replaced.
    pub index: u32,
    /// Its product name: `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Its minor number: `/dev/nvidia<minor>`. May be another after the MIG mode was switched.
    pub minor: Option<u32>,
    /// Its PCI bus id.
    pub pci: String,
    /// Its memory, MiB.
    pub memory_mib: u32,
    /// CUDA compute capability.
    pub capability: (i32, i32),
    /// Its MIG mode; none where it has no MIG.
    pub mode: Option<MigMode>,
    /// It is one that a hypervisor made (vGPU), which MIG cannot cut from inside.
    pub virtual_gpu: bool,
}

/// Whether MIG is on, and whether it will be after the next reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigMode {
    /// Now.
    pub current: bool,
    /// After the next reset.
    pub pending: bool,
}

/// Who may compute on a GPU. Every start of the machine makes it [`ComputeMode::Default`], and so does switching MIG on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputeMode {
    /// Everybody.
    #[default]
    Default,
    /// One thread, which drivers no longer have.
    ExclusiveThread,
    /// Nobody.
    Prohibited,
    /// One process: with MPS, its server.
    ExclusiveProcess,
}

/// What came of switching the MIG mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// It is as asked.
    Done,
    /// It will be as asked after a reset of the GPU.
    NeedsReset,
    /// Somebody uses the GPU.
    InUse,
}

/// A profile as a driver tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverProfile {
    /// The number by which it is asked for: the same profile of all GPUs has the same.
    pub index: u32,
    /// The number by which partitions are made; differs between products.
    pub id: u32,
    /// Its name without the word MIG; none from drivers that do not tell.
    pub name: Option<String>,
    /// Compute slices.
    pub slices: u32,
    /// Most partitions of it on one GPU, which some drivers tell wrong.
    pub count: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Copy engines.
    pub copy_engines: u32,
    /// Media engines.
    pub engines: Engines,
    /// Where a partition may lie: (first slot, slots).
    pub placements: Vec<(u32, u32)>,
}

/// A GPU instance: a partition's memory, whether or not it has something to compute with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// Its number, which the driver gives again after it is destroyed.
    pub id: u32,
    /// Its profile.
    pub profile_id: u32,
    /// First slot.
    pub start: u32,
    /// Slots.
    pub size: u32,
    /// What computes in it. A partition of ours has exactly one.
    pub compute: Vec<ComputeInstance>,
}

/// A compute instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComputeInstance {
    /// Its number within its GPU instance, given again after it is destroyed.
    pub id: u32,
    /// Compute slices.
    pub slices: u32,
    /// UUID of the MIG device, by which containers are given it. New for every one that is made.
    pub uuid: Option<String>,
}

/// A process that uses a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number, as the host counts.
    pub pid: u32,
    /// The GPU instance that it uses; none for the whole GPU.
    pub instance: Option<u32>,
}

/// An error that a GPU reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The GPU.
    pub uuid: String,
    /// NVIDIA's number of the error.
    pub xid: u64,
    /// The GPU instance that it is about; none for the whole GPU.
    pub instance: Option<u32>,
}

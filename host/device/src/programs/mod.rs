//! What NVML does not do and NVIDIA's programs do: the daemons of MPS (`nvidia-cuda-mps-control`) and the length of time slices
//! (`nvidia-smi`). As an enum of the real ones and of none, for GPUs that are simulated.

mod installed;
mod processes;
mod run;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use installed::Installed;

use crate::mps::{Limits, MpsError};

/// How long a process has a GPU before another has it, where several use it in turn. The lengths are the driver's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeSlice {
    /// As the driver does it by itself.
    #[default]
    Default,
    /// Short: answers come sooner, and more time goes into switching.
    Short,
    /// Between the two.
    Medium,
    /// Long.
    Long,
}

impl TimeSlice {
    /// The number by which `nvidia-smi compute-policy` knows it.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// Where NVIDIA's programs are.
#[derive(Clone, Debug)]
pub enum Programs {
    /// On this machine.
    Installed(Installed),
    /// Nowhere, since the GPUs are simulated: whatever is asked is done.
    Simulated,
}

impl Programs {
    /// Where they usually are, with the daemons' folders in `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self::Installed(Installed::new(folder))
    }

    /// Asks the real ones.
    fn real<T>(&self, simulated: T, ask: impl FnOnce(&Installed) -> T) -> T {
        if let Self::Installed(installed) = self { ask(installed) } else { simulated }
    }

    /// Whether MPS can be had at all.
    pub(crate) fn has_control(&self) -> Result<(), MpsError> {
        self.real(Ok(()), |real| real.has_control().map(drop))
    }

    /// Whether time slices can be set at all.
    pub(crate) fn has_smi(&self) -> Result<(), MpsError> {
        self.real(Ok(()), |real| real.has_smi().map(drop))
    }

    /// The folder in which the daemon of a GPU listens.
    pub(crate) fn pipe(&self, gpu: &str) -> PathBuf {
        self.real(PathBuf::from("/simulated"), |real| real.pipe(gpu))
    }

    /// Whether a daemon of ours was there, whether or not it still is.
    pub(crate) fn has_traces(&self, gpu: &str) -> bool {
        self.real(false, |real| real.has_traces(gpu))
    }

    /// Whether a process is a server of a GPU's daemon, and so nobody's who uses the GPU.
    pub(crate) fn is_server(&self, gpu: &str, pid: u32) -> bool {
        self.real(false, |real| real.is_server(gpu, pid))
    }

    /// Whether the daemon of a GPU lost a server: the daemon ended, the server goes on, and no new one can have the GPU.
    pub(crate) fn has_orphans(&self, gpu: &str) -> bool {
        self.real(false, |real| real.has_orphans(gpu))
    }

    /// Whether the daemon of a GPU answers.
    pub(crate) fn answers(&self, gpu: &str) -> Result<(), MpsError> {
        self.real(Ok(()), |real| real.answers(gpu))
    }

    /// Starts the daemon of a GPU. There is none.
    pub(crate) fn start(&self, gpu: &str) -> Result<(), MpsError> {
        self.real(Ok(()), |real| real.start(gpu))
    }

    /// Sets the limits of the clients that come from now on.
    pub(crate) fn limit(&self, gpu: &str, limits: Limits) -> Result<(), MpsError> {
        self.real(Ok(()), |real| real.limit(gpu, limits))
    }

    /// Ends the daemon of a GPU and its servers; nobody uses them.
    pub(crate) fn end(&self, gpu: &str) -> Result<(), MpsError> {
        self.real(Ok(()), |real| real.end(gpu))
    }

    /// Removes the folders of a daemon that has ended.
    pub(crate) fn sweep(&self, gpu: &str) -> Result<(), MpsError> {
        self.real(Ok(()), |real| real.sweep(gpu))
    }

    /// Sets the length of a GPU's time slices.
    pub(crate) fn set_time_slice(&self, gpu: &str, slice: TimeSlice) -> Result<(), MpsError> {
        self.real(Ok(()), |real| real.set_time_slice(gpu, slice))
    }
}

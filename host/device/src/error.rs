//! What can go wrong with GPUs, and what to do about it.

use thiserror::Error;

use crate::nvml::Code;

/// Why something about a GPU cannot be done or known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// No library to ask.
    #[error("NVIDIA's management library cannot be loaded from {path}: {reason}; install the driver, or mount its libnvidia-ml.so.1")]
    NoLibrary {
        /// Where it was looked for.
        path: String,
        /// What the loader said.
        reason: String,
    },
    /// The driver refused a call.
    #[error("{function} on {gpu} says {code}: {}", .code.remedy())]
    Call {
        /// The function of NVML.
        function: &'static str,
        /// The GPU, by UUID or index; `the node` for calls that are of no GPU.
        gpu: String,
        /// What it answered.
        code: Code,
    },
    /// The library is too old.
    #[error("the driver's library has no {function}: update the driver")]
    NoFunction {
        /// The function of NVML.
        function: &'static str,
    },
    /// The driver said something that cannot be.
    #[error("{function} on {gpu} answered {what}, which cannot be; update the driver")]
    Nonsense {
        /// The function of NVML.
        function: &'static str,
        /// The GPU, by UUID or index.
        gpu: String,
        /// What it said.
        what: String,
    },
    /// A call did not come back.
    #[error("{gpu} is set aside: {function} has not come back for {seconds} s; if this stays so, drain the node and restart it")]
    Hangs {
        /// The GPU, by UUID.
        gpu: String,
        /// The function of this program's driver.
        function: &'static str,
        /// The limit that it exceeded.
        seconds: u64,
    },
    /// A thread could not be started.
    #[error("no thread for the calls of {gpu}: {reason}; raise the limit of processes of this program")]
    NoThread {
        /// The GPU, by UUID.
        gpu: String,
        /// What the system said.
        reason: String,
    },
    /// The text does not name GPUs that can be simulated.
    #[error("{text:?} names no GPUs to simulate: {reason}; write it like H100-80GB×4")]
    Simulated {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl DeviceError {
    /// The code that the driver answered, if it answered.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        if let Self::Call { code, .. } = self { Some(*code) } else { None }
    }
}

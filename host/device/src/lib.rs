//! The GPUs of one machine: what they are, how they are cut, who uses them, and how they become what the scheduler wants.
//!
//! ```text
//! Node ── look ──► discover (model, grid, instances, users) ◄──┐
//!   │                                                          ├─ Watched ─► Driver: nvml, or simulated
//!   ├── apply ─► mig::plan (pure) ─► mig::execute ─────────────┘  (a thread a GPU, a limit a call)
//!   │     └────► mps: shares ───────► Programs: nvidia-cuda-mps-control, nvidia-smi (a limit a run)
//!   └── restore ─► the same, backwards: as it was found
//!                    └─► Checkpoint (one file: what is ours, what is half done, how GPUs were found)
//! ```
//!
//! What exists is always read from the driver; nothing is believed because it was done. A partition that somebody uses, by the kubelet's
//! word or the driver's, is never destroyed, nor is one when nobody can tell. What others made is adopted.
//!
//! - [`Driver`]: the port to GPUs. [`nvml`] and [`Simulated`] have it, [`Watched`] keeps its calls from hanging.
//! - [`gpu`]: what a driver tells.
//! - [`discover`]: the same in partita's words.
//! - [`mig`]: from a wanted layout to steps, from steps to partitions.
//! - [`mps`]: what fits under MPS, and what a container is told.
//! - [`Programs`]: NVIDIA's programs: the daemons of MPS, and time slices.
//! - [`Node`]: all of it, and what the agent calls.
//! - [`health`]: what errors of GPUs mean.
//! - [`checkpoint`]: what outlives the program.
//! - [`fault`]: where tests end the program.

pub mod checkpoint;
pub mod discover;
mod driver;
mod error;
pub mod fault;
mod found;
pub mod gpu;
pub mod health;
pub mod mig;
pub mod mps;
mod node;
pub mod nvml;
mod programs;
mod simulated;
mod watched;
mod wish;

pub use checkpoint::{Changed, Checkpoint, CheckpointError};
pub use driver::Driver;
pub use error::DeviceError;
pub use found::{Found, Part, PartState, Sharing};
pub use node::{Node, Settings, Users};
pub use programs::{Installed, Programs, TimeSlice};
pub use simulated::Simulated;
pub use watched::{CALL_MAX, Watched};
pub use wish::Wish;

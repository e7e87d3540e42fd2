//! The GPUs of one machine: what they are, how they are cut, who uses them, and how they become what the scheduler wants.
//!
//! ```text
//! Node ── look ──► discover (model, grid, instances, users) ◄──┐
//!   │                                                          ├─ Watched ─► Driver: nvml, or simulated
//!   └── apply ─► mig::plan (pure) ─► mig::execute ─────────────┘  (a thread a GPU, a limit a call)
//!                                        └─► Checkpoint (one file: what is ours, what is half done)
//! ```
//!
//! What exists is always read from the driver; nothing is believed because it was done. A partition that somebody uses, by the kubelet's
//! word or the driver's, is never destroyed, nor is one when nobody can tell. What others made is adopted.
//!
//! - [`Driver`]: the port to GPUs. [`nvml`] and [`Simulated`] have it, [`Watched`] keeps its calls from hanging.
//! - [`gpu`]: what a driver tells.
//! - [`discover`]: the same in partita's words.
//! - [`mig`]: from a wanted layout to steps, from steps to partitions.
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
mod node;
pub mod nvml;
mod simulated;
mod watched;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use driver::Driver;
pub use error::DeviceError;
pub use found::{Found, Part, PartState};
pub use node::{Node, Settings, Users};
pub use simulated::Simulated;
pub use watched::{CALL_MAX, Watched};

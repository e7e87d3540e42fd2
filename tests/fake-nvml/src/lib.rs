//! A `libnvidia-ml.so.1` that manages GPUs which do not exist.
//!
//! It has the C interface of NVIDIA's library as far as partita calls it, the true MIG geometry of every model that partita-core knows,
//! the true return codes and structs that are checked for their version. What it permits is never more than a driver would.
//!
//! ```text
//! program ─► abi (C functions) ─► handles ─► machine (what a driver does) ─► shared (one folder, one lock, one file)
//!                     └── faults ──────────────────────┘                          ▲
//! test ─► control::Fake (make, hold, fault, reboot) ──────────────────────────────┘
//! ```
//!
//! The GPUs live in `state.json` of one folder, so all processes that load the library see the same GPUs and a process that is killed
//! leaves them as they were. The folder is named by the environment variable `PARTITA_FAKE_NVML`; without it, it is the one where the
//! library's own file lies, so several copies of the library in one process manage different GPUs. A folder without the file is a machine
//! without a driver.
//!
//! - [`control`]: what a test does to the GPUs behind the back of the program.
//! - [`machine`]: GPUs, instances and processes, and what a driver makes of calls.
//! - [`faults`]: what goes wrong, and when.

mod abi;
pub mod control;
pub mod faults;
mod geometry;
mod handles;
pub mod machine;
mod shared;

pub use control::{Fake, FakeError};
pub use faults::{Fault, What};

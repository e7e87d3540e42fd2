//! The agent of a node: it makes the node's GPUs what their `GpuNode` wants, hands them to the kubelet, and tells what they are.
//!
//! ```text
//! GpuNode.spec ─► wish ─┐                       ┌─► offers ─► device plugins ─► kubelet
//!                       ├─► Node (partita-device) ┤
//! kubelet: who uses ────┘                       └─► report ─► GpuNode.status
//! ```
//!
//! Everything is one pass over what is, repeated whenever something changed ([`run`]); no pass remembers what an earlier one meant to do, so an
//! agent that is killed at any moment goes on where it was. The order within a pass keeps two promises:
//!
//! - *A partition that anybody uses or could still be given is not destroyed.* What the layout no longer has is first taken from the
//!   kubelet; when the kubelet has confirmed that, and neither it nor the driver names a user, it is destroyed.
//! - *A partition is called ready only when the kubelet can give it away.* The scheduler binds pods on that word.
//!
//! [`wish`], [`offers`] and [`report`] are plain functions; [`allocate`] answers the kubelet, [`cdi`] writes what container runtimes read.

mod act;
pub mod allocate;
pub mod cdi;
mod error;
pub mod machine;
mod metrics;
mod object;
pub mod offers;
mod pass;
pub mod report;
mod run;
mod standing;
mod taken;
pub mod users;
pub mod wish;

pub use error::AgentError;
pub use run::{Settings, Shared, run};

pub use partita_kubelet::{DEVICE_PLUGINS_FOLDER, POD_RESOURCES_SOCKET};

//! A real Kubernetes control plane on this machine, for tests and demonstrations.
//!
//! [`ControlPlane::start`] runs etcd and the API server, and on demand kube-controller-manager, kube-scheduler and KWOK, all real programs
//! built from their pinned Go modules ([`programs`]). They listen on loopback only, keep everything in one temporary folder, and are gone
//! when the value is dropped. [`nodes`] makes simulated nodes, [`agent`] plays their node agents, and [`install_crds`] teaches the API server
//! partita's own kinds. [`Oracle`] answers what kube-scheduler's own filters say. [`Node`] is a node that is not simulated: a kubelet and
//! containerd, with containers.
//!
//! ```no_run
//! # async fn example() -> Result<(), partita_cluster::Error> {
//! use partita_cluster::{ControlPlane, NodeShape, Options, Program, nodes};
//!
//! let cluster = ControlPlane::start(Options { programs: [Program::Kwok].into(), ..Options::default() }).await?;
//! nodes::create(&cluster.client(), &NodeShape::new("node", 100)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! etcd is spoken to without TLS, and a user's token lies in a folder that only its owner may read: good enough on one machine for the time
//! of a test, and for nothing else.

mod access;
pub mod agent;
mod control_plane;
mod crds;
mod error;
mod etcd;
mod folder;
mod go;
mod node;
pub mod nodes;
mod options;
mod oracle;
mod process;
pub mod programs;
mod progress;

pub use control_plane::ControlPlane;
pub use crds::install_crds;
pub use error::Error;
pub use node::{Node, WITNESS_IMAGE};
pub use nodes::{GpuModel, NodeShape};
pub use options::{Options, Program, User};
pub use oracle::{Answer, Case, Oracle};
pub use programs::{CONTAINERD_VERSION, ETCD_VERSION, KUBERNETES_VERSION, KWOK_VERSION, NodePrograms, Programs};

//! partita and kube-scheduler asked the same.
//!
//! Where a pod may run is decided by rules that Kubernetes' users know by what kube-scheduler does. So the reference is kube-scheduler
//! itself: its filters ([`partita_cluster::Oracle`]) and partita's live brain ([`partita_kube::scheduler::Scheduler`]) are shown the same
//! random clusters and pods, and must name the same nodes.
//!
//! - [`draw`]: worlds of a seed. - [`world`]: what the API server has. - [`brain`]: partita's side, and controllers that do as it wishes.
//! - [`compare`]: both sides. - [`shrink`]: the smallest world that shows a mismatch. - [`features`]: which features decide.

pub mod brain;
pub mod compare;
mod dice;
pub mod draw;
pub mod features;
pub mod shrink;
pub mod world;

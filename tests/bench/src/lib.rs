//! Benchmarks of partita. Each is one command of the program beside this library, prints a table, and writes the same as JSON.
//!
//! Counts, percentages and fuel are exact. A time counts only as a ratio within one run: what is compared runs in turns on the same
//! machine, and no test depends on it.
//!
//! - [`openb`]: the published allocation of every baseline on the Alibaba trace, reproduced; our default policy beside it; what WebAssembly
//!   costs.
//! - [`mig_churn`]: MIG partitions that come and go, beside the published figures.
//! - [`core`]: speed and memory of the core.
//! - [`live`]: the live scheduler on a real API server, beside kube-scheduler.
//! - [`agent`]: a pod's whole way on a real node, to a partition that did not exist.
//! - [`wasm`]: what the policy host costs and what it stops.

pub mod agent;
pub mod core;
pub mod live;
pub mod mig_churn;
pub mod openb;
mod ours;
pub mod parallel;
pub mod table;
pub mod wasm;

//! Decisions of the partita scheduler.
//!
//! Events go in, actions come out, and nothing else happens: no clock, no I/O, no threads, no randomness, no hash map whose order could
//! decide. The same events give the same plans, byte for byte, which is why a wrong decision can be replayed from a recorded list.
//!
//! ```text
//! Event ─► state::Cluster ─► queue ─► place (candidates → policy scores → check → best) ─► Plan { actions, waiting }
//!               │                                   ▲
//!               └─ journal of changed nodes ────────┘      explain: why a demand cannot be placed
//! ```
//!
//! - [`model`]: ids, GPU models and MIG grids, nodes, demands.
//! - [`layout`]: the algebra of MIG layouts: what fits, where, and who would have to go or move.
//! - [`mix`]: what to expect, from what was asked.
//! - [`state`]: the cluster as events tell it. A bad event is refused with a reason and changes nothing.
//! - [`queue`]: pods that wait, by priority, then age.
//! - [`place`]: candidates, the cached ranking of nodes for each (revision, demand), the choice.
//! - [`check`]: a policy's answer is a proposal; this decides whether it is one at all.
//! - [`explain`]: one structured reason for each demand that cannot be placed.
//! - [`policy`]: the port through which strategies are asked, the only trait here.
//! - [`round`]: one round of planning, which joins the above.

pub mod check;
mod clear;
pub mod explain;
pub mod layout;
pub mod mix;
pub mod model;
pub mod place;
pub mod policy;
pub mod queue;
pub mod round;
pub mod state;

pub use place::Reuse;
pub use round::{Action, Config, Faults, Plan, Planner};

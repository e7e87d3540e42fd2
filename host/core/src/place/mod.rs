//! Where a pod goes: candidates, the ranking of nodes by a policy's scores, the choice.
//!
//! A policy is asked only about nodes that changed since it was last asked about the same demand. Its scores stay in a [`Ranking`], one
//! for each (revision, demand), a tournament tree over the nodes in the fixed order: the best node is read off the root, and a change of
//! one node costs one question about that node and log₂(nodes) comparisons. Work per decision thus follows what changed, not the size
//! of the cluster.

mod around;
mod candidates;
mod columns;
mod copies;
pub(crate) mod packing;
mod ranking;
mod tier;
mod tournament;

pub use around::feasible;
pub(crate) use around::{Around, Heeds, Unmet};
pub use candidates::{Candidate, Place, enumerate, milli_of};
pub(crate) use candidates::{mps_share, on_gpus};
pub use columns::Columns;
pub use copies::copies;
pub(crate) use ranking::PIECE_MAX;
pub use ranking::{Choice, Rankings};
pub use tier::{Reuse, Tier};

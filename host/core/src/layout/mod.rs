//! The algebra of layouts: what fits on GPUs that MIG cuts, where, and what would have to go.
//!
//! A model has few layouts (723 of the plain profiles on eight slots, 2,319 with `+me`), so they are enumerated once ([`Layouts`]) and
//! merged into classes: layouts beside which the same placements fit are one. What fits on one GPU is then a look-up; what fits on
//! several is a search over *counts* of profiles with a memory of what failed, in which slots and starts no longer occur.
//!
//! ```text
//! Grid ─► Layouts ─► Occupancy (one GPU: in use, warm) ─┬─ pack     where does it fit, at the least change
//!          (shared)                Want (profile × n) ───┼─ victims  who must go so that it fits
//!                                                        └─ moves    who must move so that it fits
//! ```
//!
//! - [`Bag`]: counts of profiles in one word.
//! - [`Layouts`]: all layouts of a model; room, feasible placements, room kept.
//! - [`pack()`], [`possible`]: several partitions on several GPUs, of one model or of several.
//! - [`victims()`]: the fewest and cheapest partitions whose removal makes room.
//! - [`moves()`]: the fewest moves that make room.
//!
//! Every answer is a [`Verdict`]: possible with a plan, impossible (which is a proof), or undecided because a named limit was reached.

mod assign;
mod bag;
mod build;
mod moves;
mod pack;
mod problem;
mod table;
mod take;
mod victims;

pub use assign::{SEARCH_MAX, TABLE_MAX, WORK_MAX};
pub use bag::Bag;
pub use build::{FRONTS_MAX, LAYOUTS_MAX};
pub use moves::{MOVES_MAX, Move, Moves, TRIES_MAX, moves};
pub use pack::{Cost, Packed, Placed, pack, possible};
pub use problem::{Occupancy, Want};
pub use table::{LayoutError, Layouts, NotALayout, State};
pub use take::Taken;
pub use victims::{Eviction, Held, SPANNING_MAX, victims};

use thiserror::Error;

use crate::model::node::GPUS_MAX;

/// The answer to a question whether something can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<T> {
    /// It can, like this.
    Possible(T),
    /// It cannot; this is exact.
    Impossible,
    /// The search stopped at a limit. It may be possible or not.
    Undecided(Limit),
}

impl<T> Verdict<T> {
    /// The plan, if it is possible.
    #[must_use]
    pub fn plan(self) -> Option<T> {
        if let Self::Possible(plan) = self { Some(plan) } else { None }
    }

    /// Whether it was proved impossible.
    #[must_use]
    pub fn is_impossible(&self) -> bool {
        matches!(self, Self::Impossible)
    }
}

/// Why a question was not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Limit {
    /// More kinds of partition than one word has room for.
    #[error("{0} kinds of partition in one question; the limit is {most}", most = Bag::KINDS_MAX)]
    Kinds(usize),
    /// More GPUs than one node can have.
    #[error("{0} GPUs in one question; the limit is {GPUS_MAX}")]
    Gpus(usize),
    /// More partitions of one kind than one word has room for.
    #[error("{0} partitions of one kind in one question; the limit is {most}", most = Bag::COUNT_MAX)]
    Count(u32),
    /// The search took too many steps.
    #[error("the search stopped after {0} steps; ask for fewer kinds of partition at once")]
    Steps(usize),
}

//! The brain against an API server and node agents that are kept in memory, and that fail in every way they may.

#![allow(clippy::needless_pass_by_value, reason = "json! makes values")]

mod agent;
mod aside;
mod check;
mod doubt;
mod evictions;
mod follow;
mod kubelet;
mod lead;
mod life;
mod make;
mod nodes;
mod numbers;
mod offers;
mod patience;
mod random;
mod reasons;
mod server;
mod silence;
mod users;
mod volumes;
mod words;
mod world;

use partita_core::policy::{Candidates, Fault, Partitioner, Reads, Revision, View};

/// Likes every place alike.
struct Zeros;

impl Partitioner for Zeros {
    fn revision(&self) -> Revision {
        Revision(0)
    }

    fn reads(&self) -> Reads {
        Reads { seed: false, mix: false }
    }

    fn ready(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn score(&mut self, _: &View<'_>, _: u32, candidates: &Candidates<'_>, scores: &mut Vec<i32>) -> Result<(), Fault> {
        scores.resize(candidates.node.len(), 0);
        Ok(())
    }

    fn refused(&mut self, fault: &Fault) {
        panic!("{fault}");
    }
}

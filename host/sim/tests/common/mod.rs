//! Policies for tests.
#![allow(dead_code, reason = "each test binary uses some of them")]

use partita_core::policy::{Candidates, Cause, Fault, NONE, Partitioner, Reads, Revision, View};

/// Likes every place equally, so that the first node and its tightest GPU are taken.
pub(crate) struct Zeros;

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
        scores.clear();
        scores.resize(candidates.node.len(), 0);
        Ok(())
    }

    fn refused(&mut self, _: &Fault) {}
}

/// Likes places at random, by the seed of the decision.
pub(crate) struct Random;

impl Partitioner for Random {
    fn revision(&self) -> Revision {
        Revision(1)
    }

    fn reads(&self) -> Reads {
        Reads { seed: true, mix: false }
    }

    fn ready(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn score(&mut self, view: &View<'_>, _: u32, candidates: &Candidates<'_>, scores: &mut Vec<i32>) -> Result<(), Fault> {
        scores.clear();
        scores.extend(
            (0..candidates.node.len() as u32).map(|row| (view.seed.wrapping_add(row).wrapping_mul(0x9e37_79b9) >> 16).cast_signed()),
        );
        Ok(())
    }

    fn refused(&mut self, _: &Fault) {}
}

/// Prefers the emptiest GPU.
pub(crate) struct Emptiest;

impl Partitioner for Emptiest {
    fn revision(&self) -> Revision {
        Revision(2)
    }

    fn reads(&self) -> Reads {
        Reads { seed: false, mix: false }
    }

    fn ready(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn score(&mut self, view: &View<'_>, _: u32, candidates: &Candidates<'_>, scores: &mut Vec<i32>) -> Result<(), Fault> {
        scores.clear();
        let free = |gpu: &u32| if *gpu == NONE { 0 } else { view.gpus.free[*gpu as usize].cast_signed() };
        scores.extend(candidates.gpu.iter().map(free));
        Ok(())
    }

    fn refused(&mut self, _: &Fault) {}
}

/// Never answers, or answers nonsense.
pub(crate) struct Broken {
    pub(crate) nonsense: bool,
}

impl Partitioner for Broken {
    fn revision(&self) -> Revision {
        Revision(3)
    }

    fn reads(&self) -> Reads {
        Reads { seed: false, mix: false }
    }

    fn ready(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn score(&mut self, _: &View<'_>, _: u32, _: &Candidates<'_>, scores: &mut Vec<i32>) -> Result<(), Fault> {
        scores.clear();
        scores.push(i32::MAX);
        if self.nonsense { Ok(()) } else { Err(Fault { cause: Cause::Trap, detail: "it fell over <b>".to_owned() }) }
    }

    fn refused(&mut self, _: &Fault) {}
}

//! Strategies that place pods and cut GPUs.

use crate::columns::{Candidates, View};
use crate::policy::{Policy, Refusal};
use crate::rows::{Demand, Node};

/// Where should one pod of demand row `demand` go?
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The cluster, as far as this question goes.
    pub view: View<'a>,
    /// Row of the demand asked about.
    pub demand: usize,
    /// The feasible places.
    pub candidates: Candidates<'a>,
}

impl Question<'_> {
    /// The demand asked about.
    #[must_use]
    pub fn asked(&self) -> Demand<'_> {
        self.view.demand(self.demand)
    }

    /// Gives every candidate of a node the same score, asked once a node: for a policy that ranks nodes and leaves the place on the node
    /// to the host, which takes the tightest.
    pub fn score_nodes(&self, scores: &mut Vec<i32>, mut score: impl FnMut(Node<'_>) -> i32) {
        for places in self.candidates.by_node() {
            let score = score(self.view.node(places.node));
            scores.extend(places.range.map(|_| score));
        }
    }
}

/// How should idle GPUs be cut for the expected mix?
#[derive(Clone, Copy, Debug)]
pub struct LayoutQuestion<'a> {
    /// The cluster, as far as this question goes.
    pub view: View<'a>,
    /// The most partitions that the answer may name.
    pub changes: usize,
}

/// MIG partitions to cut on idle slots; row = partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Row of the GPU.
    pub gpu: Vec<u32>,
    /// Row of the profile.
    pub profile: Vec<u32>,
    /// First slot.
    pub slot: Vec<u32>,
}

impl Plan {
    /// Adds a partition of `profile` that starts at `slot` of `gpu`.
    pub fn cut(&mut self, gpu: u32, profile: u32, slot: u32) {
        self.gpu.push(gpu);
        self.profile.push(profile);
        self.slot.push(slot);
    }
}

/// Running pods that may be moved; row = pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Movable<'a> {
    /// Row of the demand.
    pub demand: &'a [u32],
    /// Row of the node where it runs.
    pub node: &'a [u32],
    /// Row of its first GPU.
    pub gpu: &'a [u32],
    /// First slot of its MIG partition, else [`NONE`](crate::NONE).
    pub slot: &'a [u32],
}

/// Which pods should move to make room for larger demands?
#[derive(Clone, Copy, Debug)]
pub struct MoveQuestion<'a> {
    /// The cluster, as far as this question goes.
    pub view: View<'a>,
    /// The pods that may be moved.
    pub pods: Movable<'a>,
    /// The most moves that the answer may name.
    pub changes: usize,
}

/// Moves to make; row = move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Row of [`Movable`], each at most once.
    pub pod: Vec<u32>,
    /// Row of the node where it goes.
    pub node: Vec<u32>,
}

impl Moves {
    /// Adds a move of `pod` to `node`.
    pub fn take(&mut self, pod: u32, node: u32) {
        self.pod.push(pod);
        self.node.push(node);
    }
}

/// A strategy that places pods and cuts GPUs.
pub trait Partitioner: Policy {
    /// Writes one score a candidate into `scores`, which comes empty and with room for all of them. The largest wins; ties go to the
    /// lowest node in the host's fixed order, and within a node to the first candidate. Scores of one demand are compared across calls,
    /// so a node's score must not depend on which other nodes are in the question. Scores lie within [`SCORE_MAX`](crate::SCORE_MAX).
    ///
    /// # Errors
    /// A [`Refusal`] when there is no answer.
    fn score(&self, question: &Question<'_>, scores: &mut Vec<i32>) -> Result<(), Refusal>;

    /// Cuts idle GPUs for the expected mix, before pods ask.
    ///
    /// # Errors
    /// A [`Refusal`] when there is no answer; unless overridden, always.
    fn propose_layouts(&self, _question: &LayoutQuestion<'_>) -> Result<Plan, Refusal> {
        Err(Refusal::declined(format!("{} proposes no layouts", Self::NAME)))
    }

    /// Names moves that make room for larger demands.
    ///
    /// # Errors
    /// A [`Refusal`] when there is no answer; unless overridden, always.
    fn choose_moves(&self, _question: &MoveQuestion<'_>) -> Result<Moves, Refusal> {
        Err(Refusal::declined(format!("{} chooses no moves", Self::NAME)))
    }
}

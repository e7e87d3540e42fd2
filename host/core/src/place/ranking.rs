//! The ranking of nodes for one (revision, demand), kept up to date by asking the policy about changed nodes only.

use std::collections::BTreeMap;

use super::{Candidate, Columns, enumerate, tournament::Tournament};
use crate::{
    check,
    model::{DemandId, NodeId},
    policy::{Fault, Partitioner, Revision},
    state::{Cluster, Grant},
};

/// The most nodes in one question. A full rescan of a large cluster is cut into such pieces, so that a question stays within the fuel
/// and reply limits of a policy: 1,024 nodes have at most some 16,000 candidates, 64 KiB of scores.
const NODES_PER_QUESTION: usize = 1024;

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The node.
    pub node: NodeId,
    /// What the pod uses of its GPUs.
    pub grant: Grant,
    /// The policy's score of the place.
    pub score: i32,
}

#[derive(Debug, Default)]
struct Ranking {
    /// Position in the journal up to which it is true; none at first.
    seen: Option<u64>,
    /// Version of the mix for which it was asked.
    mix: u64,
    tournament: Tournament,
    /// The best candidate of each node that has one.
    best: Vec<Option<Candidate>>,
}

/// All rankings, with the buffers to ask for more.
#[derive(Debug, Default)]
pub struct Rankings {
    cached: BTreeMap<(Revision, DemandId), Ranking>,
    columns: Columns,
    changed: Vec<NodeId>,
    found: Vec<Candidate>,
    offered: Vec<Candidate>,
    offers: Vec<(NodeId, u32)>,
    scores: Vec<i32>,
    /// Stamp of the last refresh in which a node was listed, so that repeats in the journal are skipped.
    stamps: Vec<u32>,
    stamp: u32,
}

impl Rankings {
    /// The best place for a pod of `demand` by `policy`'s scores; none if there is no feasible place.
    ///
    /// # Errors
    /// A [`Fault`] if the policy did not answer, or answered wrongly. Nothing of such an answer is kept.
    ///
    /// # Panics
    /// Never: a node that is ranked exists and has a candidate.
    pub fn choose(
        &mut self,
        cluster: &Cluster,
        policy: &mut dyn Partitioner,
        demand: DemandId,
        seed: u32,
    ) -> Result<Option<Choice>, Fault> {
        let reads = policy.reads();
        let mut ranking = self.cached.remove(&(policy.revision(), demand)).unwrap_or_default();
        let (_, mix) = cluster.mix();
        if reads.seed || (reads.mix && ranking.mix != mix) {
            ranking.seen = None;
        }
        ranking.mix = mix;
        self.list_changed(cluster, &ranking);
        self.refresh(cluster, policy, demand, seed, &mut ranking)?;
        ranking.seen = Some(cluster.journal().position());
        let choice = ranking.tournament.best().map(|(row, score)| {
            let node = NodeId::new(row);
            let candidate = ranking.best[row].expect("a ranked node has a best candidate");
            let grant = candidate.grant(cluster.demands().get(demand), cluster.node(node).expect("a ranked node exists"));
            Choice { node, grant, score }
        });
        self.cached.insert((policy.revision(), demand), ranking);
        Ok(choice)
    }

    /// Forgets everything cached of a revision that is gone.
    pub fn forget(&mut self, revision: Revision) {
        self.cached.retain(|key, _| key.0 != revision);
    }

    /// Lists the nodes to ask about, each once, in the fixed order.
    fn list_changed(&mut self, cluster: &Cluster, ranking: &Ranking) {
        self.changed.clear();
        let rows = cluster.node_rows();
        match ranking.seen.and_then(|seen| cluster.journal().since(seen)) {
            Some(changes) if changes.len() < rows => {
                self.stamps.resize(rows, 0);
                self.stamp = self.stamp.wrapping_add(1);
                for &node in changes {
                    if self.stamps[node.index()] != self.stamp {
                        self.stamps[node.index()] = self.stamp;
                        self.changed.push(node);
                    }
                }
                self.changed.sort_unstable();
            }
            _ => self.changed.extend((0..rows).map(NodeId::new)),
        }
    }

    fn refresh(
        &mut self,
        cluster: &Cluster,
        policy: &mut dyn Partitioner,
        demand: DemandId,
        seed: u32,
        ranking: &mut Ranking,
    ) -> Result<(), Fault> {
        let entry = cluster.demands().get(demand);
        ranking.tournament.grow(cluster.node_rows());
        ranking.best.resize(cluster.node_rows(), None);
        let changed = std::mem::take(&mut self.changed);
        for (number, piece) in changed.chunks(NODES_PER_QUESTION).enumerate() {
            let row = self.columns.start(cluster, demand);
            self.offered.clear();
            self.offers.clear();
            for &id in piece {
                self.found.clear();
                if let Some(node) = cluster.node(id) {
                    enumerate(cluster, entry, node, &mut self.found);
                    if !self.found.is_empty() {
                        self.columns.push_node(cluster, entry, node, &self.found);
                        self.offered.extend_from_slice(&self.found);
                    }
                }
                self.offers.push((id, self.found.len() as u32));
            }
            if !self.offered.is_empty() {
                // Rows start anew in each piece, and so must the randomness.
                self.ask(policy, row, seed.wrapping_add((number as u32).wrapping_mul(0x9e37_79b9)))?;
            }
            self.apply(ranking);
        }
        self.changed = changed;
        Ok(())
    }

    fn ask(&mut self, policy: &mut dyn Partitioner, row: u32, seed: u32) -> Result<(), Fault> {
        self.scores.clear();
        policy.score(&self.columns.view(seed), row, &self.columns.candidates(), &mut self.scores)?;
        check::scores(&self.scores, self.offered.len()).inspect_err(|fault| policy.refused(fault))
    }

    /// Enters the answer: for each node its best candidate, the first of equals.
    fn apply(&mut self, ranking: &mut Ranking) {
        let mut from = 0;
        for &(id, count) in &self.offers {
            let rows = from..from + count as usize;
            from = rows.end;
            let best = rows.rev().max_by_key(|&row| self.scores[row]);
            ranking.best[id.index()] = best.map(|row| self.offered[row]);
            ranking.tournament.set(id.index(), best.map(|row| self.scores[row]));
        }
    }
}

//! The ranking of nodes for one (revision, demand), kept up to date by asking the policy about changed nodes only.

use std::collections::BTreeMap;

use super::{
    Around, Candidate, Columns, Heeds, Reuse, enumerate,
    tier::{key, prefer},
    tournament::Tournament,
};
use crate::{
    check,
    model::{DemandId, NodeId},
    policy::{Fault, Partitioner, Revision},
    state::{Cluster, Grant},
};

/// The most candidates and the most GPUs in one question, whole nodes at a time. A look at every node of a large cluster is cut into such
/// pieces, so that a question stays within the fuel of a policy, with twenty thousand units a candidate, and its reply limit.
pub(crate) const PIECE_MAX: usize = 1024;
/// The most candidates, and GPUs, times demands of the mix in one question: policies compare places with every demand of the mix, and this
/// leaves them three hundred units of fuel for each such pair.
const PAIRS_MAX: usize = 65_536;
/// The most rows of all rankings together, after which the one that was not used for longest is dropped: 32 bytes a row, so 400 MB, or 1,250
/// demands on 10,000 nodes.
const ROWS_MAX: usize = 12 << 20;

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The node.
    pub node: NodeId,
    /// What the pod uses of its GPUs.
    pub grant: Grant,
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
    /// When it was last used, counted in decisions.
    used: u64,
}

/// All rankings, with the buffers to ask for more.
#[derive(Debug, Default)]
pub struct Rankings {
    cached: BTreeMap<(Revision, DemandId), Ranking>,
    columns: Columns,
    changed: Vec<NodeId>,
    found: Vec<Candidate>,
    offered: Vec<Candidate>,
    /// Nodes of a question: how many candidates, and how much the pod prefers the node.
    offers: Vec<(NodeId, u32, i64)>,
    scores: Vec<i32>,
    /// Stamp of the last refresh in which a node was listed, so that repeats in the journal are skipped.
    stamps: Vec<u64>,
    stamp: u64,
    /// Rows of all rankings together.
    rows: usize,
    decisions: u64,
    reuse: Reuse,
}

impl Rankings {
    /// No ranking yet.
    #[must_use]
    pub fn new(reuse: Reuse) -> Self {
        Self { reuse, ..Self::default() }
    }

    /// The best place for a pod of `demand` by `policy`'s scores; none if there is no feasible place. A pod that moves `leaves` a node.
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
        leaves: Option<NodeId>,
        seed: u32,
    ) -> Result<Option<Choice>, Fault> {
        policy.ready()?;
        let reads = policy.reads();
        let key = (policy.revision(), demand);
        let mut ranking = self.cached.remove(&key).unwrap_or_default();
        let (_, mix) = cluster.mix();
        if reads.seed || (reads.mix && ranking.mix != mix) {
            ranking.seen = None;
        }
        ranking.mix = mix;
        self.decisions += 1;
        ranking.used = self.decisions;
        self.list_changed(cluster, &ranking);
        self.make_room(&mut ranking, cluster.node_rows(), ROWS_MAX);
        let asked = self.refresh(cluster, policy, demand, seed, &mut ranking);
        // What was answered stays, but only a whole answer moves the position up to which the ranking is true.
        if asked.is_ok() {
            ranking.seen = Some(cluster.journal().position());
        }
        let best = match Around::of(cluster, cluster.demands().get(demand), leaves, Heeds::ALL) {
            None => ranking.tournament.best().map(|(row, _)| row),
            Some(around) => best_around(&ranking.tournament, &around),
        };
        let best = best.map(|row| (NodeId::new(row), ranking.best[row].expect("a ranked node has a best candidate")));
        self.cached.insert(key, ranking);
        asked?;
        Ok(best.map(|(id, candidate)| {
            let node = cluster.node(id).expect("a ranked node exists");
            Choice { node: id, grant: candidate.grant(cluster, cluster.demands().get(demand), node) }
        }))
    }

    /// The best place for a pod of `demand`, which `leaves` a node, on one node by `policy`'s scores; none if there is no feasible place there.
    ///
    /// # Errors
    /// A [`Fault`] if the policy did not answer, or answered wrongly.
    pub fn choose_on(
        &mut self,
        cluster: &Cluster,
        policy: &mut dyn Partitioner,
        (demand, leaves): (DemandId, NodeId),
        id: NodeId,
        seed: u32,
    ) -> Result<Option<Choice>, Fault> {
        let (entry, Some(node)) = (cluster.demands().get(demand), cluster.node(id)) else { return Ok(None) };
        if Around::of(cluster, entry, Some(leaves), Heeds::ALL).is_some_and(|around| !around.admits(id)) {
            return Ok(None);
        }
        enumerate(cluster, entry, node, self.reuse, &mut self.found);
        if self.found.is_empty() {
            return Ok(None);
        }
        policy.ready()?;
        let row = self.start(cluster, demand);
        self.columns.push_node(cluster, Some(entry), node, &self.found);
        self.offered.extend_from_slice(&self.found);
        self.ask(policy, row, seed)?;
        // Of equals the first.
        let best = (0..self.found.len()).rev().max_by_key(|&row| key(self.found[row].tier, 0, self.scores[row]));
        Ok(best.map(|row| Choice { node: id, grant: self.found[row].grant(cluster, entry, node) }))
    }

    /// The buffers of questions, for one that is not about places.
    pub fn columns(&mut self) -> &mut Columns {
        &mut self.columns
    }

    /// Makes a row for every node, at the cost of rankings that were not used for long if there are more than `rows_max` rows.
    fn make_room(&mut self, ranking: &mut Ranking, nodes: usize, rows_max: usize) {
        self.rows += nodes.saturating_sub(ranking.best.len());
        ranking.tournament.grow(nodes);
        ranking.best.resize(nodes.max(ranking.best.len()), None);
        while self.rows > rows_max {
            let Some(oldest) = self.cached.iter().min_by_key(|(_, other)| other.used).map(|(key, _)| *key) else { return };
            self.drop_ranking(oldest);
        }
    }

    fn drop_ranking(&mut self, key: (Revision, DemandId)) {
        if let Some(dropped) = self.cached.remove(&key) {
            self.rows -= dropped.best.len();
        }
    }

    /// Forgets everything cached of a revision that is gone.
    pub fn forget(&mut self, revision: Revision) {
        let gone: Vec<_> = self.cached.keys().filter(|key| key.0 == revision).copied().collect();
        for key in gone {
            self.drop_ranking(key);
        }
    }

    /// Lists the nodes to ask about, each once, in the fixed order.
    fn list_changed(&mut self, cluster: &Cluster, ranking: &Ranking) {
        self.changed.clear();
        let rows = cluster.node_rows();
        match ranking.seen.and_then(|seen| cluster.journal().since(seen)) {
            Some(changes) if changes.len() < rows => {
                self.stamps.resize(rows, 0);
                self.stamp += 1;
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
        let changed = std::mem::take(&mut self.changed);
        let mut seed = seed;
        let piece = (PAIRS_MAX / cluster.mix().0.len().max(1)).min(PIECE_MAX);
        let mut row = self.start(cluster, demand);
        for &id in &changed {
            self.found.clear();
            let mut preference = 0;
            if let Some(node) = cluster.node(id) {
                enumerate(cluster, entry, node, self.reuse, &mut self.found);
                let full = self.offered.len() + self.found.len() > piece || self.columns.gpus() + node.room.gpus.len() > piece;
                if full && !self.offered.is_empty() {
                    self.ask(policy, row, seed)?;
                    self.apply(ranking);
                    row = self.start(cluster, demand);
                    // Rows start anew in each piece, and so must the randomness.
                    seed = seed.wrapping_add(0x9e37_79b9);
                }
                if !self.found.is_empty() {
                    self.columns.push_node(cluster, Some(entry), node, &self.found);
                    self.offered.extend_from_slice(&self.found);
                    preference = entry.preference(node, cluster.names());
                }
            }
            self.offers.push((id, self.found.len() as u32, preference));
        }
        if !self.offered.is_empty() {
            self.ask(policy, row, seed)?;
        }
        self.apply(ranking);
        self.changed = changed;
        Ok(())
    }

    /// Starts a question without nodes. Returns the row of the demand.
    fn start(&mut self, cluster: &Cluster, demand: DemandId) -> u32 {
        self.offered.clear();
        self.offers.clear();
        self.columns.start(cluster, demand)
    }

    fn ask(&mut self, policy: &mut dyn Partitioner, row: u32, seed: u32) -> Result<(), Fault> {
        self.scores.clear();
        policy.score(&self.columns.view(seed), row, &self.columns.candidates(), &mut self.scores)?;
        check::scores(&self.scores, self.offered.len()).inspect_err(|fault| policy.refused(fault))
    }

    /// Enters the answer: for each node its best candidate, the first of equals.
    fn apply(&mut self, ranking: &mut Ranking) {
        let mut from = 0;
        for &(id, count, preference) in &self.offers {
            let rows = from..from + count as usize;
            from = rows.end;
            let key = |row: usize| key(self.offered[row].tier, preference, self.scores[row]);
            let best = rows.rev().max_by_key(|&row| key(row));
            ranking.best[id.index()] = best.map(|row| self.offered[row]);
            ranking.tournament.set(id.index(), best.map(key));
        }
    }
}

/// The lowest of the best rows, of those that what runs around them admits. Everything is looked at: what runs on one node changes what
/// others are worth.
fn best_around(tournament: &Tournament, around: &Around<'_>) -> Option<usize> {
    let mut best: Option<(usize, i64)> = None;
    for (row, score) in tournament.rows() {
        let node = NodeId::new(row);
        let score = prefer(score, around.preference(node));
        if best.is_none_or(|best| score > best.1) && around.admits(node) {
            best = Some((row, score));
        }
    }
    best.map(|(row, _)| row)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses the ranking of a demand once, as `choose` does, on `nodes` nodes with room for 30 rows in all.
    fn touch(rankings: &mut Rankings, demand: u32, nodes: usize) {
        let key = (Revision(0), DemandId(demand));
        let mut ranking = rankings.cached.remove(&key).unwrap_or_default();
        rankings.decisions += 1;
        ranking.used = rankings.decisions;
        rankings.make_room(&mut ranking, nodes, 30);
        rankings.cached.insert(key, ranking);
    }

    #[test]
    fn the_ranking_unused_for_longest_goes_when_there_are_too_many_rows() {
        let kept = |rankings: &Rankings| rankings.cached.keys().map(|key| key.1.0).collect::<Vec<_>>();
        let mut rankings = Rankings::default();
        for demand in [0, 1, 2, 0] {
            touch(&mut rankings, demand, 10);
        }
        assert_eq!((kept(&rankings), rankings.rows), (vec![0, 1, 2], 30));
        touch(&mut rankings, 3, 10);
        assert_eq!((kept(&rankings), rankings.rows), (vec![0, 2, 3], 30));
        // The cluster grew: a ranking in use takes its new rows from the others, and stays even if it is too large alone.
        touch(&mut rankings, 3, 25);
        assert_eq!((kept(&rankings), rankings.rows), (vec![3], 25));
        touch(&mut rankings, 3, 40);
        assert_eq!((kept(&rankings), rankings.rows), (vec![3], 40));
        rankings.forget(Revision(0));
        assert_eq!((kept(&rankings), rankings.rows), (vec![], 0));
    }
}

//! Room for pods that do not fit: others move, others are evicted, or a place is kept free until they end.

use std::cmp::Reverse;

use super::{Action, Config, Plan, Planner, changes_on};
use crate::{
    clear::{Search, Way},
    model::{NodeId, PodId},
    place::{Around, Heeds, milli_of},
    policy::Partitioner,
    queue::LaneKey,
    state::{Claim, Cluster, Grant, Pod, Room, Why},
};

/// The most pods of one lane for which room is made in one round: each costs a look at every node.
const PODS_MAX: usize = 64;
/// The most plans of moves that are tried for one pod: each asks the policy for a place for up to as many pods as move.
const PLANS_MAX: usize = 256;

/// What is known of a lane for which nobody may be evicted: until something changes it need not be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stuck {
    /// Position in the journal up to which this is true of the nodes.
    seen: u64,
    /// What the rules were.
    rules: u64,
}

impl Planner {
    /// Makes room for the pods of a lane, as far as there are pods that may go for them.
    pub(super) fn make_room(&mut self, lane: LaneKey, policies: &mut [&mut dyn Partitioner], plan: &mut Plan) {
        let made = |pod: &PodId| self.cluster.claim_of(*pod).is_some_and(|claim| claim.why == Why::RoomMade);
        let waiting: Vec<PodId> = self.queue.pods(lane).filter(|pod| !made(pod)).take(PODS_MAX).collect();
        // Where nothing helps one pod, nothing helps the others of its lane, unless they may evict and it may not.
        let mut stuck = [false; 2];
        for pod in waiting {
            let polite = self.cluster.pod(pod).is_some_and(|pod| pod.spec.terms.never_preempts);
            if stuck[usize::from(polite)] {
                continue;
            }
            let made =
                (self.config.moves > 0 && self.by_moves(pod, policies, plan)) || self.by_eviction(lane, pod, plan) || self.by_waiting(pod);
            if made {
                self.settle(pod, plan);
            } else {
                stuck[usize::from(polite)] = true;
            }
        }
    }

    /// Evicts pods of lower priority, or takes places that are kept or cleared for them.
    fn by_eviction(&mut self, lane: LaneKey, pod: PodId, plan: &mut Plan) -> bool {
        let Some(priority) = self.cluster.pod(pod).map(|pod| pod.spec.priority) else { return false };
        if self.cluster.lowest_priority().is_none_or(|lowest| lowest >= priority) {
            return false;
        }
        let Some((node, way)) = self.way_to_evict(lane, pod) else { return false };
        for &victim in &way.goes {
            // Who only has a claim loses it, and nobody has to stop.
            if !self.cluster.drop_claim(victim) {
                self.cluster.stop(victim);
                plan.actions.push(Action::Evict { pod: victim, node, by: pod });
            }
        }
        self.claim(pod, node, way.grant, &[], None, Why::RoomMade)
    }

    /// The best way to evict pods on the nodes that changed since the lane was found to have none.
    fn way_to_evict(&mut self, lane: LaneKey, pod: PodId) -> Option<(NodeId, Way)> {
        let known = self.cluster.pod(pod)?;
        let (cluster, priority) = (&self.cluster, known.spec.priority);
        let entry = cluster.demands().get(known.demand);
        // Promised runtimes end without an event, so as long as somebody has one every node is looked at.
        let now = Stuck { seen: cluster.journal().position(), rules: cluster.rules() };
        let lane = (lane, known.spec.terms.never_preempts);
        let stuck = self.stuck.get(&lane).filter(|stuck| stuck.rules == now.rules && !cluster.has_promises());
        // What runs on one node may open or close others, so where that counts every node is looked at, too.
        let around = Around::of(cluster, entry, None, Some(Heeds { priority, pod: Some(pod) }));
        let stuck = stuck.filter(|_| around.is_none());
        let changed = stuck.and_then(|stuck| cluster.journal().since(stuck.seen)).map(<[NodeId]>::to_vec);
        let evicts = self.config.preempt && !known.spec.terms.never_preempts;
        let price = |victim: PodId| eviction_price(cluster, victim, priority).filter(|_| evicts || cluster.claim_of(victim).is_some());
        let base = |id| cluster.after_leaving(id, priority);
        let way = Search { cluster, entry, around: around.as_ref(), base: &base, price: &price }.best(changed);
        // Who was placed in this round may go in the next, which nothing else would tell of.
        if way.is_none() && cluster.placed() == 0 && around.is_none() {
            self.stuck.insert(lane, now);
        } else {
            self.stuck.remove(&lane);
        }
        way
    }

    /// Moves pods that may be restarted, at most as many as is set, so that nobody loses their place.
    fn by_moves(&mut self, pod: PodId, policies: &mut [&mut dyn Partitioner], plan: &mut Plan) -> bool {
        let Some(known) = self.cluster.pod(pod) else { return false };
        let changes = self.cluster.changes();
        let lane = (Reverse(known.spec.priority), known.demand);
        if self.unmoved.get(&lane) == Some(&changes) {
            return false;
        }
        let mut ways: Vec<(NodeId, Way)> = Vec::new();
        let (cluster, most, priority) = (&self.cluster, self.config.moves as usize, known.spec.priority);
        let entry = cluster.demands().get(known.demand);
        let around = Around::of(cluster, entry, None, Some(Heeds { priority, pod: Some(pod) }));
        let price = |mover: PodId| move_price(cluster, mover, priority);
        let base = |id| cluster.after_leaving(id, priority);
        let search = Search { cluster, entry, around: around.as_ref(), base: &base, price: &price };
        for (id, _) in cluster.nodes() {
            ways.extend(search.all_ways(id, most).into_iter().map(|way| (id, way)));
        }
        ways.sort_by_key(|(id, way)| (way.goes.len(), way.cost, *id));
        ways.truncate(PLANS_MAX);
        let moved = ways.into_iter().any(|(node, way)| self.try_moves(pod, node, way, policies, plan));
        if moved {
            self.unmoved.remove(&lane);
        } else {
            self.unmoved.insert(lane, changes);
        }
        moved
    }

    /// Moves those who are in the way, if each of them has a place elsewhere; else changes nothing.
    fn try_moves(&mut self, pod: PodId, node: NodeId, way: Way, policies: &mut [&mut dyn Partitioner], plan: &mut Plan) -> bool {
        let (before_claim, changes) = (self.cluster.claims_at_stake(node, pod), self.cluster.changes());
        if !self.claim(pod, node, way.grant, &way.goes, None, Why::RoomMade) {
            self.cluster.put_back(pod, before_claim);
            return false;
        }
        let mut moved: Vec<Action> = Vec::new();
        let mut before: Vec<(PodId, Room)> = Vec::new();
        for &mover in &way.goes {
            let demand = self.cluster.pod(mover).map(|pod| pod.demand);
            let leaves = self.cluster.runs_on(mover).map(|(node, _)| node);
            let choice = demand.and_then(|demand| self.choose(policies, demand, leaves, &mut plan.faults).ok().flatten());
            let room = choice.as_ref().and_then(|choice| self.cluster.node(choice.node)).map(|node| node.room.clone());
            let (Some(choice), Some(room), Some((from, _))) = (choice, room, self.cluster.runs_on(mover)) else {
                for (mover, room) in before.into_iter().rev() {
                    self.cluster.undo_relocate(mover, room);
                }
                self.cluster.put_back(pod, before_claim);
                self.cluster.unchanged_since(changes);
                return false;
            };
            before.push((mover, room));
            let changes = self.cluster.relocate(mover, choice.node, choice.grant.clone());
            moved.extend(changes_on(choice.node, changes));
            moved.push(Action::Move { pod: mover, from, node: choice.node, grant: choice.grant, by: Some(pod) });
        }
        plan.actions.extend(moved);
        true
    }

    /// Keeps a place free for a pod that waited long: where the fewest have to end.
    fn by_waiting(&mut self, pod: PodId) -> bool {
        let Config { patience_ms, hold_ms, holds, .. } = self.config;
        let (now_ms, cluster) = (self.cluster.now_ms(), &self.cluster);
        let Some(known) = cluster.pod(pod) else { return false };
        if holds == 0 || cluster.claim_of(pod).is_some() || now_ms < known.waits_since_ms.saturating_add(patience_ms) {
            return false;
        }
        let priority = |pod: PodId| cluster.pod(pod).map(|pod| pod.spec.priority);
        let mut kept: Vec<(Option<i32>, PodId)> =
            cluster.claims().filter(|(_, claim)| claim.why == Why::Reserved).map(|(pod, _)| (priority(pod), pod)).collect();
        kept.sort_unstable();
        // When all are taken, the one of lowest priority gives way to a higher.
        let displaced = (kept.len() >= holds as usize).then(|| kept[0]);
        if displaced.is_some_and(|(lowest, _)| lowest >= Some(known.spec.priority)) {
            return false;
        }
        let entry = cluster.demands().get(known.demand);
        let around = Around::of(cluster, entry, None, Some(Heeds { priority: known.spec.priority, pod: Some(pod) }));
        let (ends, base) = (|other: PodId| cluster.runs_on(other).map(|_| 1), |id| cluster.after_ending(id));
        let search = Search { cluster, entry, around: around.as_ref(), base: &base, price: &ends };
        let Some((node, way)) = search.best(None) else { return false };
        if let Some((_, other)) = displaced {
            self.cluster.drop_claim(other);
        }
        self.claim(pod, node, way.grant, &way.goes, Some(now_ms.saturating_add(hold_ms)), Why::Reserved)
    }

    /// Gives a pod a claim that waits for `goes` and for those who are leaving the place already.
    fn claim(&mut self, pod: PodId, node: NodeId, grant: Grant, goes: &[PodId], until_ms: Option<u64>, why: Why) -> bool {
        let Some(known) = self.cluster.pod(pod) else { return false };
        let entry = self.cluster.demands().get(known.demand);
        let mut waits_for = self.cluster.before(node, entry, &grant, why, goes);
        waits_for.extend(goes);
        waits_for.sort_unstable();
        waits_for.dedup();
        self.cluster.claim(pod, Claim { node, grant, waits_for, until_ms, why })
    }
}

/// Whether a running pod may be disturbed now: it was not placed in this very round nor told to go already, ran as long as it was promised, and every disruption budget
/// that it counts in has some left.
pub(super) fn may_go(cluster: &Cluster, pod: PodId) -> Option<&Pod> {
    let known = cluster.pod(pod)?;
    let placed = known.placed.as_ref().filter(|placed| !placed.stopping && known.leaving.is_none() && !cluster.is_new(placed))?;
    let terms = &known.spec.terms;
    let ran = cluster.now_ms().saturating_sub(placed.since_ms) >= terms.min_runtime_ms;
    (ran && terms.budgets.iter().all(|name| cluster.budget(name) != Some(0))).then_some(known)
}

/// What it costs to evict a pod for one of `priority`: its priority first, then how long it ran, whose work would be lost.
fn eviction_price(cluster: &Cluster, pod: PodId, priority: i32) -> Option<u64> {
    let known = cluster.pod(pod).filter(|known| known.spec.priority < priority)?;
    if cluster.claim_of(pod).is_some() {
        return Some(0);
    }
    let since = may_go(cluster, pod)?.placed.as_ref()?.since_ms;
    let ran_s = (cluster.now_ms().saturating_sub(since) / 1000).min((1 << 24) - 1);
    Some((i64::from(known.spec.priority).abs_diff(i32::MIN.into()) << 24) + ran_s)
}

/// What it costs to move a pod for one of `priority`: how much of GPUs it uses, since what is small finds a place. Nobody of higher priority is
/// restarted for one of lower.
fn move_price(cluster: &Cluster, pod: PodId, priority: i32) -> Option<u64> {
    may_go(cluster, pod).filter(|known| known.spec.terms.restartable && known.spec.priority <= priority)?;
    let (node, grant) = cluster.runs_on(pod)?;
    let node = cluster.node(node)?;
    Some(grant.0.iter().map(|&(gpu, used)| u64::from(milli_of(cluster, node, gpu, used))).sum())
}

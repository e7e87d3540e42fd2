//! Who has to go so that a pod fits: the fewest pods, the cheapest of those, for just the slots that it needs.
//!
//! [`Search::best`] looks at all nodes, [`Search::all_ways`] at every place of one. Who may go and what it costs is the caller's: pods of lower priority where they are
//! evicted, pods that may be restarted where they are moved, everybody where a place is kept until they end by themselves.
//!
//! For one GPU the answer is exact: every placement, or every set of users of the GPU, is looked at. A demand for several partitions is
//! split over the GPUs by [`crate::layout::victims()`]. A demand for several whole GPUs takes those with the fewest users first, which is
//! exact unless pods use several GPUs each. Where anything else is short beside, more pods go, the most helpful first, and those found
//! needless in the end stay.

mod gpus;
mod needs;
mod set;

use std::{borrow::Cow, collections::BTreeMap};

use crate::{
    model::{NodeId, PodId},
    place::{self, Around, Reuse},
    state::{Cluster, Entry, Grant, Node, Room, Use, Why},
};
use needs::Needs;
use set::Set;

/// What it costs that a pod goes; none if it may not.
pub(crate) type Price<'p> = &'p dyn Fn(PodId) -> Option<u64>;
/// What a node will have left for the pod; none where that cannot be told.
pub(crate) type Base<'p, 'c> = &'p dyn Fn(NodeId) -> Option<Cow<'c, Room>>;

/// How often a node is looked at again without pods whose disruption budget was overdrawn.
const BUDGET_TRIES_MAX: usize = 8;

/// Who goes, and what the pod gets then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// Those who go, sorted. Empty if it is enough to wait for those who are leaving already.
    pub(crate) goes: Vec<PodId>,
    /// What they cost together.
    pub(crate) cost: u64,
    /// What the pod uses then.
    pub(crate) grant: Grant,
}

/// A pod on a node that may go.
struct Leaver<'c> {
    pod: PodId,
    cost: u64,
    grant: &'c Grant,
    entry: &'c Entry,
}

/// A node with those who may go.
struct Scene<'c> {
    cluster: &'c Cluster,
    entry: &'c Entry,
    node: &'c Node,
    /// What is left once those who are leaving have left.
    room: &'c Room,
    needs: Needs<'c>,
    /// How much is short without anybody going.
    lacking: Vec<u64>,
    leavers: Vec<Leaver<'c>>,
    /// (GPU, row of the leaver, what they use of it), sorted.
    on_gpu: Vec<(u8, usize, Use)>,
}

/// Where room for a pod is looked for, and at whose cost.
#[derive(Clone, Copy)]
pub(crate) struct Search<'s, 'c> {
    pub(crate) cluster: &'c Cluster,
    pub(crate) entry: &'c Entry,
    /// What runs around the nodes. Only where it admits the pod now room is looked for: nobody goes so that it would, and those stay next to
    /// whom the pod must run.
    pub(crate) around: Option<&'s Around<'c>>,
    pub(crate) base: Base<'s, 'c>,
    pub(crate) price: Price<'s>,
}

impl Search<'_, '_> {
    /// The best way on any node, or on any of those given: the fewest who go, then the cheapest, then the first node.
    pub(crate) fn best(&self, nodes: Option<Vec<NodeId>>) -> Option<(NodeId, Way)> {
        let nodes = nodes.map_or_else(
            || self.cluster.nodes().map(|(id, _)| id).collect(),
            |mut some| {
                some.sort_unstable();
                some.dedup();
                some
            },
        );
        let mut best: Option<(NodeId, Way)> = None;
        for id in nodes {
            if best.as_ref().is_some_and(|(_, best)| (best.goes.len(), best.cost) <= self.at_least(id)) {
                continue;
            }
            if let Some(way) = self.way(id)
                && best.as_ref().is_none_or(|(_, best)| (way.goes.len(), way.cost) < (best.goes.len(), best.cost))
            {
                best = Some((id, way));
            }
        }
        let (id, way) = best?;
        let room = (self.base)(id)?;
        let way = Scene::new(self, id, &room, self.price)?.spared(way);
        Some((id, way))
    }

    /// What a way on a node costs at least: one pod, the cheapest. Nobody has to go only where somebody is leaving or has a claim already,
    /// for otherwise the pod would have been placed. Few nodes can do better than the best so far, so most are not looked at any closer.
    fn at_least(&self, id: NodeId) -> (usize, u64) {
        let Some(node) = self.cluster.node(id) else { return (usize::MAX, 0) };
        if !node.claims.is_empty() || node.pods.iter().any(|&pod| self.cluster.leaves(pod, id)) {
            return (0, 0);
        }
        node.pods.iter().filter_map(|&pod| (self.price)(pod)).min().map_or((usize::MAX, 0), |cost| (1, cost))
    }

    /// The best way on one node that keeps within every disruption budget.
    fn way(&self, id: NodeId) -> Option<Way> {
        let mut kept: Vec<PodId> = Vec::new();
        for _ in 0..BUDGET_TRIES_MAX {
            let price = |pod: PodId| if kept.contains(&pod) { None } else { (self.price)(pod) };
            let room = (self.base)(id)?;
            let scene = Scene::new(self, id, &room, &price)?;
            let mut ways = scene.ways(false);
            ways.sort_by_key(|way| (way.goes.len(), way.cost));
            if let Some(way) = ways.iter().find(|way| overdrawn(self.cluster, &way.goes).is_none() && scene.proves(way)) {
                return Some(way.clone());
            }
            // Every way overdraws a budget: look again without the pod that overdraws the best.
            let way = ways.into_iter().find(|way| scene.proves(way))?;
            kept.extend(overdrawn(self.cluster, &way.goes));
        }
        None
    }

    /// Every way on one node that lets at most `most` go, one for each GPU and placement.
    pub(crate) fn all_ways(&self, id: NodeId, most: usize) -> Vec<Way> {
        let Some(room) = (self.base)(id) else { return Vec::new() };
        let Some(scene) = Scene::new(self, id, &room, self.price) else { return Vec::new() };
        let mut ways = scene.ways(true);
        ways.retain(|way| way.goes.len() <= most && overdrawn(self.cluster, &way.goes).is_none() && scene.proves(way));
        ways
    }

    /// Whether a pod may go, as far as those count next to whom the pod must run.
    fn can_spare(&self, other: &Entry) -> bool {
        self.around.is_none_or(|around| !around.needs(other))
    }
}

/// A pod that must stay because its disruption budget does not allow as many to go; the last of them.
fn overdrawn(cluster: &Cluster, goes: &[PodId]) -> Option<PodId> {
    let mut taken: BTreeMap<&str, u32> = BTreeMap::new();
    for &number in goes {
        let Some(pod) = cluster.pod(number).filter(|pod| pod.placed.is_some()) else { continue };
        for name in &pod.spec.terms.budgets {
            let count = taken.entry(name).or_default();
            *count += 1;
            if cluster.budget(name).is_some_and(|allowed| *count > allowed) {
                return Some(number);
            }
        }
    }
    None
}

impl<'c> Scene<'c> {
    /// None if the pod may not run on the node, or it has too little of anything but GPUs whoever goes.
    fn new<'l: 'c>(search: &Search<'_, 'l>, id: NodeId, room: &'c Room, price: Price<'_>) -> Option<Self> {
        let Search { cluster, entry, around, .. } = *search;
        let node = cluster.node(id)?;
        if around.is_some_and(|around| !around.admits(id)) {
            return None;
        }
        if !node.idle_plain().fits_plain(entry) || !entry.admitted(node, cluster.names()) {
            return None;
        }
        let mut leavers = Vec::new();
        for &number in node.pods.iter().chain(&node.claims) {
            let Some(pod) = cluster.pod(number) else { continue };
            // A place that is merely kept is still somebody's: taking the claim away frees nothing.
            let claimed = cluster.claim_of(number).filter(|claim| claim.node == id && claim.why == Why::RoomMade);
            let placed = pod.placed.as_ref().filter(|place| place.node == id && !cluster.leaves(number, id));
            let Some(grant) = placed.map(|place| &place.grant).or(claimed.map(|claim| &claim.grant)) else { continue };
            let other = cluster.demands().get(pod.demand);
            if let Some(cost) = price(number).filter(|_| search.can_spare(other)) {
                leavers.push(Leaver { pod: number, cost, grant, entry: other });
            }
        }
        let uses =
            |(row, leaver): (usize, &Leaver<'c>)| leaver.grant.0.iter().map(move |&(gpu, used)| (gpu, row, used)).collect::<Vec<_>>();
        let mut on_gpu: Vec<(u8, usize, Use)> = leavers.iter().enumerate().flat_map(uses).collect();
        on_gpu.sort_unstable();
        let needs = Needs(entry);
        Some(Self { cluster, entry, node, room, lacking: needs.lacking(room), needs, leavers, on_gpu })
    }

    /// Ways to make room; `each` lists one for each placement, else the best of each GPU is enough unless more is short than GPUs.
    fn ways(&self, each: bool) -> Vec<Way> {
        let short = !self.room.fits_plain(self.entry);
        self.gpu_ways(each || short).into_iter().filter_map(|(set, grant)| self.complete(set, grant)).collect()
    }

    /// Lets more pods go where anything but GPUs is short, and those stay that need not go.
    fn complete(&self, mut goes: Set, grant: Grant) -> Option<Way> {
        // Nobody else can make room for who wants a port than those who have it.
        (0..self.leavers.len()).filter(|&row| self.needs.conflicts(self.leavers[row].entry)).for_each(|row| goes.add(row));
        let needed = goes.clone();
        let mut lacks = self.lacks(&goes);
        while lacks.iter().any(|&amount| amount > 0) {
            // How much of the shortages a pod covers, in thousandths of each.
            let part = |has: u64, lacks: u64| (u128::from(has.min(lacks)) * 1000).checked_div(lacks.into()).unwrap_or(0);
            let help =
                |row: usize| -> u128 { (0..lacks.len()).map(|what| part(self.needs.of(self.leavers[row].entry, what), lacks[what])).sum() };
            let others = (0..self.leavers.len()).filter(|&row| !goes.has(row));
            let next = others.max_by_key(|&row| (help(row), std::cmp::Reverse(self.leavers[row].cost)))?;
            if help(next) == 0 {
                return None;
            }
            goes.add(next);
            lacks = self.lacks(&goes);
        }
        let mut extra: Vec<usize> = goes.rows().filter(|&row| !needed.has(row)).collect();
        extra.sort_by_key(|&row| std::cmp::Reverse(self.leavers[row].cost));
        for row in extra {
            goes.remove(row);
            if self.lacks(&goes).iter().any(|&amount| amount > 0) {
                goes.add(row);
            }
        }
        let cost = goes.rows().map(|row| self.leavers[row].cost).fold(0, u64::saturating_add);
        let mut pods: Vec<PodId> = goes.rows().map(|row| self.leavers[row].pod).collect();
        pods.sort_unstable();
        Some(Way { goes: pods, cost, grant })
    }

    /// What is short of everything but GPUs when those went, in the order of [`Needs`].
    fn lacks(&self, goes: &Set) -> Vec<u64> {
        let freed = |what| goes.rows().map(|row| self.needs.of(self.leavers[row].entry, what)).fold(0, u64::saturating_add);
        let lack = |(what, &lacks): (usize, &u64)| lacks.saturating_sub(freed(what));
        self.lacking.iter().enumerate().map(lack).collect()
    }

    /// Whether the pod fits when those went: the last word before anybody is told to go.
    fn proves(&self, way: &Way) -> bool {
        self.without(&way.goes).fits(self.cluster.models(), self.entry, &way.grant)
    }

    /// What is left when those went.
    fn without(&self, goes: &[PodId]) -> Room {
        let mut room = self.room.clone();
        for leaver in self.leavers.iter().filter(|leaver| goes.binary_search(&leaver.pod).is_ok()) {
            room.give_back(self.cluster.models(), leaver.entry, leaver.grant, leaver.pod);
        }
        room
    }

    /// Lets those stay without whom the pod fits too, wherever that is on the node: who goes for their cpu may leave a GPU as well.
    fn spared(&self, mut way: Way) -> Way {
        if way.goes.len() < 2 {
            return way;
        }
        let mut dearest: Vec<&Leaver<'_>> = self.leavers.iter().filter(|one| way.goes.binary_search(&one.pod).is_ok()).collect();
        dearest.sort_by_key(|leaver| std::cmp::Reverse((leaver.cost, leaver.pod)));
        let mut found = Vec::new();
        for leaver in dearest {
            let rest: Vec<PodId> = way.goes.iter().copied().filter(|&pod| pod != leaver.pod).collect();
            let node = Node { room: self.without(&rest), later: Vec::new(), ..self.node.clone() };
            place::enumerate(self.cluster, self.entry, &node, Reuse::First, &mut found);
            if let Some(candidate) = found.first() {
                let grant = candidate.grant(self.cluster, self.entry, &node);
                way = Way { goes: rest, cost: way.cost.saturating_sub(leaver.cost), grant };
            }
        }
        way
    }
}

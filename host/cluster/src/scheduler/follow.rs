//! The books follow what agents see: see [`super::uses`].

use std::collections::BTreeSet;

use partita_core::{
    model::{Cut, GpuAsk, MILLI, NodeId, Placement, PodId},
    state::{Event, Grant, Holder, Layout, Models, Node, Use},
};

use super::{
    Scheduler, grants,
    nodes::NodeEntry,
    pods::{PodEntry, Stage},
    uses::{self, Part, Settled, Spot, Tenant, Want},
};
use crate::crd::{self, FoundGpu, FoundPartition};

impl Scheduler {
    /// Books what the pods of a node have of its GPUs as its agent tells, all at once. Who is on the way to what another has comes back.
    pub(super) fn follow(&mut self, node_name: &str) {
        let Some(id) = self.nodes.get(node_name).and_then(|entry| entry.id) else { return };
        // Each time round somebody comes back, so it ends.
        loop {
            let settled = self.settled(node_name, id);
            let (changed, strangers) = self.news(id, &settled);
            let lost = if settled.lost.is_empty() { self.book_uses(id, changed, strangers) } else { settled.lost };
            if lost.is_empty() {
                break;
            }
            for pod in lost {
                self.give_back(&pod, &format!("another pod on node {node_name} has got what it was given"));
            }
        }
        self.note_short(node_name);
    }

    /// What of that the books do not say yet.
    fn news(&self, id: NodeId, settled: &Settled) -> (Vec<(PodId, Grant)>, Vec<Part>) {
        let cluster = self.planner.cluster();
        let differs = |pod: PodId, grant: &Grant| cluster.runs_on(pod).is_some_and(|(_, has)| has != grant);
        let numbered = settled.grants.iter().filter_map(|(name, grant)| Some((self.pods.get(name)?.id?, grant)));
        let changed = numbered.filter(|(pod, grant)| differs(*pod, grant)).map(|(pod, grant)| (pod, grant.clone())).collect();
        (changed, cluster.node(id).map(|node| unheld(node, cluster.models(), &settled.strangers)).unwrap_or_default())
    }

    /// Books this. If it cannot be, pods that are only on the way there are in the way, which are returned; without any as much of it is booked
    /// as can be.
    fn book_uses(&mut self, node: NodeId, changed: Vec<(PodId, Grant)>, strangers: Vec<Part>) -> Vec<String> {
        if changed.is_empty() && strangers.is_empty() {
            return Vec::new();
        }
        let Err(refused) = self.planner.apply(Event::PodsUse(node, changed.clone(), strangers.clone())) else {
            tracing::debug!(node = self.node_names.get(&node), ?changed, ?strangers, "the books follow what is seen");
            self.changed = true;
            return Vec::new();
        };
        let gpus: BTreeSet<u8> = changed.iter().flat_map(|(_, grant)| &grant.0).chain(&strangers).map(|part| part.0).collect();
        let in_the_way = self.on_the_way_to(node, &gpus);
        if !in_the_way.is_empty() {
            return in_the_way;
        }
        tracing::debug!("a report is believed in part: {refused}");
        let has = |pod: PodId| self.planner.cluster().runs_on(pod).is_some_and(|(_, grant)| !grant.0.is_empty());
        let cleared = changed.iter().filter(|(pod, _)| has(*pod)).map(|(pod, _)| (*pod, Grant::default())).collect();
        // One that cannot be must not keep the others from what they have.
        let pods = changed.into_iter().map(|one| (vec![one], Vec::new()));
        let others = strangers.into_iter().map(|one| (Vec::new(), vec![one]));
        for (uses, strangers) in std::iter::once((cleared, Vec::new())).chain(pods).chain(others) {
            self.changed |= self.planner.apply(Event::PodsUse(node, uses, strangers)).is_ok();
        }
        Vec::new()
    }

    /// Pods that can still be sent elsewhere and are on their way to one of these GPUs.
    fn on_the_way_to(&self, node: NodeId, gpus: &BTreeSet<u8>) -> Vec<String> {
        let going = |name: &&String| {
            let flight = self.pods.get(*name).and_then(PodEntry::flight).filter(|flight| !flight.step.is_committed());
            flight.is_some_and(|flight| flight.grant.0.iter().any(|part| gpus.contains(&part.0)))
        };
        let flights = self.node_names.get(&node).and_then(|name| self.flights.get(name));
        flights.into_iter().flatten().filter(going).cloned().collect()
    }

    /// Who has what of a node's GPUs.
    fn settled(&self, node_name: &str, id: NodeId) -> Settled {
        let (cluster, Some(entry)) = (self.planner.cluster(), self.nodes.get(node_name)) else { return Settled::default() };
        let Some(node) = cluster.node(id) else { return Settled::default() };
        let mut tenants: Vec<Tenant> = node.pods.iter().filter_map(|&pod| self.tenant(id, pod)).collect();
        tenants.sort_by(|one, other| one.name.cmp(&other.name));
        let spots = spots(entry, node, cluster.models(), &tenants);
        uses::settle(spots, &tenants, &|want, part| means(want, part, node, cluster.models()))
    }

    /// A pod of a node that asks for GPUs.
    fn tenant(&self, node: NodeId, pod: PodId) -> Option<Tenant> {
        let name = self.pod_names.get(&pod)?;
        let entry = self.pods.get(name)?;
        let ask = &entry.spec.as_ref()?.demand.gpu;
        let (_, has) = self.planner.cluster().runs_on(pod).filter(|_| *ask != GpuAsk::None)?;
        let flight = entry.flight();
        let firm = flight.is_none_or(|flight| flight.step.is_committed());
        let written = match flight {
            Some(flight) => Some(flight.grant.clone()),
            None => self.written_grant(name, node, ask),
        };
        let wants = Want::of(ask);
        // What it turned out to have counts more than what was meant for it. Who did not start has what it was given, or nothing.
        let mut had = if firm { has.0.clone() } else { Vec::new() };
        if had.len() < wants.len() {
            let known = had.clone();
            had.extend(written.into_iter().flat_map(|grant| grant.0).filter(|part| !known.contains(part)));
        }
        Some(Tenant { name: name.clone(), wants, had, firm })
    }

    /// Notes who runs on a node with fewer GPUs in the books than it uses.
    fn note_short(&mut self, node_name: &str) {
        let is_short = |name: &&String| {
            let Some(entry) = self.pods.get(*name).filter(|entry| entry.stage == Stage::Runs) else { return false };
            let (Some(id), Some(spec)) = (entry.id, &entry.spec) else { return false };
            let has = self.planner.cluster().runs_on(id).map_or(0, |(_, grant)| grant.0.len());
            grants::can_be_guessed(&spec.demand.gpu) && has < Want::of(&spec.demand.gpu).len()
        };
        let short: BTreeSet<String> = self.bound.get(node_name).into_iter().flatten().filter(is_short).cloned().collect();
        if short.is_empty() {
            self.short.remove(node_name);
        } else {
            self.short.insert(node_name.to_owned(), short);
        }
    }

    /// A pod leaves its node, where somebody else may use what it was held to have: that is not free.
    pub(super) fn note_leaving(&mut self, name: &str) {
        let Some(entry) = self.pods.get(name) else { return };
        let Some((node_name, node)) = entry.on().and_then(|on| Some((on.to_owned(), self.nodes.get(on)?))) else { return };
        let ghosts: Vec<Ghost> = node.ghosts_now().filter(|ghost| ghost.user == name).collect();
        let shared = node.ghosts_now().any(|ghost| ghost.user != name);
        if let Some(node) = self.nodes.get_mut(&node_name) {
            node.ghosts.extend(ghosts);
        }
        if shared || self.short.contains_key(&node_name) {
            self.recheck.insert(node_name);
        }
    }
}

/// A user of a partition who is gone, though the agent still names them: another pod of the same name does not have it because of that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ghost {
    user: String,
    gpu: u8,
    part: (Option<String>, Option<u8>, Option<u32>, Option<u32>),
}

impl Ghost {
    fn of(user: &str, gpu: u8, one: &FoundPartition) -> Self {
        Self { user: user.to_owned(), gpu, part: (one.profile.clone(), one.start, one.memory_mib, one.milli) }
    }
}

impl NodeEntry {
    fn found(&self) -> impl Iterator<Item = &FoundGpu> {
        self.gpus.iter().flat_map(|gpus| &gpus.status.value.gpus)
    }

    /// The partitions and shares that its agent tells of, each with the index of its GPU.
    fn partitions(&self) -> impl Iterator<Item = (u8, &FoundPartition)> {
        self.found().flat_map(|gpu| gpu.partitions.iter().map(|one| (gpu.index, one)))
    }

    /// Users of whom the agent tells no more are forgotten.
    pub(super) fn lay_ghosts(&mut self) {
        if self.ghosts.is_empty() {
            return;
        }
        let said: BTreeSet<Ghost> = self.ghosts_now().collect();
        self.ghosts.retain(|ghost| said.contains(ghost));
    }

    /// What everybody of whom its agent tells will be once they are gone.
    fn ghosts_now(&self) -> impl Iterator<Item = Ghost> {
        let of_whole = self.found().flat_map(|gpu| gpu.users.iter().map(|user| Ghost::of(user, gpu.index, &FoundPartition::default())));
        self.partitions().flat_map(|(gpu, one)| one.users.iter().map(move |user| Ghost::of(user, gpu, one))).chain(of_whole)
    }

    /// Who uses a partition now.
    fn users_of(&self, gpu: u8, one: &FoundPartition) -> BTreeSet<String> {
        one.users.iter().filter(|user| !self.ghosts.contains(&Ghost::of(user, gpu, one))).cloned().collect()
    }
}

/// The parts of a node's GPUs that pods can have. Without an agent these are whole GPUs.
fn spots(entry: &NodeEntry, node: &Node, models: &Models, tenants: &[Tenant]) -> Vec<Spot> {
    let whole = |index: u8| Spot { part: (index, Use::Share(MILLI)), users: BTreeSet::new(), open: true, there: true };
    let mut spots: Vec<Spot> = if entry.has_agent() {
        entry.found().flat_map(|gpu| on_gpu(entry, node, models, gpu, tenants)).collect()
    } else {
        (0u8..).zip(&node.room.gpus).map(|(index, _)| whole(index)).collect()
    };
    for spot in &mut spots {
        spot.open &= node.room.gpus.get(usize::from(spot.part.0)).is_some_and(|gpu| gpu.fault.is_none());
    }
    spots.sort_by_key(|spot| spot.part);
    spots
}

fn on_gpu(entry: &NodeEntry, node: &Node, models: &Models, gpu: &FoundGpu, tenants: &[Tenant]) -> Vec<Spot> {
    let known = node.room.gpus.get(usize::from(gpu.index));
    let grid = known.and_then(|known| models.grid(known.model));
    let one = |one: &FoundPartition| {
        let used = match (gpu.cut, &one.profile, one.memory_mib, one.milli) {
            (Cut::Mig, Some(profile), ..) => Use::Partition(Placement { profile: grid?.resolve(profile).ok()?, start: one.start? }),
            (Cut::Mps, None, Some(memory_mib), _) => Use::Mps(memory_mib),
            (Cut::Shares, None, None, Some(milli)) => {
                return Some(Spot { open: milli == MILLI, ..spot(entry, gpu.index, one, Use::Share(milli)) });
            }
            _ => return None,
        };
        // What cannot be destroyed is not free.
        let found = crd::found_of(one)?;
        Some(Spot { open: !found.used, ..spot(entry, gpu.index, one, used) })
    };
    let mut spots: Vec<Spot> = gpu.partitions.iter().filter_map(one).collect();
    if gpu.cut != Cut::Shares {
        return spots;
    }
    // Who uses it without a share being named.
    for user in entry.users_of(gpu.index, &FoundPartition { users: gpu.users.clone(), ..FoundPartition::default() }) {
        let tenant = tenants.iter().find(|tenant| tenant.name == user);
        let milli = tenant.and_then(milli_of).unwrap_or(MILLI);
        match spots.iter_mut().find(|spot| spot.users.is_empty() && spot.part.1 == Use::Share(milli)) {
            Some(spot) => drop(spot.users.insert(user)),
            None => spots.push(Spot { part: (gpu.index, Use::Share(milli)), users: [user].into(), open: false, there: true }),
        }
    }
    if spots.is_empty() {
        spots.push(Spot { part: (gpu.index, Use::Share(MILLI)), users: BTreeSet::new(), open: true, there: true });
    }
    spots
}

fn spot(entry: &NodeEntry, gpu: u8, one: &FoundPartition, used: Use) -> Spot {
    Spot { part: (gpu, used), users: entry.users_of(gpu, one), open: true, there: true }
}

/// How much of a GPU a pod has that has a share.
fn milli_of(tenant: &Tenant) -> Option<u32> {
    let wants = tenant.wants.iter().map(|want| if let Want::Just(used) = want { Some(*used) } else { None });
    let had = tenant.had.iter().map(|part| Some(part.1));
    wants.chain(had).flatten().find_map(|used| if let Use::Share(milli) = used { Some(milli) } else { None })
}

/// Whether a part is what is wanted.
fn means(want: &Want, (index, used): Part, node: &Node, models: &Models) -> bool {
    match want {
        Want::Any => true,
        Want::Just(wanted) => *wanted == used,
        Want::Profile(name) => matches!(used, Use::Partition(place) if grants::is_called(index, place, name, node, models)),
    }
}

/// Parts that strangers use and that the books hold for nobody.
fn unheld(node: &Node, models: &Models, strangers: &[Part]) -> Vec<Part> {
    let holders = |(index, used): Part| -> Vec<Option<Holder>> {
        let Some(gpu) = node.room.gpus.get(usize::from(index)).filter(|gpu| gpu.fault.is_none()) else { return Vec::new() };
        match (used, &gpu.layout, models.layouts(gpu.model)) {
            (Use::Partition(place), Layout::Mig(mig), Some(layouts)) => {
                mig.partitions(layouts).filter(|one| one.placement == place).map(|one| one.holder).collect()
            }
            (Use::Mps(memory_mib), Layout::Mps(slices), _) => {
                slices.all.iter().filter(|one| one.memory_mib == memory_mib).map(|one| one.holder).collect()
            }
            _ => Vec::new(),
        }
    };
    let mut unheld: Vec<Part> = Vec::new();
    for alike in strangers.chunk_by(|one, other| one == other) {
        let known = holders(alike[0]).into_iter().filter(|holder| *holder == Some(Holder::Unknown)).count();
        unheld.extend(std::iter::repeat_n(alike[0], alike.len().saturating_sub(known)));
    }
    // Who shares a GPU without being known keeps others from all of it.
    unheld.retain(|part| !matches!(part.1, Use::Share(_)));
    unheld
}

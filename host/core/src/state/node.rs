//! One node and what is taken of it.

use super::{Entry, limits::Marks, room::Room};
use crate::model::{Demand, GpuAsk, MILLI, NodeSpec, PodId, ProfileName};

/// A node that the scheduler may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it has.
    pub spec: NodeSpec,
    /// What it has left now.
    pub room: Room,
    /// What it will have left: once those have left who were told to and those have come for whom room was made, and then once those have
    /// ended, too, for whom others wait to whom a place is kept. Empty if nobody has a claim on it.
    pub later: Vec<Room>,
    /// Pods that use it, sorted: those that run or start there, and those that are leaving.
    pub pods: Vec<PodId>,
    /// Pods that have a claim on it, in the order in which they got it.
    pub claims: Vec<PodId>,
    /// Pods on it that use GPUs, counted by the way they do, sorted.
    pub(crate) by_shape: Vec<(Shape, u32)>,
    /// Its labels and taints, as demands look at them.
    pub(crate) marks: Marks,
    /// Tells this node from an earlier one of the same number.
    pub(crate) incarnation: u64,
}

/// The way in which a demand uses GPUs; demands of one shape are alike to a policy that clusters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// Shares of this many GPUs.
    Share(u32),
    /// This many whole GPUs.
    Whole(u32),
    /// MIG partitions, by name and count.
    Mig(Vec<(String, u32)>),
    /// A share under MPS.
    Mps,
    /// A part of a GPU, however it is cut.
    Floor,
}

impl Shape {
    /// The shape of a demand; none if it asks for no GPU.
    #[must_use]
    pub fn of(demand: &Demand) -> Option<Self> {
        // One profile, however its name is written.
        let plain = |name: &String| ProfileName::parse(name).map_or_else(|_| name.clone(), |name| name.to_string());
        match &demand.gpu {
            GpuAsk::None => None,
            GpuAsk::Share { count, milli: MILLI } => Some(Self::Whole(*count)),
            GpuAsk::Share { count, .. } => Some(Self::Share(*count)),
            GpuAsk::Mig { partitions } => Some(Self::Mig(partitions.iter().map(|(name, count)| (plain(name), *count)).collect())),
            GpuAsk::Mps { .. } => Some(Self::Mps),
            GpuAsk::Floor { .. } => Some(Self::Floor),
        }
    }
}

impl Node {
    pub(super) fn new(spec: NodeSpec, room: Room, incarnation: u64) -> Self {
        Self {
            spec,
            room,
            later: Vec::new(),
            pods: Vec::new(),
            claims: Vec::new(),
            by_shape: Vec::new(),
            marks: Marks::default(),
            incarnation,
        }
    }

    /// Pods on the node that use GPUs.
    #[must_use]
    pub fn gpu_pods(&self) -> u32 {
        self.by_shape.iter().map(|(_, count)| count).sum()
    }

    /// Pods on the node that use GPUs in the way `shape`.
    #[must_use]
    pub fn like_pods(&self, shape: Option<&Shape>) -> u32 {
        let row = shape.and_then(|shape| self.by_shape.binary_search_by_key(&shape, |entry| &entry.0).ok());
        row.map_or(0, |row| self.by_shape[row].1)
    }

    /// What may be promised to others: what is left now, or later where that is less in cpu and memory.
    #[must_use]
    pub fn spare(&self) -> (u32, u32) {
        let least = |(cpu, memory): (u32, u32), later: &Room| (cpu.min(later.cpu_free), memory.min(later.memory_free));
        self.later.iter().fold((self.room.cpu_free, self.room.memory_free), least)
    }

    /// How many pods of a demand there is enough for of everything but GPUs.
    pub(crate) fn copies_plain(&self, entry: &Entry) -> u32 {
        std::iter::once(&self.room).chain(&self.later).map(|room| room.copies_plain(entry)).min().unwrap_or(0)
    }

    /// What it has of everything but GPUs when nobody uses it.
    pub(crate) fn idle_plain(&self) -> Room {
        Room {
            cpu_free: self.spec.cpu_milli,
            memory_free: self.spec.memory_mib,
            owed: (0, 0),
            gpus: Vec::new(),
            stock: self.room.stock.idle(),
        }
    }

    /// Whether a port that a demand takes is in use, now or later.
    pub(crate) fn port_taken(&self, entry: &Entry) -> bool {
        let mut rooms = std::iter::once(&self.room).chain(&self.later);
        entry.limits.as_ref().is_some_and(|limits| rooms.any(|room| room.stock.conflicts(limits)))
    }

    /// The first of the other resources of which a demand asks for more than there is, now or later, with how much more.
    pub(crate) fn short_of(&self, entry: &Entry) -> Option<(u32, u64)> {
        let free = |resource| std::iter::once(&self.room).chain(&self.later).map(|room| room.stock.free(resource)).min().unwrap_or(0);
        let amounts = entry.limits.as_ref()?.extra.iter();
        amounts.map(|&(resource, amount)| (resource, amount.saturating_sub(free(resource)))).find(|short| short.1 > 0)
    }

    pub(crate) fn add_pod(&mut self, pod: PodId, shape: Option<&Shape>) {
        if let Err(row) = self.pods.binary_search(&pod) {
            self.pods.insert(row, pod);
            self.count(shape, 1);
        }
    }

    pub(crate) fn remove_pod(&mut self, pod: PodId, shape: Option<&Shape>) {
        if let Ok(row) = self.pods.binary_search(&pod) {
            self.pods.remove(row);
            self.count(shape, -1);
        }
    }

    fn count(&mut self, shape: Option<&Shape>, change: i32) {
        let Some(shape) = shape else { return };
        match self.by_shape.binary_search_by_key(&shape, |entry| &entry.0) {
            Ok(row) => {
                self.by_shape[row].1 = self.by_shape[row].1.saturating_add_signed(change);
                if self.by_shape[row].1 == 0 {
                    self.by_shape.remove(row);
                }
            }
            Err(row) if change > 0 => self.by_shape.insert(row, (shape.clone(), change.unsigned_abs())),
            Err(_) => {}
        }
    }
}

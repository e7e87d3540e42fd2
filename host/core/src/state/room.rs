//! What a node has left, and how a grant changes it.

mod stock;

use serde::Serialize;
pub(crate) use stock::Stock;

use super::{
    Entry,
    catalogue::Models,
    gpu::{Gpu, Holder, Layout},
};
use crate::model::{Cut, NodeSpec, Placement, PodId};

/// What a pod uses of one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Use {
    /// Thousandths of it.
    Share(u32),
    /// A MIG partition.
    Partition(Placement),
    /// A share under MPS of this memory, MiB.
    Mps(u32),
}

impl Use {
    /// How a GPU must be cut for it.
    #[must_use]
    pub fn cut(self) -> Cut {
        match self {
            Self::Share(_) => Cut::Shares,
            Self::Partition(_) => Cut::Mig,
            Self::Mps(_) => Cut::Mps,
        }
    }
}

/// What a pod uses of the GPUs of its node: GPU index and amount, sorted by index. Only partitions may share an index.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Grant(pub Vec<(u8, Use)>);

impl Grant {
    /// The parts on each GPU.
    pub fn by_gpu(&self) -> impl Iterator<Item = (u8, &[(u8, Use)])> {
        self.0.chunk_by(|a, b| a.0 == b.0).map(|parts| (parts[0].0, parts))
    }
}

/// What has to be done to a GPU before a pod can use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Change {
    /// Cut it another way. All of its warm partitions go.
    Cut(Cut),
    /// Destroy a warm MIG partition.
    Destroy(Placement),
    /// Withdraw a warm share under MPS of this memory, MiB.
    Withdraw(u32),
}

/// What a node has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Free cpu, milli-cores.
    pub cpu_free: u32,
    /// Free memory, MiB.
    pub memory_free: u32,
    /// Cpu, milli-cores, and memory, MiB, that run there beyond what the node has: of pods that others put there, or since it shrank.
    pub(crate) owed: (u32, u32),
    /// Its GPUs, in the order of their indices.
    pub gpus: Vec<Gpu>,
    /// Other resources, and ports.
    pub(crate) stock: Stock,
}

impl Room {
    /// What a node of `spec` with these GPUs has when no pod runs there, other resources aside.
    pub(super) fn of(spec: &NodeSpec, gpus: Vec<Gpu>) -> Self {
        Self { cpu_free: spec.cpu_milli, memory_free: spec.memory_mib, owed: (0, 0), gpus, stock: Stock::default() }
    }

    /// Gives a pod what `grant` says and returns what has to be done to GPUs before it can run.
    ///
    /// None if the grant does not fit; then the room is worthless, since a part of the grant may have been taken.
    pub(crate) fn take(&mut self, models: &Models, entry: &Entry, grant: &Grant, pod: PodId) -> Option<Vec<(u8, Change)>> {
        self.take_plain(entry)?;
        self.take_gpus(models, grant, pod)
    }

    /// Books a pod that runs whether there is room or not: what the node does not have it owes, and what a pod uses of a GPU that is set aside
    /// nobody can book. None, with nothing booked but what is not GPU, if the other GPUs cannot be used so.
    pub(super) fn book(&mut self, models: &Models, entry: &Entry, grant: &Grant, pod: PodId) -> Option<()> {
        let charge = |free: &mut u32, owed: &mut u32, asked: u32| {
            let paid = asked.min(*free);
            *free -= paid;
            *owed = owed.saturating_add(asked - paid);
        };
        charge(&mut self.cpu_free, &mut self.owed.0, entry.demand.cpu_milli);
        charge(&mut self.memory_free, &mut self.owed.1, entry.demand.memory_mib);
        if let Some(limits) = &entry.limits {
            self.stock.book(limits);
        }
        self.book_gpus(models, grant, pod)
    }

    /// Books what a pod that runs uses of GPUs. None, with nothing booked, if they cannot be used so.
    pub(super) fn book_gpus(&mut self, models: &Models, grant: &Grant, pod: PodId) -> Option<()> {
        // A partition that was found in use is the pod's.
        let mut room = self.clone();
        let well = |index: u8| room.gpus.get(usize::from(index)).is_none_or(|gpu| gpu.fault.is_none());
        let grant = Grant(grant.0.iter().copied().filter(|part| well(part.0)).collect());
        room.identify(models, &grant);
        room.take_gpus(models, &grant, pod)?;
        *self = room;
        Some(())
    }

    fn take_gpus(&mut self, models: &Models, grant: &Grant, pod: PodId) -> Option<Vec<(u8, Change)>> {
        let mut changes = Vec::new();
        for (index, parts) in grant.by_gpu() {
            let gpu = self.gpus.get_mut(usize::from(index))?;
            take_gpu(models, gpu, parts, pod, &mut |change| changes.push((index, change)))?;
        }
        Some(changes)
    }

    /// Takes everything but GPUs. None if it does not fit; then a part of it may have been taken.
    pub(crate) fn take_plain(&mut self, entry: &Entry) -> Option<()> {
        self.cpu_free = self.cpu_free.checked_sub(entry.demand.cpu_milli)?;
        self.memory_free = self.memory_free.checked_sub(entry.demand.memory_mib)?;
        entry.limits.as_ref().map_or(Some(()), |limits| self.stock.take(limits))
    }

    /// Whether [`Room::take`] would succeed.
    #[must_use]
    pub(crate) fn fits(&self, models: &Models, entry: &Entry, grant: &Grant) -> bool {
        self.fits_plain(entry) && self.clone().take(models, entry, grant, PodId(u32::MAX)).is_some()
    }

    /// Whether there is enough of everything but GPUs.
    #[must_use]
    pub(crate) fn fits_plain(&self, entry: &Entry) -> bool {
        self.cpu_free >= entry.demand.cpu_milli
            && self.memory_free >= entry.demand.memory_mib
            && entry.limits.as_ref().is_none_or(|limits| self.stock.holds(limits))
    }

    /// How many pods of a demand there is enough for of everything but GPUs; [`u32::MAX`] if it asks for nothing else.
    pub(super) fn copies_plain(&self, entry: &Entry) -> u32 {
        let by = |free: u32, each: u32| free.checked_div(each).unwrap_or(u32::MAX);
        let plain = by(self.cpu_free, entry.demand.cpu_milli).min(by(self.memory_free, entry.demand.memory_mib));
        entry.limits.as_ref().map_or(plain, |limits| plain.min(self.stock.copies(limits)))
    }

    /// Takes back what a pod uses of GPUs other than those just `found`, on which it has nothing yet.
    pub(super) fn release_gpus(&mut self, models: &Models, grant: &Grant, pod: PodId, found: &[(u8, Gpu)]) {
        for &(index, used) in grant.0.iter().filter(|part| found.iter().all(|(index, _)| *index != part.0)) {
            if let Some(gpu) = self.gpus.get_mut(usize::from(index)).filter(|gpu| gpu.fault.is_none()) {
                gpu.give_back(models, used, Holder::Pod(pod));
            }
        }
    }

    /// Makes warm what was found in use, so that it can be given to the pod that turned out to use it.
    fn identify(&mut self, models: &Models, grant: &Grant) {
        for &(index, used) in &grant.0 {
            if let Some(gpu) = self.gpus.get_mut(usize::from(index)).filter(|_| used.cut() != Cut::Shares) {
                gpu.give_back(models, used, Holder::Unknown);
            }
        }
    }

    /// Takes back everything but GPUs.
    pub(crate) fn give_back_plain(&mut self, entry: &Entry) {
        let refund = |free: &mut u32, owed: &mut u32, amount: u32| {
            let repaid = amount.min(*owed);
            *owed -= repaid;
            *free += amount - repaid;
        };
        refund(&mut self.cpu_free, &mut self.owed.0, entry.demand.cpu_milli);
        refund(&mut self.memory_free, &mut self.owed.1, entry.demand.memory_mib);
        if let Some(limits) = &entry.limits {
            self.stock.give_back(limits);
        }
    }

    /// Takes back what `grant` gave to a pod. Its partitions stay, warm.
    pub(crate) fn give_back(&mut self, models: &Models, entry: &Entry, grant: &Grant, pod: PodId) {
        self.give_back_plain(entry);
        for &(index, used) in &grant.0 {
            // Of a GPU that is set aside nothing was booked.
            if let Some(gpu) = self.gpus.get_mut(usize::from(index)).filter(|gpu| gpu.fault.is_none()) {
                gpu.give_back(models, used, Holder::Pod(pod));
            }
        }
    }
}

impl Gpu {
    /// Takes back what `holder` uses. A partition stays, warm; what they do not have is ignored.
    pub(crate) fn give_back(&mut self, models: &Models, used: Use, holder: Holder) {
        match (used, &mut self.layout) {
            (Use::Share(milli), Layout::Shares { free }) => *free += milli,
            (Use::Partition(placement), Layout::Mig(mig)) => {
                if let Some(layouts) = models.layouts(self.model) {
                    mig.release(layouts, self.model, placement, holder);
                }
            }
            (Use::Mps(memory_mib), Layout::Mps(slices)) => {
                slices.release(memory_mib, holder);
            }
            _ => {}
        }
    }
}

fn take_gpu(models: &Models, gpu: &mut Gpu, parts: &[(u8, Use)], pod: PodId, changed: &mut dyn FnMut(Change)) -> Option<()> {
    let cut = parts.first()?.1.cut();
    if gpu.fault.is_some() || parts.iter().any(|part| part.1.cut() != cut) || (cut != Cut::Mig && parts.len() > 1) {
        return None;
    }
    if gpu.cut() != cut {
        if !gpu.is_idle() {
            return None;
        }
        changed(Change::Cut(cut));
        *gpu = Gpu::idle(models, gpu.model, cut)?;
    }
    match (&mut gpu.layout, parts[0].1) {
        (Layout::Shares { free }, Use::Share(milli)) => *free = free.checked_sub(milli)?,
        (Layout::Mps(slices), Use::Mps(memory_mib)) => {
            for gone in slices.fit(memory_mib)?.withdrawn {
                changed(Change::Withdraw(gone));
            }
            slices.take(memory_mib, Holder::Pod(pod));
        }
        (Layout::Mig(mig), _) => {
            let places: Vec<Placement> =
                parts.iter().filter_map(|part| if let Use::Partition(place) = part.1 { Some(place) } else { None }).collect();
            for gone in mig.take(models.layouts(gpu.model)?, gpu.model, &places, Holder::Pod(pod))? {
                changed(Change::Destroy(gone));
            }
        }
        _ => return None,
    }
    Some(())
}

/// A GPU without users as it would be if it were cut another way; itself if it is cut so already.
#[must_use]
pub(crate) fn recut<'g>(models: &Models, gpu: &'g Gpu, cut: Cut) -> Option<std::borrow::Cow<'g, Gpu>> {
    if gpu.cut() == cut {
        return Some(std::borrow::Cow::Borrowed(gpu));
    }
    if gpu.is_idle() { Gpu::idle(models, gpu.model, cut).map(std::borrow::Cow::Owned) } else { None }
}

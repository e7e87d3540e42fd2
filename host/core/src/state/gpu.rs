//! One GPU: how it is cut, and what is taken of it.

use std::fmt;

use super::{
    catalogue::Models,
    mps::{Slice, Slices},
};
use crate::{
    layout::{Layouts, NotALayout, Occupancy, State},
    model::{Cut, Found, GpuSpec, MILLI, ModelId, Placement, PodId, SlotMask},
};

/// Who uses a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A pod.
    Pod(PodId),
    /// Somebody that nobody told of: never disturbed.
    Unknown,
}

/// A partition that exists on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Where it lies.
    pub placement: Placement,
    /// Who uses it; none for a warm partition.
    pub holder: Option<Holder>,
}

/// The partitions of a GPU that MIG cuts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mig {
    used: State,
    exists: State,
    /// Who uses each partition in use, sorted by place.
    users: Vec<(Placement, Holder)>,
    /// Slots of partitions in use.
    pub used_slots: SlotMask,
    /// Slots of warm partitions.
    pub warm_slots: SlotMask,
}

/// What is taken of one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Whole or time-sliced: the milli-GPU left.
    Shares {
        /// Free, 0 to 1000.
        free: u32,
    },
    /// MIG partitions.
    Mig(Mig),
    /// Shares under MPS.
    Mps(Slices),
}

/// One GPU of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its model.
    pub model: ModelId,
    /// What is taken of it.
    pub layout: Layout,
    /// Why it is set aside: what was found on it cannot be. Nothing is placed there.
    pub fault: Option<GpuFault>,
}

/// What makes a GPU unusable until it is looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuFault {
    /// A profile that the model does not have.
    #[error("it has a partition of profile {0}, which its model does not have; destroy it, or describe the model as its driver does")]
    Profile(String),
    /// Partitions that cannot be on one GPU together.
    #[error("the partitions found cannot be on one GPU: {0}; let the node's agent look again")]
    Layout(NotALayout),
    /// More memory promised than there is.
    #[error("its shares take {taken} MiB of {capacity} MiB; remove some")]
    Memory {
        /// Memory of all shares.
        taken: u64,
        /// Memory that can be promised.
        capacity: u32,
    },
    /// Two GPUs with one UUID.
    #[error("node {0} has a GPU of the same UUID; one of the two reports is wrong")]
    Uuid(String),
    /// Kept for a pod: only ever seen by a pod that would have others go.
    #[error("it is kept for another pod")]
    Kept,
    /// The outside says that it cannot be used.
    #[error("it is set aside: {0}")]
    Unusable(String),
    /// A partition of a kind that its cut does not have.
    #[error("it is cut by {0}, but has a partition of another kind; let the node's agent look again")]
    Kind(Cut),
}

impl Mig {
    /// A GPU without partitions.
    #[must_use]
    pub fn empty(layouts: &Layouts) -> Self {
        let none = layouts.empty();
        Self { used: none, exists: none, users: Vec::new(), used_slots: SlotMask::EMPTY, warm_slots: SlotMask::EMPTY }
    }

    /// As the algebra of layouts sees it.
    #[must_use]
    pub fn occupancy<'l>(&self, layouts: &'l Layouts, model: ModelId) -> Occupancy<'l> {
        Occupancy::of(layouts, model.0, self.used, self.exists)
    }

    /// The layout of the partitions in use.
    #[must_use]
    pub fn used(&self) -> State {
        self.used
    }

    /// Whether a partition exists that nobody uses.
    #[must_use]
    pub fn has_warm(&self) -> bool {
        self.used != self.exists
    }

    /// Who uses which partition, sorted by place.
    #[must_use]
    pub fn users(&self) -> &[(Placement, Holder)] {
        &self.users
    }

    /// All partitions, in use and warm, in the order of profile and first slot.
    pub fn partitions<'a>(&'a self, layouts: &'a Layouts) -> impl Iterator<Item = Partition> + 'a {
        layouts.placements(self.exists).map(|placement| Partition { placement, holder: self.holder(placement) })
    }

    fn holder(&self, placement: Placement) -> Option<Holder> {
        self.users.iter().find(|user| user.0 == placement).map(|user| user.1)
    }

    /// Gives the partitions at `places` to `holder` and returns the warm partitions that had to go; none, and nothing done, if they do
    /// not fit.
    pub(crate) fn take(&mut self, layouts: &Layouts, model: ModelId, places: &[Placement], holder: Holder) -> Option<Vec<Placement>> {
        let gpu = self.occupancy(layouts, model);
        let (after, gone) = gpu.after(gpu.take_all(places.iter().copied())?);
        self.users.extend(places.iter().map(|&place| (place, holder)));
        self.users.sort_unstable();
        self.enter(layouts, &after);
        Some(gone)
    }

    /// Takes the partition at `placement` from `holder`; it stays, warm. False if they do not have it.
    pub(crate) fn release(&mut self, layouts: &Layouts, model: ModelId, placement: Placement, holder: Holder) -> bool {
        let Some(row) = self.users.iter().position(|user| *user == (placement, holder)) else { return false };
        let Some(after) = self.occupancy(layouts, model).release(placement) else { return false };
        self.users.remove(row);
        self.enter(layouts, &after);
        true
    }

    fn enter(&mut self, layouts: &Layouts, after: &Occupancy<'_>) {
        (self.used, self.exists) = (after.used(), after.exists());
        self.used_slots = layouts.slots(self.used);
        self.warm_slots = layouts.slots(self.exists).minus(self.used_slots);
    }
}

impl Gpu {
    /// A GPU of `model` without partitions; none if the model cannot be cut so.
    #[must_use]
    pub fn idle(models: &Models, model: ModelId, cut: Cut) -> Option<Self> {
        let layout = match cut {
            Cut::Shares => Layout::Shares { free: MILLI },
            Cut::Mig => Layout::Mig(Mig::empty(models.layouts(model)?)),
            Cut::Mps => Layout::Mps(Slices::empty(models.mps_mib(model)?)),
        };
        Some(Self { model, layout, fault: None })
    }

    /// A GPU with the partitions that were found on it. What cannot be sets the GPU aside. None if its model cannot be cut so.
    #[must_use]
    pub(crate) fn found(models: &Models, model: ModelId, spec: &GpuSpec) -> Option<Self> {
        let mut gpu = Self::idle(models, model, spec.cut)?;
        gpu.fault = match &mut gpu.layout {
            Layout::Shares { .. } => (!spec.found.is_empty()).then_some(GpuFault::Kind(spec.cut)),
            Layout::Mig(mig) => adopt(models, model, mig, &spec.found).err(),
            Layout::Mps(slices) => adopt_slices(slices, &spec.found).err(),
        };
        gpu.fault = spec.unusable.clone().map(GpuFault::Unusable).or(gpu.fault);
        Some(gpu)
    }

    /// How it is cut.
    #[must_use]
    pub fn cut(&self) -> Cut {
        match self.layout {
            Layout::Shares { .. } => Cut::Shares,
            Layout::Mig(_) => Cut::Mig,
            Layout::Mps(_) => Cut::Mps,
        }
    }

    /// Warm partitions that it has.
    #[must_use]
    pub fn warm(&self) -> u32 {
        match &self.layout {
            Layout::Shares { .. } => 0,
            Layout::Mig(mig) => mig.exists.partitions() - mig.used.partitions(),
            Layout::Mps(slices) => slices.all.iter().filter(|one| one.holder.is_none()).count() as u32,
        }
    }

    /// Whether nothing but the names of its users tells it from `other`.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let alike = match (&self.layout, &other.layout) {
            (Layout::Shares { free }, Layout::Shares { free: others }) => free == others,
            (Layout::Mig(mig), Layout::Mig(others)) => mig.used == others.used && mig.exists == others.exists,
            (Layout::Mps(slices), Layout::Mps(others)) => slices.is_like(others),
            _ => false,
        };
        alike && self.model == other.model && self.fault.is_none() && other.fault.is_none()
    }

    /// Whether nobody uses it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        match &self.layout {
            Layout::Shares { free } => *free == MILLI,
            Layout::Mig(mig) => mig.users.is_empty(),
            Layout::Mps(slices) => slices.used_mib() == 0,
        }
    }

    /// Free share in milli-GPU: of slots without a user under MIG, of memory without a user under MPS.
    #[must_use]
    pub fn free_milli(&self, slots: u32) -> u32 {
        let part = |used: u32, all: u32| MILLI - (u64::from(used) * u64::from(MILLI)).div_ceil(all.max(1).into()).min(MILLI.into()) as u32;
        match &self.layout {
            Layout::Shares { free } => *free,
            Layout::Mig(mig) => part(mig.used_slots.len(), slots),
            Layout::Mps(slices) => part(slices.used_mib(), slices.capacity_mib),
        }
    }

    /// Free share for a pod that asks for shares: nothing on a GPU that is cut otherwise or set aside.
    #[must_use]
    pub fn share_free(&self) -> u32 {
        match self.layout {
            Layout::Shares { free } if self.fault.is_none() => free,
            _ => 0,
        }
    }
}

/// Takes over the partitions found on a GPU, with users where they have one.
fn adopt(models: &Models, model: ModelId, mig: &mut Mig, found: &[Found]) -> Result<(), GpuFault> {
    let (Some(grid), Some(layouts)) = (models.grid(model), models.layouts(model)) else { return Ok(()) };
    let mut used = Vec::new();
    let mut warm = Vec::new();
    for one in found {
        let name = one.profile.as_ref().ok_or(GpuFault::Kind(Cut::Mig))?;
        let profile = grid.resolve(name).map_err(|_| GpuFault::Profile(name.clone()))?;
        if one.used { &mut used } else { &mut warm }.push(Placement { profile, start: one.start });
    }
    let occupancy = Occupancy::new(layouts, model.0, &used, &warm).map_err(GpuFault::Layout)?;
    used.sort_unstable();
    mig.users = used.into_iter().map(|placement| (placement, Holder::Unknown)).collect();
    mig.enter(layouts, &occupancy);
    Ok(())
}

fn adopt_slices(slices: &mut Slices, found: &[Found]) -> Result<(), GpuFault> {
    if found.iter().any(|one| one.profile.is_some() || one.memory_mib == 0) {
        return Err(GpuFault::Kind(Cut::Mps));
    }
    let taken = found.iter().map(|one| u64::from(one.memory_mib)).sum();
    if taken > u64::from(slices.capacity_mib) {
        return Err(GpuFault::Memory { taken, capacity: slices.capacity_mib });
    }
    let holder = |used: bool| used.then_some(Holder::Unknown);
    slices.all = found.iter().map(|one| Slice { memory_mib: one.memory_mib, holder: holder(one.used) }).collect();
    slices.all.sort_unstable();
    Ok(())
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(id) => write!(f, "pod {}", id.0),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

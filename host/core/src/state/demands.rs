//! Demands by number, and the mix that policies are told to expect.

use std::collections::BTreeMap;

use super::{
    Node,
    catalogue::Models,
    crowds::CrowdId,
    limits::{Barrier, Limits},
    names::Names,
    near::{Lookup, Near},
    node::Shape,
};
use crate::model::{Demand, DemandId, GpuAsk, Isolation, MILLI, ModelId, Profile, ProfileId};

/// Partitions of one kind that a demand asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The profile's row on each model that has it and is accepted, sorted by model.
    pub rows: Vec<(ModelId, u8)>,
    /// How many.
    pub count: u32,
}

impl Wanted {
    /// The profile's row on a GPU of `model`.
    #[must_use]
    pub fn row(&self, model: ModelId) -> Option<u8> {
        self.rows.binary_search_by_key(&model, |row| row.0).ok().map(|row| self.rows[row].1)
    }
}

/// A demand with everything that can be looked up once.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The demand.
    pub demand: Demand,
    /// The way it uses GPUs.
    pub shape: Option<Shape>,
    /// Models of the cluster that it accepts, sorted; empty for all. Names that no node has are left out.
    pub models: Vec<ModelId>,
    /// Whether it names models and the cluster has none of them.
    pub no_model: bool,
    /// Kinds of MIG partition that it asks for by name.
    pub wants: Vec<Wanted>,
    /// Profiles of accepted models that serve it, sorted: those asked for by name, or those large enough.
    pub profiles: Vec<ProfileId>,
    /// Selectors, affinity to nodes, tolerations, ports and amounts of other resources; none where it has none of them.
    pub(crate) limits: Option<Box<Limits>>,
    /// What pods on other nodes mean to it; none where they mean nothing.
    pub(crate) near: Option<Box<Near>>,
    /// The crowds that its pods belong to, sorted, of those that somebody's constraints name.
    pub(crate) crowds: Vec<CrowdId>,
}

impl Entry {
    pub(crate) fn new(demand: Demand, crowds: Vec<CrowdId>, models: &Models, lookup: &mut Lookup) -> Self {
        let mut accepted: Vec<ModelId> = demand.models.iter().filter_map(|name| models.id(name)).collect();
        accepted.sort_unstable();
        let no_model = accepted.is_empty() && !demand.models.is_empty();
        let (shape, limits) = (Shape::of(&demand), Limits::of(&demand, &mut lookup.names));
        let near = Near::of(demand.constraints.as_deref(), lookup);
        let (wants, profiles) = (Vec::new(), Vec::new());
        let mut entry = Self { shape, models: accepted, no_model, wants, profiles, limits, near, crowds, demand };
        if let GpuAsk::Mig { partitions } = &entry.demand.gpu {
            // What no model has is wanted all the same: a demand without wants would fit anywhere.
            let rows = |name: &str| if no_model { Vec::new() } else { models.rows_named(name, &entry.models) };
            entry.wants = partitions.iter().map(|(name, count)| Wanted { rows: rows(name), count: *count }).collect();
        }
        if no_model {
            return entry;
        }
        entry.profiles = match entry.demand.gpu {
            GpuAsk::Floor { memory_mib, compute, .. } => large_enough(models, &entry.models, memory_mib, compute),
            _ => entry.wants.iter().flat_map(|want| &want.rows).map(|&(model, row)| models.profile_of(model, row)).collect(),
        };
        entry.profiles.sort_unstable();
        entry.profiles.dedup();
        entry
    }

    /// Whether a GPU of `model` will do.
    #[must_use]
    pub fn accepts(&self, model: ModelId) -> bool {
        !self.no_model && (self.models.is_empty() || self.models.binary_search(&model).is_ok())
    }

    /// Whether a pod may run on the node, as far as the node's labels and taints decide.
    #[must_use]
    pub(crate) fn admitted(&self, node: &Node, names: &Names) -> bool {
        self.limits.as_ref().map_or(!node.marks.bars, |limits| limits.admit(&node.marks, names))
    }

    /// Whether a pod's selector and affinity match the node.
    #[must_use]
    pub(crate) fn attracted(&self, node: &Node, names: &Names) -> bool {
        self.limits.as_ref().is_none_or(|limits| limits.attracts(&node.marks, names))
    }

    /// Whether a pod bears every taint of the node that keeps pods away.
    #[must_use]
    pub(crate) fn bears_taints(&self, node: &Node) -> bool {
        self.limits.as_deref().unwrap_or(&Limits::NONE).bears(&node.marks)
    }

    /// What keeps a pod from the node whatever is free on it.
    #[must_use]
    pub(crate) fn barrier(&self, node: &Node, names: &Names) -> Option<Barrier> {
        self.limits.as_deref().unwrap_or(&Limits::NONE).barrier(&node.marks, names)
    }

    /// Whether its pods belong to a crowd.
    #[must_use]
    pub(crate) fn is_of(&self, crowd: CrowdId) -> bool {
        self.crowds.binary_search(&crowd).is_ok()
    }

    /// Whether anybody may ask next to whom its pods run.
    pub(crate) fn is_counted(&self) -> bool {
        !self.crowds.is_empty() || self.near.as_ref().is_some_and(|near| !near.apart.is_empty())
    }

    /// How much a pod prefers the node, by the node's labels and taints.
    #[must_use]
    pub(crate) fn preference(&self, node: &Node, names: &Names) -> i64 {
        if self.limits.is_none() && !node.marks.shuns {
            return 0;
        }
        self.limits.as_deref().unwrap_or(&Limits::NONE).preference(&node.marks, names)
    }

    /// The one partition that the demand asks for, if it asks for one.
    #[must_use]
    pub fn single(&self) -> Option<&Wanted> {
        if let [want] = self.wants.as_slice() { (want.count == 1).then_some(want) } else { None }
    }

    /// The time-sliced share of a GPU of `model` that serves a demand for a part of a GPU: the larger of its parts of memory and
    /// compute, milli-GPU. None if no share of the model does, or its memory is not known.
    #[must_use]
    pub fn share_of(&self, models: &Models, model: ModelId) -> Option<u32> {
        let GpuAsk::Floor { memory_mib, compute, isolation: Isolation::Shared } = self.demand.gpu else { return None };
        let all = u64::from(models.get(model).memory_mib);
        if all == 0 {
            return None;
        }
        let memory = (u64::from(memory_mib) * u64::from(MILLI)).div_ceil(all);
        let milli = memory.max(u64::from(compute) * u64::from(MILLI) / 100);
        (milli <= u64::from(MILLI)).then_some(milli as u32)
    }
}

/// Profiles with at least this memory, MiB, and this part of the GPU's compute, percent.
fn large_enough(models: &Models, accepted: &[ModelId], memory_mib: u32, compute: u32) -> Vec<ProfileId> {
    let of_model = |model: ModelId| {
        let grid = models.grid(model)?;
        let enough =
            |profile: &Profile| profile.memory_mib >= memory_mib && u32::from(profile.compute) * 100 >= compute * u32::from(grid.compute);
        let rows = (0u8..).zip(&grid.profiles).filter(move |(_, profile)| enough(profile));
        Some(rows.map(move |(row, _)| models.profile_of(model, row)).collect::<Vec<_>>())
    };
    models.accepted(accepted).filter_map(of_model).flatten().collect()
}

/// All demands seen, by number.
#[derive(Clone, Debug, Default)]
pub struct Demands {
    entries: Vec<Entry>,
    /// By the demand, and the crowds that the pod belongs to: pods of one number are interchangeable.
    ids: BTreeMap<Demand, BTreeMap<Vec<CrowdId>, DemandId>>,
}

impl Demands {
    /// The number of `demand` of a pod that belongs to `crowds`, given now if it is new.
    pub(crate) fn intern(&mut self, demand: &Demand, crowds: Vec<CrowdId>, models: &Models, lookup: &mut Lookup) -> DemandId {
        if let Some(&id) = self.ids.get(demand).and_then(|ids| ids.get(&crowds)) {
            return id;
        }
        let id = DemandId::new(self.entries.len());
        self.entries.push(Entry::new(demand.clone(), crowds.clone(), models, lookup));
        self.ids.entry(demand.clone()).or_default().insert(crowds, id);
        id
    }

    /// Looks everything up again after the cluster's models changed.
    pub(crate) fn resolve(&mut self, models: &Models, lookup: &mut Lookup) {
        for entry in &mut self.entries {
            *entry = Entry::new(entry.demand.clone(), std::mem::take(&mut entry.crowds), models, lookup);
        }
    }

    /// The demand numbered `id`.
    #[must_use]
    pub fn get(&self, id: DemandId) -> &Entry {
        &self.entries[id.index()]
    }
}

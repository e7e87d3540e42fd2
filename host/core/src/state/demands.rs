//! Demands by number, and the mix that policies are told to expect.

use std::collections::BTreeMap;

use super::{catalogue::Models, node::Shape};
use crate::model::{Demand, DemandId, GpuAsk, ModelId, ProfileId};

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
    /// Profiles of accepted models that serve it, sorted.
    pub profiles: Vec<ProfileId>,
}

impl Entry {
    pub(crate) fn new(demand: Demand, models: &Models) -> Self {
        let mut accepted: Vec<ModelId> = demand.models.iter().filter_map(|name| models.id(name)).collect();
        accepted.sort_unstable();
        let profiles = match &demand.gpu {
            GpuAsk::Mig { profile } => models.profiles_named(profile, &accepted),
            GpuAsk::None | GpuAsk::Share { .. } => Vec::new(),
        };
        let no_model = accepted.is_empty() && !demand.models.is_empty();
        Self { shape: Shape::of(&demand), models: accepted, no_model, profiles, demand }
    }

    /// Whether a GPU of `model` will do.
    #[must_use]
    pub fn accepts(&self, model: ModelId) -> bool {
        !self.no_model && (self.models.is_empty() || self.models.binary_search(&model).is_ok())
    }
}

/// All demands seen, by number.
#[derive(Clone, Debug, Default)]
pub struct Demands {
    entries: Vec<Entry>,
    ids: BTreeMap<Demand, DemandId>,
}

impl Demands {
    /// The number of `demand`, given now if it is new.
    pub(crate) fn intern(&mut self, demand: &Demand, models: &Models) -> DemandId {
        if let Some(&id) = self.ids.get(demand) {
            return id;
        }
        let id = DemandId::new(self.entries.len());
        self.entries.push(Entry::new(demand.clone(), models));
        self.ids.insert(demand.clone(), id);
        id
    }

    /// Looks everything up again after the cluster's models changed.
    pub(crate) fn resolve(&mut self, models: &Models) {
        for entry in &mut self.entries {
            *entry = Entry::new(entry.demand.clone(), models);
        }
    }

    /// The demand numbered `id`.
    #[must_use]
    pub fn get(&self, id: DemandId) -> &Entry {
        &self.entries[id.index()]
    }
}

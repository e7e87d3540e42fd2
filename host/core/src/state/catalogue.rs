//! GPU models and MIG profiles of the cluster, by number.

use std::collections::BTreeMap;

use super::gpu::Gpu;
use crate::model::{GpuModel, Grid, ModelId, NodeError, ProfileId, node::MODELS_MAX};

/// Models and profiles by number. Only grows: a number, once given, keeps its meaning.
#[derive(Clone, Debug, Default)]
pub struct Models {
    known: Vec<GpuModel>,
    /// GPUs of each model on the nodes present.
    gpus: Vec<u32>,
    /// First profile of each model; its others follow.
    first_profile: Vec<u32>,
    /// Model and row in its grid, for each profile.
    profiles: Vec<(ModelId, u8)>,
    ids: BTreeMap<String, ModelId>,
    /// Nodes of each shape: model, GPUs of it on the node, cpu of the node in milli-cores.
    shapes: BTreeMap<(ModelId, u32, u32), u32>,
}

impl Models {
    /// Takes in a model. Describing it again in the same words changes nothing.
    ///
    /// # Errors
    /// If its grid is not one that a GPU can have, or contradicts what was said of the model before.
    pub(crate) fn add(&mut self, model: &GpuModel) -> Result<(), NodeError> {
        let refuse = |source| NodeError::Grid { model: model.name.clone(), source };
        if let Some(id) = self.id(&model.name) {
            return if self.known[id.index()] == *model { Ok(()) } else { Err(NodeError::Redefined { model: model.name.clone() }) };
        }
        if let Some(grid) = &model.grid {
            grid.validate().map_err(refuse)?;
        }
        if self.known.len() == MODELS_MAX {
            return Err(NodeError::TooManyModels { model: model.name.clone() });
        }
        let id = ModelId::new(self.known.len());
        self.ids.insert(model.name.clone(), id);
        self.first_profile.push(self.profiles.len() as u32);
        let rows = model.grid.as_ref().map_or(0, |grid| grid.profiles.len());
        self.profiles.extend((0..rows).map(|row| (id, row as u8)));
        self.gpus.push(0);
        self.known.push(model.clone());
        Ok(())
    }

    /// The number of the model named `name`.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<ModelId> {
        self.ids.get(name).copied()
    }

    /// The model numbered `id`.
    #[must_use]
    pub fn get(&self, id: ModelId) -> &GpuModel {
        &self.known[id.index()]
    }

    /// All models with the number of GPUs that nodes have of them.
    pub fn iter(&self) -> impl Iterator<Item = (&GpuModel, u32)> {
        self.known.iter().zip(self.gpus.iter().copied())
    }

    /// Model and row in its grid of each profile.
    #[must_use]
    pub fn profiles(&self) -> &[(ModelId, u8)] {
        &self.profiles
    }

    /// The grid of a model that MIG can cut.
    #[must_use]
    pub fn grid(&self, id: ModelId) -> Option<&Grid> {
        self.known[id.index()].grid.as_ref()
    }

    /// Slots of the model's grid; 0 without MIG.
    #[must_use]
    pub fn slots(&self, id: ModelId) -> u32 {
        self.grid(id).map_or(0, |grid| u32::from(grid.slots))
    }

    /// The number of the profile in row `row` of the grid of `model`.
    #[must_use]
    pub fn profile_of(&self, model: ModelId, row: u8) -> ProfileId {
        ProfileId(self.first_profile[model.index()] + u32::from(row))
    }

    /// Profiles named `name` on the models `accepted` (all, if empty), sorted.
    pub(crate) fn profiles_named(&self, name: &str, accepted: &[ModelId]) -> Vec<ProfileId> {
        let all = (0..self.known.len()).map(ModelId::new);
        let models = all.filter(|model| accepted.is_empty() || accepted.contains(model));
        // Names are as people and drivers write them; each grid knows its own.
        let found = models.filter_map(|model| Some(self.profile_of(model, self.grid(model)?.resolve(name).ok()?)));
        found.collect()
    }

    /// Nodes of each shape: model, GPUs of it on the node, cpu of the node in milli-cores.
    pub fn shapes(&self) -> impl Iterator<Item = ((ModelId, u32, u32), u32)> {
        self.shapes.iter().map(|(&shape, &nodes)| (shape, nodes))
    }

    /// Counts a node with `gpus` and `cpu_milli` in (`change` 1) or out (-1).
    pub(crate) fn count(&mut self, gpus: &[Gpu], cpu_milli: u32, change: i32) {
        let mut by_model: BTreeMap<ModelId, u32> = BTreeMap::new();
        for gpu in gpus {
            *by_model.entry(gpu.model).or_default() += 1;
        }
        for (model, count) in by_model {
            let total = &mut self.gpus[model.index()];
            *total = if change > 0 { *total + count } else { *total - count };
            let nodes = self.shapes.entry((model, count, cpu_milli)).or_default();
            *nodes = nodes.saturating_add_signed(change);
            if *nodes == 0 {
                self.shapes.remove(&(model, count, cpu_milli));
            }
        }
    }
}

//! GPU models and MIG profiles of the cluster, by number.

use std::{collections::BTreeMap, sync::Arc};

use super::gpu::Gpu;
use crate::{
    layout::{LayoutError, Layouts},
    model::{
        GpuModel, Grid, ModelId, NodeError, ProfileId,
        node::{MODELS_MAX, MPS_RESERVED_MIB},
    },
};

/// Models and profiles by number. Only grows: a number, once given, keeps its meaning.
#[derive(Clone, Debug, Default)]
pub struct Models {
    known: Vec<GpuModel>,
    /// The layouts of each model that MIG can cut. Models of one grid share them.
    layouts: Vec<Option<Arc<Layouts>>>,
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
        if let Some(id) = self.id(&model.name) {
            return if self.known[id.index()] == *model { Ok(()) } else { Err(NodeError::Redefined { model: model.name.clone() }) };
        }
        if self.known.len() == MODELS_MAX {
            return Err(NodeError::TooManyModels { model: model.name.clone() });
        }
        let layouts = self.layouts_of(model)?;
        self.layouts.push(layouts);
        let id = ModelId::new(self.known.len());
        self.ids.insert(model.name.clone(), id);
        self.first_profile.push(self.profiles.len() as u32);
        let rows = model.grid.as_ref().map_or(0, |grid| grid.profiles.len());
        self.profiles.extend((0..rows).map(|row| (id, row as u8)));
        self.gpus.push(0);
        self.known.push(model.clone());
        Ok(())
    }

    fn layouts_of(&self, model: &GpuModel) -> Result<Option<Arc<Layouts>>, NodeError> {
        let Some(grid) = &model.grid else { return Ok(None) };
        if let Some(row) = self.known.iter().position(|other| other.grid.as_ref() == Some(grid)) {
            return Ok(self.layouts[row].clone());
        }
        let layouts = Layouts::of(grid).map_err(|error| match error {
            LayoutError::Grid(source) => NodeError::Grid { model: model.name.clone(), source },
            LayoutError::TooMany => NodeError::TooManyLayouts { model: model.name.clone() },
        })?;
        Ok(Some(Arc::new(layouts)))
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

    /// The layouts of a model that MIG can cut.
    #[must_use]
    pub fn layouts(&self, id: ModelId) -> Option<&Layouts> {
        self.layouts[id.index()].as_deref()
    }

    /// Memory that a GPU of the model can promise to clients under MPS, MiB; none where its memory is not known.
    #[must_use]
    pub fn mps_mib(&self, id: ModelId) -> Option<u32> {
        self.known[id.index()].memory_mib.checked_sub(MPS_RESERVED_MIB).filter(|&mib| mib > 0)
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

    /// The row of the profile named `name` on each of the models `accepted` (all, if empty) that has it, sorted by model.
    pub(crate) fn rows_named(&self, name: &str, accepted: &[ModelId]) -> Vec<(ModelId, u8)> {
        // Names are as people and drivers write them; each grid knows its own.
        self.accepted(accepted).filter_map(|model| Some((model, self.grid(model)?.resolve(name).ok()?))).collect()
    }

    /// The models `accepted`, or all if that is empty.
    pub(crate) fn accepted<'a>(&'a self, accepted: &'a [ModelId]) -> impl Iterator<Item = ModelId> + 'a {
        (0..self.known.len()).map(ModelId::new).filter(|model| accepted.is_empty() || accepted.contains(model))
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

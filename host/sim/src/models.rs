//! GPU models of an input file: those that it describes, and built-in ones that its nodes have.

use std::{collections::HashMap, ops::Range};

use partita_core::model::{
    Cut, GpuModel, GridError,
    catalog::{self, CatalogError},
    node::{MODELS_MAX, MPS_RESERVED_MIB},
};
use toml::Spanned;

use crate::{amount, error::Fault};

/// A fault and where in the text it is.
pub(crate) type Placed = (Fault, Range<usize>);

/// Models by name.
#[derive(Default)]
pub(crate) struct Known {
    described: HashMap<String, GpuModel>,
    /// Built-in models that a node has.
    used: HashMap<String, GpuModel>,
}

impl Known {
    /// The models that a file describes.
    pub(crate) fn described<'a>(models: impl IntoIterator<Item = &'a Spanned<GpuModel>>) -> Result<Self, Placed> {
        let mut described = HashMap::new();
        for entry in models {
            let model = entry.get_ref();
            let fault = |fault: Fault| (fault.column("model"), entry.span());
            amount::name(&model.name).map_err(fault)?;
            if let Some(grid) = &model.grid {
                let wrong = |error: GridError| {
                    fault(Fault::new(error.to_string(), "correct the grid, or leave it out for a model without MIG").value(&model.name))
                };
                grid.validate().map_err(wrong)?;
            }
            room_for_model(described.len(), &model.name).map_err(fault)?;
            if described.insert(model.name.clone(), model.clone()).is_some() {
                return Err(fault(Fault::new("is described twice", "keep one [[model]] of this name").value(&model.name)));
            }
        }
        Ok(Self { described, used: HashMap::new() })
    }

    /// The model named `name`.
    pub(crate) fn get(&mut self, name: &str) -> Result<&GpuModel, Fault> {
        if !self.described.contains_key(name) && !self.used.contains_key(name) {
            let model = catalog::lookup(name).map_err(|error| self.unknown(name, &error))?;
            room_for_model(self.described.len() + self.used.len(), name).map_err(|fault| fault.column("model"))?;
            self.used.insert(name.into(), model);
        }
        Ok(self.described.get(name).unwrap_or_else(|| &self.used[name]))
    }

    /// All of them, sorted by name.
    pub(crate) fn into_models(self) -> Vec<GpuModel> {
        let mut models: Vec<GpuModel> = self.described.into_values().chain(self.used.into_values()).collect();
        models.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        models
    }

    fn unknown(&self, name: &str, error: &CatalogError) -> Fault {
        let fault = match error {
            CatalogError::Unknown(_) => {
                let mut names: Vec<String> = catalog::names().map(str::to_owned).chain(self.described.keys().cloned()).collect();
                names.sort_unstable();
                names.dedup();
                let remedy = format!("use one of {}, or describe it with [[model]]", names.join(", "));
                Fault::new("is a GPU model that nobody described", remedy)
            }
            CatalogError::NeedsDriver { .. } => {
                Fault::new("is a model whose placements are not published", "describe its grid with [[model]], as its driver lists it")
            }
        };
        fault.value(name).column("model")
    }
}

/// Refuses the model called `name` where a cluster has as many as it may.
pub(crate) fn room_for_model(known: usize, name: &str) -> Result<(), Fault> {
    if known < MODELS_MAX {
        return Ok(());
    }
    Err(Fault::new(format!("is beyond the limit of {MODELS_MAX} GPU models"), "describe fewer").value(name))
}

/// Refuses a cut that the model cannot have.
pub(crate) fn can_be_cut(model: &GpuModel, cut: Cut) -> Result<(), Fault> {
    let fault = |problem: &str, remedy: &str| Err(Fault::new(problem, remedy).value(&model.name));
    match cut {
        Cut::Mig if model.grid.is_none() => {
            fault("is a model that MIG cannot cut", "use cut = \"shares\", or describe its grid with [[model]]")
        }
        Cut::Mps if model.memory_mib <= MPS_RESERVED_MIB => fault(
            "is a model of unknown memory, which MPS cannot share",
            "use cut = \"shares\", or describe it with [[model]] and memory_mib",
        ),
        _ => Ok(()),
    }
}

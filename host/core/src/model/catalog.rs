//! GPU models that partita knows by itself, for clusters and nodes that do not describe theirs.
//!
//! A node's driver knows better: names depend on its version, memory sizes too, and some models' placements were never published. Where
//! a driver answers, its table is used and this one only fills in the names that other drivers have for the same profiles.

mod tables;

use thiserror::Error;

use super::{Engines, GpuModel, Grid, Profile};
use tables::{EIGHT, Eight, MODELS, Media, Model, Row, Table};

/// Why the catalog has no description of a model.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CatalogError {
    /// No model of that name.
    #[error("model {0} is not among those built in; describe it, or let the node's driver do so")]
    Unknown(String),
    /// A model whose profiles are known by name only.
    #[error(
        "the placements of model {model} are not published, so its grid must come from the driver of a node; its profiles are {profiles}"
    )]
    NeedsDriver {
        /// The model.
        model: String,
        /// Its profiles.
        profiles: String,
    },
}

/// The model named `name`, which keeps that name.
///
/// # Errors
/// If there is no such model, or its grid must come from a driver.
pub fn lookup(name: &str) -> Result<GpuModel, CatalogError> {
    let unknown = || CatalogError::Unknown(name.chars().take(64).flat_map(char::escape_debug).collect());
    let model = MODELS.iter().find(|model| model.names.contains(&name)).ok_or_else(unknown)?;
    let grid = match &model.table {
        Table::None => None,
        Table::Driver(profiles) => return Err(CatalogError::NeedsDriver { model: name.into(), profiles: profiles.join(", ") }),
        Table::Eight(eight) => Some(eight_slots(eight)),
        Table::Rows { slots, compute, engines, rows } => {
            Some(Grid { engines: *engines, ..Grid::new(*slots, *compute, rows.iter().map(profile).collect()) })
        }
    };
    Ok(GpuModel { name: name.into(), memory_mib: model.memory_mib, grid })
}

/// The model named `name`, if it is one of those built in and its placements are published.
#[must_use]
pub fn builtin(name: &str) -> Option<GpuModel> {
    lookup(name).ok()
}

/// The names that [`builtin`] knows; a model may have several.
pub fn names() -> impl Iterator<Item = &'static str> {
    let described = |model: &&Model| !matches!(model.table, Table::Driver(_));
    MODELS.iter().filter(described).flat_map(|model| model.names.iter().copied())
}

/// Models whose grid only a driver can tell, with the names of their profiles.
pub fn driver_only() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    MODELS.iter().filter_map(|model| if let Table::Driver(profiles) = model.table { Some((model.names[0], profiles)) } else { None })
}

fn profile(&(name, compute, size, memory_mib, starts, max, [decoder, encoder, jpeg, ofa]): &Row) -> Profile {
    Profile { engines: Engines { decoder, encoder, jpeg, ofa }, ..Profile::new(name, compute, size, memory_mib, starts, max) }
}

/// The grid of the family that A100 began: one geometry, other names and sizes.
fn eight_slots(model: &Eight) -> Grid {
    let media = |row: usize| match model.media {
        Media::Unknown => Engines::NONE,
        Media::Known(table) => {
            let [decoder, jpeg, ofa] = table[row];
            Engines { decoder, encoder: 0, jpeg, ofa }
        }
    };
    let build = |(row, &(compute, size, starts, max, suffix, label)): (usize, &tables::Shape)| {
        let name = format!("{compute}g.{}gb{suffix}", model.gb[label]);
        let aliases = model.aliases.iter().filter(|alias| alias.0 == name).map(|alias| alias.1.to_owned()).collect();
        Profile { aliases, engines: media(row), ..Profile::new(&name, compute, size, model.mib[label], starts, max) }
    };
    // The largest profile has the whole GPU, with all its engines.
    Grid { engines: media(EIGHT.len() - 1), ..Grid::new(8, 7, EIGHT.iter().enumerate().map(build).collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_grid_is_valid() {
        for name in names() {
            let model = builtin(name).unwrap();
            assert_eq!(model.name, name);
            assert_eq!(model.grid.map_or(Ok(()), |grid| grid.validate()), Ok(()), "{name}");
        }
        assert!(builtin("Voodoo2").is_none());
        assert_eq!(lookup("Voodoo2"), Err(CatalogError::Unknown("Voodoo2".into())));
    }

    #[test]
    fn a_model_without_published_placements_says_where_its_grid_comes_from() {
        assert_eq!(driver_only().count(), 3);
        for (name, _) in driver_only() {
            let error = lookup(name).unwrap_err().to_string();
            assert!(error.contains("must come from the driver") && builtin(name).is_none(), "{error}");
        }
    }

    #[test]
    fn names_that_depend_on_the_driver_mean_one_profile() {
        for (model, name, alias) in [
            ("A100-80GB", "7g.80gb", "7g.79gb"),
            ("A100-80GB", "3g.40gb", "nvidia.com/mig-3g.39gb"),
            ("GB200-186GB", "7g.186gb", "7g.189gb"),
            ("GB200-186GB", "1g.23gb+me", "mig-1g.24gb.me"),
            ("RTX-PRO-6000-Blackwell-96GB", "1g.24gb+me.all", "1g.24gb.me.all"),
        ] {
            let grid = builtin(model).unwrap().grid.unwrap();
            let row = grid.resolve(alias).unwrap();
            assert_eq!(grid.profiles[usize::from(row)].name, name);
            assert_eq!(grid.resolve(name), Ok(row));
        }
        let error = builtin("A30").unwrap().grid.unwrap().resolve("7g.80gb").unwrap_err().to_string();
        assert_eq!(error, "there is no profile 7g.80gb on this model; it has 1g.6gb, 1g.6gb+me, 2g.12gb, 2g.12gb+me, 4g.24gb");
    }
}

//! GPU models that partita knows by itself, for clusters that do not describe theirs.
//!
//! Slots, first slots and counts are those of NVIDIA's MIG User Guide ("Supported MIG Profiles", one table a model); memory sizes are
//! what drivers report for the profiles, and may differ by some MiB between driver versions. The variants with media engines (`+me`)
//! have the geometry of their plain profile and are left to the node's own table.

use super::{GpuModel, Grid, Profile};

/// (name, compute slices, memory slots, MiB, first slots, most on one GPU)
type Row = (&'static str, u8, u8, u32, &'static [u8], u8);

const A30: &[Row] = &[("1g.6gb", 1, 1, 5949, &[0, 1, 2, 3], 4), ("2g.12gb", 2, 2, 11_971, &[0, 2], 2), ("4g.24gb", 4, 4, 24_003, &[0], 1)];
const A100_40: &[Row] = &[
    ("1g.5gb", 1, 1, 4864, &[0, 1, 2, 3, 4, 5, 6], 7),
    ("1g.10gb", 1, 2, 9856, &[0, 2, 4, 6], 4),
    ("2g.10gb", 2, 2, 9856, &[0, 2, 4], 3),
    ("3g.20gb", 3, 4, 19_968, &[0, 4], 2),
    ("4g.20gb", 4, 4, 19_968, &[0], 1),
    ("7g.40gb", 7, 8, 40_192, &[0], 1),
];
const A100_80: &[Row] = &[
    ("1g.10gb", 1, 1, 9856, &[0, 1, 2, 3, 4, 5, 6], 7),
    ("1g.20gb", 1, 2, 19_968, &[0, 2, 4, 6], 4),
    ("2g.20gb", 2, 2, 19_968, &[0, 2, 4], 3),
    ("3g.40gb", 3, 4, 40_192, &[0, 4], 2),
    ("4g.40gb", 4, 4, 40_192, &[0], 1),
    ("7g.80gb", 7, 8, 80_384, &[0], 1),
];
const H100_80: &[Row] = &[
    ("1g.10gb", 1, 1, 9984, &[0, 1, 2, 3, 4, 5, 6], 7),
    ("1g.20gb", 1, 2, 20_091, &[0, 2, 4, 6], 4),
    ("2g.20gb", 2, 2, 20_091, &[0, 2, 4], 3),
    ("3g.40gb", 3, 4, 40_448, &[0, 4], 2),
    ("4g.40gb", 4, 4, 40_448, &[0], 1),
    ("7g.80gb", 7, 8, 81_152, &[0], 1),
];

/// (name, MiB, memory slots, compute slices, profiles); no slots means no MIG.
const MODELS: &[(&str, u32, u8, u8, &[Row])] = &[
    ("A30", 24_576, 4, 4, A30),
    ("A100-40GB", 40_960, 8, 7, A100_40),
    ("A100-80GB", 81_920, 8, 7, A100_80),
    ("H100-80GB", 81_559, 8, 7, H100_80),
    ("T4", 15_360, 0, 0, &[]),
];

/// The model named `name`, if it is one of those built in.
#[must_use]
pub fn builtin(name: &str) -> Option<GpuModel> {
    let &(name, memory_mib, slots, compute, rows) = MODELS.iter().find(|model| model.0 == name)?;
    let profile = |&(name, compute, size, memory_mib, starts, max): &Row| Profile {
        name: name.into(),
        compute,
        size,
        memory_mib,
        starts: starts.to_vec(),
        max,
    };
    let grid = (slots > 0).then(|| Grid { slots, compute, profiles: rows.iter().map(profile).collect() });
    Some(GpuModel { name: name.into(), memory_mib, grid })
}

/// The names that [`builtin`] knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|model| model.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_grid_is_valid() {
        for name in names() {
            let model = builtin(name).unwrap();
            assert!(model.grid.is_none_or(|grid| grid.validate().is_ok()), "{name}");
        }
        assert!(builtin("Voodoo2").is_none());
    }
}

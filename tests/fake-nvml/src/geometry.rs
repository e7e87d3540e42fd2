//! The numbers that drivers have for profiles, and what else tells models apart. Slots and starts are partita-core's.

use partita_core::model::{GpuModel, Grid, Profile, Variant, catalog};

/// The numbers by which profiles are asked for (`NVML_GPU_INSTANCE_PROFILE_*`), by compute slices and variant, and the ids that
/// `nvidia-smi mig -lgip` prints for them: on GPUs with eight slots, and on others.
const NUMBERS: &[(u8, Variant, u32, u32, u32)] = &[
    (1, Variant::Plain, 0, 19, 14),
    (2, Variant::Plain, 1, 14, 5),
    (3, Variant::Plain, 2, 9, 9),
    (4, Variant::Plain, 3, 5, 0),
    (7, Variant::Plain, 4, 0, 0),
    (1, Variant::Media, 7, 20, 21),
    (2, Variant::Media, 8, 16, 6),
    (1, Variant::Graphics, 10, 47, 47),
    (2, Variant::Graphics, 11, 35, 35),
    (4, Variant::Graphics, 12, 32, 32),
    (1, Variant::NoMedia, 13, 67, 67),
    (2, Variant::NoMedia, 14, 66, 66),
    (1, Variant::AllMedia, 15, 65, 65),
    (2, Variant::AllMedia, 16, 64, 64),
];
/// One compute slice with the memory of two (`REV2`): number and id.
const DOUBLE: (u32, u32) = (9, 15);
/// The first number that a driver calls invalid.
pub(crate) const INDEX_END: u32 = 17;

/// The numbers of compute instances' profiles (`NVML_COMPUTE_INSTANCE_PROFILE_*`), which are also their ids, and their slices.
pub(crate) const COMPUTE: [(u32, u32); 5] = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 7)];
/// The first number of a compute instance's profile that a driver calls invalid.
pub(crate) const COMPUTE_END: u32 = 8;

/// The model of that name, if it is one that can be faked.
pub(crate) fn model(name: &str) -> Option<GpuModel> {
    catalog::builtin(name)
}

/// Number and id of a profile.
pub(crate) fn numbers(grid: &Grid, profile: &Profile) -> (u32, u32) {
    let single = grid.profiles.iter().filter(|other| other.compute == profile.compute).map(|other| other.size).min();
    if profile.variant() == Variant::Plain && single.is_some_and(|size| profile.size > size) {
        return DOUBLE;
    }
    let row = NUMBERS.iter().find(|row| (row.0, row.1) == (profile.compute, profile.variant()));
    row.map_or((u32::MAX, u32::MAX), |row| (row.2, if grid.slots == 8 { row.3 } else { row.4 }))
}

/// The first id of instances of a size, as drivers give them: 0 for the whole GPU, from 1 for halves, from 3 for quarters, from 7 for
/// eighths.
pub(crate) fn first_id(grid: &Grid, profile: &Profile) -> u32 {
    let parts = u32::from(grid.slots / profile.size.max(1));
    parts.next_power_of_two().max(1) - 1
}

/// CUDA compute capability.
pub(crate) fn capability(name: &str) -> (i32, i32) {
    let families = [
        ("A", (8, 0)),
        ("H", (9, 0)),
        ("GH", (9, 0)),
        ("B300", (10, 3)),
        ("GB300", (10, 3)),
        ("B", (10, 0)),
        ("GB", (10, 0)),
        ("RTX", (12, 0)),
    ];
    families.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or((7, 5), |family| family.1)
}

/// Whether the MIG mode is kept in the GPU and changed by a reset: Ampere. Later ones change at once and forget at a restart.
pub(crate) fn keeps_mode(name: &str) -> bool {
    capability(name).0 == 8
}

/// Streaming multiprocessors of one compute slice.
pub(crate) fn multiprocessors(name: &str) -> u32 {
    match capability(name).0 {
        8 => 14,
        9 => 16,
        10 => 18,
        _ => 46,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_has_numbers_of_its_own() {
        for name in catalog::names() {
            let Some(grid) = model(name).unwrap().grid else { continue };
            let mut all: Vec<(u32, u32)> = grid.profiles.iter().map(|profile| numbers(&grid, profile)).collect();
            assert!(all.iter().all(|one| one.0 < INDEX_END), "{name}: {all:?}");
            all.sort_unstable();
            let (mut indices, mut ids): (Vec<u32>, Vec<u32>) = all.iter().copied().unzip();
            indices.dedup();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!((indices.len(), ids.len()), (grid.profiles.len(), grid.profiles.len()), "{name}");
        }
    }

    #[test]
    fn ids_are_those_that_nvidia_smi_prints() {
        let ids = |name: &str| -> Vec<u32> {
            let grid = model(name).unwrap().grid.unwrap();
            grid.profiles.iter().map(|profile| numbers(&grid, profile).1).collect()
        };
        assert_eq!(ids("H100-80GB"), [19, 20, 15, 14, 9, 5, 0]);
        assert_eq!(ids("A30"), [14, 21, 5, 6, 0]);
        assert_eq!(ids("RTX-PRO-6000-Blackwell-96GB"), [14, 21, 47, 65, 67, 5, 35, 64, 66, 0, 32]);
    }
}

//! MIG grids: the memory slots of a GPU, the profiles that cut them, and which placements are legal.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A set of memory slots of one GPU: bit s is slot s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotMask(pub u16);

impl SlotMask {
    /// No slot.
    pub const EMPTY: Self = Self(0);

    /// `size` slots from `start`. Slots beyond 16 fall off; a validated grid has at most 12.
    #[must_use]
    pub fn span(start: u8, size: u8) -> Self {
        let wide = ((1u32 << u32::from(size.min(16))) - 1) << u32::from(start.min(16));
        Self((wide & 0xffff) as u16)
    }

    /// How many slots it holds.
    #[must_use]
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether it holds no slot.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the two sets share a slot.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Slots of either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Slots of `self` that are not in `other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The slots, lowest first.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..16u8).filter(move |slot| self.0 & (1 << slot) != 0)
    }
}

/// A kind of partition of one GPU model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// NVIDIA's name without the `mig-` prefix: `1g.10gb`.
    pub name: String,
    /// Compute slices.
    pub compute: u8,
    /// Memory slots.
    pub size: u8,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// The slots where a partition may start.
    pub starts: Vec<u8>,
    /// The most partitions of this profile on one GPU.
    pub max: u8,
}

impl Profile {
    /// The slots where a partition may start, as a mask.
    #[must_use]
    pub fn start_mask(&self) -> SlotMask {
        self.starts.iter().fold(SlotMask::EMPTY, |mask, &start| mask.union(SlotMask::span(start, 1)))
    }
}

/// The memory slots of a GPU model and the profiles that cut them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Memory slots: 8, 4 or 12.
    pub slots: u8,
    /// Compute slices: the sum over the partitions of a GPU cannot exceed it.
    pub compute: u8,
    /// Profiles, smallest first.
    pub profiles: Vec<Profile>,
}

/// Why a grid is not one that a GPU can have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GridError {
    /// The grid's own size is out of range.
    #[error("a grid has 1 to 12 memory slots and 1 to 12 compute slices, this one has {slots} and {compute}")]
    Size {
        /// Memory slots given.
        slots: u8,
        /// Compute slices given.
        compute: u8,
    },
    /// Two profiles have one name.
    #[error("profile {0} is listed twice; keep one")]
    Duplicate(String),
    /// A profile cannot lie on the grid.
    #[error("profile {name}: {problem}")]
    Profile {
        /// Name of the profile.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Grid {
    /// The largest grid of any GPU known: 12 slots (GB-class boards).
    pub const SLOTS_MAX: u8 = 12;

    /// Checks that every profile can lie on the grid.
    ///
    /// # Errors
    /// The first [`GridError`] found.
    pub fn validate(&self) -> Result<(), GridError> {
        let legal = 1..=Self::SLOTS_MAX;
        if !legal.contains(&self.slots) || !legal.contains(&self.compute) {
            return Err(GridError::Size { slots: self.slots, compute: self.compute });
        }
        for (row, profile) in self.profiles.iter().enumerate() {
            if self.profiles[..row].iter().any(|other| other.name == profile.name) {
                return Err(GridError::Duplicate(profile.name.clone()));
            }
            self.validate_profile(profile).map_err(|problem| GridError::Profile { name: profile.name.clone(), problem })?;
        }
        Ok(())
    }

    fn validate_profile(&self, profile: &Profile) -> Result<(), String> {
        if profile.name.is_empty() || profile.name.len() > 32 {
            return Err("a name has 1 to 32 characters".into());
        }
        if profile.size == 0 || profile.size > self.slots {
            return Err(format!("{} memory slots on a grid of {}", profile.size, self.slots));
        }
        if profile.compute > self.compute {
            return Err(format!("{} compute slices on a GPU of {}", profile.compute, self.compute));
        }
        if profile.max == 0 {
            return Err("max is 0, so it could never exist; leave the profile out".into());
        }
        if profile.starts.is_empty() {
            return Err("no first slot, so it could never exist; leave the profile out".into());
        }
        for (row, &start) in profile.starts.iter().enumerate() {
            if u16::from(start) + u16::from(profile.size) > u16::from(self.slots) {
                return Err(format!(
                    "slots {start}..{} reach past the {} of the grid",
                    u16::from(start) + u16::from(profile.size),
                    self.slots
                ));
            }
            if profile.starts[..row].contains(&start) {
                return Err(format!("first slot {start} is listed twice"));
            }
        }
        Ok(())
    }
}

/// Which slot of profile and grid a partition takes: its place on the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Placement {
    /// Row of the grid's profiles.
    pub profile: u8,
    /// First slot.
    pub start: u8,
}

impl Grid {
    /// The slots that a placement covers.
    #[must_use]
    pub fn slots_of(&self, placement: Placement) -> SlotMask {
        SlotMask::span(placement.start, self.profiles[usize::from(placement.profile)].size)
    }

    /// Whether `placement` may be added to a GPU that already has the partitions `others`: the profile may start there, the slots are
    /// free, and neither its count nor the compute slices are used up.
    #[must_use]
    pub fn admits(&self, others: &[Placement], placement: Placement) -> bool {
        let Some(profile) = self.profiles.get(usize::from(placement.profile)) else { return false };
        let mask = self.slots_of(placement);
        let same = others.iter().filter(|other| other.profile == placement.profile).count();
        let compute: u32 = others.iter().map(|other| u32::from(self.profiles[usize::from(other.profile)].compute)).sum();
        profile.starts.contains(&placement.start)
            && same < usize::from(profile.max)
            && compute + u32::from(profile.compute) <= u32::from(self.compute)
            && !others.iter().any(|&other| self.slots_of(other).overlaps(mask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalog;

    fn layouts(grid: &Grid, others: &mut Vec<Placement>, from: u8, plain: &[u8], count: &mut usize) {
        *count += 1;
        for start in from..grid.slots {
            for &profile in plain {
                let placement = Placement { profile, start };
                if grid.admits(others, placement) {
                    others.push(placement);
                    layouts(grid, others, start + 1, plain, count);
                    others.pop();
                }
            }
        }
    }

    #[test]
    fn the_number_of_legal_layouts_is_the_published_one() {
        for (model, expected) in [("A100-80GB", 723), ("H100-80GB", 723), ("A30", 26)] {
            let grid = catalog::builtin(model).unwrap().grid.unwrap();
            let plain: Vec<u8> = (0..grid.profiles.len() as u8).collect();
            let mut count = 0;
            layouts(&grid, &mut Vec::new(), 0, &plain, &mut count);
            assert_eq!(count, expected, "{model}");
        }
    }

    #[test]
    fn a_grid_that_no_gpu_can_have_is_refused() {
        let good = catalog::builtin("A30").unwrap().grid.unwrap();
        assert_eq!(good.validate(), Ok(()));
        let mut long = good.clone();
        long.profiles[0].starts.push(4);
        assert!(long.validate().unwrap_err().to_string().contains("reach past"));
        let mut twice = good.clone();
        twice.profiles.push(twice.profiles[0].clone());
        assert!(matches!(twice.validate(), Err(GridError::Duplicate(_))));
        let empty = Grid { slots: 0, ..good };
        assert!(matches!(empty.validate(), Err(GridError::Size { .. })));
    }
}

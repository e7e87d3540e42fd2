//! MIG grids: the memory slots of a GPU, the profiles that cut them, and which placements are legal.

mod validate;

pub use validate::{ALIASES_MAX, GridError};

use serde::{Deserialize, Serialize};

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

/// Media engines, of a partition or in total of a GPU. All zero in a grid's total where nobody published them: then they limit nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Engines {
    /// Video decoders.
    pub decoder: u8,
    /// Video encoders.
    pub encoder: u8,
    /// JPEG engines.
    pub jpeg: u8,
    /// Optical flow accelerators.
    pub ofa: u8,
}

impl Engines {
    /// No engine.
    pub const NONE: Self = Self { decoder: 0, encoder: 0, jpeg: 0, ofa: 0 };

    /// Whether there is none of any kind.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// The engines of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, u8::saturating_add)
    }

    /// Whether `total` has at least these.
    #[must_use]
    pub fn within(self, total: Self) -> bool {
        self.zip(total, u8::saturating_sub).is_none()
    }

    fn zip(self, other: Self, with: impl Fn(u8, u8) -> u8) -> Self {
        Self {
            decoder: with(self.decoder, other.decoder),
            encoder: with(self.encoder, other.encoder),
            jpeg: with(self.jpeg, other.jpeg),
            ofa: with(self.ofa, other.ofa),
        }
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
    /// Memory, MiB; 0 where unknown.
    pub memory_mib: u32,
    /// The slots where a partition may start.
    pub starts: Vec<u8>,
    /// The most partitions of this profile on one GPU.
    pub max: u8,
    /// What other drivers call it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The media engines of one partition.
    #[serde(default, skip_serializing_if = "Engines::is_none")]
    pub engines: Engines,
}

impl Profile {
    /// A profile without aliases and without known engines.
    #[must_use]
    pub fn new(name: &str, compute: u8, size: u8, memory_mib: u32, starts: &[u8], max: u8) -> Self {
        Self { name: name.into(), compute, size, memory_mib, starts: starts.to_vec(), max, aliases: Vec::new(), engines: Engines::NONE }
    }

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
    /// The media engines of the GPU: the sum over its partitions cannot exceed them.
    #[serde(default, skip_serializing_if = "Engines::is_none")]
    pub engines: Engines,
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
    /// The largest grid of any GPU known: 12 slots (RTX PRO 6000).
    pub const SLOTS_MAX: u8 = 12;
    /// The most profiles: the longest table known has 11 (RTX PRO 6000), and a count of each must fit one 128-bit word.
    pub const PROFILES_MAX: usize = 16;
    /// The most (profile, first slot) pairs: 30 on the RTX PRO 6000, and a layout must fit one 64-bit word.
    pub const PLACEMENTS_MAX: usize = 64;

    /// A grid whose engines nobody told.
    #[must_use]
    pub fn new(slots: u8, compute: u8, profiles: Vec<Profile>) -> Self {
        Self { slots, compute, profiles, engines: Engines::NONE }
    }

    /// The slots that a placement covers.
    #[must_use]
    pub fn slots_of(&self, placement: Placement) -> SlotMask {
        SlotMask::span(placement.start, self.profiles[usize::from(placement.profile)].size)
    }

    /// Whether `placement` may be added to a GPU that already has the partitions `others`: the profile may start there, the slots are
    /// free, and neither its count, the compute slices nor the media engines are used up. At most one partition of a GPU carries the
    /// media engines of `+me` or `+me.all`.
    #[must_use]
    pub fn admits(&self, others: &[Placement], placement: Placement) -> bool {
        let Some(profile) = self.profiles.get(usize::from(placement.profile)) else { return false };
        let mask = self.slots_of(placement);
        let row = |other: &Placement| &self.profiles[usize::from(other.profile)];
        let same = others.iter().filter(|other| other.profile == placement.profile).count();
        let compute: u32 = others.iter().map(|other| u32::from(row(other).compute)).sum();
        let engines = others.iter().fold(profile.engines, |sum, other| sum.plus(row(other).engines));
        profile.starts.contains(&placement.start)
            && same < usize::from(profile.max)
            && compute + u32::from(profile.compute) <= u32::from(self.compute)
            && engines.within(self.engines)
            && !others.iter().any(|&other| self.slots_of(other).overlaps(mask))
            && !(profile.variant().once() && others.iter().any(|other| row(other).variant().once()))
    }
}

//! Partitions come into use: what they leave of a GPU.

use super::{Occupancy, State, table::bits};
use crate::model::Placement;

/// What a GPU is like once a partition came into use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Partitions in use.
    pub used: State,
    /// How many of those that came into use have to be made.
    pub made: u32,
    /// Warm partitions that have to go, as bits.
    destroyed: u64,
}

impl Taken {
    /// How many warm partitions have to go.
    #[must_use]
    pub fn destroyed(&self) -> u32 {
        self.destroyed.count_ones()
    }
}

impl Occupancy<'_> {
    /// What comes of a partition at `placement`, warm or made anew; none if it cannot be, whatever warm partitions go.
    #[must_use]
    pub fn take(&self, placement: Placement) -> Option<Taken> {
        self.take_all([placement])
    }

    /// The same for several partitions at once.
    #[must_use]
    pub fn take_all(&self, placements: impl IntoIterator<Item = Placement>) -> Option<Taken> {
        let (mut used, mut mask) = (self.used, 0);
        for placement in placements {
            let bit = self.layouts.bit(placement)?;
            used = self.layouts.step(used, bit)?;
            mask |= 1 << bit;
        }
        Some(Taken { used, made: (mask & !self.exists).count_ones(), destroyed: destroyed(self, used, mask) })
    }

    /// The GPU afterwards, and the warm partitions that went.
    #[must_use]
    pub fn after(&self, taken: Taken) -> (Self, Vec<Placement>) {
        let gone = bits(taken.destroyed).map(|bit| self.layouts.placements[bit]).collect();
        (Self { used: taken.used, exists: (self.exists & !taken.destroyed) | taken.used.mask, ..*self }, gone)
    }

    /// The GPU after the partition at `placement` lost its user; it stays, warm. None if it is not in use.
    #[must_use]
    pub fn release(&self, placement: Placement) -> Option<Self> {
        Some(Self { used: self.layouts.without(self.used, placement)?, ..*self })
    }
}

/// The fewest warm partitions that have to go so that those in use after a change, `after`, can exist. `mask` are those that came into
/// use.
pub(super) fn destroyed(gpu: &Occupancy<'_>, after: State, mask: u64) -> u64 {
    let warm = gpu.exists & !gpu.used.mask & !mask;
    if warm == 0 {
        return 0;
    }
    let overlapping = bits(mask).fold(0, |all, bit| all | gpu.layouts.overlaps[bit]) & warm;
    let rest = warm & !overlapping;
    if gpu.layouts.at(after.mask | rest).is_some() {
        return overlapping;
    }
    // A count, the compute slices or the engines are short: try all subsets of the rest, the smallest first.
    let mut also: Vec<u64> = subsets(rest).collect();
    also.sort_unstable_by_key(|&gone| (gone.count_ones(), gone));
    let gone = also.into_iter().find(|gone| gpu.layouts.at(after.mask | (rest & !gone)).is_some());
    overlapping | gone.unwrap_or(rest)
}

/// Every subset of a set of bits; a layout has at most twelve.
fn subsets(mask: u64) -> impl Iterator<Item = u64> {
    let mut next = Some(mask);
    std::iter::from_fn(move || {
        let subset = next?;
        next = if subset == 0 { None } else { Some((subset - 1) & mask) };
        Some(subset)
    })
}

//! All legal layouts of a model, and what still fits beside each of them.

use thiserror::Error;

use super::{Bag, build};
use crate::model::{Grid, GridError, Placement, SlotMask};

/// No class: the placement cannot be made.
pub(super) const NO_CLASS: u16 = u16::MAX;
/// No placement: the profile cannot start there.
pub(super) const NO_PLACEMENT: u8 = u8::MAX;
/// First slots that a row of the table of placements has room for.
pub(super) const START_ROOM: usize = 16;

/// Why there is no table for a grid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// The grid is wrong.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// More layouts than any GPU has.
    #[error("the grid has more than {} layouts, more than any GPU; leave profiles out", build::LAYOUTS_MAX)]
    TooMany,
}

/// Why a set of partitions cannot be on one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotALayout {
    /// The profile cannot start there.
    #[error("profile row {} cannot start at slot {} of this model", .0.profile, .0.start)]
    NoSuchPlacement(Placement),
    /// Two partitions share a slot, or are the same.
    #[error("the partitions at slots {} and {} overlap", .0.start, .1.start)]
    Overlap(Placement, Placement),
    /// A count, the compute slices or the media engines are used up before this one.
    #[error("the partition at slot {} exceeds a count, the compute slices or the media engines of the GPU", .0.start)]
    Limit(Placement),
}

/// The legal layouts of one model, enumerated once and then shared: every question about one GPU is a few look-ups.
///
/// Layouts beside which the same placements fit are merged into classes, and a class knows the maximal counts of profiles that fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layouts {
    /// (memory slots, compute slices) of each profile.
    pub(super) sizes: Vec<(u8, u8)>,
    /// Bit b of a layout is this placement; sorted.
    pub(super) placements: Vec<Placement>,
    pub(super) slots: Vec<SlotMask>,
    /// Other placements that share a slot with each.
    pub(super) overlaps: Vec<u64>,
    /// The bit of (profile, first slot).
    pub(super) bits: Vec<u8>,
    /// The bits of each profile.
    pub(super) of_profile: Vec<u64>,
    /// The layouts, sorted, and the class of each.
    pub(super) masks: Vec<u64>,
    pub(super) class: Vec<u16>,
    /// For each class, the class after each placement.
    pub(super) next: Vec<u16>,
    /// For each class, where its maximal counts end in `fronts`.
    pub(super) front_ends: Vec<u32>,
    pub(super) fronts: Vec<Bag>,
    /// For each class, how many of each profile still fit.
    pub(super) room: Vec<u8>,
    /// For each class, its rank by room.
    pub(super) kept: Vec<u16>,
}

/// One layout of a table: a set of partitions on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    pub(super) mask: u64,
    pub(super) class: u16,
}

impl State {
    /// How many partitions.
    #[must_use]
    pub fn partitions(self) -> u32 {
        self.mask.count_ones()
    }
}

impl Layouts {
    /// Enumerates the layouts of a grid: about a millisecond for eight slots.
    ///
    /// # Errors
    /// If the grid is wrong or has more layouts than any GPU.
    pub fn of(grid: &Grid) -> Result<Self, LayoutError> {
        build::build(grid)
    }

    /// How many legal layouts there are, the empty one included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.masks.len()
    }

    /// Every layout, the empty one first.
    pub fn all(&self) -> impl Iterator<Item = State> {
        self.masks.iter().zip(&self.class).map(|(&mask, &class)| State { mask, class })
    }

    /// The layout without partitions.
    #[must_use]
    pub fn empty(&self) -> State {
        State { mask: 0, class: self.class[0] }
    }

    /// The layout that has exactly these partitions.
    ///
    /// # Errors
    /// [`NotALayout`] if they cannot be on one GPU together.
    pub fn state(&self, partitions: impl IntoIterator<Item = Placement>) -> Result<State, NotALayout> {
        let mut state = self.empty();
        for placement in partitions {
            let bit = self.bit(placement).ok_or(NotALayout::NoSuchPlacement(placement))?;
            let clash = (state.mask & (self.overlaps[bit] | 1 << bit)).trailing_zeros() as usize;
            if let Some(&other) = self.placements.get(clash) {
                return Err(NotALayout::Overlap(other, placement));
            }
            state = self.step(state, bit).ok_or(NotALayout::Limit(placement))?;
        }
        Ok(state)
    }

    /// The partitions of a layout, in the order of profile and first slot.
    pub fn placements(&self, state: State) -> impl Iterator<Item = Placement> {
        bits(state.mask).map(|bit| self.placements[bit])
    }

    /// The slots that a layout covers.
    #[must_use]
    pub fn slots(&self, state: State) -> SlotMask {
        bits(state.mask).fold(SlotMask::EMPTY, |all, bit| all.union(self.slots[bit]))
    }

    /// The layout with one more partition; none if it cannot be made.
    #[must_use]
    pub fn with(&self, state: State, placement: Placement) -> Option<State> {
        self.step(state, self.bit(placement)?)
    }

    /// The layout with one partition less; none if it is not there.
    #[must_use]
    pub fn without(&self, state: State, placement: Placement) -> Option<State> {
        let bit = 1 << self.bit(placement)?;
        if state.mask & bit == 0 { None } else { self.at(state.mask & !bit) }
    }

    /// Whether two placements share a slot.
    #[must_use]
    pub fn overlap(&self, one: Placement, other: Placement) -> bool {
        let slots = |placement| self.bit(placement).map_or(SlotMask::EMPTY, |bit| self.slots[bit]);
        slots(one).overlaps(slots(other))
    }

    /// Where a partition of row `profile` can be made beside a layout, by first slot.
    pub fn feasible(&self, state: State, profile: u8) -> impl Iterator<Item = Placement> {
        let all = self.of_profile.get(usize::from(profile)).copied().unwrap_or(0);
        bits(all).filter(move |&bit| self.step(state, bit).is_some()).map(|bit| self.placements[bit])
    }

    /// The placement of row `profile` that keeps the most room (see [`Layouts::kept`]), the lowest first slot among equals.
    #[must_use]
    pub fn best(&self, state: State, profile: u8) -> Option<Placement> {
        let kept = |placement: &Placement| self.with(state, *placement).map_or(0, |after| self.kept(after));
        self.feasible(state, profile).max_by_key(|placement| (kept(placement), std::cmp::Reverse(placement.start)))
    }

    /// How many partitions of each profile could still be made, each profile by itself.
    #[must_use]
    pub fn room(&self, state: State) -> &[u8] {
        let width = self.sizes.len();
        &self.room[usize::from(state.class) * width..][..width]
    }

    /// How much room a layout keeps: a rank by how many partitions of the largest profile still fit, then of the next, and so on. Of
    /// two placements the one with the higher rank afterwards breaks up less. Comparable among layouts of one table.
    #[must_use]
    pub fn kept(&self, state: State) -> u32 {
        u32::from(self.kept[usize::from(state.class)])
    }

    /// Whether `wanted` partitions, counted by profile row, can all be made beside a layout. Exact.
    #[must_use]
    pub fn fits(&self, state: State, wanted: Bag) -> bool {
        self.front(state.class).iter().any(|most| most.holds(wanted))
    }

    /// The maximal counts of profiles that can be made beside a layout.
    #[must_use]
    pub fn most(&self, state: State) -> &[Bag] {
        self.front(state.class)
    }

    /// What a GPU without partitions starts with: one partition of the largest profile that can exist, whatever the order of the table.
    #[must_use]
    pub fn initial(&self) -> Option<Placement> {
        let largest = (0..self.sizes.len()).max_by_key(|&row| (self.sizes[row], std::cmp::Reverse(row)))?;
        self.best(self.empty(), largest as u8)
    }

    pub(super) fn bit(&self, placement: Placement) -> Option<usize> {
        let bit = *self.bits.get(usize::from(placement.profile) * START_ROOM + usize::from(placement.start))?;
        // A first slot past the row's end must not be read as another profile's.
        if bit == NO_PLACEMENT || usize::from(placement.start) >= START_ROOM { None } else { Some(usize::from(bit)) }
    }

    pub(super) fn step(&self, state: State, bit: usize) -> Option<State> {
        let class = self.next[usize::from(state.class) * self.placements.len() + bit];
        if class == NO_CLASS { None } else { Some(State { mask: state.mask | 1 << bit, class }) }
    }

    /// The layout with these bits, if it is legal.
    pub(super) fn at(&self, mask: u64) -> Option<State> {
        self.masks.binary_search(&mask).ok().map(|row| State { mask, class: self.class[row] })
    }

    pub(super) fn front(&self, class: u16) -> &[Bag] {
        let class = usize::from(class);
        let start = if class == 0 { 0 } else { self.front_ends[class - 1] };
        &self.fronts[start as usize..self.front_ends[class] as usize]
    }
}

/// The bits that are set, lowest first.
pub(super) fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        if bit < 64 { Some(bit) } else { None }
    })
}

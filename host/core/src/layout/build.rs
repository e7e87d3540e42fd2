//! The table of a model's layouts: enumerated once, then merged by what still fits.

use std::collections::BTreeMap;

use super::{
    Bag, LayoutError, Layouts,
    bag::keep_largest,
    table::{NO_CLASS, NO_PLACEMENT, START_ROOM},
};
use crate::model::{Engines, Grid, Placement, SlotMask};

/// The most layouts of one grid. Known grids have up to 2,319; at this limit a table takes 2 MiB and 0.1 s. A hostile grid of
/// twelve slots could have millions.
pub const LAYOUTS_MAX: usize = 16_384;
/// The most maximal counts that the classes of one grid keep together; known grids keep below 10,000.
pub const FRONTS_MAX: usize = 262_144;

/// A layout under construction.
#[derive(Clone, Copy, Default)]
struct Partial {
    mask: u64,
    slots: SlotMask,
    compute: u8,
    counts: Bag,
    once: bool,
    engines: Engines,
}

/// What is enumerated over.
struct Space<'a> {
    grid: &'a Grid,
    placements: &'a [Placement],
    once: Vec<bool>,
    found: Vec<u64>,
}

impl Space<'_> {
    fn add(&self, partial: Partial, bit: usize) -> Option<Partial> {
        let placement = self.placements[bit];
        let row = usize::from(placement.profile);
        let profile = &self.grid.profiles[row];
        let slots = self.grid.slots_of(placement);
        let compute = partial.compute + profile.compute;
        let engines = partial.engines.plus(profile.engines);
        let legal = !partial.slots.overlaps(slots)
            && compute <= self.grid.compute
            && partial.counts.get(row) < u32::from(profile.max)
            && !(partial.once && self.once[row])
            && engines.within(self.grid.engines);
        legal.then(|| Partial {
            mask: partial.mask | 1 << bit,
            slots: partial.slots.union(slots),
            compute,
            counts: partial.counts.plus(Bag::one(row)),
            once: partial.once || self.once[row],
            engines,
        })
    }

    /// Records `partial` and all layouts that add placements from `from` on. The depth is that of the slots.
    fn enumerate(&mut self, partial: Partial, from: usize) -> Result<(), LayoutError> {
        if self.found.len() == LAYOUTS_MAX {
            return Err(LayoutError::TooMany);
        }
        self.found.push(partial.mask);
        for bit in from..self.placements.len() {
            if let Some(larger) = self.add(partial, bit) {
                self.enumerate(larger, bit + 1)?;
            }
        }
        Ok(())
    }
}

/// Builds the table of a grid.
pub(super) fn build(grid: &Grid) -> Result<Layouts, LayoutError> {
    grid.validate()?;
    let mut placements = Vec::new();
    for (row, profile) in grid.profiles.iter().enumerate() {
        let mut starts = profile.starts.clone();
        starts.sort_unstable();
        placements.extend(starts.into_iter().map(|start| Placement { profile: row as u8, start }));
    }
    let once = grid.profiles.iter().map(|profile| profile.variant().once()).collect();
    let mut space = Space { grid, placements: &placements, once, found: Vec::new() };
    space.enumerate(Partial::default(), 0)?;
    let mut masks = space.found;
    masks.sort_unstable();
    let slots: Vec<SlotMask> = placements.iter().map(|&one| grid.slots_of(one)).collect();
    let overlap = |bit: usize| {
        (0..placements.len()).filter(|&other| other != bit && slots[bit].overlaps(slots[other])).fold(0, |all, other| all | 1u64 << other)
    };
    let mut bits = vec![NO_PLACEMENT; Grid::PROFILES_MAX * START_ROOM];
    let mut of_profile = vec![0u64; grid.profiles.len()];
    for (bit, one) in placements.iter().enumerate() {
        bits[usize::from(one.profile) * START_ROOM + usize::from(one.start)] = bit as u8;
        of_profile[usize::from(one.profile)] |= 1 << bit;
    }
    let mut layouts = Layouts {
        sizes: grid.profiles.iter().map(|profile| (profile.size, profile.compute)).collect(),
        overlaps: (0..placements.len()).map(overlap).collect(),
        class: vec![NO_CLASS; masks.len()],
        bits,
        of_profile,
        slots,
        masks,
        placements,
        next: Vec::new(),
        fronts: Vec::new(),
        front_ends: Vec::new(),
        room: Vec::new(),
        kept: Vec::new(),
    };
    classify(&mut layouts);
    fronts(&mut layouts)?;
    rank(&mut layouts);
    Ok(layouts)
}

/// Layouts beside which exactly the same placements can be made, now and after any of them, are one class: the minimal automaton of
/// the enumeration, found from the fullest layouts down (Revuz, "Minimisation of acyclic deterministic automata in linear time", 1992).
fn classify(layouts: &mut Layouts) {
    let mut order: Vec<u32> = (0..layouts.masks.len() as u32).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(layouts.masks[row as usize].count_ones()));
    let mut known: BTreeMap<Vec<u16>, u16> = BTreeMap::new();
    for row in order {
        let mask = layouts.masks[row as usize];
        let after = |bit: usize| {
            let larger = if mask & 1 << bit == 0 { layouts.masks.binary_search(&(mask | 1 << bit)).ok() } else { None };
            larger.map_or(NO_CLASS, |row| layouts.class[row])
        };
        let next: Vec<u16> = (0..layouts.placements.len()).map(after).collect();
        let new = known.len() as u16;
        let class = *known.entry(next.clone()).or_insert(new);
        if class == new {
            layouts.next.extend(next);
        }
        layouts.class[row as usize] = class;
    }
}

/// The maximal counts of profiles that fit beside each class. A class comes after all those it leads to.
fn fronts(layouts: &mut Layouts) -> Result<(), LayoutError> {
    let width = layouts.placements.len();
    for class in 0..layouts.next.len() / width {
        let mut front = vec![Bag::EMPTY];
        for (bit, &next) in layouts.next[class * width..(class + 1) * width].iter().enumerate() {
            if next != NO_CLASS {
                let one = Bag::one(usize::from(layouts.placements[bit].profile));
                front.extend(layouts.front(next).iter().map(|bag| bag.plus(one)));
            }
        }
        keep_largest(&mut front);
        if layouts.fronts.len() + front.len() > FRONTS_MAX {
            return Err(LayoutError::TooMany);
        }
        for row in 0..layouts.sizes.len() {
            layouts.room.push(front.iter().map(|bag| bag.get(row)).max().unwrap_or(0) as u8);
        }
        layouts.fronts.append(&mut front);
        layouts.front_ends.push(layouts.fronts.len() as u32);
    }
    Ok(())
}

/// Ranks classes by the room they leave: for the largest profile first, so that large aligned stretches are worth more than any number
/// of small ones.
fn rank(layouts: &mut Layouts) {
    let mut profiles: Vec<usize> = (0..layouts.sizes.len()).collect();
    profiles.sort_by_key(|&row| std::cmp::Reverse(layouts.sizes[row]));
    let room = |class: usize| -> Vec<u8> { profiles.iter().map(|&row| layouts.room[class * profiles.len() + row]).collect() };
    let rooms: Vec<Vec<u8>> = (0..layouts.front_ends.len()).map(room).collect();
    let mut sorted: Vec<&Vec<u8>> = rooms.iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    layouts.kept = rooms.iter().map(|room| sorted.partition_point(|other| *other < room) as u16).collect();
}

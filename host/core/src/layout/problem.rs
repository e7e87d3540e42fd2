//! A question about several GPUs in the form in which it is solved.

use super::{Bag, Layouts, Limit, NotALayout, State, bag::keep_largest};
use crate::model::{Grid, Placement, node::GPUS_MAX};

/// One GPU as the algebra sees it.
#[derive(Clone, Copy, Debug)]
pub struct Occupancy<'a> {
    /// The layouts of its model.
    pub layouts: &'a Layouts,
    /// Partitions of GPUs of one number can take each other's place.
    pub model: u32,
    pub(super) used: State,
    /// Partitions in use and warm ones.
    pub(super) exists: u64,
}

impl<'a> Occupancy<'a> {
    /// A GPU with partitions in use and warm ones.
    ///
    /// # Errors
    /// [`NotALayout`] if they cannot all be on one GPU.
    pub fn new(layouts: &'a Layouts, model: u32, used: &[Placement], warm: &[Placement]) -> Result<Self, NotALayout> {
        let state = layouts.state(used.iter().copied())?;
        let exists = layouts.state(used.iter().chain(warm).copied())?.mask;
        Ok(Self { layouts, model, used: state, exists })
    }

    /// A GPU with the partitions `used` in use of all that `exist`; both are layouts of its table.
    #[must_use]
    pub fn of(layouts: &'a Layouts, model: u32, used: State, exists: State) -> Self {
        Self { layouts, model, used, exists: exists.mask | used.mask }
    }

    /// The layout of the partitions in use.
    #[must_use]
    pub fn used(&self) -> State {
        self.used
    }

    /// The layout of all partitions, in use and warm.
    #[must_use]
    pub fn exists(&self) -> State {
        self.layouts.at(self.exists).unwrap_or(self.used)
    }

    /// The same GPU after the partitions `gone` lost their users; they stay as warm ones. Those that were not in use are ignored.
    #[must_use]
    pub(super) fn released(&self, gone: u64) -> Self {
        // Every subset of a layout is a layout.
        Self { used: self.layouts.at(self.used.mask & !gone).unwrap_or(self.used), ..*self }
    }
}

/// Some partitions of one profile, on any GPUs of those asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The profile's row in the grid of each GPU, in the order of the GPUs; none where the GPU has no such profile or may not be used.
    pub rows: Vec<Option<u8>>,
    /// How many.
    pub count: u32,
}

impl Want {
    /// `count` partitions of row `row` on GPUs of one model.
    #[must_use]
    pub fn same(row: u8, count: u32, gpus: usize) -> Self {
        Self { rows: vec![Some(row); gpus], count }
    }

    /// `count` partitions of the profile named `name`, wherever a GPU's grid has it under that name.
    pub fn named<'g>(name: &str, count: u32, grids: impl IntoIterator<Item = &'g Grid>) -> Self {
        Self { rows: grids.into_iter().map(|grid| grid.resolve(name).ok()).collect(), count }
    }
}

pub(super) type Rows = [Option<u8>; Bag::KINDS_MAX];

/// A question with everything looked up.
pub(super) struct Problem<'a> {
    pub(super) gpus: &'a [Occupancy<'a>],
    /// The profile row of each kind on each GPU.
    pub(super) rows: Vec<Rows>,
    /// Kinds wanted, and how many of each.
    pub(super) wanted: Bag,
    pub(super) kinds: usize,
}

/// What stands in the way of solving a question.
pub(super) enum Hurdle {
    Impossible,
    Limit(Limit),
}

impl<T> From<Hurdle> for super::Verdict<T> {
    fn from(hurdle: Hurdle) -> Self {
        match hurdle {
            Hurdle::Impossible => Self::Impossible,
            Hurdle::Limit(limit) => Self::Undecided(limit),
        }
    }
}

impl<'a> Problem<'a> {
    /// Looks everything up. Limits are checked after what is plainly impossible.
    pub(super) fn new(gpus: &'a [Occupancy<'a>], wants: &[Want]) -> Result<Self, Hurdle> {
        if gpus.len() > GPUS_MAX as usize {
            return Err(Hurdle::Limit(Limit::Gpus(gpus.len())));
        }
        if wants.iter().all(|want| room_for(gpus, want)) { Self::unchecked(gpus, wants) } else { Err(Hurdle::Impossible) }
    }

    /// Looks everything up without asking whether there is room: there may be after something went.
    pub(super) fn unchecked(gpus: &'a [Occupancy<'a>], wants: &[Want]) -> Result<Self, Hurdle> {
        let asked = wants.iter().filter(|want| want.count > 0);
        let kinds = asked.clone().count();
        if gpus.len() > GPUS_MAX as usize || kinds > Bag::KINDS_MAX {
            return Err(Hurdle::Limit(if kinds > Bag::KINDS_MAX { Limit::Kinds(kinds) } else { Limit::Gpus(gpus.len()) }));
        }
        let mut wanted = Bag::EMPTY;
        let mut rows = vec![[None; Bag::KINDS_MAX]; gpus.len()];
        for (kind, want) in asked.enumerate() {
            if want.count > Bag::COUNT_MAX {
                return Err(Hurdle::Limit(Limit::Count(want.count)));
            }
            wanted = wanted.plus(Bag::of(kind, want.count));
            for ((table, row), gpu) in rows.iter_mut().zip(&want.rows).zip(gpus) {
                table[kind] = row.filter(|&row| usize::from(row) < gpu.layouts.sizes.len());
            }
        }
        Ok(Self { gpus, rows, wanted, kinds })
    }

    /// What to multiply counts with so that the sums are bounds: each kind by itself, slots, and the large kinds without the small.
    /// A kind that costs different slots on different GPUs counts its fewest, which keeps the bound true.
    pub(super) fn weights(&self) -> Vec<[u32; Bag::KINDS_MAX]> {
        let size = |kind: usize| {
            let sizes = self.gpus.iter().zip(&self.rows).filter_map(|(gpu, rows)| Some(gpu.layouts.sizes[usize::from(rows[kind]?)]));
            sizes.min().unwrap_or((0, 0))
        };
        let mut sizes = [(0u8, 0u8); Bag::KINDS_MAX];
        for (kind, entry) in sizes.iter_mut().enumerate().take(self.kinds) {
            *entry = size(kind);
        }
        let mut weights: Vec<[u32; Bag::KINDS_MAX]> = Vec::new();
        for kind in 0..self.kinds {
            let mut unit = [0; Bag::KINDS_MAX];
            unit[kind] = 1;
            weights.push(unit);
        }
        if self.kinds > 1 {
            weights.push(sizes.map(|size| u32::from(size.0)));
            weights.push(sizes.map(|size| u32::from(size.1)));
            let mut order: Vec<usize> = (0..self.kinds).collect();
            order.sort_by_key(|&kind| std::cmp::Reverse(sizes[kind]));
            for large in 2..=self.kinds {
                let mut some = [0; Bag::KINDS_MAX];
                for &kind in &order[..large] {
                    some[kind] = 1;
                }
                weights.push(some);
            }
        }
        weights
    }

    /// The maximal counts of the kinds, of those wanted, that fit on GPU `index`.
    pub(super) fn tops(&self, index: usize) -> Vec<Bag> {
        let (gpu, rows) = (&self.gpus[index], &self.rows[index]);
        let mut tops = Vec::new();
        for &most in gpu.layouts.most(gpu.used) {
            split(rows, self.wanted, self.kinds, 0, most, Bag::EMPTY, &mut tops);
        }
        keep_largest(&mut tops);
        tops
    }

    /// Every count of the kinds, of those wanted, that fits on GPU `index` in a class.
    pub(super) fn takes(&self, index: usize, state: State, found: &mut Vec<Bag>) {
        self.grow(index, state, 0, Bag::EMPTY, Bag::EMPTY, found);
    }

    fn grow(&self, index: usize, state: State, from: usize, take: Bag, rows: Bag, found: &mut Vec<Bag>) {
        found.push(take);
        for kind in from..self.kinds {
            let Some(row) = self.rows[index][kind] else { continue };
            if take.get(kind) < self.wanted.get(kind) {
                let more = rows.plus(Bag::one(usize::from(row)));
                if self.gpus[index].layouts.fits(state, more) {
                    self.grow(index, state, kind, take.plus(Bag::one(kind)), more, found);
                }
            }
        }
    }
}

/// Whether the GPUs together have room for one want by itself; if not, nothing helps.
pub(super) fn room_for(gpus: &[Occupancy<'_>], want: &Want) -> bool {
    let room = |(gpu, row): (&Occupancy<'_>, &Option<u8>)| gpu.layouts.room(gpu.used).get(usize::from((*row)?)).copied();
    want.count <= gpus.iter().zip(&want.rows).filter_map(room).map(u32::from).sum()
}

/// Deals the counts `left` of profile rows out to the kinds, in every way where two kinds mean one row (two names of one profile).
fn split(rows: &Rows, wanted: Bag, kinds: usize, kind: usize, left: Bag, take: Bag, tops: &mut Vec<Bag>) {
    if kind == kinds {
        tops.push(take);
        return;
    }
    let Some(row) = rows[kind] else { return split(rows, wanted, kinds, kind + 1, left, take, tops) };
    let row = usize::from(row);
    let most = left.get(row).min(wanted.get(kind));
    let shared = rows[kind + 1..kinds].contains(&rows[kind]);
    for count in if shared { 0 } else { most }..=most {
        split(rows, wanted, kinds, kind + 1, left.minus(Bag::of(row, count)), take.plus(Bag::of(kind, count)), tops);
    }
}

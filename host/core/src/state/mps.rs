//! A GPU under MPS: shares of its memory, some in use, some warm.

use super::gpu::Holder;
use crate::model::node::MPS_CLIENTS_MAX;

/// The most warm shares of which every subset is tried; of more, the largest are kept first.
const EXACT_MAX: usize = 12;

/// A share of a GPU's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slice {
    /// Its memory, MiB.
    pub memory_mib: u32,
    /// Who uses it; none for a warm share.
    pub holder: Option<Holder>,
}

/// The shares of one GPU. Their memory together never exceeds what the GPU can promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slices {
    /// Memory that can be promised, MiB.
    pub capacity_mib: u32,
    /// The shares, sorted.
    pub all: Vec<Slice>,
}

/// What a share costs to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Whether it existed.
    pub warm: bool,
    /// Memory of the warm shares that have to go, MiB each, sorted.
    pub withdrawn: Vec<u32>,
}

impl Slices {
    /// A GPU without shares.
    #[must_use]
    pub fn empty(capacity_mib: u32) -> Self {
        Self { capacity_mib, all: Vec::new() }
    }

    /// Whether nothing but the names of its users tells it from `other`.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let plain = |one: &Slice| (one.memory_mib, one.holder.is_some());
        let sorted = |slices: &Self| {
            let mut all: Vec<_> = slices.all.iter().map(plain).collect();
            all.sort_unstable();
            all
        };
        self.capacity_mib == other.capacity_mib && sorted(self) == sorted(other)
    }

    /// Memory of the shares in use, MiB.
    #[must_use]
    pub fn used_mib(&self) -> u32 {
        self.all.iter().filter(|one| one.holder.is_some()).map(|one| one.memory_mib).sum()
    }

    /// Memory that no share in use has, MiB.
    #[must_use]
    pub fn free_mib(&self) -> u32 {
        self.capacity_mib.saturating_sub(self.used_mib())
    }

    /// What it takes to give a share of `memory_mib` to somebody: a warm one of just that size, else free memory, else as few bytes of warm
    /// shares as make room. None if those in use leave too little.
    #[must_use]
    pub fn fit(&self, memory_mib: u32) -> Option<Made> {
        let users = self.all.iter().filter(|one| one.holder.is_some()).count();
        if self.free_mib() < memory_mib || users == MPS_CLIENTS_MAX {
            return None;
        }
        let warm: Vec<u32> = self.all.iter().filter(|one| one.holder.is_none()).map(|one| one.memory_mib).collect();
        if warm.contains(&memory_mib) {
            return Some(Made { warm: true, withdrawn: Vec::new() });
        }
        let room = self.free_mib() - memory_mib;
        let kept = keep(&warm, room, MPS_CLIENTS_MAX - users - 1);
        let withdrawn = (0..warm.len()).filter(|row| !kept.contains(row)).map(|row| warm[row]).collect();
        Some(Made { warm: false, withdrawn })
    }

    /// Gives a share to `holder`, as [`Slices::fit`] says. False, and nothing done, if it does not fit.
    pub(crate) fn take(&mut self, memory_mib: u32, holder: Holder) -> bool {
        let Some(made) = self.fit(memory_mib) else { return false };
        for gone in made.withdrawn.into_iter().chain(made.warm.then_some(memory_mib)) {
            if let Some(row) = self.all.iter().position(|one| *one == Slice { memory_mib: gone, holder: None }) {
                self.all.remove(row);
            }
        }
        self.all.push(Slice { memory_mib, holder: Some(holder) });
        self.all.sort_unstable();
        true
    }

    /// Takes a share from `holder`; it stays, warm. False if they have none of that size.
    pub(crate) fn release(&mut self, memory_mib: u32, holder: Holder) -> bool {
        let Some(one) = self.all.iter_mut().find(|one| **one == Slice { memory_mib, holder: Some(holder) }) else { return false };
        one.holder = None;
        self.all.sort_unstable();
        true
    }
}

/// Which of the warm shares to keep, by row: as much memory as `room` holds, in as many shares as possible, at most `count`.
fn keep(warm: &[u32], room: u32, count: usize) -> Vec<usize> {
    let room = u64::from(room);
    if warm.len() > EXACT_MAX {
        let (mut left, mut kept) = (room, Vec::new());
        for row in (0..warm.len()).rev() {
            if u64::from(warm[row]) <= left && kept.len() < count {
                left -= u64::from(warm[row]);
                kept.push(row);
            }
        }
        return kept;
    }
    let rows = |set: u32| (0..warm.len()).filter(move |row| set & 1 << row != 0);
    let sum = |set: u32| rows(set).map(|row| u64::from(warm[row])).sum::<u64>();
    let fitting = (0u32..1 << warm.len()).filter(|&set| set.count_ones() as usize <= count && sum(set) <= room);
    // Of equals the lowest set: which shares those are is the same in every run.
    let best = fitting.max_by_key(|&set| (sum(set), set.count_ones(), std::cmp::Reverse(set)));
    rows(best.unwrap_or(0)).collect()
}

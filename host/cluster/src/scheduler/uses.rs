//! Who has which part of a node's GPUs, when what was granted and what the node's agent sees are not the same.
//!
//! A device plugin is not told for which pod the kubelet takes a device, and of equal devices the kubelet takes any. So of two pods that were
//! given a and b each may have the other's, and only the agent's report tells. What it says is followed as far as it can be: a pod has what
//! it is seen to use and could have got, as many parts as it asked for. Who is seen nowhere keeps what it had; if somebody else turned out
//! to have that, it has what the other left, else the first like it that is free. What is in use beyond that belongs to a stranger. Pure:
//! equal reports give equal answers.

use std::collections::{BTreeMap, BTreeSet};

use partita_core::{
    model::{GpuAsk, MILLI, node::GPUS_MAX},
    state::{Grant, Use},
};

/// A part of a GPU: its index, and what of it.
pub(super) type Part = (u8, Use);

/// One part that a pod asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// A MIG partition of a profile, as the pod calls it.
    Profile(String),
    /// Just this.
    Just(Use),
    /// Any part.
    Any,
}

impl Want {
    /// What a demand asks for, part by part.
    pub(super) fn of(ask: &GpuAsk) -> Vec<Self> {
        let times = |want: Self, count: u32| std::iter::repeat_n(want, count as usize);
        match ask {
            GpuAsk::None => Vec::new(),
            GpuAsk::Share { count, milli } => times(Self::Just(Use::Share(*milli)), (*count).min(GPUS_MAX)).collect(),
            GpuAsk::Mig { partitions } => partitions.iter().flat_map(|(name, count)| times(Self::Profile(name.clone()), *count)).collect(),
            GpuAsk::Mps { memory_mib } => vec![Self::Just(Use::Mps(*memory_mib))],
            GpuAsk::Floor { .. } => vec![Self::Any],
        }
    }
}

/// A part that a pod can have.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) part: Part,
    /// Who uses it, as the agent says.
    pub(super) users: BTreeSet<String>,
    /// Whether a pod of which nothing is known may have it.
    pub(super) open: bool,
    /// Whether it is there, as far as is known; else only books name it.
    pub(super) there: bool,
}

/// A pod that has, or is to have, parts of a node's GPUs.
#[derive(Clone, Debug)]
pub(super) struct Tenant {
    pub(super) name: String,
    pub(super) wants: Vec<Want>,
    /// What it was held to have, the likeliest first.
    pub(super) had: Vec<Part>,
    /// Whether it may have started. Else it can still be sent elsewhere.
    pub(super) firm: bool,
}

/// Who has what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// What each pod has that may have started.
    pub(super) grants: BTreeMap<String, Grant>,
    /// Pods that did not start and whose place is taken.
    pub(super) lost: Vec<String>,
    /// Parts that are in use by somebody else.
    pub(super) strangers: Vec<Part>,
}

struct Board<'a> {
    spots: Vec<Spot>,
    /// Who has each.
    holders: Vec<Option<usize>>,
    tenants: &'a [Tenant],
    /// What each tenant does not have yet.
    left: Vec<Vec<Want>>,
    means: &'a dyn Fn(&Want, Part) -> bool,
}

/// Finds out who has what. `means` tells whether a part of the node is what is wanted.
pub(super) fn settle(spots: Vec<Spot>, tenants: &[Tenant], means: &dyn Fn(&Want, Part) -> bool) -> Settled {
    let holders = vec![None; spots.len()];
    let left = tenants.iter().map(|tenant| tenant.wants.clone()).collect();
    let mut board = Board { spots, holders, tenants, left, means };
    board.add_missing();
    let firm: Vec<usize> = (0..tenants.len()).filter(|&row| tenants[row].firm).collect();
    // What each is seen to use: first what was its own, so that nobody takes it from them who is said to use it, too.
    for own in [true, false] {
        for &row in &firm {
            board.each(row, |board, spot| board.spots[spot].users.contains(&tenants[row].name) && (!own || board.had(row, spot)));
        }
    }
    for &row in &firm {
        board.keep(row);
    }
    let released: Vec<bool> = (0..board.spots.len()).map(|spot| firm.iter().any(|&row| board.had(row, spot))).collect();
    let reserved: Vec<bool> = (0..board.spots.len()).map(|spot| (0..tenants.len()).any(|row| board.had(row, spot))).collect();
    // What others left behind, like what it had if there is such; else what is free.
    for alike in [true, false] {
        for &row in &firm {
            board.each(row, |board, spot| {
                let one = &board.spots[spot];
                let will_do = board.is_alike(row, spot) || !alike && !tenants[row].had.is_empty();
                released[spot] && one.there && one.users.is_empty() && will_do
            });
        }
    }
    for &row in &firm {
        board.each(row, |board, spot| {
            let one = &board.spots[spot];
            let known = !board.left[row].contains(&Want::Any) || board.is_alike(row, spot);
            one.open && one.users.is_empty() && !reserved[spot] && known
        });
    }
    board.finish()
}

impl Board<'_> {
    /// Parts that somebody was held to have and of which nobody tells. A MIG partition is one, of shares each pod has its own.
    fn add_missing(&mut self) {
        let mut had: Vec<Part> = self.tenants.iter().flat_map(|tenant| tenant.had.iter().copied()).collect();
        had.sort_unstable();
        for alike in had.chunk_by(|one, other| one == other) {
            let there = self.spots.iter().filter(|spot| spot.part == alike[0]).count();
            let must = if matches!(alike[0].1, Use::Partition(_)) { 1 } else { alike.len() };
            for _ in there..must {
                self.spots.push(Spot { part: alike[0], users: BTreeSet::new(), open: false, there: false });
                self.holders.push(None);
            }
        }
    }

    fn had(&self, tenant: usize, spot: usize) -> bool {
        self.tenants[tenant].had.contains(&self.spots[spot].part)
    }

    /// Whether a spot is of the kind and size of what a tenant had.
    fn is_alike(&self, tenant: usize, spot: usize) -> bool {
        self.tenants[tenant].had.iter().any(|(_, used)| match (used, self.spots[spot].part.1) {
            (Use::Partition(one), Use::Partition(other)) => one.profile == other.profile,
            (one, other) => *one == other,
        })
    }

    /// Gives a tenant every spot that will do, in order, as long as it wants more.
    fn each(&mut self, tenant: usize, will_do: impl Fn(&Self, usize) -> bool) {
        for spot in 0..self.spots.len() {
            if !self.left[tenant].is_empty() && self.holders[spot].is_none() && will_do(self, spot) {
                self.give(tenant, spot);
            }
        }
    }

    /// A tenant keeps what it had, as far as nobody else has it.
    fn keep(&mut self, tenant: usize) {
        for part in &self.tenants[tenant].had {
            let free = |spot: &usize| self.spots[*spot].part == *part && self.holders[*spot].is_none();
            // Of several alike rather one that nobody else uses.
            let spot = (0..self.spots.len()).filter(free).min_by_key(|&spot| !self.spots[spot].users.is_empty());
            if let Some(spot) = spot {
                self.give(tenant, spot);
            }
        }
    }

    /// Gives a tenant a spot, if it wants one and can have it beside what others have. Of a GPU that is not cut by MIG a pod has one part.
    fn give(&mut self, tenant: usize, spot: usize) -> bool {
        let part = self.spots[spot].part;
        let Some(want) = self.left[tenant].iter().position(|want| (self.means)(want, part)) else { return false };
        let taken = |spot: &usize| self.holders[*spot].is_some() && self.spots[*spot].part.0 == part.0;
        let twice =
            !matches!(part.1, Use::Partition(_)) && (0..self.spots.len()).filter(taken).any(|other| self.holders[other] == Some(tenant));
        let milli = |part: Part| if let Use::Share(milli) = part.1 { milli } else { 0 };
        let shared: u32 = (0..self.spots.len()).filter(taken).map(|other| milli(self.spots[other].part)).sum();
        if twice || shared + milli(part) > MILLI {
            return false;
        }
        self.left[tenant].remove(want);
        self.holders[spot] = Some(tenant);
        true
    }

    fn finish(mut self) -> Settled {
        let mut settled = Settled::default();
        for (row, tenant) in self.tenants.iter().enumerate().filter(|(_, tenant)| !tenant.firm) {
            self.keep(row);
            if !self.left[row].is_empty() {
                settled.lost.push(tenant.name.clone());
            }
        }
        for (row, tenant) in self.tenants.iter().enumerate().filter(|(_, tenant)| tenant.firm) {
            let has = |(spot, holder): (&Spot, &Option<usize>)| (*holder == Some(row)).then_some(spot.part);
            let mut parts: Vec<Part> = self.spots.iter().zip(&self.holders).filter_map(has).collect();
            parts.sort_unstable();
            settled.grants.insert(tenant.name.clone(), Grant(parts));
        }
        let strange = |(spot, holder): &(&Spot, &Option<usize>)| holder.is_none() && !spot.users.is_empty();
        settled.strangers = self.spots.iter().zip(&self.holders).filter(strange).map(|(spot, _)| spot.part).collect();
        settled
    }
}

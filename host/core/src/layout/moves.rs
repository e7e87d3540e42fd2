//! Moves: who would have to be started elsewhere so that something fits, when nobody is to lose their place.

use super::{
    Limit, Occupancy, Packed, Placed, Verdict, Want,
    pack::{pack, possible},
    problem::room_for,
    victims::{Held, Holder, holders, without},
};
use crate::model::Placement;

/// The most that move in one plan: each restarts a pod.
pub const MOVES_MAX: usize = 4;
/// The most sets of movers that are tried: all pairs of the partitions of 64 GPUs (100,576) and all triples of those of 8 (27,720) are
/// fewer.
pub const TRIES_MAX: usize = 150_000;

/// A partition's user is started again elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Who moves.
    pub id: u32,
    /// GPU and place that are left.
    pub from: (u8, Placement),
    /// GPU and place that are taken.
    pub to: (u8, Placement),
}

/// What moves, and where everything wanted fits then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moves {
    /// The moves, in an order in which each finds its place free.
    pub moves: Vec<Move>,
    /// False if there is no such order: all of them have to stop before one starts.
    pub one_by_one: bool,
    /// What the movers cost together.
    pub cost: u128,
    /// Where everything wanted goes; `want` is the row of what was asked.
    pub placed: Vec<Placed>,
    /// Warm partitions that have to go, with the index of their GPU. The places that movers leave are among them where needed.
    pub destroyed: Vec<(u8, Placement)>,
}

/// The fewest moves, at most `max` (and [`MOVES_MAX`]), after which everything wanted fits; the cheapest of those; the lowest ids among
/// equals. A partition moves only to GPUs of its model, all partitions of an id move together and count as one move.
///
/// Exact: every set of movers is tried, smallest sets first, and `Impossible` says that no `max` moves do. Beyond [`TRIES_MAX`] sets the
/// answer is `Undecided`; up to two moves on 64 GPUs stay below it.
#[must_use]
pub fn moves(gpus: &[Occupancy<'_>], held: &[Held], wants: &[Want], max: usize) -> Verdict<Moves> {
    match possible(gpus, wants) {
        Verdict::Possible(()) => return planned(gpus, &[], wants),
        Verdict::Undecided(limit) => return Verdict::Undecided(limit),
        Verdict::Impossible => {}
    }
    let holders = holders(gpus, held);
    let mut search = Movers { gpus, holders: &holders, wants, tries: 0, best: None, limit: None };
    for count in 1..=max.min(MOVES_MAX).min(holders.len()) {
        search.choose(0, count, &mut Vec::new());
        if let Some(limit) = search.limit {
            return Verdict::Undecided(limit);
        }
        if let Some((_, movers)) = search.best {
            let movers: Vec<&Holder> = movers.into_iter().map(|row| &holders[row]).collect();
            return planned(gpus, &movers, wants);
        }
    }
    Verdict::Impossible
}

struct Movers<'m> {
    gpus: &'m [Occupancy<'m>],
    holders: &'m [Holder],
    wants: &'m [Want],
    tries: usize,
    best: Option<(u128, Vec<usize>)>,
    limit: Option<Limit>,
}

impl Movers<'_> {
    /// Tries every set that adds `more` holders from row `from` on to `chosen`.
    fn choose(&mut self, from: usize, more: usize, chosen: &mut Vec<usize>) {
        if more == 0 {
            self.attempt(chosen);
            return;
        }
        for row in from..=self.holders.len() - more {
            if self.limit.is_some() {
                return;
            }
            chosen.push(row);
            self.choose(row + 1, more - 1, chosen);
            chosen.pop();
        }
    }

    fn attempt(&mut self, chosen: &[usize]) {
        self.tries += 1;
        if self.tries > TRIES_MAX {
            self.limit = Some(Limit::Steps(TRIES_MAX));
            return;
        }
        let movers: Vec<&Holder> = chosen.iter().map(|&row| &self.holders[row]).collect();
        let cost = movers.iter().map(|holder| u128::from(holder.cost)).sum();
        if self.best.as_ref().is_some_and(|best| best.0 <= cost) {
            return;
        }
        let after = without(self.gpus, movers.iter().copied());
        // Most sets do not even make room for what is wanted: asked first, since it is a few additions.
        if !self.wants.iter().all(|want| room_for(&after, want)) {
            return;
        }
        match possible(&after, &with_movers(self.gpus, &movers, self.wants)) {
            Verdict::Possible(()) => self.best = Some((cost, chosen.to_vec())),
            Verdict::Impossible => {}
            Verdict::Undecided(limit) => self.limit = Some(limit),
        }
    }
}

/// The wants, and after them one for each kind of partition that moves.
fn with_movers(gpus: &[Occupancy<'_>], movers: &[&Holder], wants: &[Want]) -> Vec<Want> {
    let mut all = wants.to_vec();
    let mut kinds: Vec<(u32, u8)> = Vec::new();
    for (gpu, placement) in movers.iter().flat_map(|holder| parts(gpus, holder)) {
        let kind = (gpus[usize::from(gpu)].model, placement.profile);
        if let Some(row) = kinds.iter().position(|&known| known == kind) {
            all[wants.len() + row].count += 1;
        } else {
            kinds.push(kind);
            let rows = gpus.iter().map(|other| (other.model == kind.0).then_some(kind.1)).collect();
            all.push(Want { rows, count: 1 });
        }
    }
    all
}

fn parts<'h>(gpus: &'h [Occupancy<'_>], holder: &'h Holder) -> impl Iterator<Item = (u8, Placement)> + 'h {
    holder.parts.iter().flat_map(move |&(gpu, mask)| {
        let layouts = gpus[usize::from(gpu)].layouts;
        super::table::bits(mask).map(move |bit| (gpu, layouts.placements[bit]))
    })
}

/// Places what is wanted and the movers, and orders the moves.
fn planned(gpus: &[Occupancy<'_>], movers: &[&Holder], wants: &[Want]) -> Verdict<Moves> {
    let after = without(gpus, movers.iter().copied());
    let Packed { placed, destroyed, .. } = match pack(&after, &with_movers(gpus, movers, wants)) {
        Verdict::Possible(packed) => packed,
        Verdict::Impossible => return Verdict::Impossible,
        Verdict::Undecided(limit) => return Verdict::Undecided(limit),
    };
    let (wanted, mut moved): (Vec<Placed>, Vec<Placed>) = placed.into_iter().partition(|one| (one.want as usize) < wants.len());
    let mut leaving: Vec<(u32, (u8, Placement))> =
        movers.iter().flat_map(|holder| parts(gpus, holder).map(|from| (holder.id, from))).collect();
    // Who can stay where they are, because another of the kind took the new place, stays.
    leaving.retain(|&(_, from)| {
        let stays = moved.iter().position(|one| (one.gpu, one.placement) == from);
        if let Some(row) = stays {
            moved.remove(row);
        }
        stays.is_none()
    });
    let same_kind = |from: &(u8, Placement), one: &Placed| {
        gpus[usize::from(from.0)].model == gpus[usize::from(one.gpu)].model && from.1.profile == one.placement.profile
    };
    let mut steps = Vec::new();
    for (id, from) in leaving {
        if let Some(row) = moved.iter().position(|one| same_kind(&from, one)) {
            let to = moved.remove(row);
            steps.push(Move { id, from, to: (to.gpu, to.placement) });
        }
    }
    let one_by_one = order(gpus, &mut steps);
    let cost = movers.iter().map(|holder| u128::from(holder.cost)).sum();
    Verdict::Possible(Moves { moves: steps, one_by_one, cost, placed: wanted, destroyed })
}

/// Brings the moves into an order in which each finds its place free; false if there is none, then they keep theirs.
fn order(gpus: &[Occupancy<'_>], moves: &mut [Move]) -> bool {
    let given = moves.to_vec();
    let mut now: Vec<Occupancy<'_>> = gpus.to_vec();
    for row in 0..moves.len() {
        let next = moves[row..].iter().position(|one| {
            let left = left_by(&now, one);
            let to = usize::from(one.to.0);
            now[to].layouts.with(left[to].used, one.to.1).is_some()
        });
        let Some(next) = next else {
            moves.copy_from_slice(&given);
            return false;
        };
        moves[row..=row + next].rotate_right(1);
        let one = moves[row];
        now = left_by(&now, &one);
        let gpu = &mut now[usize::from(one.to.0)];
        gpu.used = gpu.layouts.with(gpu.used, one.to.1).unwrap_or(gpu.used);
    }
    true
}

/// The GPUs after a mover left.
fn left_by<'a>(gpus: &[Occupancy<'a>], one: &Move) -> Vec<Occupancy<'a>> {
    let mut after = gpus.to_vec();
    let gpu = &mut after[usize::from(one.from.0)];
    gpu.used = gpu.layouts.without(gpu.used, one.from.1).unwrap_or(gpu.used);
    after
}

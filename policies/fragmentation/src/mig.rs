//! The counterpart for MIG: a place scores by the room that it leaves for the partitions that the mix asks for.
//!
//! The room of a GPU is the sum, over the profiles that the mix asks for on its model, of the slots where a partition could still start
//! times its size. A profile counts half by its weight and half like every other one, so that the room of a rare large profile is not
//! given away for nothing. A place scores what it loses of the room, less a tenth of a slot's room for every slot that is in use on the
//! GPU already: "lost room" alone opens fresh GPUs too early, packing alone breaks up the large starts.
//!
//! In a churn of six profiles on 100 A100-80GB (four mixes, as many slots offered as there are, 10 seeds; benchmark `mig-churn`) this keeps
//! 89.8 to 92.0 % of the slots in use where first-fit keeps 85.3 to 89.1 %, and accepts about a third of what first-fit turns away.

use partita_sdk::{Candidate, Kind, NodeCandidates, SCORE_MAX, View};

/// One profile of a model, as far as room goes.
#[derive(Clone, Copy, Debug)]
struct Term {
    starts: u32,
    size: u32,
    weight: i64,
}

/// The profiles of one model that count.
#[derive(Debug, Default)]
struct Room {
    terms: Vec<Term>,
    /// Sum of the weights.
    total: i64,
}

/// Scores a slot in use, and a slot of room lost counts ten times that.
const USED: i64 = 100;

/// What the mix asks of every model.
#[derive(Debug)]
pub(crate) struct Rooms(Vec<Room>);

impl Rooms {
    pub(crate) fn of(view: &View<'_>) -> Self {
        let mut asked = vec![0i64; view.profiles.model.len()];
        for demand in view.mix() {
            for &profile in demand.profiles() {
                asked[profile as usize] += i64::from(demand.weight());
            }
        }
        let models = view.models.gpus.len() as u32;
        Self((0..models).map(|model| Room::of(view, &asked, model)).collect())
    }

    /// Scores the partitions of one node and appends the scores.
    pub(crate) fn score_node(&self, view: &View<'_>, places: &NodeCandidates<'_>, scores: &mut Vec<i32>) {
        let mut gpu_row = usize::MAX;
        let mut before = 0;
        scores.extend(places.rows().map(|place| {
            let (Some(row), Some((profile, slot))) = (place.gpu(), place.partition()) else { return 0 };
            if place.uses().len() > 0 {
                return self.several(view, &place);
            }
            let gpu = view.gpu(row);
            let room = &self.0[gpu.model() as usize];
            if row != gpu_row {
                gpu_row = row;
                before = room.left(gpu.used_slots());
            }
            let taken = gpu.used_slots() | slots(view.profile(profile).size(), slot);
            let lost = (before - room.left(taken)) * 10 * USED / room.total.max(1);
            (i64::from(gpu.used_slots().count_ones()) * USED - lost) as i32
        }));
    }
}

impl Rooms {
    /// The room of a GPU of `model` with the slots of `used` taken, a thousand for each slot of an average profile of the mix.
    pub(crate) fn share(&self, model: u32, used: u32) -> i64 {
        let room = &self.0[model as usize];
        room.left(used) * 1000 / room.total.max(1)
    }

    /// Several partitions: the sum over their GPUs.
    fn several(&self, view: &View<'_>, place: &Candidate<'_>) -> i32 {
        let mut score = 0;
        let mut uses = place.uses().peekable();
        while let Some((row, profile, slot)) = uses.next() {
            let gpu = view.gpu(row);
            let mut taken = gpu.used_slots() | slots(view.profile(profile).size(), slot);
            while let Some((_, profile, slot)) = uses.next_if(|next| next.0 == row) {
                taken |= slots(view.profile(profile).size(), slot);
            }
            let room = &self.0[gpu.model() as usize];
            let lost = (room.left(gpu.used_slots()) - room.left(taken)) * 10 * USED / room.total.max(1);
            score += i64::from(gpu.used_slots().count_ones()) * USED - lost;
        }
        score.clamp(-i64::from(SCORE_MAX), SCORE_MAX.into()) as i32
    }

    /// Scores places of any kind for a part of a GPU, or shares under MPS: what takes least of a GPU first, then the place that costs the
    /// least room, then the fullest GPU.
    pub(crate) fn score_parts(&self, view: &View<'_>, places: &NodeCandidates<'_>, scores: &mut Vec<i32>) {
        let first = scores.len();
        self.score_node(view, places, scores);
        for (place, score) in places.rows().zip(&mut scores[first..]) {
            let among = match (place.kind(), place.gpu()) {
                (Kind::Mig, _) => *score,
                (_, Some(row)) => -view.gpu(row).free().cast_signed(),
                _ => 0,
            };
            *score = (among / AMONG).clamp(-MILLI_STEP / 2, MILLI_STEP / 2) - place.milli().cast_signed() * MILLI_STEP;
        }
    }
}

/// What one milli-GPU counts: more than places of one size differ by.
const MILLI_STEP: i32 = 900;
/// Room and free shares are divided by this among places of one size, so that they stay below a milli-GPU.
const AMONG: i32 = 64;

/// The mask of `size` slots from `first`.
pub(crate) fn slots(size: u32, first: u32) -> u32 {
    (((1u64 << size.min(32)) - 1) << first.min(31)) as u32
}

impl Room {
    /// The profiles of `model` that the mix asks for; all of them if it asks for none.
    fn of(view: &View<'_>, asked: &[i64], model: u32) -> Self {
        let own = || view.profiles.model.iter().enumerate().filter(move |(_, other)| **other == model).map(|(profile, _)| profile);
        let count: i64 = own().map(|profile| i64::from(asked[profile] > 0)).sum();
        let sum: i64 = own().map(|profile| asked[profile]).sum();
        let weight = |profile: usize| match (sum, asked[profile]) {
            (0, _) => 1,
            (_, 0) => 0,
            (_, weight) => weight * count + sum,
        };
        let term = |profile: usize| {
            let row = view.profile(profile);
            Term { starts: row.starts(), size: row.size(), weight: weight(profile) }
        };
        let terms: Vec<Term> = own().map(term).filter(|term| term.weight > 0).collect();
        Self { total: terms.iter().map(|term| term.weight).sum(), terms }
    }

    /// The room with the slots of `used` taken, times the sum of the weights.
    fn left(&self, used: u32) -> i64 {
        self.terms
            .iter()
            .map(|term| {
                // Bit s of `free` after k rounds: the slots s, s + 1, .. s + k are free.
                let free = (1..term.size).fold(!used, |free, _| free & (free >> 1)) & term.starts;
                term.weight * i64::from(free.count_ones() * term.size)
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use partita_sdk::{Candidates, Demands, Gpus, Models, Nodes, Profiles};

    use super::*;

    /// 1g.10gb, 2g.20gb, 3g.40gb, 7g.80gb of an A100-80GB.
    const PROFILES: Profiles<'_> = Profiles {
        model: &[0; 4],
        size: &[1, 2, 4, 8],
        compute: &[1, 2, 3, 7],
        memory: &[9_728, 19_968, 40_192, 80_384],
        starts: &[0b111_1111, 0b1_0101, 0b1_0001, 0b1],
    };

    /// The scores of a 1g.10gb at each of `slots` on one GPU with `used` slots taken; the mix asks each profile with that weight.
    fn scores(used: u32, weight: &[u32; 4], slots: &[u32]) -> Vec<i32> {
        let demands = Demands { weight, profile_start: &[0, 1, 2, 3, 4], profiles: &[0, 1, 2, 3], ..Demands::default() };
        let view = View {
            models: Models { gpus: &[1], memory: &[81_920], slots: &[8] },
            profiles: PROFILES,
            nodes: Nodes { gpu_start: &[0, 1], ..Nodes::default() },
            gpus: Gpus { model: &[0], free: &[0], used_slots: &[used], warm_slots: &[0], mig: &[1] },
            demands,
            ..View::default()
        };
        let zeros = vec![0; slots.len()];
        let candidates = Candidates { node: &zeros, gpu: &zeros, profile: &zeros, slot: slots, ..Candidates::default() };
        let mut scores = Vec::new();
        for places in candidates.by_node() {
            Rooms::of(&view).score_node(&view, &places, &mut scores);
        }
        scores
    }

    #[test]
    fn room_is_the_sum_of_starts_times_size() {
        // Even weights. Empty: 7 + 3 * 2 + 2 * 4 + 8 = 29 slots of room over 4 profiles. With slot 6 taken 1g keeps 6 starts, 2g all 3, 3g
        // one, 7g none: 6 + 6 + 4 = 16. With slot 0 taken: 6 + 2 * 2 + 4 = 14.
        assert_eq!(scores(0, &[1; 4], &[6, 0]), [-(29 - 16) * 1000 / 4, -(29 - 14) * 1000 / 4]);
    }

    #[test]
    fn slots_in_use_attract() {
        // 3g.40gb runs on slots 0 to 3: room 3 + 2 + 4 = 9; with slot 6 taken too 2 + 2 = 4. Four used slots weigh 400.
        assert_eq!(scores(0b1111, &[1; 4], &[6]), [400 - (9 - 4) * 1000 / 4]);
    }

    #[test]
    fn a_profile_counts_half_by_its_weight() {
        // 1g.10gb with weight 3 and 2g.20gb with 1: 3 * 2 + 4 = 10 and 1 * 2 + 4 = 6 of 16. Slot 6 costs one start of 1g.
        assert_eq!(scores(0, &[3, 1, 0, 0], &[6, 0]), [-10 * 1000 / 16, -(10 + 6 * 2) * 1000 / 16]);
    }

    #[test]
    fn without_a_mix_every_profile_of_the_model_counts() {
        assert_eq!(scores(0, &[0; 4], &[6, 0]), scores(0, &[1; 4], &[6, 0]));
    }
}

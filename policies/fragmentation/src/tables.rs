//! The tables behind [`crate::fgd`]: how much weight of the mix cannot use a GPU, for every state a GPU can be in.

use partita_sdk::{Demand, View};

/// Milli-GPU of a GPU.
pub(crate) const WHOLE: u32 = 1000;

/// Where floor(100 sigmoid(x / 1000)) steps from 50 to 51, from 51 to 52, .. from 98 to 99: 1000 ln(k / (100 - k)) for k in 51..=99, in
/// millionths. The steps below 50 are the same mirrored, and the step to 50 is at 0.
const STEPS: [i64; 49] = [
    40_005_335,
    80_042_708,
    120_144_312,
    160_342_650,
    200_670_695,
    241_162_057,
    281_851_152,
    322_773_392,
    363_965_377,
    405_465_108,
    447_312_218,
    489_548_225,
    532_216_814,
    575_364_145,
    619_039_208,
    663_294_217,
    708_185_058,
    753_771_802,
    800_119_300,
    847_297_860,
    895_384_047,
    944_461_609,
    994_622_575,
    1_045_968_555,
    1_098_612_289,
    1_152_679_510,
    1_208_311_206,
    1_265_666_373,
    1_324_925_415,
    1_386_294_361,
    1_450_010_176,
    1_516_347_489,
    1_585_627_264,
    1_658_228_077,
    1_734_601_055,
    1_815_289_967,
    1_900_958_761,
    1_992_430_165,
    2_090_741_097,
    2_197_224_577,
    2_313_634_929,
    2_442_347_035,
    2_586_689_344,
    2_751_535_313,
    2_944_438_979,
    3_178_053_830,
    3_476_098_690,
    3_891_820_298,
    4_595_119_850,
];

/// The GPUs of one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gpus<'a> {
    /// Row of the model.
    pub(crate) model: &'a [u32],
    /// Free share, milli-GPU.
    pub(crate) free: &'a [u32],
    /// Not 0 if cut by MIG: such a GPU has nothing that a share could use.
    pub(crate) mig: &'a [u32],
}

/// A kind of demand in the mix that asks no MIG partition.
#[derive(Debug)]
struct Kind {
    cpu: u32,
    count: u32,
    milli: u32,
    weight: i64,
    models: Vec<u32>,
}

impl Kind {
    fn of(demand: &Demand<'_>) -> Self {
        Self {
            cpu: demand.cpu(),
            count: demand.count(),
            milli: demand.milli(),
            weight: i64::from(demand.weight()),
            models: demand.models().to_vec(),
        }
    }

    fn accepts(&self, model: u32) -> bool {
        self.models.is_empty() || self.models.contains(&model)
    }
}

/// Sums of one node whose GPUs are of one model: what is needed to tell F after a change of one GPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sums {
    /// Offset of the table row.
    row: usize,
    /// F as far as GPUs count one by one.
    single: i64,
    /// Idle GPUs.
    idle: usize,
}

/// The weights of a mix. F comes times the sum of the weights everywhere.
#[derive(Debug)]
pub(crate) struct Tables {
    kinds: Vec<Kind>,
    /// Cpu asks of the mix, ascending.
    cpus: Vec<u32>,
    /// For every free share, how many of the mix's shares it meets.
    met: Vec<u16>,
    /// How many different shares the mix asks.
    shares: usize,
    /// The most idle GPUs at which a demand for whole GPUs may still fail, and one more.
    idle: usize,
    /// Whether some demand asks for parts of several GPUs, which the tables do not cover.
    parts: bool,
    /// Offset of the row of (model, cpu level) in `rows`, or `usize::MAX` where it is not filled yet.
    index: Vec<usize>,
    rows: Vec<i64>,
    total: i64,
    /// Score k is reached at `limits[k - 1]`.
    limits: Vec<i64>,
}

impl Tables {
    pub(crate) fn of(view: &View<'_>) -> Self {
        let kinds: Vec<Kind> = view.mix().filter(|demand| !demand.is_mig()).map(|demand| Kind::of(&demand)).collect();
        let distinct = |mut values: Vec<u32>| {
            values.sort_unstable();
            values.dedup();
            values
        };
        let cpus = distinct(kinds.iter().map(|kind| kind.cpu).collect());
        let asked = distinct(kinds.iter().filter(|kind| kind.count > 0).map(|kind| kind.milli.min(WHOLE)).collect());
        let mut met = vec![0; WHOLE as usize + 1];
        for &share in &asked {
            met[share as usize..].iter_mut().for_each(|met| *met += 1);
        }
        let total: i64 = kinds.iter().map(|kind| kind.weight).sum();
        let limit = |step: i64| -(-i128::from(step) * i128::from(total)).div_euclid(1_000_000) as i64;
        let limits = STEPS.iter().rev().map(|step| -step).chain([0]).chain(STEPS).map(limit).collect();
        Self {
            index: vec![usize::MAX; view.models.gpus.len() * (cpus.len() + 1)],
            rows: Vec::new(),
            shares: asked.len(),
            idle: kinds.iter().map(|kind| kind.count).max().unwrap_or(0) as usize,
            parts: kinds.iter().any(|kind| kind.count > 1 && kind.milli < WHOLE),
            kinds,
            cpus,
            met,
            total,
            limits,
        }
    }

    /// How many of the mix's cpu asks a node with that much free meets.
    pub(crate) fn level(&self, cpu_free: u32) -> usize {
        self.cpus.partition_point(|&cpu| cpu <= cpu_free)
    }

    /// The score of a change of F by `change` (before less after).
    pub(crate) fn score(&self, change: i64) -> i32 {
        i32::try_from(self.limits.partition_point(|&limit| limit <= change)).unwrap_or(i32::MAX)
    }

    /// Offset of the row of a model and a cpu level: first the weights that cannot use a GPU, by the number of shares that it meets; then
    /// the weights of demands for several whole GPUs that fail, by the number of idle GPUs.
    fn row(&mut self, model: u32, level: usize) -> usize {
        let key = model as usize * (self.cpus.len() + 1) + level;
        if self.index[key] == usize::MAX {
            self.index[key] = self.fill(model, level);
        }
        self.index[key]
    }

    fn fill(&mut self, model: u32, level: usize) -> usize {
        let start = self.rows.len();
        self.rows.resize(start + self.shares + 1 + self.idle, 0);
        let (useless, failing) = self.rows[start..].split_at_mut(self.shares + 1);
        useless.fill(self.total);
        for kind in &self.kinds {
            if kind.count == 0 || self.cpus[..level].last().is_none_or(|&cpu| cpu < kind.cpu) || !kind.accepts(model) {
                continue;
            }
            let from = usize::from(self.met[kind.milli.min(WHOLE) as usize]);
            useless[from..].iter_mut().for_each(|weight| *weight -= kind.weight);
            if kind.count > 1 {
                failing[..kind.count as usize].iter_mut().for_each(|weight| *weight += kind.weight);
            }
        }
        start
    }

    /// The weight that cannot use a GPU with that much free, times what is free.
    fn useless(&self, row: usize, free: u32) -> i64 {
        let free = free.min(WHOLE);
        i64::from(free) * self.rows[row + usize::from(self.met[free as usize])]
    }

    /// What fails for want of idle GPUs strands those that are idle.
    fn failing(&self, row: usize, idle: usize) -> i64 {
        if idle < self.idle { i64::from(WHOLE * idle as u32) * self.rows[row + self.shares + 1 + idle] } else { 0 }
    }

    /// The sums of a node; none if its GPUs are of several models or the mix needs more than the tables hold.
    pub(crate) fn sums(&mut self, gpus: &Gpus<'_>, level: usize) -> Option<Sums> {
        let (&model, rest) = gpus.model.split_first()?;
        if self.parts || rest.iter().any(|&other| other != model) {
            return None;
        }
        let mut sums = Sums { row: self.row(model, level), single: 0, idle: 0 };
        for (&free, &mig) in gpus.free.iter().zip(gpus.mig) {
            if mig == 0 {
                sums.single += self.useless(sums.row, free);
                sums.idle += usize::from(free == WHOLE);
            }
        }
        Some(sums)
    }

    /// F of the node with these sums.
    pub(crate) fn total(&self, sums: &Sums) -> i64 {
        sums.single + self.failing(sums.row, sums.idle)
    }

    /// F of the node with these sums, once a GPU with that much free gives `milli`.
    pub(crate) fn total_less(&self, sums: &Sums, free: u32, milli: u32) -> i64 {
        let idle = sums.idle - usize::from(free == WHOLE && milli > 0);
        let left = self.useless(sums.row, free.saturating_sub(milli));
        sums.single - self.useless(sums.row, free) + left + self.failing(sums.row, idle)
    }

    /// F of a node.
    pub(crate) fn stranded(&mut self, gpus: &Gpus<'_>, level: usize) -> i64 {
        match self.sums(gpus, level) {
            Some(sums) => self.total(&sums),
            None => self.stranded_one_by_one(gpus, level),
        }
    }

    /// F of any node, demand by demand.
    fn stranded_one_by_one(&self, gpus: &Gpus<'_>, level: usize) -> i64 {
        let free =
            || gpus.model.iter().zip(gpus.free).zip(gpus.mig).filter(|(_, mig)| **mig == 0).map(|((&model, &free), _)| (model, free));
        let all: i64 = free().map(|(_, free)| i64::from(free)).sum();
        let met = self.cpus[..level].last();
        self.kinds
            .iter()
            .map(|kind| {
                let fit = || free().filter(|&(model, free)| free >= kind.milli && kind.accepts(model));
                let usable = kind.count > 0 && met.is_some_and(|&cpu| kind.cpu <= cpu) && fit().count() >= kind.count as usize;
                kind.weight * (all - if usable { fit().map(|(_, free)| i64::from(free)).sum() } else { 0 })
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use partita_sdk::{Demands, Models};

    use super::*;

    /// Fifteen kinds over two models: shares, whole GPUs, several whole GPUs, none.
    fn mix<T>(run: impl FnOnce(&mut Tables) -> T) -> T {
        let demands = Demands {
            cpu: &[1, 4, 4, 8, 8, 8, 12, 12, 16, 16, 16, 32, 32, 64, 2],
            count: &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 2, 8, 0],
            milli: &[50, 100, 190, 250, 500, 500, 810, 820, 1000, 1000, 1000, 1000, 1000, 1000, 0],
            weight: &[7, 30, 11, 5, 90, 2, 60, 4, 200, 13, 17, 9, 3, 1, 80],
            model_start: &[0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4],
            models: &[0, 1, 1, 0],
            profile_start: &[0; 16],
            ..Demands::default()
        };
        run(&mut Tables::of(&View { models: Models { gpus: &[8, 8], memory: &[0; 2], slots: &[0; 2] }, demands, ..View::default() }))
    }

    #[test]
    fn the_tables_agree_with_the_definition() {
        const FREE: [u32; 9] = [0, 40, 190, 200, 500, 809, 810, 1000, 1000];
        mix(|tables| {
            for case in 0..4_000u32 {
                let pick = |position: u32| case.wrapping_mul(2_654_435_761).rotate_left(position * 5) as usize;
                let free: Vec<u32> = (0..=case % 8).map(|gpu| FREE[pick(gpu) % FREE.len()]).collect();
                let (model, mig) = (vec![case / 8 % 2; free.len()], vec![0; free.len()]);
                let gpus = Gpus { model: &model, free: &free, mig: &mig };
                let level = tables.level(pick(6) as u32 % 70);
                assert_eq!(tables.stranded(&gpus, level), tables.stranded_one_by_one(&gpus, level), "{free:?} at level {level}");
                // And after a GPU gave 190.
                let Some(sums) = tables.sums(&gpus, level) else { panic!("one model") };
                for gpu in (0..free.len()).filter(|&gpu| free[gpu] >= 190) {
                    let mut after = free.clone();
                    after[gpu] -= 190;
                    let whole = tables.stranded(&Gpus { free: &after, ..gpus }, level);
                    assert_eq!(tables.total_less(&sums, free[gpu], 190), whole, "{free:?} less 190 of GPU {gpu}");
                }
            }
        });
    }

    #[test]
    fn a_mig_gpu_offers_nothing_to_shares() {
        mix(|tables| {
            let level = tables.level(100);
            let with = tables.stranded(&Gpus { model: &[0, 0], free: &[500, 875], mig: &[0, 1] }, level);
            assert_eq!(with, tables.stranded(&Gpus { model: &[0], free: &[500], mig: &[0] }, level));
        });
    }

    #[test]
    fn scores_are_those_of_the_sigmoid() {
        mix(|tables| {
            for change in -8_000..=8_000i32 {
                // A third of a milli-GPU off the whole number, as a mean over a mix is.
                let exact = f64::from(change) + 1.0 / 3.0;
                let sigmoid = (100.0 / (1.0 + (-exact / 1000.0).exp())) as i32;
                let weighted = i64::from(change) * tables.total + tables.total / 3;
                assert_eq!(tables.score(weighted), sigmoid, "change {exact}");
            }
            assert_eq!((tables.score(-1), tables.score(0)), (49, 50));
        });
    }
}

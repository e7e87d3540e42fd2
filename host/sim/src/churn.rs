//! MIG partitions that come and go: made-up workloads in which what a policy leaves behind shows.
//!
//! A cluster of A100-80GB that MIG cuts, and pods that ask for one partition each. They come at random (a Poisson process), run for
//! random times (exponential, 100 seconds in the mean) and are turned away if there is no room at once. At load 1 they ask for as many
//! slots as there are, so a policy that keeps the free slots of a GPU together accepts more of them. Pods ask for nothing but their
//! partition, so nothing else decides.
//!
//! [`Churn`] makes the input from a seed, the same bytes on every machine: whole numbers all the way to the millisecond. One seed draws
//! the same lifetimes at every load, so that what differs is the load. [`Figures`] is what a policy makes of several seeds.

use partita_core::{
    Config, Reuse,
    model::{Cut, Demand, GpuAsk, GpuSpec, NodeSpec, PodSpec, Terms, catalog, node::GPUS_MAX},
};
use serde::Serialize;
use thiserror::Error;

use crate::{
    Arrival, Cluster, Options, RunResult, Tidy, Unplaceable, Workload, cluster::NODES_MAX, mix::Mix, random::SplitMix64, stats::Estimate,
    workload::PODS_MAX,
};

/// The GPU model of every node.
pub const MODEL: &str = "A100-80GB";
/// GPUs of a node, unless said otherwise.
pub const NODE_GPUS: usize = 4;
/// Memory slots of a GPU.
pub const GPU_SLOTS: u32 = 8;
/// What pods ask for, each with its memory slots.
pub const PROFILES: [(&str, u32); 6] = [("1g.10gb", 1), ("1g.20gb", 2), ("2g.20gb", 2), ("3g.40gb", 4), ("4g.40gb", 4), ("7g.80gb", 8)];
/// Mean lifetime, milliseconds: long enough that rounding to a millisecond changes nothing.
pub const LIFETIME_MS: u64 = 100_000;
/// The loads that can be played: from a cluster that is idle to one that turns nearly everything away.
pub const LOADS: std::ops::RangeInclusive<f64> = 0.01..=10.0;

/// How often each of [`PROFILES`] is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChurnMix {
    /// Its name.
    pub name: &'static str,
    /// Weight of each of [`PROFILES`].
    pub weights: [u32; PROFILES.len()],
}

/// The mixes.
pub const MIXES: [ChurnMix; 4] = [
    ChurnMix { name: "uniform", weights: [1; 6] },
    ChurnMix { name: "skew-small", weights: [30, 25, 20, 10, 10, 5] },
    ChurnMix { name: "skew-big", weights: [5, 10, 10, 20, 25, 30] },
    ChurnMix { name: "bimodal", weights: [30, 15, 5, 5, 15, 30] },
];

impl ChurnMix {
    /// The one of [`MIXES`] that is called `name`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Self> {
        MIXES.iter().find(|mix| mix.name == name)
    }

    /// Memory slots that a pod asks for, in the mean.
    #[must_use]
    pub fn mean_slots(&self) -> f64 {
        let slots: u32 = self.weights.iter().zip(PROFILES).map(|(weight, (_, slots))| weight * slots).sum();
        f64::from(slots) / f64::from(self.weights.iter().sum::<u32>())
    }
}

/// One workload to make, with its cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Churn {
    /// What is asked for.
    pub mix: &'static ChurnMix,
    /// Slots that the pods would use if all were accepted, as a multiple of those that there are.
    pub load: f64,
    /// GPUs of the cluster.
    pub gpus: usize,
    /// GPUs of a node; the last has what is left. With one a node, policies that look at nodes first look at every GPU alike.
    pub node_gpus: usize,
    /// Pods that come.
    pub requests: usize,
    /// Seed of the random numbers.
    pub seed: u64,
    /// How the planner decides beside the policy.
    pub planner: Config,
    /// How often pods are moved to tidy up.
    pub tidy: Option<Tidy>,
}

/// Why a workload cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum ChurnError {
    /// Too little or too much is asked for.
    #[error(
        "a load of {0} cannot be played; give one from {low} to {high}, where 1 asks for as many slots as there are",
        low = LOADS.start(),
        high = LOADS.end()
    )]
    Load(f64),
    /// None, or more than as many nodes as a cluster may have.
    #[error("{gpus} is no number of GPUs for a cluster; give one from 1 to {max}")]
    Gpus {
        /// How many.
        gpus: usize,
        /// The most.
        max: usize,
    },
    /// None, or more than a node may have.
    #[error("{0} is no number of GPUs for a node; give one from 1 to {GPUS_MAX}")]
    NodeGpus(usize),
    /// None, or more than a workload may have.
    #[error("{0} is no number of requests; give one from 1 to {PODS_MAX}")]
    Requests(usize),
}

impl Churn {
    /// The workload of the benchmark: 100 GPUs, load 1, 30,000 requests, on which warm partitions count as free slots.
    #[must_use]
    pub fn benchmark(mix: &'static ChurnMix, seed: u64) -> Self {
        Self {
            mix,
            load: 1.0,
            gpus: 100,
            node_gpus: NODE_GPUS,
            requests: 30_000,
            seed,
            planner: Config { reuse: Reuse::Free, ..Config::DEFAULT },
            tidy: None,
        }
    }

    /// The same, if every number is within its range.
    ///
    /// # Errors
    /// [`ChurnError`] for the first that is not.
    pub fn checked(self) -> Result<Self, ChurnError> {
        if !LOADS.contains(&self.load) {
            return Err(ChurnError::Load(self.load));
        }
        if self.node_gpus == 0 || self.node_gpus > GPUS_MAX as usize {
            return Err(ChurnError::NodeGpus(self.node_gpus));
        }
        let max = NODES_MAX * self.node_gpus;
        if self.gpus == 0 || self.gpus > max {
            return Err(ChurnError::Gpus { gpus: self.gpus, max });
        }
        if self.requests == 0 || self.requests > PODS_MAX {
            return Err(ChurnError::Requests(self.requests));
        }
        Ok(self)
    }

    /// Makes the cluster and the workload; the mix that policies are told to expect is the true one.
    ///
    /// # Errors
    /// As [`Churn::checked`].
    pub fn make(&self) -> Result<(Cluster, Workload), ChurnError> {
        let checked = self.checked()?;
        Ok((checked.cluster(), checked.workload()))
    }

    /// How it is played: pods that do not fit are dropped, and the first fifth, in which the cluster fills, is not counted.
    #[must_use]
    pub fn options(&self) -> Options {
        Options { seed: self.seed, unplaceable: Unplaceable::Drop, warm_up: self.requests / 5, planner: self.planner, tidy: self.tidy }
    }

    fn cluster(&self) -> Cluster {
        let node = |first: usize| NodeSpec {
            name: format!("node-{}", first / self.node_gpus),
            cpu_milli: 64_000,
            memory_mib: 512 << 10,
            gpus: vec![GpuSpec::new(MODEL, Cut::Mig); self.node_gpus.min(self.gpus - first)],
            ..NodeSpec::default()
        };
        Cluster {
            name: format!("{} {MODEL}", self.gpus),
            models: catalog::builtin(MODEL).into_iter().collect(),
            nodes: (0..self.gpus).step_by(self.node_gpus).map(node).collect(),
        }
    }

    fn workload(&self) -> Workload {
        let demand =
            |profile: &str| Demand { cpu_milli: 0, memory_mib: 0, gpu: GpuAsk::mig(profile), models: Vec::new(), ..Demand::default() };
        // Every pod may be moved; whether any is, the planner's settings say.
        let terms = Terms { restartable: true, ..Terms::default() };
        let pods = PROFILES.map(|(name, _)| PodSpec {
            name: name.into(),
            namespace: "churn".into(),
            priority: 0,
            demand: demand(name),
            terms: terms.clone(),
            ..PodSpec::default()
        });
        let mut mix: Mix = PROFILES.iter().zip(self.mix.weights).map(|((name, _), weight)| (demand(name), weight)).collect();
        mix.sort_by_key(|entry| std::cmp::Reverse(entry.1));
        let mut random = SplitMix64(self.seed);
        let gap_ns = self.gap_ns();
        let mut at_ns: u64 = 0;
        let arrivals = (0..self.requests).map(|_| {
            at_ns += random.exponential(gap_ns);
            let lifetime_ms = random.exponential(LIFETIME_MS);
            let row = random.weighted(self.mix.weights.iter().map(|&weight| weight.into())) as u32;
            Arrival { row, at_ms: at_ns / 1_000_000, lifetime_ms: Some(lifetime_ms) }
        });
        let arrivals = arrivals.collect();
        Workload { name: format!("{} churn at load {}", self.mix.name, self.load), pods: pods.into(), arrivals, mix }
    }

    /// Mean time between two arrivals. The slots in use would be lifetime / gap × mean slots if all were accepted (Little's law).
    fn gap_ns(&self) -> u64 {
        let capacity = self.gpus as f64 * f64::from(GPU_SLOTS);
        // Between 10 microseconds and two hours.
        #[allow(clippy::cast_sign_loss, reason = "every factor is positive")]
        let gap_ns = (LIFETIME_MS as f64 * 1e6 * self.mix.mean_slots() / (self.load * capacity)).round() as u64;
        gap_ns
    }
}

/// What a policy made of one seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Played {
    /// The seed.
    pub seed: u64,
    /// Slots in use after the warm-up, percent of all, in the mean over time.
    pub in_use: f64,
    /// Requests accepted after the warm-up, percent.
    pub accepted: f64,
}

impl Played {
    /// Reads the result of playing `seed`.
    #[must_use]
    pub fn of(seed: u64, result: &RunResult) -> Self {
        Self { seed, in_use: result.allocated_mean, accepted: result.accepted }
    }
}

/// What a policy made of one mix.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Name of the mix.
    pub mix: String,
    /// Name of the policy.
    pub policy: String,
    /// Slots in use, percent.
    pub in_use: Estimate,
    /// Requests accepted, percent.
    pub accepted: Estimate,
    /// Each seed on its own.
    pub runs: Vec<Played>,
}

impl Figures {
    /// Sums up runs of one policy on one mix.
    #[must_use]
    pub fn of(mix: &str, policy: &str, runs: Vec<Played>) -> Self {
        let estimate = |value: fn(&Played) -> f64| Estimate::of(&runs.iter().map(value).collect::<Vec<_>>());
        let (in_use, accepted) = (estimate(|run| run.in_use), estimate(|run| run.accepted));
        Self { mix: mix.into(), policy: policy.into(), in_use, accepted, runs }
    }
}

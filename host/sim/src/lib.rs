//! Simulation of a cluster in virtual time, with the core and the policies of the real scheduler.
//!
//! A run takes three things: a [`Cluster`] (nodes and their GPUs), a [`Workload`] (pods, when they come, how long they run), and one or
//! more contenders, each a policy with those that answer when it does not. [`simulate`] plays the workload once for each contender and
//! returns an [`Outcome`]; [`report::html`] makes one page of it that needs no network.
//!
//! ```text
//! cluster.toml ─┐                     ┌─► partita_core::Planner ◄─► policies
//!               ├─► engine: clock ────┤          │ actions
//! workload.csv ─┘   arrivals,         └─► ledger (own books, checks every action) ─► metrics ─► Outcome ─► report
//!                   departures
//! ```
//!
//! Nothing here decides where a pod goes: the engine tells the core what happens, in order of virtual time, and books what the core
//! decides. The books are the simulator's own, so a decision that uses more than a node has ends the run with
//! [`SimError::Ledger`] instead of a good figure. At equal times departures come before arrivals, and pods that come in one millisecond
//! are decided in one round. A [`RunResult`] depends on the input, the options and the policies only: equal runs give equal bytes.
//! Wall-clock time is measured too, and kept apart in [`Timing`].
//!
//! A [`scenario`] is something else: a small cluster in a state of its own and a few things that happen to it, played step by step and told
//! in words.
//!
//! Two workloads need no file: the [`sample`], and MIG partitions that come and go ([`churn`]).
//!
//! Two things can happen to a pod that does not fit ([`Unplaceable`]): it waits until it does, as in a cluster, or it is dropped at
//! once, which is the protocol of the openb benchmark ([`openb`]).
//!
//! Files are hostile input. Every reader has a limit on size and rows, and refuses what it does not understand with the file, the line,
//! the column, the value and the remedy; formats are described in `FORMATS.md`. [`load`] tells the formats apart by their first line.

mod amount;
mod ask;
pub mod churn;
pub mod cluster;
mod engine;
mod error;
mod ledger;
mod load;
pub mod metrics;
pub use partita_core::mix;
mod models;
pub mod openb;
mod random;
pub mod report;
pub mod sample;
pub mod scenario;
pub mod stats;
mod table;
pub mod text;
pub mod workload;

use std::collections::BTreeMap;

use partita_core::{
    Config,
    model::{GpuAsk, PodSpec},
    policy::Partitioner,
};
use serde::{Deserialize, Serialize};

pub use crate::{
    cluster::Cluster,
    error::{InputError, SimError},
    load::load,
    metrics::{RunResult, Timing},
    openb::Times,
    workload::{Arrival, Workload},
};

/// What happens to a pod that does not fit when it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unplaceable {
    /// It waits until it does.
    #[default]
    Wait,
    /// It is dropped, and pods are decided one at a time.
    Drop,
}

/// How often running pods are moved to tidy up, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tidy {
    /// Milliseconds from one time to the next; at least one.
    pub every_ms: u64,
    /// The most pods that move each time.
    pub moves: u32,
}

/// How a run is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Seed of the random numbers that policies get.
    pub seed: u64,
    /// What happens to a pod that does not fit.
    pub unplaceable: Unplaceable,
    /// How the planner decides beside the policies; its seed is the one above.
    pub planner: Config,
    /// How often running pods are moved to tidy up; none for never.
    pub tidy: Option<Tidy>,
    /// How many first arrivals come before the means of a run begin, and are not counted in what it accepted.
    pub warm_up: usize,
}

/// A policy under trial: what it is called, and the policies that are asked in turn.
pub struct Contender<'a> {
    /// Name in reports.
    pub name: String,
    /// The policy itself, then those that answer where it gives no usable answer.
    pub chain: Vec<&'a mut dyn Partitioner>,
}

/// The input of a simulation in figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Name of the cluster.
    pub cluster: String,
    /// Nodes.
    pub nodes: usize,
    /// GPUs by model.
    pub gpus: BTreeMap<String, usize>,
    /// Name of the workload.
    pub workload: String,
    /// Arrivals, repeats included.
    pub arrivals: usize,
    /// Those that ask for a GPU.
    pub gpu_arrivals: usize,
    /// Types of the expected mix.
    pub mix: usize,
    /// How it was played.
    pub options: Options,
}

/// One contender's run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// The contender's name.
    pub policy: String,
    /// What came of it: the same in every equal run.
    pub result: RunResult,
    /// How long it took: different in every run.
    pub timing: Timing,
}

/// What came of a simulation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// What was played.
    pub facts: Facts,
    /// One run a contender, in the order given.
    pub runs: Vec<Run>,
}

/// Plays `workload` on `cluster` once for each contender. `progress` is called now and then with the arrivals played and the arrivals to
/// play, all contenders together.
///
/// # Errors
/// [`SimError::NoPolicy`], [`SimError::NoGpu`] and [`SimError::WarmUp`] before the first run; [`SimError::Ledger`] if the core breaks its promises.
pub fn simulate(
    cluster: &Cluster,
    workload: &Workload,
    options: &Options,
    contenders: &mut [Contender<'_>],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Outcome, SimError> {
    if contenders.is_empty() || contenders.iter().any(|contender| contender.chain.is_empty()) {
        return Err(SimError::NoPolicy);
    }
    let wants_gpu = |pod: &PodSpec| pod.demand.gpu != GpuAsk::None;
    let gpu_pods = workload.pods.iter().filter(|pod| wants_gpu(pod)).count();
    if cluster.gpus() == 0 && gpu_pods > 0 {
        return Err(SimError::NoGpu { nodes: cluster.nodes.len(), pods: gpu_pods });
    }
    let arrivals = workload.arrivals.len();
    if options.warm_up > 0 && options.warm_up >= arrivals {
        return Err(SimError::WarmUp { warm_up: options.warm_up, arrivals });
    }
    let total = workload.arrivals.len() * contenders.len();
    let mut runs = Vec::with_capacity(contenders.len());
    for (row, contender) in contenders.iter_mut().enumerate() {
        let before = row * workload.arrivals.len();
        let (result, timing) = engine::run(cluster, workload, options, contender, &mut |done| progress(before + done, total))?;
        runs.push(Run { policy: contender.name.clone(), result, timing });
    }
    let mut gpus = BTreeMap::new();
    for gpu in cluster.nodes.iter().flat_map(|node| &node.gpus) {
        *gpus.entry(gpu.model.clone()).or_insert(0) += 1;
    }
    let facts = Facts {
        cluster: cluster.name.clone(),
        nodes: cluster.nodes.len(),
        gpus,
        workload: workload.name.clone(),
        arrivals: workload.arrivals.len(),
        gpu_arrivals: workload.arrivals.iter().filter(|arrival| wants_gpu(&workload.pods[arrival.row as usize])).count(),
        mix: workload.mix.len(),
        options: *options,
    };
    Ok(Outcome { facts, runs })
}

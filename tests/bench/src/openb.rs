//! Allocation on the Alibaba trace "openb" (Weng et al., "Beware of Fragmentation", USENIX ATC'23): pods arrive one at a time in a
//! published order and never leave; one that does not fit is dropped.
//!
//! The authors published the allocated share of GPUs at seven points of each run. Equal figures from our simulator, with the baselines as
//! WebAssembly policies, say that simulator, policies and policy host are right; our own default policy then competes on equal terms.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use partita_core::policy::Partitioner;
use partita_policy::{Host, HostConfig, Limits};
use partita_sim::{Contender, Options, RunResult, Times, Timing, Unplaceable, openb::allocation_at};
use serde::Serialize;

use crate::parallel;

/// The workloads, in the order of tables.
pub const TRACES: [&str; 5] = ["default", "cpu050", "gpushare40", "gpuspec33", "multigpu20"];
/// The orders of arrival.
pub const SEEDS: [u32; 5] = [42, 43, 44, 45, 46];
/// Percentages of the capacity asked for at which the authors published the allocation.
pub const POINTS: [u64; 7] = [80, 90, 95, 100, 110, 120, 130];

/// A published policy, how we run it, and how far from the published figures a run may be, in percentage points.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    /// Its name in the published table.
    pub published: &'static str,
    /// Our policy.
    pub policy: &'static str,
    /// Its settings.
    pub settings: &'static str,
    /// The most that a figure may differ; none for the random policy, whose draws cannot be the same.
    pub tolerance: Option<f64>,
}

/// The published policies.
pub const BASELINES: [Baseline; 6] = [
    Baseline { published: "01-Random", policy: "random", settings: "", tolerance: None },
    Baseline { published: "02-DotProd", policy: "dot-product", settings: "", tolerance: Some(0.05) },
    Baseline { published: "03-GpuClustering", policy: "clustering", settings: "", tolerance: Some(0.05) },
    Baseline { published: "04-GpuPacking", policy: "packing", settings: "", tolerance: Some(0.05) },
    Baseline { published: "05-BestFit", policy: "best-fit", settings: "", tolerance: Some(0.05) },
    Baseline { published: "06-FGD", policy: "fragmentation", settings: r#"{"scoring":"fgd"}"#, tolerance: Some(0.25) },
];

/// One run to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The workload.
    pub trace: &'static str,
    /// The order of arrival.
    pub seed: u32,
    /// Our policy.
    pub policy: &'static str,
    /// Its settings, JSON or nothing.
    pub settings: &'static str,
    /// As native code instead of WebAssembly.
    pub native: bool,
}

/// What came of one run.
#[derive(Clone, Debug)]
pub struct Done {
    /// What was run.
    pub job: Job,
    /// What came of it.
    pub result: RunResult,
    /// How long it took.
    pub timing: Timing,
}

impl Done {
    /// The allocated percentage at each of [`POINTS`].
    #[must_use]
    pub fn at_points(&self) -> Vec<Option<f64>> {
        POINTS.iter().map(|&point| allocation_at(&self.result.allocation, point)).collect()
    }

    /// The allocated percentage when 100 % of the capacity has been asked for.
    ///
    /// # Errors
    /// If the trace never asks for that much.
    pub fn at_100(&self) -> Result<f64> {
        allocation_at(&self.result.allocation, 100).with_context(|| format!("{:?} never asks for 100 % of the capacity", self.job))
    }
}

/// A policy host without a cache, with this very program as the compiler of components.
///
/// # Errors
/// If the host does not start.
pub fn host() -> Result<Host> {
    Ok(Host::new(HostConfig::new()?)?)
}

/// Runs one job on the data in `data`.
///
/// # Errors
/// If the data cannot be read or the policy cannot be loaded.
pub fn run(host: &Host, data: &Path, job: &Job) -> Result<Done> {
    let pods = data.join(format!("pods/{}.csv", job.trace));
    let arrivals = data.join(format!("arrivals/{}-{}.txt", job.trace, job.seed));
    let (cluster, workload) = partita_sim::load(&data.join("nodes.csv"), &pods, Some(&arrivals), Times::Order)?;
    let mut policy: Box<dyn Partitioner> = if job.native {
        Box::new(partita_policy::native(job.policy, job.settings)?)
    } else {
        Box::new(host.load_bundled(job.policy, job.settings, Limits::default())?.policy)
    };
    let options = Options { seed: u64::from(job.seed), unplaceable: Unplaceable::Drop, ..Options::default() };
    // No fallback: a policy that does not answer must not be carried by another.
    let mut contenders = [Contender { name: job.policy.to_owned(), chain: vec![policy.as_mut()] }];
    let mut outcome = partita_sim::simulate(&cluster, &workload, &options, &mut contenders, &mut |_, _| {})?;
    let run = outcome.runs.remove(0);
    ensure!(run.result.failures.is_empty(), "{job:?} was not answered by its policy: {:?}", run.result.failures);
    Ok(Done { job: job.clone(), result: run.result, timing: run.timing })
}

/// Runs all jobs on `threads` threads and returns them in their order. `tell` is called after each.
///
/// # Errors
/// The first error of a job.
pub fn run_all(host: &Host, data: &Path, jobs: &[Job], threads: usize, tell: &(dyn Fn() + Sync)) -> Result<Vec<Done>> {
    parallel::map(jobs, threads, &|job| run(host, data, job), tell)
}

/// The published table: (trace, policy, seed) → the allocation at each of [`POINTS`].
pub type Published = BTreeMap<(String, String, u32), Vec<f64>>;

/// Reads the published table.
///
/// # Errors
/// If it is not there or not the table expected.
pub fn published(data: &Path) -> Result<Published> {
    let path = data.join("expected/allocation.csv");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut lines = text.lines();
    let header: Vec<String> = POINTS.iter().map(|point| format!("alloc_pct_at_{point}")).collect();
    let expected = format!("trace,policy,seed,{}", header.join(","));
    if lines.next() != Some(expected.as_str()) {
        bail!("{} does not begin with {expected}", path.display());
    }
    let mut table = Published::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        ensure!(cells.len() == 3 + POINTS.len(), "{}: {line} has {} columns", path.display(), cells.len());
        let figures = cells[3..].iter().map(|cell| cell.parse().with_context(|| format!("{cell} in {line}"))).collect::<Result<_>>()?;
        table.insert((cells[0].to_owned(), cells[1].to_owned(), cells[2].parse()?), figures);
    }
    Ok(table)
}

/// The largest difference between a run and the published figures, in percentage points, over all points.
///
/// # Errors
/// If one of the two has no figure where the other has one.
pub fn difference(done: &Done, published: &[f64]) -> Result<f64> {
    let mut largest: f64 = 0.0;
    for ((point, ours), theirs) in POINTS.iter().zip(done.at_points()).zip(published) {
        let ours = ours.with_context(|| format!("{:?} has no figure at {point} %", done.job))?;
        // Both are means of figures with two places; the published ones are printed with two.
        largest = largest.max((ours - theirs).abs());
    }
    Ok(largest)
}

/// A row of the comparison with the published table.
#[derive(Clone, Debug, Serialize)]
pub struct Reproduced {
    /// Name in the published table.
    pub published: String,
    /// Our policy.
    pub policy: String,
    /// Runs compared.
    pub runs: usize,
    /// The largest difference, percentage points.
    pub largest: f64,
    /// Where it is: trace and seed.
    pub at: String,
    /// What it may be; none for the random policy.
    pub tolerance: Option<f64>,
    /// Mean allocation at 100 % for each of [`TRACES`].
    pub means: Vec<f64>,
    /// Difference for each trace and seed, percentage points.
    pub differences: BTreeMap<String, f64>,
}

impl Reproduced {
    /// Whether every figure is within the tolerance.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.tolerance.is_none_or(|tolerance| self.largest <= tolerance)
    }
}

/// Compares runs of the baselines with the published table.
///
/// # Errors
/// If a figure is missing.
pub fn reproduce(done: &[Done], published: &Published) -> Result<Vec<Reproduced>> {
    let mut rows = Vec::new();
    for baseline in &BASELINES {
        let ours: Vec<&Done> =
            done.iter().filter(|run| (run.job.policy, run.job.settings) == (baseline.policy, baseline.settings)).collect();
        let mut differences = BTreeMap::new();
        for run in &ours {
            let key = (run.job.trace.to_owned(), baseline.published.to_owned(), run.job.seed);
            let theirs = published.get(&key).with_context(|| format!("the published table has no row for {key:?}"))?;
            differences.insert(format!("{}-{}", run.job.trace, run.job.seed), difference(run, theirs)?);
        }
        let worst = differences.iter().max_by(|a, b| a.1.total_cmp(b.1));
        rows.push(Reproduced {
            published: baseline.published.to_owned(),
            policy: baseline.policy.to_owned(),
            runs: ours.len(),
            largest: worst.map_or(0.0, |worst| *worst.1),
            at: worst.map_or_else(String::new, |worst| worst.0.clone()),
            tolerance: baseline.tolerance,
            means: means_at_100(&ours)?,
            differences,
        });
    }
    Ok(rows)
}

/// Mean allocation at 100 % over the seeds, for each of [`TRACES`]; traces that were not run are left out.
///
/// # Errors
/// If a run never asks for 100 %.
pub fn means_at_100(done: &[&Done]) -> Result<Vec<f64>> {
    let mut means = Vec::new();
    for trace in TRACES {
        let figures = done.iter().filter(|run| run.job.trace == trace).map(|run| run.at_100()).collect::<Result<Vec<f64>>>()?;
        if !figures.is_empty() {
            means.push(figures.iter().sum::<f64>() / figures.len() as f64);
        }
    }
    Ok(means)
}

/// All jobs of one policy.
#[must_use]
pub fn jobs(policy: &'static str, settings: &'static str, native: bool, traces: &[&'static str], seeds: &[u32]) -> Vec<Job> {
    let pairs = traces.iter().flat_map(|&trace| seeds.iter().map(move |&seed| (trace, seed)));
    pairs.map(|(trace, seed)| Job { trace, seed, policy, settings, native }).collect()
}

/// How often each run is repeated for [`tax`]; the fastest counts, since what else the machine does only ever adds.
const REPEATS: usize = 3;

/// What WebAssembly costs: the same runs as components and as native code, in turns on one thread, the fastest of each.
#[derive(Clone, Debug, Serialize)]
pub struct Tax {
    /// Our policy.
    pub policy: String,
    /// Decisions of the component's runs.
    pub decisions: usize,
    /// Their time, seconds.
    pub component_s: f64,
    /// Time of the native policy's decisions, seconds.
    pub native_s: f64,
    /// Ratio of the two.
    pub ratio: f64,
    /// Ratio of each pair of runs, sorted.
    pub ratios: Vec<f64>,
}

/// Measures the tax of `policy`, and checks that both forms decide alike.
///
/// # Errors
/// If a job fails, or the two forms do not come to the same result.
pub fn tax(host: &Host, data: &Path, policy: &'static str, seeds: &[u32], tell: &dyn Fn()) -> Result<Tax> {
    let mut tax = Tax { policy: policy.to_owned(), decisions: 0, component_s: 0.0, native_s: 0.0, ratio: 0.0, ratios: Vec::new() };
    for job in jobs(policy, "", false, &TRACES, seeds) {
        let (mut component_s, mut native_s, mut decisions) = (f64::INFINITY, f64::INFINITY, 0);
        for _ in 0..REPEATS {
            let component = run(host, data, &job)?;
            let native = run(host, data, &Job { native: true, ..job.clone() })?;
            ensure!(component.result == native.result, "{job:?}: component and native code decide differently");
            component_s = component_s.min(component.timing.decisions_s);
            native_s = native_s.min(native.timing.decisions_s);
            decisions = component.result.decisions;
        }
        tell();
        tax.decisions += decisions;
        tax.component_s += component_s;
        tax.native_s += native_s;
        tax.ratios.push(component_s / native_s);
    }
    tax.ratio = tax.component_s / tax.native_s;
    tax.ratios.sort_by(f64::total_cmp);
    Ok(tax)
}

/// Runs all of one policy on all traces and seeds through its component and returns the runs with the seconds they took together.
///
/// # Errors
/// If a job fails.
pub fn whole(host: &Host, data: &Path, policy: &'static str, threads: usize, tell: &(dyn Fn() + Sync)) -> Result<(Vec<Done>, f64)> {
    let started = Instant::now();
    let done = run_all(host, data, &jobs(policy, "", false, &TRACES, &SEEDS), threads, tell)?;
    Ok((done, started.elapsed().as_secs_f64()))
}

/// Where the trace lies: the folder given, else the one beside the repository that benchmarks and tests share.
#[must_use]
pub fn data(given: Option<PathBuf>) -> PathBuf {
    given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/openb"))
}

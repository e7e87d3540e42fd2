//! What a policy costs, for `policy bench`: fuel (the same on every machine), time and memory at three sizes of cluster.

use std::time::{Duration, Instant};

use partita_core::policy::{Candidates, Demands, Fault, Gpus, Models, NONE, Nodes, Profiles, Shapes, View};
use serde::Serialize;

use crate::block::Sent;
use crate::describe::{Starts, alone, project};
use crate::wasm::WasmPolicy;

/// GPUs of the synthetic clusters.
const SIZES: [u32; 3] = [100, 1_000, 8_000];
/// GPUs of one node.
const GPUS_PER_NODE: u32 = 8;
/// Repetitions; the median is reported. Odd, so that the median is a measurement.
const RUNS: usize = 41;

/// What a policy costs.
#[derive(Clone, Debug, Serialize)]
pub struct Bench {
    /// Microseconds to make an instance and configure it.
    pub instantiate_us: f64,
    /// Fuel that one question may use.
    pub fuel_budget: u64,
    /// One row for each size of cluster.
    pub rows: Vec<BenchRow>,
}

/// What one question costs at one size of cluster.
#[derive(Clone, Debug, Serialize)]
pub struct BenchRow {
    /// GPUs of the question.
    pub gpus: u32,
    /// Candidates of the question.
    pub candidates: usize,
    /// Fuel of the question.
    pub fuel: u64,
    /// That fuel as a share of the budget, 0 to 1.
    pub fuel_share: f64,
    /// Microseconds of the question, the median.
    pub score_us: f64,
    /// Microseconds of the same question without candidates: what it costs to pass the columns.
    pub lower_us: f64,
    /// Most bytes of linear memory that the instance had.
    pub memory_bytes: usize,
}

impl WasmPolicy {
    /// Measures the policy over synthetic clusters of 100, 1,000 and 8,000 GPUs. Its counters are as before.
    ///
    /// # Errors
    /// The fault of the first question that it does not answer.
    pub fn bench(&mut self) -> Result<Bench, Fault> {
        let before = self.stats().clone();
        let result = self.measure();
        self.restore(before);
        result
    }

    fn measure(&mut self) -> Result<Bench, Fault> {
        let fuel_budget = self.limits().score_fuel;
        let instantiate_us = median(|| {
            let start = Instant::now();
            self.fresh()?;
            Ok(start.elapsed())
        })?;
        let rows = SIZES.into_iter().map(|gpus| self.row(gpus, fuel_budget)).collect::<Result<_, _>>()?;
        Ok(Bench { instantiate_us, fuel_budget, rows })
    }

    fn row(&mut self, gpus: u32, fuel_budget: u64) -> Result<BenchRow, Fault> {
        let cluster = Cluster::new(gpus);
        let mut starts = Starts::default();
        let (view, demand) = project(&cluster.view(), ASKED, self.info().reads(), &mut starts);
        let sent = Sent::of(&self.info().reads);
        let mut of_asked = Starts::default();
        let asked = alone(&view.demands, demand as usize, &mut of_asked);
        let mut instance = self.fresh()?;
        instance.expect(&view, demand as usize, sent)?;
        let mut time = |candidates: &Candidates<'_>| {
            median(|| {
                let start = Instant::now();
                instance.score(&view, demand, &asked, candidates, sent)?;
                Ok(start.elapsed())
            })
        };
        let lower_us = time(&Candidates::default())?;
        let score_us = time(&cluster.candidates())?;
        let fuel = fuel_budget.saturating_sub(instance.fuel_left());
        Ok(BenchRow {
            gpus,
            candidates: cluster.candidate_node.len(),
            fuel,
            fuel_share: fuel as f64 / fuel_budget as f64,
            score_us,
            lower_us,
            memory_bytes: instance.memory_peak(),
        })
    }
}

/// The median of [`RUNS`] measurements, in microseconds.
fn median(mut measure: impl FnMut() -> Result<Duration, Fault>) -> Result<f64, Fault> {
    let mut times = (0..RUNS).map(|_| measure()).collect::<Result<Vec<_>, _>>()?;
    times.sort_unstable();
    Ok(times[RUNS / 2].as_secs_f64() * 1e6)
}

/// A cluster of one model, GPUs taken to different degrees, and a pod that asks for half a GPU.
struct Cluster {
    gpus: u32,
    nodes: u32,
    cpu_free: Vec<u32>,
    capacity: Vec<u32>,
    memory_free: Vec<u32>,
    pods: Vec<u32>,
    gpu_start: Vec<u32>,
    gpu_free: Vec<u32>,
    zeroes: Vec<u32>,
    candidate_node: Vec<u32>,
    candidate_gpu: Vec<u32>,
    none: Vec<u32>,
}

/// The mix: shares and whole GPUs as clusters see them, and the demand asked about in the last row.
const MIX_CPU: [u32; 6] = [4_000, 8_000, 6_000, 12_000, 96_000, 6_000];
const MIX_MEMORY: [u32; 6] = [16_000, 32_000, 24_000, 64_000, 512_000, 24_000];
const MIX_COUNT: [u32; 6] = [1, 1, 1, 1, 8, 1];
const MIX_MILLI: [u32; 6] = [100, 250, 500, 1_000, 1_000, 500];
const MIX_WEIGHT: [u32; 6] = [10, 20, 30, 30, 10, 0];
/// Row of the demand asked about.
const ASKED: u32 = MIX_CPU.len() as u32 - 1;
/// No demand is bound to a model or asks for a MIG partition.
const MIX_START: [u32; 7] = [0; 7];

impl Cluster {
    fn new(gpus: u32) -> Self {
        let nodes = gpus.div_ceil(GPUS_PER_NODE);
        // A multiplicative hash spreads the degrees evenly and is the same everywhere.
        let scatter = |index: u32, steps: u32| index.wrapping_mul(2_654_435_761) >> 16 & 0xffff & (steps - 1);
        let gpu_free: Vec<u32> = (0..gpus).map(|gpu| scatter(gpu, 4) * 250 + 250).collect();
        let free = |gpu: &u32| gpu_free[*gpu as usize] >= 500;
        let candidate_gpu: Vec<u32> = (0..gpus).filter(free).collect();
        Self {
            gpus,
            nodes,
            cpu_free: (0..nodes).map(|node| 12_000 + scatter(node, 8) * 10_000).collect(),
            capacity: vec![128_000; nodes as usize],
            memory_free: (0..nodes).map(|node| 48_000 + scatter(node, 16) * 40_000).collect(),
            pods: (0..nodes).map(|node| scatter(node, 8)).collect(),
            gpu_start: (0..=nodes).map(|node| (node * GPUS_PER_NODE).min(gpus)).collect(),
            zeroes: vec![0; gpus as usize],
            candidate_node: candidate_gpu.iter().map(|gpu| gpu / GPUS_PER_NODE).collect(),
            none: vec![NONE; candidate_gpu.len()],
            candidate_gpu,
            gpu_free,
        }
    }

    fn view(&self) -> View<'_> {
        View {
            outlook: 1,
            seed: 1,
            models: Models { gpus: std::slice::from_ref(&self.gpus), memory: &[81_920], slots: &[0] },
            shapes: Shapes { model: &[0], gpus: &[GPUS_PER_NODE], cpu_capacity: &[128_000], nodes: std::slice::from_ref(&self.nodes) },
            profiles: Profiles::default(),
            nodes: Nodes {
                cpu_free: &self.cpu_free,
                cpu_capacity: &self.capacity,
                memory_free: &self.memory_free,
                memory_capacity: &self.capacity,
                gpu_pods: &self.pods,
                like_pods: &self.pods,
                gpu_start: &self.gpu_start,
            },
            gpus: Gpus { model: &self.zeroes, free: &self.gpu_free, used_slots: &self.zeroes, warm_slots: &self.zeroes, mig: &self.zeroes },
            demands: Demands {
                cpu: &MIX_CPU,
                memory: &MIX_MEMORY,
                count: &MIX_COUNT,
                milli: &MIX_MILLI,
                weight: &MIX_WEIGHT,
                model_start: &MIX_START,
                models: &[],
                profile_start: &MIX_START,
                profiles: &[],
            },
        }
    }

    fn candidates(&self) -> Candidates<'_> {
        Candidates { node: &self.candidate_node, gpu: &self.candidate_gpu, profile: &self.none, slot: &self.none, ..Candidates::default() }
    }
}

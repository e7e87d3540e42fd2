//! Speed of the core: how long decisions take in process, through the component of the default policy.
//!
//! Nodes have eight H100-80GB, cut by MIG where partitions are asked for. Pods ask for partitions in the shares of the even mix of
//! [`partita_sim::churn`]. Times are this machine's: a ratio (growth, tax) is of two times of one run.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use partita_core::{
    Action, Config, Planner,
    model::{Cut, Demand, GpuAsk, GpuSpec, NodeId, NodeSpec, PodId, PodSpec, Terms, catalog},
    policy::Partitioner,
    state::Event,
};
use partita_policy::{Host, Limits};
use serde::Serialize;

const MODEL: &str = "H100-80GB";
const GPUS: usize = 8;
const PROFILES: [&str; 6] = ["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"];

/// One figure beside its goal.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it must reach.
    pub goal: f64,
    /// Whether more is better.
    pub more: bool,
    /// How others fare at it, with the source in the documents.
    pub others: &'static str,
}

impl Row {
    /// Whether the goal is reached.
    #[must_use]
    pub fn reached(&self) -> bool {
        if self.more { self.value >= self.goal } else { self.value <= self.goal }
    }
}

fn below(what: &str, value: f64, unit: &'static str, goal: f64, others: &'static str) -> Row {
    Row { what: what.into(), value, unit, goal, more: false, others }
}

/// A planner with its policy, and the pods that it was told of.
struct Bench {
    planner: Planner,
    policy: Box<dyn Partitioner>,
    pods: u32,
    random: u64,
}

impl Bench {
    /// `nodes` nodes cut so.
    fn new(policy: Box<dyn Partitioner>, nodes: usize, gpus: usize, cut: Cut) -> Result<Self> {
        let mut planner = Planner::new(Config::DEFAULT);
        planner.apply(Event::ModelSeen(catalog::builtin(MODEL).context("the model is known")?))?;
        for row in 0..nodes {
            let gpus = vec![GpuSpec::new(MODEL, cut); gpus];
            let spec = NodeSpec { name: format!("node-{row}"), cpu_milli: 256_000, memory_mib: 2 << 20, gpus, ..NodeSpec::default() };
            planner.apply(Event::NodeAdded(NodeId::new(row), spec))?;
        }
        let mix = PROFILES.map(|profile| (demand(GpuAsk::mig(profile)), 1));
        planner.apply(Event::MixChanged(if cut == Cut::Mig { mix.to_vec() } else { vec![(demand(GpuAsk::whole(1)), 1)] }))?;
        Ok(Self { planner, policy, pods: 0, random: 7 })
    }

    /// A number below `below`, by `SplitMix64`.
    fn draw(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % below as u64) as usize
    }

    fn add(&mut self, gpu: GpuAsk, priority: i32) -> Result<PodId> {
        let id = PodId(self.pods);
        self.pods += 1;
        let name = format!("pod-{}", id.0);
        let spec =
            PodSpec { name, namespace: "bench".into(), priority, demand: demand(gpu), terms: Terms::default(), ..PodSpec::default() };
        self.planner.apply(Event::PodAdded(id, spec))?;
        Ok(id)
    }

    /// One round: how long it took, and what it did.
    fn round(&mut self) -> (Duration, Vec<Action>) {
        let started = Instant::now();
        let plan = self.planner.round(&mut [self.policy.as_mut()]);
        (started.elapsed(), plan.actions)
    }

    /// Adds pods one at a time until `slots` slots of eight are asked for, and returns the times of their rounds. Pods that do not fit go.
    fn fill(&mut self, slots: usize) -> Result<Vec<Duration>> {
        let (mut asked, mut times) = (0, Vec::new());
        while asked < slots {
            let row = self.draw(PROFILES.len());
            asked += [1, 2, 2, 4, 4, 8][row];
            let pod = self.add(GpuAsk::mig(PROFILES[row]), 0)?;
            let (time, actions) = self.round();
            times.push(time);
            if actions.is_empty() {
                self.planner.apply(Event::PodRemoved(pod))?;
            }
        }
        Ok(times)
    }

    /// `count` times: a pod ends, another comes.
    fn churn(&mut self, count: usize) -> Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(count);
        while times.len() < count {
            let pod = PodId(self.draw(self.pods as usize) as u32);
            if self.planner.cluster().pod(pod).is_some() {
                self.planner.apply(Event::PodRemoved(pod))?;
                let row = self.draw(PROFILES.len());
                let pod = self.add(GpuAsk::mig(PROFILES[row]), 0)?;
                let (time, actions) = self.round();
                times.push(time);
                if actions.is_empty() {
                    self.planner.apply(Event::PodRemoved(pod))?;
                }
            }
        }
        Ok(times)
    }
}

fn demand(gpu: GpuAsk) -> Demand {
    Demand { cpu_milli: 1000, memory_mib: 1024, gpu, models: Vec::new(), ..Demand::default() }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn mean(times: &[Duration]) -> f64 {
    micros(times.iter().sum::<Duration>()) / times.len() as f64
}

fn percentile(times: &[Duration], percent: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    micros(sorted[((sorted.len() * percent).div_ceil(100)).clamp(1, sorted.len()) - 1])
}

/// Measures every row. `tell` is called after each part.
///
/// # Errors
/// If the policy cannot be loaded, an event is refused, or a decision is not what it must be.
pub fn measure(host: &Host, tell: &dyn Fn()) -> Result<Vec<Row>> {
    let component = || -> Result<Box<dyn Partitioner>> { Ok(Box::new(host.load_bundled("fragmentation", "", Limits::default())?.policy)) };
    let native = || -> Result<Box<dyn Partitioner>> { Ok(Box::new(partita_policy::native("fragmentation", "")?)) };
    // First of all, since memory that others gave back would count as nothing.
    let memory = memory(native()?)?;
    let mut rows = Vec::new();

    // Filled in turns, so that both forms see the same noise.
    let (mut ours, mut twin) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        ours.extend(Bench::new(component()?, 500, GPUS, Cut::Mig)?.fill(500 * GPUS * 8 * 95 / 100)?);
        twin.extend(Bench::new(native()?, 500, GPUS, Cut::Mig)?.fill(500 * GPUS * 8 * 95 / 100)?);
    }
    let others = "upstream DRA allocator 10-76 claims/s at 100-10 nodes";
    let value = 1e6 / mean(&ours);
    rows.push(Row {
        what: "decisions, filling 500 x 8 with MIG partitions".into(),
        value,
        unit: "/s",
        goal: 100_000.0,
        more: true,
        others,
    });
    tell();

    let mut large = Bench::new(component()?, 1000, GPUS, Cut::Mig)?;
    large.fill(1000 * GPUS * 8 * 80 / 100)?;
    let steady = large.churn(20_000)?;
    rows.push(below("one decision at 1,000 x 8, p99", percentile(&steady, 99), "us", 1000.0, "nos 10-60 s windows"));
    tell();

    rows.push(packing(component()?)?);
    rows.push(group(component()?)?);
    rows.push(reclaim(component()?)?);
    tell();

    let per_decision = |nodes: usize| -> Result<f64> {
        let mut bench = Bench::new(component()?, nodes, GPUS, Cut::Mig)?;
        bench.fill(nodes * GPUS * 8 * 80 / 100)?;
        Ok(mean(&bench.churn(20_000)?))
    };
    let (small, huge) = (per_decision(100)?, per_decision(10_000)?);
    rows.push(below("time of a decision, 10,000 over 100 nodes", huge / small, "x", 2.0, "quadratic in nos"));
    tell();

    rows.extend(memory);
    // Of medians: the mean of the component has the instances in it that prove it pure, and both have what else the machine does.
    let tax = percentile(&ours, 50) / percentile(&twin, 50);
    rows.push(below("decision through the component over native, medians", tax, "x", 1.10, "Go/wazero extension 3.3"));
    tell();
    Ok(rows)
}

/// Parts of [`measure`], for a progress bar.
pub const PARTS: u64 = 5;

/// 13 partitions of 1g.20gb on three GPUs hold 12: impossible, and proved so.
fn packing(policy: Box<dyn Partitioner>) -> Result<Row> {
    let mut bench = Bench::new(policy, 1, 3, Cut::Mig)?;
    let mut times = Vec::new();
    for _ in 0..1000 {
        let pod = bench.add(GpuAsk::Mig { partitions: vec![("1g.20gb".into(), 13)] }, 0)?;
        let (time, actions) = bench.round();
        ensure!(actions.is_empty(), "thirteen do not fit");
        times.push(time);
        bench.planner.apply(Event::PodRemoved(pod))?;
    }
    // It is no because of the last one.
    bench.add(GpuAsk::Mig { partitions: vec![("1g.20gb".into(), 12)] }, 0)?;
    ensure!(!bench.round().1.is_empty(), "twelve fit");
    Ok(below("\"impossible\": 13 x 1g.20gb on 3 GPUs, p99", percentile(&times, 99), "us", 100.0, "upstream > 30 s"))
}

/// Ten pods of eight GPUs each, all or none, where nine nodes are idle and the others have one GPU in use.
fn group(policy: Box<dyn Partitioner>) -> Result<Row> {
    let mut bench = Bench::new(policy, 500, GPUS, Cut::Shares)?;
    for node in 9..500u32 {
        let grant = partita_core::state::Grant(vec![(0, partita_core::state::Use::Share(1000))]);
        let id = PodId(bench.pods);
        bench.pods += 1;
        let name = format!("pod-{}", id.0);
        let spec = PodSpec {
            name,
            namespace: "bench".into(),
            priority: 0,
            demand: demand(GpuAsk::whole(1)),
            terms: Terms::default(),
            ..PodSpec::default()
        };
        bench.planner.apply(Event::PodRuns(id, spec, NodeId(node), grant))?;
    }
    let pod = bench.add(GpuAsk::whole(8), 0)?;
    let asked = bench.planner.cluster().pod(pod).context("the pod was added")?.demand;
    let mut times = Vec::new();
    for _ in 0..200 {
        let started = Instant::now();
        let fitting = bench.planner.copies(asked, 10);
        times.push(started.elapsed());
        ensure!(fitting == 9, "nine of ten fit, not {fitting}");
    }
    Ok(below("\"impossible\": 10 pods x 8 GPUs at once over 500 nodes, p99", percentile(&times, 99), "us", 10_000.0, "KAI 249.5 s"))
}

/// Every GPU has a pod; one of higher priority comes and takes one GPU back.
fn reclaim(policy: Box<dyn Partitioner>) -> Result<Row> {
    let mut bench = Bench::new(policy, 500, GPUS, Cut::Shares)?;
    for _ in 0..500 * GPUS {
        bench.add(GpuAsk::whole(1), 0)?;
    }
    ensure!(bench.round().1.len() == 500 * GPUS, "every GPU is in use");
    let mut times = Vec::new();
    for _ in 0..200 {
        let pod = bench.add(GpuAsk::whole(1), 10)?;
        let (time, actions) = bench.round();
        let [Action::Evict { pod: victim, .. }] = actions.as_slice() else { anyhow::bail!("one pod goes, not {actions:?}") };
        times.push(time);
        bench.planner.apply(Event::PodRemoved(pod))?;
        bench.planner.apply(Event::PodRemoved(*victim))?;
        bench.add(GpuAsk::whole(1), 0)?;
        ensure!(bench.round().1.len() == 1, "every GPU is in use again");
    }
    Ok(below("reclaim of one GPU with 4,000 running pods, p99", percentile(&times, 99), "us", 1000.0, "KAI 13.9 s"))
}

/// What the state takes of memory at 10,000 nodes and 200,000 pods.
fn memory(policy: Box<dyn Partitioner>) -> Result<[Row; 2]> {
    let before = resident()?;
    let mut bench = Bench::new(policy, 10_000, GPUS, Cut::Mig)?;
    let with_nodes = resident()?;
    for _ in 0..200_000 {
        bench.add(GpuAsk::mig("1g.10gb"), 0)?;
    }
    ensure!(bench.round().1.len() == 200_000, "all fit");
    let with_pods = resident()?;
    let gpus = (with_nodes - before) / (10_000.0 * GPUS as f64);
    let pods = (with_pods - with_nodes) / 200_000.0;
    Ok([
        below("memory of a GPU, at 10,000 nodes", gpus, "bytes", 4096.0, ""),
        below("memory of a pod, at 200,000 pods", pods, "bytes", 2048.0, ""),
    ])
}

/// Resident memory of this process, bytes, as Linux tells it.
fn resident() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status").context("resident memory is read from /proc, which only Linux has")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("/proc/self/status has no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS is no number")?;
    Ok(kib * 1024.0)
}

/// The titles of [`cells`].
pub const TITLES: [&str; 5] = ["WHAT", "MEASURED", "TO REACH", "REACHED", "<OTHERS TODAY"];

/// The rows as texts.
#[must_use]
pub fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let show = |value: f64, unit: &str| match unit {
        "x" => format!("{value:.2} x"),
        "/s" => format!("{value:.0} /s"),
        unit if value < 10.0 => format!("{value:.2} {unit}"),
        unit => format!("{value:.0} {unit}"),
    };
    let row = |row: &Row| {
        let sign = if row.more { ">=" } else { "<=" };
        let reached = if row.reached() { "yes" } else { "no" };
        vec![
            row.what.clone(),
            show(row.value, row.unit),
            format!("{sign} {}", show(row.goal, row.unit)),
            reached.to_owned(),
            row.others.to_owned(),
        ]
    };
    rows.iter().map(row).collect()
}

//! A pod's whole way on a real node: created, a MIG partition made for it, bound, its container started.
//!
//! etcd, kube-apiserver, kubelet, containerd and runc are the real ones; scheduler and agent run in this process, wired as `partita scheduler`
//! and `partita agent` wire them, the agent on NVML's functions. Only the library behind those is not real, so **the time that a driver
//! takes to make a partition is not in these figures**. Every time is one of this process's clock, taken when a watch of it shows a change:
//! what the API server needs to tell of it is in there, as for everybody else.
//!
//! Pods come one by one, until the node is full, for one profile after the other: the larger one takes the slots of the smaller, so partitions
//! are destroyed and made anew. The same pods then come once more and find their partitions *warm*; and pods that ask for no GPU show what
//! kubelet and containerd need by themselves.

mod eyes;
mod stage;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use partita_cluster::Node;
use partita_core::model::catalog;
use partita_policy::Host;
use serde::Serialize;

use eyes::{Room, Seen, Way};
use stage::{Phases, Stage};

/// The end of `--help`.
pub const EXAMPLES: &str = "\
Needs root and runc; without them it says so and measures nothing.

Examples:
  cargo bench-partita agent
      208 pods that need a new partition, one by one; about ten minutes on two cores
  cargo bench-partita agent --rounds 2 --gpus 2 --plain 5
      the same in small, to see whether it works";

const MODEL: &str = "H100-80GB";
/// The profiles of the rounds, one after the other and from the start again: each has to destroy what the one before left.
const PROFILES: [&str; 4] = ["1g.10gb", "2g.20gb", "3g.40gb", "1g.20gb"];
/// Who comes at once asks for this; and this is there before.
const AT_ONCE: &str = "1g.10gb";
const BEFORE: &str = "7g.80gb";
/// Pods created at once.
const CREATORS: usize = 48;
/// Pause between two pods that come one by one.
const PAUSE: Duration = Duration::from_millis(40);

/// How much is measured.
#[derive(Args, Clone, Copy, Debug)]
pub struct Size {
    /// Rounds: in each the node is filled with partitions of another profile.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// GPUs of the node.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub gpus: u8,
    /// Pods that ask for no GPU.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub plain: u16,
}

/// All figures.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// The GPUs.
    pub model: &'static str,
    /// How many.
    pub gpus: u8,
    /// Whether the driver's own time is in the figures.
    pub driver_time_included: bool,
    /// Pods one by one, by what they found.
    pub ways: Vec<Sort>,
    /// Pods at once.
    pub bursts: Vec<Burst>,
    /// Median to be bound, and to run, with a new partition over a warm one.
    pub new_over_warm: [f64; 2],
    /// Of the time from created to running with a new partition: the part after binding, the kubelet's and containerd's, percent.
    pub after_binding: f64,
}

/// Pods that found the same.
#[derive(Clone, Debug, Serialize)]
pub struct Sort {
    /// What they found.
    pub found: &'static str,
    /// How many they were.
    pub pods: usize,
    /// The parts of the way that they had, in its order: some of [`PARTS`].
    pub parts: Vec<Timed>,
    /// Of how many a partition was made.
    pub made: usize,
}

/// How long a part of the way took.
#[derive(Clone, Debug, Serialize)]
pub struct Timed {
    /// Which of [`PARTS`].
    pub part: &'static str,
    /// Median and 99th percentile.
    pub ms: [f64; 2],
}

/// Pods that came at once.
#[derive(Clone, Debug, Serialize)]
pub struct Burst {
    /// What they found.
    pub found: &'static str,
    /// How many they were.
    pub pods: usize,
    /// Of how many a partition was made.
    pub made: usize,
    /// Layouts that were written for them.
    pub layouts: i64,
    /// From created to bound: median and 99th percentile, milliseconds.
    pub bound_ms: [f64; 2],
    /// From created to running.
    pub running_ms: [f64; 2],
    /// From the first created to the last bound, and to the last running, milliseconds.
    pub all_ms: [f64; 2],
    /// Changes of GPUs and their time together, milliseconds, by the agent's histogram.
    pub gpu: (u64, f64),
    /// Devices that were handed to the kubelet, and how long it took each on average, milliseconds, by the agent's histogram.
    pub kubelet: (u64, f64),
}

/// A pod that came alone, milliseconds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    made: Option<Making>,
    bound: f64,
    running: f64,
}

#[derive(Clone, Copy, Debug)]
struct Making {
    room: Room,
    layout: f64,
    ready: f64,
    gpu: f64,
    kubelet: f64,
}

/// A part of the way, if a pod has it, milliseconds.
type Part = fn(&Sample) -> Option<f64>;

/// A moment of the way, if it was seen.
type Moment = fn(&Way) -> Option<Instant>;

/// The parts of the way, in its order.
pub const PARTS: [&str; 9] = [
    "created → layout written",
    "layout written → Ready",
    "  GPU work, without a driver's time",
    "  hand-over to the kubelet",
    "  everything else",
    "Ready → bound",
    "created → bound",
    "bound → running",
    "created → running",
];
const MEASURES: [Part; PARTS.len()] = [
    |one| Some(one.made?.layout),
    |one| one.made.map(|made| made.ready - made.layout),
    |one| Some(one.made?.gpu),
    |one| Some(one.made?.kubelet),
    |one| one.made.map(|made| made.ready - made.layout - made.gpu - made.kubelet),
    |one| Some(one.bound - one.made?.ready),
    |one| Some(one.bound),
    |one| Some(one.running - one.bound),
    |one| Some(one.running),
];
const BOUND: usize = 6;
const RUNNING: usize = 8;
/// Rows of [`Figures::ways`].
const NEW: usize = 0;
const WARM: usize = 4;
const PLAIN: usize = 5;

/// Runs everything, or says why there can be no node on this machine.
///
/// # Errors
/// When a program does not start, or a pod does not run in time.
pub fn run(size: Size, host: Host, tell: &dyn Fn(&str)) -> Result<Result<Figures, String>> {
    if let Some(why) = Node::missing() {
        return Ok(Err(why));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(all(size, host, tell)).map(Ok)
}

async fn all(size: Size, host: Host, tell: &dyn Fn(&str)) -> Result<Figures> {
    tell("starting the control plane and the node");
    let stage = Stage::start(host, MODEL, size.gpus.into()).await?;
    // The first one waits for what everybody does only once.
    stage.alone("first", None).await?;
    stage.empty().await?;
    let (mut new, mut warm, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..usize::from(size.rounds) {
        let profile = PROFILES[round % PROFILES.len()];
        let pods = fitting(profile)? * usize::from(size.gpus);
        tell(&format!("round {} of {}: {pods} pods of {profile} one by one, new and warm", round + 1, size.rounds));
        new.extend(stage.one_by_one(&format!("new-{round}"), Some(profile), pods).await?);
        warm.extend(stage.one_by_one(&format!("warm-{round}"), Some(profile), pods).await?);
    }
    tell("pods without a GPU one by one");
    let fill = fitting(AT_ONCE)? * usize::from(size.gpus);
    let mut left = usize::from(size.plain);
    while left > 0 {
        let pods = left.min(fill);
        plain.extend(stage.one_by_one(&format!("plain-{left}"), None, pods).await?);
        left -= pods;
    }
    tell(&format!("{fill} pods at once, new, warm and without a GPU"));
    stage.at_once("before", "", Some(BEFORE), size.gpus.into()).await?;
    let bursts = vec![
        stage.at_once("burst-new", "new", Some(AT_ONCE), fill).await?,
        stage.at_once("burst-warm", "warm", Some(AT_ONCE), fill).await?,
        stage.at_once("burst-plain", "no GPU", None, fill).await?,
    ];
    stage.stop().await?;
    Ok(figures(size, &new, &warm, &plain, bursts))
}

fn figures(size: Size, new: &[Sample], warm: &[Sample], plain: &[Sample], bursts: Vec<Burst>) -> Figures {
    let in_room = |room: Room| new.iter().filter(|one| one.made.is_some_and(|made| made.room == room)).copied().collect::<Vec<_>>();
    let ways = vec![
        sort("new", new),
        sort("on free slots", &in_room(Room::Free)),
        sort("on a whole GPU", &in_room(Room::Whole)),
        sort("in place of others", &in_room(Room::Taken)),
        sort("warm", warm),
        sort("no GPU", plain),
    ];
    let median = |row: usize, part: usize| ways[row].part(PARTS[part]).map_or(f64::NAN, |[p50, _]| p50);
    let ratio = |part: usize| median(NEW, part) / median(WARM, part);
    let sum = |part: usize| new.iter().filter_map(MEASURES[part]).sum::<f64>();
    let after_binding = 100.0 * (sum(RUNNING) - sum(BOUND)) / sum(RUNNING);
    let new_over_warm = [ratio(BOUND), ratio(RUNNING)];
    Figures { model: MODEL, gpus: size.gpus, driver_time_included: false, ways, bursts, new_over_warm, after_binding }
}

fn sort(found: &'static str, samples: &[Sample]) -> Sort {
    let part = |(&part, of): (&&'static str, Part)| {
        let values: Vec<f64> = samples.iter().filter_map(of).collect();
        (!values.is_empty()).then(|| Timed { part, ms: quantiles(values) })
    };
    let made = samples.iter().filter(|one| one.made.is_some()).count();
    Sort { found, pods: samples.len(), parts: PARTS.iter().zip(MEASURES).filter_map(part).collect(), made }
}

impl Sort {
    /// How long a part took, median and 99th percentile, if they had it.
    #[must_use]
    pub fn part(&self, part: &str) -> Option<[f64; 2]> {
        self.parts.iter().find(|one| one.part == part).map(|one| one.ms)
    }
}

/// Median and 99th percentile.
fn quantiles(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [50, 99].map(|percent| values[(values.len() - 1) * percent / 100])
}

/// How many partitions of a profile a GPU can have.
fn fitting(profile: &str) -> Result<usize> {
    let grid = catalog::builtin(MODEL).and_then(|model| model.grid).with_context(|| format!("the catalog has no {MODEL}"))?;
    let row = grid.profiles.iter().find(|row| row.name == profile).with_context(|| format!("{MODEL} has no profile {profile}"))?;
    Ok(row.max.into())
}

impl Stage {
    /// Pods that come one by one and stay until all are there; then the node is empty again.
    async fn one_by_one(&self, name: &str, profile: Option<&str>, pods: usize) -> Result<Vec<Sample>> {
        let mut samples = Vec::with_capacity(pods);
        for number in 0..pods {
            samples.push(self.alone(&format!("{name}-{number}"), profile).await?);
            tokio::time::sleep(PAUSE).await;
        }
        self.empty().await?;
        Ok(samples)
    }

    async fn alone(&self, name: &str, profile: Option<&str>) -> Result<Sample> {
        let before = self.phases();
        let created = Instant::now();
        self.create(name, profile).await?;
        self.seen(&format!("{name} is bound"), |seen| is_bound(&seen.way(name))).await?;
        let phases = self.phases().since(before);
        self.seen(&format!("{name} runs"), |seen| seen.way(name).running.is_some()).await?;
        let way = self.eyes.now(|seen| seen.way(name));
        Sample::of(&way, created, phases).with_context(|| format!("{name} runs, and not all of its way was seen: {way:?}"))
    }

    /// Pods that come at once; then the node is empty again.
    async fn at_once(&self, name: &str, found: &'static str, profile: Option<&str>, pods: usize) -> Result<Burst> {
        let (before, layout) = (self.phases(), self.eyes.now(Seen::generation));
        let names: Vec<String> = (0..pods).map(|number| format!("{name}-{number}")).collect();
        let began = Instant::now();
        let create = |name: String| async move {
            let created = Instant::now();
            self.create(&name, profile).await.map(|()| (name, created))
        };
        let created: Vec<(String, Instant)> = stream::iter(names.clone()).map(create).buffer_unordered(CREATORS).try_collect().await?;
        self.seen("all run", |seen| names.iter().map(|name| seen.way(name)).all(|way| is_bound(&way) && way.running.is_some())).await?;
        let phases = self.phases().since(before);
        let layouts = self.eyes.now(Seen::generation) - layout;
        let ways: Vec<(Instant, Way)> = created.into_iter().map(|(name, at)| (at, self.eyes.now(|seen| seen.way(&name)))).collect();
        let [bound, running]: [Moment; 2] = [|way| way.bound, |way| way.running];
        let times = |of: Moment| -> Vec<f64> { ways.iter().filter_map(|(at, way)| Some(ms(*at, of(way)?))).collect() };
        let last = |of: Moment| ways.iter().filter_map(|(_, way)| of(way)).max().map_or(f64::NAN, |at| ms(began, at));
        let burst = Burst {
            found,
            pods,
            made: ways.iter().filter(|(_, way)| way.made.is_some()).count(),
            layouts,
            bound_ms: quantiles(times(bound)),
            running_ms: quantiles(times(running)),
            all_ms: [last(bound), last(running)],
            gpu: (phases.gpu.1, phases.gpu.0 * 1000.0),
            kubelet: (phases.kubelet.1, phases.kubelet.0 * 1000.0 / phases.kubelet.1.max(1) as f64),
        };
        self.empty().await?;
        Ok(burst)
    }
}

/// Whether a pod is bound, and its partition seen to be ready: two watches may tell the two in either order.
fn is_bound(way: &Way) -> bool {
    way.bound.is_some() && way.made.as_ref().is_none_or(|made| made.ready.is_some())
}

impl Sample {
    fn of(way: &Way, created: Instant, phases: Phases) -> Option<Self> {
        let made = match &way.made {
            None => None,
            Some(made) => Some(Making {
                room: made.room,
                layout: ms(created, made.layout),
                ready: ms(created, made.ready?),
                gpu: phases.gpu.0 * 1000.0,
                kubelet: phases.kubelet.0 * 1000.0,
            }),
        };
        Some(Self { made, bound: ms(created, way.bound?), running: ms(created, way.running?) })
    }
}

fn ms(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

impl Figures {
    /// Whether each pod found what it was to find: else the figures are of something else.
    #[must_use]
    pub fn holds(&self) -> bool {
        let nothing = |row: usize| self.ways[row].made == 0;
        let [new, warm, ..] = &self.bursts[..] else { return false };
        self.ways[NEW].made == self.ways[NEW].pods && nothing(WARM) && nothing(PLAIN) && new.made == new.pods && warm.made == 0
    }

    /// The parts of the way of pods that came one by one, for a table.
    #[must_use]
    pub fn parts(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let titles = ["MS: P50 / P99".to_owned()].into_iter().chain(self.ways.iter().map(|sort| sort.found.to_uppercase()));
        let cell = |part: Option<[f64; 2]>| part.map_or_else(String::new, both);
        let row = |part: &str| [part.to_owned()].into_iter().chain(self.ways.iter().map(|sort| cell(sort.part(part)))).collect();
        let pods = ["pods".to_owned()].into_iter().chain(self.ways.iter().map(|sort| sort.pods.to_string())).collect();
        (titles.collect(), [pods].into_iter().chain(PARTS.into_iter().map(row)).collect())
    }

    /// Pods that came at once, for a table.
    #[must_use]
    pub fn at_once(&self) -> Vec<Vec<String>> {
        let row = |burst: &Burst| {
            let Burst { found, pods, layouts, bound_ms, running_ms, all_ms, gpu, kubelet, .. } = *burst;
            let [all_bound, all_running] = all_ms.map(|ms| format!("{ms:.0}"));
            let changes = format!("{} in {:.0}", gpu.0, gpu.1);
            let handed = format!("{} × {:.0}", kubelet.0, kubelet.1);
            let mut cells = vec![found.to_owned(), pods.to_string(), layouts.to_string(), changes, handed];
            cells.extend([both(bound_ms), both(running_ms), all_bound, all_running]);
            cells
        };
        self.bursts.iter().map(row).collect()
    }
}

/// The titles of [`Figures::at_once`].
pub const AT_ONCE_TITLES: [&str; 9] =
    ["FOUND", "PODS", "LAYOUTS", "GPU WORK", "TO KUBELET", "BOUND P50 / P99", "RUNNING P50 / P99", "ALL BOUND", "ALL RUN"];

fn both([p50, p99]: [f64; 2]) -> String {
    format!("{p50:.1} / {p99:.1}")
}

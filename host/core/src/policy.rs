//! The only port of the core: what it asks of a strategy, in columns of integers.
//!
//! The shapes are those of `wit/policy.wit` (package `partita:policy`), borrowed instead of owned, so that a Wasm host lowers them with
//! one copy a column and a native policy reads them with none. Row numbers, units and the meaning of every column are documented there.

use std::fmt;

/// A row number that stands for "none".
pub const NONE: u32 = u32::MAX;
/// Scores lie within plus and minus this bound; the checker refuses an answer with a score outside.
pub const SCORE_MAX: i32 = 1_000_000;

/// GPU models; row = model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Models<'a> {
    /// GPUs of this model in the cluster.
    pub gpus: &'a [u32],
    /// Memory of one GPU, MiB.
    pub memory: &'a [u32],
    /// Memory slots of the MIG grid; 0 without MIG.
    pub slots: &'a [u32],
}

/// Shapes of nodes: nodes with as many GPUs of a model and as much cpu have one shape; row = shape. A node with GPUs of two models counts
/// in a shape of each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shapes<'a> {
    /// Row of [`Models`].
    pub model: &'a [u32],
    /// GPUs of that model on one node.
    pub gpus: &'a [u32],
    /// Allocatable cpu of one node, milli-cores.
    pub cpu_capacity: &'a [u32],
    /// Nodes of this shape in the cluster.
    pub nodes: &'a [u32],
}

/// MIG profiles; row = profile.
#[derive(Clone, Copy, Debug, Default)]
pub struct Profiles<'a> {
    /// Row of [`Models`].
    pub model: &'a [u32],
    /// Memory slots of one partition.
    pub size: &'a [u32],
    /// Compute slices of one partition.
    pub compute: &'a [u32],
    /// Memory of one partition, MiB.
    pub memory: &'a [u32],
    /// Bit mask of first slots.
    pub starts: &'a [u32],
}

/// Nodes of this question; row = node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nodes<'a> {
    /// Free cpu, milli-cores.
    pub cpu_free: &'a [u32],
    /// Allocatable cpu, milli-cores.
    pub cpu_capacity: &'a [u32],
    /// Free memory, MiB.
    pub memory_free: &'a [u32],
    /// Allocatable memory, MiB.
    pub memory_capacity: &'a [u32],
    /// Pods on the node that use GPUs.
    pub gpu_pods: &'a [u32],
    /// Those of them that use GPUs as the asked demand does: a share, the same number of whole GPUs, or the same MIG profile.
    pub like_pods: &'a [u32],
    /// Offsets into [`Gpus`], one longer than the rows.
    pub gpu_start: &'a [u32],
}

/// GPUs of the nodes of this question, node by node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gpus<'a> {
    /// Row of [`Models`].
    pub model: &'a [u32],
    /// Free share, milli-GPU.
    pub free: &'a [u32],
    /// Slots of MIG partitions in use, as a bit mask.
    pub used_slots: &'a [u32],
    /// Slots of warm MIG partitions, as a bit mask.
    pub warm_slots: &'a [u32],
    /// 1 if cut by MIG.
    pub mig: &'a [u32],
}

/// The expected mix, then the demand asked about; row = demand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demands<'a> {
    /// Cpu of one pod, milli-cores.
    pub cpu: &'a [u32],
    /// Memory of one pod, MiB.
    pub memory: &'a [u32],
    /// GPUs or partitions of one pod.
    pub count: &'a [u32],
    /// Share of each GPU, milli-GPU; 0 for MIG.
    pub milli: &'a [u32],
    /// Weight in the expected mix.
    pub weight: &'a [u32],
    /// Offsets into `models`, one longer than the rows.
    pub model_start: &'a [u32],
    /// Accepted rows of [`Models`]; an empty range accepts all.
    pub models: &'a [u32],
    /// Offsets into `profiles`, one longer than the rows.
    pub profile_start: &'a [u32],
    /// Rows of [`Profiles`] that serve the demand.
    pub profiles: &'a [u32],
}

/// What a policy sees of the cluster in one question.
#[derive(Clone, Copy, Debug, Default)]
pub struct View<'a> {
    /// The only randomness, drawn by the host for each decision.
    pub seed: u32,
    /// Names the outlook, that is models, shapes, profiles and the mix: where the number is equal they are. See [`outlook`].
    pub outlook: u64,
    /// GPU models of the cluster.
    pub models: Models<'a>,
    /// Shapes of nodes.
    pub shapes: Shapes<'a>,
    /// MIG profiles of those models.
    pub profiles: Profiles<'a>,
    /// Nodes of this question.
    pub nodes: Nodes<'a>,
    /// Their GPUs.
    pub gpus: Gpus<'a>,
    /// The expected mix and the demand asked about.
    pub demands: Demands<'a>,
}

/// The name of an outlook: a hash of its columns (FNV-1a, Fowler, Noll and Vo, over words instead of bytes), so that equal outlooks have one
/// name wherever they come from. `demands` holds the mix alone.
#[must_use]
pub fn outlook(models: &Models<'_>, shapes: &Shapes<'_>, profiles: &Profiles<'_>, demands: &Demands<'_>) -> u64 {
    let columns = [
        models.gpus,
        models.memory,
        models.slots,
        shapes.model,
        shapes.gpus,
        shapes.cpu_capacity,
        shapes.nodes,
        profiles.model,
        profiles.size,
        profiles.compute,
        profiles.memory,
        profiles.starts,
        demands.cpu,
        demands.memory,
        demands.count,
        demands.milli,
        demands.weight,
        demands.model_start,
        demands.models,
        demands.profile_start,
        demands.profiles,
    ];
    // The length of each column goes in too, or values could pass from one to the next unseen.
    let words = columns.into_iter().flat_map(|column| std::iter::once(column.len() as u32).chain(column.iter().copied()));
    words.fold(0xcbf2_9ce4_8422_2325, |hash, word| (hash ^ u64::from(word)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Feasible places for one pod; row = candidate. Those of a node are adjacent, the tightest first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidates<'a> {
    /// Row of [`Nodes`].
    pub node: &'a [u32],
    /// Row of [`Gpus`], or [`NONE`].
    pub gpu: &'a [u32],
    /// Row of [`Profiles`], or [`NONE`].
    pub profile: &'a [u32],
    /// First slot, or [`NONE`].
    pub slot: &'a [u32],
    /// What kind of place it is: 0 no GPU, 1 whole GPUs or time-sliced shares, 2 MIG partitions, 3 a share under MPS.
    pub kind: &'a [u32],
    /// How much of one GPU it takes, milli-GPU; 0 for a place without GPU or on several.
    pub milli: &'a [u32],
    /// What comes before any score: places of a lower tier win.
    pub tier: &'a [u32],
    /// Offsets into the partitions of places that have several, one longer than the rows.
    pub use_start: &'a [u32],
    /// Row of [`Gpus`] of each such partition.
    pub use_gpu: &'a [u32],
    /// Row of [`Profiles`] of each such partition.
    pub use_profile: &'a [u32],
    /// First slot of each such partition.
    pub use_slot: &'a [u32],
}

/// Running pods that may be moved; row = pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Movable<'a> {
    /// Row of [`Demands`].
    pub demand: &'a [u32],
    /// Row of [`Nodes`] where it runs.
    pub node: &'a [u32],
    /// Row of [`Gpus`]: its first GPU.
    pub gpu: &'a [u32],
    /// First slot of its first MIG partition, else [`NONE`].
    pub slot: &'a [u32],
}

/// Moves that a strategy proposes; row = move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Row of [`Movable`], each at most once.
    pub pod: Vec<u32>,
    /// Row of [`Nodes`] where it goes.
    pub node: Vec<u32>,
}

/// Names a revision (module + settings + limits) within one run; the key of everything that is cached of its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u32);

/// Which parts of a question the answers of a revision depend on beyond the nodes themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// The seed: such answers are never cached, and each question holds every feasible node.
    pub seed: bool,
    /// The expected mix, or what the cluster is made of (its models and shapes): cached answers fall when either changes.
    pub mix: bool,
}

/// Why a policy gave no usable answer. Each cause is counted apart; all lead to the next policy of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It declined: a normal answer.
    Declined,
    /// It trapped (a panic, an out-of-bounds access, a stack overflow).
    Trap,
    /// It used up its fuel.
    Fuel,
    /// It ran past its wall-clock deadline.
    Deadline,
    /// It wanted more memory than its limit.
    Memory,
    /// Its reply was larger than its limit.
    Oversize,
    /// Its answer was wrong: too short, too long or out of range.
    Invalid,
    /// It answered the same question in two ways.
    Impure,
    /// It was switched off after earlier failures.
    Quarantined,
}

impl Cause {
    /// Every cause, in the order in which reports list them.
    pub const ALL: [Self; 9] = [
        Self::Declined,
        Self::Trap,
        Self::Fuel,
        Self::Deadline,
        Self::Memory,
        Self::Oversize,
        Self::Invalid,
        Self::Impure,
        Self::Quarantined,
    ];

    /// The name in reports and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Declined => "declined",
            Self::Trap => "trap",
            Self::Fuel => "fuel",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Oversize => "oversize",
            Self::Invalid => "invalid",
            Self::Impure => "impure",
            Self::Quarantined => "quarantined",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A question that a policy did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}: {detail}")]
pub struct Fault {
    /// What kind of failure it was.
    pub cause: Cause,
    /// What happened, for a person.
    pub detail: String,
}

/// A partitioning strategy: a pure function of its arguments. The only trait of the core.
pub trait Partitioner {
    /// The key under which answers are cached.
    fn revision(&self) -> Revision;
    /// What the answers depend on.
    fn reads(&self) -> Reads;
    /// Asked once before each decision, before any column is written.
    ///
    /// # Errors
    /// A [`Fault`] when the strategy is not to be asked now.
    fn ready(&mut self) -> Result<(), Fault>;
    /// Writes one score a candidate into `scores` (cleared first): places for a pod of demand row `demand`. One decision may put
    /// several such questions, each about some of the nodes.
    ///
    /// # Errors
    /// A [`Fault`] when there is no usable answer; `scores` is then meaningless.
    fn score(&mut self, view: &View<'_>, demand: u32, candidates: &Candidates<'_>, scores: &mut Vec<i32>) -> Result<(), Fault>;
    /// Proposes at most `most` moves of running pods that tidy the cluster up. The first `mix` rows of the demands are the mix, the others
    /// are those of the pods.
    ///
    /// # Errors
    /// A [`Fault`] when there is no usable answer; a strategy that moves nobody declines, as this does unless it is overridden.
    fn choose_moves(&mut self, _view: &View<'_>, _mix: u32, _pods: &Movable<'_>, _most: u32) -> Result<Moves, Fault> {
        Err(Fault { cause: Cause::Declined, detail: "it moves nobody".into() })
    }
    /// The core refused the last answer as a whole: the strategy takes note and is trusted less.
    fn refused(&mut self, fault: &Fault);
}

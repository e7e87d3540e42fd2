//! The columns of a question, borrowed. Their units and meaning are those of `wit/policy.wit`.

/// A row number that stands for "none".
pub const NONE: u32 = u32::MAX;
/// Scores lie within plus and minus this bound; the host refuses an answer with a score outside.
pub const SCORE_MAX: i32 = 1_000_000;

/// GPU models; row = model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Models<'a> {
    /// GPUs of this model in the cluster.
    pub gpus: &'a [u32],
    /// Memory of one GPU, MiB; 0 where the host does not know it.
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
    /// Bit mask of the slots where a partition may start.
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

/// GPUs of the nodes of this question, node by node; row = GPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gpus<'a> {
    /// Row of [`Models`].
    pub model: &'a [u32],
    /// Free share, milli-GPU; on a MIG GPU free slots x 1000 / slots.
    pub free: &'a [u32],
    /// Slots of MIG partitions in use, as a bit mask.
    pub used_slots: &'a [u32],
    /// Slots of warm MIG partitions, as a bit mask.
    pub warm_slots: &'a [u32],
    /// 1 if cut by MIG.
    pub mig: &'a [u32],
}

/// The expected mix and the demand asked about; row = demand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demands<'a> {
    /// Cpu of one pod, milli-cores.
    pub cpu: &'a [u32],
    /// Memory of one pod, MiB.
    pub memory: &'a [u32],
    /// GPUs or partitions of one pod; 0 for a pod without GPU.
    pub count: &'a [u32],
    /// Share of each GPU, milli-GPU; 1000 for whole GPUs; 0 for MIG partitions.
    pub milli: &'a [u32],
    /// Weight in the expected mix; 0 outside of it.
    pub weight: &'a [u32],
    /// Offsets into `models`, one longer than the rows.
    pub model_start: &'a [u32],
    /// Accepted rows of [`Models`]; an empty range accepts every model.
    pub models: &'a [u32],
    /// Offsets into `profiles`, one longer than the rows.
    pub profile_start: &'a [u32],
    /// Rows of [`Profiles`] that serve the demand.
    pub profiles: &'a [u32],
}

/// What a policy sees of the cluster in one question. The columns of a table of which the policy reads nothing (see
/// [`Policy::READS`](crate::Policy::READS)) may be empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct View<'a> {
    /// The only randomness, drawn by the host for each decision.
    pub seed: u32,
    /// Names the outlook, that is models, shapes, profiles and the mix: where the number is equal, so are they. What a policy derives from
    /// the outlook it may keep under this number.
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

/// Feasible places for one pod; row = candidate. Those of a node are adjacent, the tightest GPU first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidates<'a> {
    /// Row of [`Nodes`].
    pub node: &'a [u32],
    /// Row of [`Gpus`]: the first GPU that the pod would use; [`NONE`] for a pod without GPU.
    pub gpu: &'a [u32],
    /// Row of [`Profiles`] for a MIG partition, else [`NONE`].
    pub profile: &'a [u32],
    /// First slot of a MIG partition, else [`NONE`].
    pub slot: &'a [u32],
    /// What kind of place it is: 0 no GPU, 1 whole GPUs or time-sliced shares, 2 MIG partitions, 3 a share under MPS. Read as
    /// `places.kind`.
    pub kind: &'a [u32],
    /// How much of one GPU it takes, milli-GPU; 0 for a place without GPU or on several. Read as `places.milli`.
    pub milli: &'a [u32],
    /// What comes before any score: places of a lower tier win. Read as `places.tier`.
    pub tier: &'a [u32],
    /// Offsets into the partitions of places that have several, one longer than the rows. Read as `places.use-start`.
    pub use_start: &'a [u32],
    /// Row of [`Gpus`] of each such partition. Read as `uses.gpu`.
    pub use_gpu: &'a [u32],
    /// Row of [`Profiles`] of each such partition. Read as `uses.profile`.
    pub use_profile: &'a [u32],
    /// First slot of each such partition. Read as `uses.slot`.
    pub use_slot: &'a [u32],
}

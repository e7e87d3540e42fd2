//! Scenarios: a small cluster, the pods that run and wait there, and what happens next, told in one file and played with the real planner.
//!
//! [`Scenario::parse`] reads the file (FORMATS.md), [`Scenario::play`] gives a [`Transcript`]: everything that the planner did, in order,
//! why the pods that wait do so, and what is on every GPU afterwards. Its `Display` is for people, its JSON for programs.
//!
//! What a cluster does by itself is played by three rules. Who is told to stop or to move has left at once, before the planner decides
//! again; a step may say that somebody lingers. Who was evicted waits again. Within a step the planner decides until it has nothing
//! more to do.
//!
//! ```text
//! file ─► keys (strict TOML) ─► nodes, pods, steps ─► Scenario ─► play ◄─► partita_core::Planner
//!                                                                  │ actions
//!                                                                  ▼
//!                                     books (own picture of every GPU, compared with the planner's) ─► Transcript ─► words, drawing
//! ```

mod books;
mod draw;
mod keys;
mod nodes;
mod play;
mod pods;
mod read;
mod steps;
mod transcript;
mod words;

use std::path::Path;

use partita_core::{
    Config,
    model::{GpuModel, NodeId, NodeSpec, PodSpec},
    state::Grant,
};

pub use transcript::{Changed, Entry, GpuState, Held, NodeLine, OnGpu, Part, Step, Transcript, Used, User, Waiting};

use crate::{
    error::{InputError, SimError},
    text,
};

/// The largest file, bytes.
pub const SCENARIO_MAX: usize = 1 << 20;
/// The most nodes: a scenario is made to be read.
pub const NODES_MAX: usize = 100;
/// The most pods.
pub const PODS_MAX: usize = 2000;
/// The most steps.
pub const STEPS_MAX: usize = 200;

/// A cluster, its pods, and what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Name of its file.
    pub file: String,
    /// What it is about.
    pub title: Option<String>,
    /// The policy that it names, with settings as on the command line, and the line where.
    pub policy: Option<(String, u64)>,
    /// How the planner decides.
    pub config: Config,
    /// GPU models, sorted by name.
    pub models: Vec<GpuModel>,
    /// Nodes in the order that breaks ties.
    pub nodes: Vec<NodeSpec>,
    /// Disruption budgets: how many of their pods may be stopped.
    pub budgets: Vec<(String, u32)>,
    /// Pods in the order of the file.
    pub pods: Vec<ScenarioPod>,
    /// What happens, in order of time; the first is the start.
    pub steps: Vec<Happening>,
}

/// A pod of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioPod {
    /// What it is.
    pub spec: PodSpec,
    /// Where it runs at the start.
    pub runs: Option<(NodeId, Grant)>,
}

/// What happens at one time. Pods are rows of [`Scenario::pods`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Happening {
    /// When, milliseconds since the start.
    pub at_ms: u64,
    /// Its line in the file; none for the start.
    pub line: Option<u64>,
    /// Disruption budgets that change.
    pub budgets: Vec<(String, u32)>,
    /// Pods that end by themselves.
    pub ends: Vec<usize>,
    /// Pods that lingered and stop now.
    pub stops: Vec<usize>,
    /// Pods that come.
    pub arrives: Vec<usize>,
    /// Pods that, once told to stop or to move, keep their place until a later step says that they stop.
    pub lingers: Vec<usize>,
}

impl Scenario {
    /// Reads a scenario (FORMATS.md) from the bytes of the file called `file`.
    ///
    /// # Errors
    /// [`InputError`] with line, key, value and remedy.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, InputError> {
        read::scenario(file, bytes)
    }

    /// Reads the scenario in the file at `path`.
    ///
    /// # Errors
    /// [`SimError::Io`] if it cannot be read, [`SimError::Input`] if it makes no sense.
    pub fn load(path: &Path) -> Result<Self, SimError> {
        let bytes = text::read(path, SCENARIO_MAX)?;
        Ok(Self::parse(&path.display().to_string(), &bytes)?)
    }
}

/// What a pod is called: its name, after that of its namespace unless that is `default`.
#[must_use]
pub fn called(pod: &PodSpec) -> String {
    if pod.namespace == DEFAULT_NAMESPACE { pod.name.clone() } else { format!("{}/{}", pod.namespace, pod.name) }
}

/// The namespace of a pod that names none.
const DEFAULT_NAMESPACE: &str = "default";

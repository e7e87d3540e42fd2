//! What can go wrong before and during a run.

use std::{fmt, io, path::PathBuf};

use partita_core::state::Refused;
use thiserror::Error;

/// Why a run could not be prepared or finished. A message does not repeat that of its source: print the chain.
#[derive(Debug, Error)]
pub enum SimError {
    /// The planner evicts and moves pods without end.
    #[error("after {rounds} rounds at {at_s} s the planner still evicts or moves pods; please report this with the input")]
    Restless {
        /// Virtual time, seconds.
        at_s: String,
        /// Rounds at that time.
        rounds: usize,
    },
    /// A file cannot be opened or read.
    #[error("{path}: cannot be read", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file says something that makes no sense.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The workload wants GPUs and the cluster has none.
    #[error(
        "the cluster of {nodes} nodes has no GPU, and {pods} pods ask for one; add gpus = {{ model = \"...\", count = ... }} to a node"
    )]
    NoGpu {
        /// Nodes of the cluster.
        nodes: usize,
        /// Pods that ask for a GPU.
        pods: usize,
    },
    /// The cluster and an arrivals file do not belong together.
    #[error("{file}: ranks {ranks} nodes, and the cluster has {nodes}; use the arrivals file of this cluster")]
    Ranks {
        /// The arrivals file.
        file: String,
        /// Ranks in its second line.
        ranks: usize,
        /// Nodes of the cluster.
        nodes: usize,
    },
    /// Nothing is left to count.
    #[error("the warm-up of {warm_up} arrivals leaves none of {arrivals} to count; shorten it")]
    WarmUp {
        /// Arrivals that are not counted.
        warm_up: usize,
        /// Arrivals of the workload.
        arrivals: usize,
    },
    /// What the planner believes of a GPU is not what its actions made of it: a bug of partita.
    #[error("at {at_s} s GPU {gpu} of {node} is cut by {problem}; this is a bug of partita, please report it with the input")]
    Books {
        /// Virtual time, seconds.
        at_s: String,
        /// The node.
        node: String,
        /// Index of the GPU.
        gpu: usize,
        /// Both views.
        problem: String,
    },
    /// No policy to run.
    #[error("no policy was given; name at least one")]
    NoPolicy,
    /// The core refused something that the readers let through.
    #[error("the planner refused an event")]
    Refused(#[from] Refused),
    /// The core's decision does not add up in the simulator's own books: a bug of partita.
    #[error("at {at_s} s pod {pod} was placed on {node}: {problem}; this is a bug of partita, please report it with the input")]
    Ledger {
        /// Virtual time, seconds.
        at_s: String,
        /// The pod.
        pod: String,
        /// The node.
        node: String,
        /// What does not add up.
        problem: String,
    },
}

/// Where and why a file makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    /// Name of the file, as given.
    pub file: Box<str>,
    /// Line, from 1; none when the whole file is meant.
    pub line: Option<u64>,
    /// Column or key, if one is to blame.
    pub column: Option<Box<str>>,
    /// The value as found, shortened.
    pub value: Option<Box<str>>,
    /// What is wrong.
    pub problem: Box<str>,
    /// What to do about it.
    pub remedy: Box<str>,
}

impl std::error::Error for InputError {}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", printable(&self.file))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if let Some(column) = &self.column {
            write!(f, "{}: ", printable(column))?;
        }
        if let Some(value) = &self.value {
            write!(f, "\"{}\" ", shown(value))?;
        }
        f.write_str(&printable(&self.problem))?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", printable(&self.remedy))?;
        }
        Ok(())
    }
}

/// A fault without its place: what a parser of one value knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) column: Option<Box<str>>,
    pub(crate) value: Option<Box<str>>,
    pub(crate) problem: Box<str>,
    pub(crate) remedy: Box<str>,
}

impl Fault {
    pub(crate) fn new(problem: impl Into<Box<str>>, remedy: impl Into<Box<str>>) -> Self {
        Self { column: None, value: None, problem: problem.into(), remedy: remedy.into() }
    }

    pub(crate) fn value(mut self, value: &str) -> Self {
        self.value = Some(value.chars().take(VALUE_SHOWN + 1).collect::<String>().into());
        self
    }

    pub(crate) fn column(mut self, column: &str) -> Self {
        self.column = Some(column.into());
        self
    }

    pub(crate) fn at(self, file: &str, line: impl Into<Option<u64>>) -> InputError {
        let Self { column, value, problem, remedy } = self;
        InputError { file: file.into(), line: line.into(), column, value, problem, remedy }
    }
}

/// Characters of a value that a message repeats; enough to find it in the file.
const VALUE_SHOWN: usize = 60;

/// A hostile value in a form that a terminal can show: shortened, control characters escaped.
fn shown(value: &str) -> String {
    let mut text: String = value.chars().take(VALUE_SHOWN).flat_map(char::escape_debug).collect();
    if value.chars().nth(VALUE_SHOWN).is_some() {
        text.push('…');
    }
    text
}

fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

//! What keeps an agent from working, and what to do about it.

use std::path::PathBuf;

use partita_device::CheckpointError;
use thiserror::Error;

/// Why the agent cannot go on.
#[derive(Debug, Error)]
pub enum AgentError {
    /// What was made cannot be kept, or another agent has it.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file for container runtimes cannot be read or written.
    #[error("{path} cannot be used: {source}; make room, mend it, or name another with --cdi or --cdi-common")]
    Cdi {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A thread of the agent ended.
    #[error("a thread of the agent ended: {0}; start the agent again, and report the bug with its log")]
    Thread(String),
}

//! What can go wrong, each with the place where more is said.

use std::{io, path::PathBuf};

use crate::Program;

/// Why a control plane, its programs or the oracle could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Go is not installed, or too old for the modules.
    #[error("{0}")]
    Go(String),
    /// A program could not be compiled.
    #[error("{program} could not be built by `{command}`:\n{last_lines}")]
    Build {
        /// Its name.
        program: String,
        /// What was run.
        command: String,
        /// The end of what the compiler said.
        last_lines: String,
    },
    /// A program did not become ready, or ended before it was.
    #[error("{program} {why}; its log is {}, and ends:\n{last_lines}", log.display())]
    NotReady {
        /// Which.
        program: Program,
        /// What was seen.
        why: String,
        /// Everything that it said.
        log: PathBuf,
        /// The end of that.
        last_lines: String,
    },
    /// This machine cannot run a real node.
    #[error("no real node on this machine: {0}")]
    NoNode(String),
    /// A program of a real node did not do what was waited for.
    #[error("node {node}: {why}; the log is {}, and ends:\n{last_lines}", log.display())]
    Node {
        /// Which node.
        node: String,
        /// What was seen.
        why: String,
        /// Everything that the program said.
        log: PathBuf,
        /// The end of that.
        last_lines: String,
    },
    /// A program was asked for that is not running, or that was not chosen at the start.
    #[error("{program} is not running: {remedy}")]
    NotRunning {
        /// Which.
        program: Program,
        /// How to have it run.
        remedy: &'static str,
    },
    /// Nobody of this name can be signed in.
    #[error(
        "no user {0:?}: name it in `Options::users` before the start, or name a service account as system:serviceaccount:NAMESPACE:NAME"
    )]
    NoUser(String),
    /// The cluster refused a request.
    #[error("{doing}: {source}")]
    Kube {
        /// What the request was for.
        doing: String,
        /// What came back.
        #[source]
        source: Box<kube::Error>,
    },
    /// A file, a folder, a process or a port.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The oracle did not understand, or ended.
    #[error("the oracle of feasibility: {0}")]
    Oracle(String),
}

/// Adds to a system's or a cluster's error what was being done.
pub(crate) trait Doing<T> {
    /// `doing` is only called when something went wrong.
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Io { doing: doing(), source })
    }
}

impl<T> Doing<T> for kube::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Kube { doing: doing(), source: Box::new(source) })
    }
}

//! A GPU that several processes use at once under NVIDIA's Multi-Process Service: what fits, and what a container needs to be told.
//!
//! Each GPU has a control daemon of its own, so that what happens on one GPU is nobody's business on another. A client's limits are those
//! of its environment ([`environment`]), which can only tighten those of its server. Therefore a server's limits are those of the largest
//! share: a container that unsets its environment gets no more than that. A daemon's defaults hold for servers that start later, so
//! servers that run are told as well; for clients that run nothing changes. (NVIDIA, *Multi-Process Service*, "Environment variables"
//! and "nvidia-cuda-mps-control".)

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use partita_core::model::node::{MPS_CLIENTS_MAX, MPS_RESERVED_MIB};
use thiserror::Error;

/// Names the folder in which the daemon of a GPU listens.
pub const PIPE_DIRECTORY: &str = "CUDA_MPS_PIPE_DIRECTORY";
/// Names the folder into which it writes what happens.
pub const LOG_DIRECTORY: &str = "CUDA_MPS_LOG_DIRECTORY";
/// Limits the memory of a client, per GPU that it sees.
pub const MEMORY_LIMIT: &str = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT";
/// Limits the threads of a client, percent.
pub const THREADS: &str = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE";
/// Clients and server share memory here.
const SHARED_MEMORY: &str = "/dev/shm";

/// Why a GPU is not shared as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MpsError {
    /// A program of NVIDIA's is not installed.
    #[error(
        "{program} was not found ({place}); install the driver's compute programs (nvidia-compute-utils, or nvidia-driver-cuda), or label \
         the node partita.dev/partitioning=mig"
    )]
    Missing {
        /// The program.
        program: String,
        /// Where it was looked for.
        place: String,
    },
    /// The shares are more than the GPU.
    #[error("MPS shares of {wanted} MiB and {MPS_RESERVED_MIB} MiB for MPS itself are more than the GPU's {memory_mib} MiB; leave one out")]
    TooLarge {
        /// All shares together, MiB.
        wanted: u64,
        /// The memory of the GPU, MiB.
        memory_mib: u32,
    },
    /// There are more shares than MPS has clients.
    #[error("{0} MPS shares are more than the {MPS_CLIENTS_MAX} clients that MPS can have on one GPU; leave some out")]
    TooMany(usize),
    /// A share of nothing.
    #[error("an MPS share of 0 MiB cannot be used by anybody; give it memory")]
    Empty,
    /// A program did not come to an end.
    #[error("{program} {what:?} for {gpu} was ended after {seconds} s; look into the logs in {log}")]
    Hangs {
        /// The program.
        program: String,
        /// What it was asked.
        what: String,
        /// The GPU, by UUID.
        gpu: String,
        /// How long it had.
        seconds: u64,
        /// The folder of the logs.
        log: PathBuf,
    },
    /// A program refused.
    #[error("{program} {what:?} for {gpu} says {said:?}; look into the logs in {log}")]
    Refused {
        /// The program.
        program: String,
        /// What it was asked.
        what: String,
        /// The GPU, by UUID.
        gpu: String,
        /// What it said.
        said: String,
        /// The folder of the logs.
        log: PathBuf,
    },
    /// The daemon ended.
    #[error("the MPS daemon of {gpu} does not run; it is started when the layout is taken again; look into the logs in {log}")]
    Gone {
        /// The GPU, by UUID.
        gpu: String,
        /// The folder of the logs.
        log: PathBuf,
    },
    /// The daemon does not serve any more, and somebody still computes.
    #[error("the MPS daemon of {gpu} does not serve any more; it is started anew when {users} have ended, so restart their pods")]
    Broken {
        /// The GPU, by UUID.
        gpu: String,
        /// Who.
        users: String,
    },
    /// The daemon or a server of it cannot be ended.
    #[error("processes {pids} of the MPS daemon of {gpu} do not end; if they are still there, look at the kernel's log (dmesg)")]
    Stays {
        /// The GPU, by UUID.
        gpu: String,
        /// Their numbers.
        pids: String,
    },
    /// The daemon's folder cannot be used.
    #[error("{path} cannot be {done}: {why}; let this program write there")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What was tried.
        done: &'static str,
        /// Why not.
        why: String,
    },
    /// The daemon's socket would have too long a name.
    #[error("{0} is too long for the name of a socket; give MPS a folder of at most 40 letters")]
    LongPath(PathBuf),
}

/// Whether shares, each in MiB, fit on a GPU together with what MPS itself needs.
///
/// # Errors
/// If they do not.
pub fn fits(shares: &[u32], memory_mib: u32) -> Result<(), MpsError> {
    if shares.len() > MPS_CLIENTS_MAX {
        return Err(MpsError::TooMany(shares.len()));
    }
    if shares.contains(&0) {
        return Err(MpsError::Empty);
    }
    let wanted: u64 = shares.iter().copied().map(u64::from).sum();
    if wanted + u64::from(MPS_RESERVED_MIB) > u64::from(memory_mib) {
        return Err(MpsError::TooLarge { wanted, memory_mib });
    }
    Ok(())
}

/// The percentage of a GPU's threads that a share may use at most: twice its part of the memory, rounded up. With exact parts the threads
/// of neighbours that are idle would be used by nobody; NVIDIA recommends 100 % / 0.5 n for n clients, so that load is balanced (*Multi-
/// Process Service*, "Execution resource provisioning").
#[must_use]
pub fn threads(share_mib: u32, total_mib: u32) -> u32 {
    let doubled = (200 * u64::from(share_mib)).div_ceil(u64::from(total_mib.max(1)));
    doubled.clamp(1, 100) as u32
}

/// The limits of a share of a GPU, as MPS takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Memory, MiB.
    pub(crate) memory_mib: u32,
    /// Threads, percent.
    pub(crate) threads: u32,
}

impl Limits {
    pub(crate) fn of(share_mib: u32, total_mib: u32) -> Self {
        Self { memory_mib: share_mib, threads: threads(share_mib, total_mib) }
    }
}

/// What a container is told in its environment so that it has a share of a GPU and no more. In a container that sees one GPU, that is
/// number 0. `total_mib` is the memory of the GPU as its driver tells it.
#[must_use]
pub fn environment(share_mib: u32, total_mib: u32, pipe_folder_in_container: &Path) -> BTreeMap<String, String> {
    let limits = Limits::of(share_mib, total_mib);
    BTreeMap::from([
        (PIPE_DIRECTORY.to_owned(), pipe_folder_in_container.display().to_string()),
        (MEMORY_LIMIT.to_owned(), format!("0={}M", limits.memory_mib)),
        (THREADS.to_owned(), limits.threads.to_string()),
    ])
}

/// A folder of the node in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The folder on the node.
    pub host: PathBuf,
    /// Where it is in the container.
    pub container: PathBuf,
    /// The container cannot write there.
    pub read_only: bool,
}

/// What a container sees of the node so that it can reach the daemon: its sockets, and the memory that clients and server share. The
/// daemon's folder stays the same folder when the daemon is started anew, so it remains reachable.
#[must_use]
pub fn mounts(pipe_folder: &Path, pipe_folder_in_container: &Path) -> Vec<Mount> {
    let mount = |host: &Path, container: &Path| Mount { host: host.to_owned(), container: container.to_owned(), read_only: false };
    vec![mount(pipe_folder, pipe_folder_in_container), mount(Path::new(SHARED_MEMORY), Path::new(SHARED_MEMORY))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_fit_with_what_mps_needs() {
        assert_eq!(fits(&[], 512), Ok(()));
        assert_eq!(fits(&[10_240; 7], 10_240 * 7 + MPS_RESERVED_MIB), Ok(()));
        let error = fits(&[10_240; 7], 10_240 * 7 + MPS_RESERVED_MIB - 1).unwrap_err();
        assert!(error.to_string().contains("71680 MiB and 512 MiB for MPS"), "{error}");
        assert_eq!(fits(&[1; 48], 81_559), Ok(()));
        assert_eq!(fits(&[1; 49], 81_559), Err(MpsError::TooMany(49)));
        assert_eq!(fits(&[1, 0], 81_559), Err(MpsError::Empty));
        assert!(matches!(fits(&[u32::MAX; 48], u32::MAX), Err(MpsError::TooLarge { wanted, .. }) if wanted == 48 * u64::from(u32::MAX)));
    }

    #[test]
    fn a_container_is_told_its_limits() {
        let told = environment(10_240, 81_920, Path::new("/mps"));
        let told: Vec<(&str, &str)> = told.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let memory = ("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "0=10240M");
        assert_eq!(told, [("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "25"), memory, ("CUDA_MPS_PIPE_DIRECTORY", "/mps")]);
        for (share, percent) in [(1, 1), (10_241, 26), (40_960, 100), (40_959, 100), (81_920, 100), (40_550, 99)] {
            assert_eq!(threads(share, 81_920), percent, "{share}");
        }
        let mounts = mounts(Path::new("/var/lib/partita/mps/GPU-1/pipe"), Path::new("/mps"));
        let shared = Mount { host: "/dev/shm".into(), container: "/dev/shm".into(), read_only: false };
        assert!(mounts[0].container == Path::new("/mps") && mounts[1] == shared);
    }
}

//! The processes of a GPU's MPS daemon, told from all others by the folder in their environment and the program that they run.
//!
//! A file with a number would tell of a process that may have ended, and whose number may be somebody else's since.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::mps::PIPE_DIRECTORY;

/// In the environment of a program that only asks a daemon.
pub(super) const ASKS: &str = "PARTITA_ASKS";

const CONTROL: &str = "nvidia-cuda-mps-control";
const SERVER: &str = "nvidia-cuda-mps-server";

/// A process of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) pid: u32,
    /// It is a server, and not the daemon itself.
    pub(super) server: bool,
}

/// All processes of the daemon that listens in a folder.
pub(super) fn of(pipe: &Path) -> Vec<Own> {
    let Ok(folder) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut all: Vec<Own> = pids.filter_map(|pid| is_of(pid, pipe)).collect();
    all.sort_by_key(|one| one.pid);
    all
}

/// What a process is to the daemon that listens in a folder. One that ended and that nobody waits for has no environment, and is nothing.
pub(super) fn is_of(pid: u32, pipe: &Path) -> Option<Own> {
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = program.file_name()?.to_str()?;
    // The name ends otherwise once the program was replaced by a newer one.
    let server = name.starts_with(SERVER);
    if !server && !name.starts_with(CONTROL) {
        return None;
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = |name: &str| environment.split(|&byte| byte == 0).find_map(|one| one.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    let ours = value(PIPE_DIRECTORY) == Some(pipe.as_os_str().as_bytes()) && value(ASKS).is_none();
    ours.then_some(Own { pid, server })
}

/// Kills a process of the daemon that listens in a folder, and no other that has its number by then.
pub(super) fn kill(own: Own, pipe: &Path) -> io::Result<()> {
    let Some(pid) = i32::try_from(own.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if is_of(own.pid, pipe) != Some(own) {
        return Ok(());
    }
    match pidfd_send_signal(process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A program in a folder of the search path, or at the place that is given.
pub(super) fn find(program: &Path) -> Result<PathBuf, String> {
    if program.components().count() > 1 {
        return if program.is_file() { Ok(program.to_owned()) } else { Err("there is no such file".to_owned()) };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    found.ok_or_else(|| format!("PATH is {}", path.to_string_lossy()))
}

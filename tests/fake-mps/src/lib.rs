//! Stands in for `nvidia-cuda-mps-control`, `nvidia-cuda-mps-server` and `nvidia-smi`: one program under three names.
//!
//! ```text
//! nvidia-cuda-mps-control -d ──► daemon: listens in $CUDA_MPS_PIPE_DIRECTORY/control, writes its pid file
//! nvidia-cuda-mps-control    ──► reads commands, asks the daemon, prints what it says
//! start_server -uid N        ──► nvidia-cuda-mps-server: a process that does nothing, as if a client had come
//! nvidia-smi compute-policy  ──► keeps the number of a GPU's time slice
//! test ─► Fake (faults, journal, processes) ─► files beside the programs
//! ```
//!
//! The processes are real, so that they can be killed, lost and found. They end by themselves when their folder is gone, as it is after a
//! test. What real clients do is not there: a test says to the fake driver who computes.

pub mod program;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The names under which the program is run.
pub const CONTROL: &str = "nvidia-cuda-mps-control";
/// The server.
pub const SERVER: &str = "nvidia-cuda-mps-server";
/// For time slices.
pub const SMI: &str = "nvidia-smi";
pub(crate) const FAULTS: &str = "faults";
pub(crate) const JOURNAL: &str = "journal";
pub(crate) const SLICE: &str = ".slice";

/// What goes wrong with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Nothing answers.
    Hang,
    /// It says no and does nothing.
    Refuse,
    /// The daemon ends as if killed, and its servers go on.
    Die,
    /// It says yes and does nothing.
    Ignore,
}

impl What {
    const ALL: [(Self, &'static str); 4] = [(Self::Hang, "hang"), (Self::Refuse, "refuse"), (Self::Die, "die"), (Self::Ignore, "ignore")];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|row| row.0 == self).map_or("", |row| row.1)
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

/// A process of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its number.
    pub pid: u32,
    /// It is a server, and not the daemon.
    pub server: bool,
    /// The folder that its daemon has.
    pub pipe: PathBuf,
}

/// The programs in a folder.
#[derive(Debug)]
pub struct Fake {
    folder: PathBuf,
}

impl Fake {
    /// Puts the programs into a folder of the file system on which `program` lies.
    ///
    /// # Errors
    /// If that cannot be.
    pub fn install(program: &Path, folder: &Path) -> io::Result<Self> {
        for name in [CONTROL, SERVER, SMI] {
            // A link: a file that was just written cannot be run while a process that was begun meanwhile still has it open.
            fs::hard_link(program, folder.join(name))?;
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// The path of a program.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A command goes wrong from now on: `-d`, `quit`, the first word of any other, or `nvidia-smi`.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn fault(&self, command: &str, what: What) -> io::Result<()> {
        let faults = fs::read_to_string(self.folder.join(FAULTS)).unwrap_or_default();
        fs::write(self.folder.join(FAULTS), format!("{faults}{command} {}\n", what.name()))
    }

    /// Nothing goes wrong any more.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn heal(&self) -> io::Result<()> {
        fs::write(self.folder.join(FAULTS), "")
    }

    /// What was asked since this was called last, one line a command: the GPU and the command.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn journal(&self) -> io::Result<Vec<String>> {
        let path = self.folder.join(JOURNAL);
        let text = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, "")?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The number of a GPU's time slice: 0 is the driver's own.
    #[must_use]
    pub fn time_slice(&self, gpu: &str) -> u8 {
        let path = self.folder.join(format!("{gpu}{SLICE}"));
        fs::read_to_string(path).ok().and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// The daemons and servers that run, daemons first.
    ///
    /// # Errors
    /// If the processes cannot be listed.
    pub fn running(&self) -> io::Result<Vec<Running>> {
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            all.extend(self.running_as(pid));
        }
        all.sort_by_key(|one| (one.server, one.pid));
        Ok(all)
    }

    fn running_as(&self, pid: u32) -> Option<Running> {
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let role = arguments.split('\0').nth(1)?;
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).ok()?;
        let pipe = environment.split('\0').find_map(|one| one.strip_prefix("CUDA_MPS_PIPE_DIRECTORY="))?;
        let ours = program.parent() == Some(&self.folder) && (role == program::SERVE || role == program::SERVER);
        ours.then(|| Running { pid, server: role == program::SERVER, pipe: pipe.into() })
    }
}

//! NVIDIA's programs on this machine. Every run of one has a limit.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{self, Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{
    TimeSlice,
    processes::{self, ASKS, Own},
    run::{Failure, run},
};
use crate::mps::{LOG_DIRECTORY, Limits, MEMORY_LIMIT, MpsError, PIPE_DIRECTORY, THREADS};

/// How long a program may take. The daemon answers within milliseconds, and starts within a second.
const LIMIT: Duration = Duration::from_secs(10);
/// How often is looked whether something is so.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The longest path of a socket, with the byte that ends it (`unix(7)`).
const SOCKET_PATH_MAX: usize = 108;
/// The longest name of a socket that the daemon makes.
const SOCKET: &str = "control_privileged";
/// Clients of every user come in.
const OPEN: u32 = 0o755;

/// NVIDIA's programs, and where the daemons of the GPUs have their folders.
///
/// A daemon goes on when this program ends, so that pods do not notice; in a container it would end with the container. It serves the
/// processes of one user at a time, as MPS does.
#[derive(Clone, Debug)]
pub struct Installed {
    /// `nvidia-cuda-mps-control`: a name that is looked for in `PATH`, or a path.
    pub control: PathBuf,
    /// `nvidia-smi`: the same.
    pub smi: PathBuf,
    /// Each GPU has a folder `<uuid>/{pipe,log}` in it.
    pub folder: PathBuf,
    /// How long one run may take.
    pub limit: Duration,
}

impl Installed {
    /// By their usual names, with the limits that are right for them.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        // Programs are run in another folder than this one.
        let folder = path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        Self { control: "nvidia-cuda-mps-control".into(), smi: "nvidia-smi".into(), folder, limit: LIMIT }
    }

    pub(super) fn has_control(&self) -> Result<PathBuf, MpsError> {
        found(&self.control)
    }

    pub(super) fn has_smi(&self) -> Result<PathBuf, MpsError> {
        found(&self.smi)
    }

    fn of(&self, gpu: &str) -> PathBuf {
        self.folder.join(gpu)
    }

    pub(super) fn pipe(&self, gpu: &str) -> PathBuf {
        self.of(gpu).join("pipe")
    }

    fn log(&self, gpu: &str) -> PathBuf {
        self.of(gpu).join("log")
    }

    pub(super) fn has_traces(&self, gpu: &str) -> bool {
        self.of(gpu).exists()
    }

    fn processes(&self, gpu: &str) -> Vec<Own> {
        if self.has_traces(gpu) { processes::of(&self.pipe(gpu)) } else { Vec::new() }
    }

    pub(super) fn is_server(&self, gpu: &str, pid: u32) -> bool {
        self.has_traces(gpu) && processes::is_of(pid, &self.pipe(gpu)).is_some_and(|own| own.server)
    }

    pub(super) fn has_orphans(&self, gpu: &str) -> bool {
        let all = self.processes(gpu);
        !all.is_empty() && all.iter().all(|own| own.server)
    }

    fn runs(&self, gpu: &str) -> bool {
        self.processes(gpu).iter().any(|own| !own.server)
    }

    pub(super) fn answers(&self, gpu: &str) -> Result<(), MpsError> {
        if !self.runs(gpu) {
            return Err(MpsError::Gone { gpu: gpu.to_owned(), log: self.log(gpu) });
        }
        self.ask(gpu, "get_server_list").map(drop)
    }

    pub(super) fn start(&self, gpu: &str) -> Result<(), MpsError> {
        let pipe = self.pipe(gpu);
        if pipe.join(SOCKET).as_os_str().len() >= SOCKET_PATH_MAX {
            return Err(MpsError::LongPath(pipe));
        }
        for folder in [&pipe, &self.log(gpu)] {
            let made = fs::create_dir_all(folder).and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(OPEN)));
            made.map_err(|error| broken(folder, "made", &error))?;
        }
        // What an earlier daemon left would keep this one from listening. The folder itself stays: containers have it.
        let left = fs::read_dir(&pipe).and_then(|mut entries| entries.try_for_each(|entry| fs::remove_file(entry?.path())));
        left.map_err(|error| broken(&pipe, "emptied", &error))?;
        self.run(gpu, &mut self.command(gpu, &["-d"])?, "-d", "", "started")?;
        self.wait(|| self.answers(gpu))
    }

    pub(super) fn limit(&self, gpu: &str, limits: Limits) -> Result<(), MpsError> {
        let Limits { memory_mib, threads } = limits;
        self.ask(gpu, &format!("set_default_device_pinned_mem_limit 0 {memory_mib}M"))?;
        self.ask(gpu, &format!("set_default_active_thread_percentage {threads}"))?;
        // Defaults are for servers that start later.
        for server in self.ask(gpu, "get_server_list")?.lines().filter_map(|line| line.trim().parse::<u32>().ok()) {
            self.ask(gpu, &format!("set_device_pinned_mem_limit {server} 0 {memory_mib}M"))?;
            self.ask(gpu, &format!("set_active_thread_percentage {server} {threads}"))?;
        }
        // It says nothing about what it did not understand, so it is asked.
        let what = "get_default_active_thread_percentage";
        let said = self.ask(gpu, what)?;
        let is = said.split('.').next().and_then(|whole| whole.trim().parse().ok());
        if is == Some(threads) { Ok(()) } else { Err(self.refused(gpu, &self.control, what, said)) }
    }

    pub(super) fn end(&self, gpu: &str) -> Result<(), MpsError> {
        if self.runs(gpu) {
            match self.ask(gpu, "quit").and_then(|_| self.wait(|| self.is_over(gpu))) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(gpu, "the MPS daemon is killed, since it does not quit: {error}"),
            }
        }
        for own in self.processes(gpu) {
            if let Err(error) = processes::kill(own, &self.pipe(gpu)) {
                tracing::warn!(gpu, pid = own.pid, "{error}");
            }
        }
        self.wait(|| self.is_over(gpu))
    }

    fn is_over(&self, gpu: &str) -> Result<(), MpsError> {
        let left: Vec<String> = self.processes(gpu).iter().map(|own| own.pid.to_string()).collect();
        if left.is_empty() { Ok(()) } else { Err(MpsError::Stays { gpu: gpu.to_owned(), pids: left.join(", ") }) }
    }

    pub(super) fn sweep(&self, gpu: &str) -> Result<(), MpsError> {
        let folder = self.of(gpu);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(broken(&folder, "removed", &error)),
            _ => Ok(()),
        }
    }

    pub(super) fn set_time_slice(&self, gpu: &str, slice: TimeSlice) -> Result<(), MpsError> {
        let number = format!("--set-timeslice={}", slice.number());
        let mut command = Command::new(self.has_smi()?);
        command.args(["compute-policy", &number, "-i", gpu]);
        let folder = &self.folder;
        fs::create_dir_all(folder).map_err(|error| broken(folder, "made", &error))?;
        let said = folder.join(format!("{gpu}.smi"));
        let done = self.told(gpu, &self.smi, &number, run(&mut command, "", &said, self.limit));
        let _ = fs::remove_file(said);
        done.map(drop)
    }

    /// Asks the daemon of a GPU, which runs.
    fn ask(&self, gpu: &str, what: &str) -> Result<String, MpsError> {
        let mut command = self.command(gpu, &[])?;
        self.run(gpu, command.env(ASKS, "1"), what, &format!("{what}\n"), "said")
    }

    fn command(&self, gpu: &str, arguments: &[&str]) -> Result<Command, MpsError> {
        let mut command = Command::new(self.has_control()?);
        let folders = [(PIPE_DIRECTORY, self.pipe(gpu)), (LOG_DIRECTORY, self.log(gpu))];
        command.args(arguments).envs(folders).env("CUDA_VISIBLE_DEVICES", gpu);
        // These would be limits of the daemon.
        command.env_remove(MEMORY_LIMIT).env_remove(THREADS).current_dir("/");
        Ok(command)
    }

    fn run(&self, gpu: &str, command: &mut Command, what: &str, input: &str, said: &str) -> Result<String, MpsError> {
        self.told(gpu, &self.control, what, run(command, input, &self.of(gpu).join(said), self.limit))
    }

    fn told(&self, gpu: &str, program: &Path, what: &str, told: Result<String, Failure>) -> Result<String, MpsError> {
        told.map_err(|failure| match failure {
            Failure::Io(error) => self.refused(gpu, program, what, error.to_string()),
            Failure::Refused(said) => self.refused(gpu, program, what, said),
            Failure::Hangs => MpsError::Hangs {
                program: name(program),
                what: what.to_owned(),
                gpu: gpu.to_owned(),
                seconds: self.limit.as_secs(),
                log: self.log(gpu),
            },
        })
    }

    fn refused(&self, gpu: &str, program: &Path, what: &str, said: String) -> MpsError {
        MpsError::Refused { program: name(program), what: what.to_owned(), gpu: gpu.to_owned(), said, log: self.log(gpu) }
    }

    /// Asks until the answer is good, or for as long as one run may take.
    fn wait<T, E>(&self, mut ask: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        let until = Instant::now() + self.limit;
        loop {
            match ask() {
                Err(_) if Instant::now() < until => thread::sleep(LOOK_EVERY),
                told => return told,
            }
        }
    }
}

fn found(program: &Path) -> Result<PathBuf, MpsError> {
    processes::find(program).map_err(|place| MpsError::Missing { program: program.display().to_string(), place })
}

fn name(program: &Path) -> String {
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn broken(path: &Path, done: &'static str, error: &io::Error) -> MpsError {
    MpsError::Folder { path: path.to_owned(), done, why: error.to_string() }
}

//! A machine whose MPS daemons are processes that serve nobody.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

use partita_core::model::Cut;
use partita_device::{Found, Installed, Node, PartState, Programs, Settings, Wish};
use partita_fake_mps::{CONTROL, Fake, Running, SMI};
use tempfile::TempDir;

use crate::support::{Machine, wish};

const PROGRAM: &str = "partita-fake-mps";

/// The programs' one file. A test does not have the programs of others built, so it is built now.
fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let output = Command::new(env!("CARGO")).args(["build", "--package", PROGRAM]).output();
        let output = output.unwrap_or_else(|error| panic!("cargo cannot be run to build {PROGRAM}: {error}"));
        assert!(output.status.success(), "{PROGRAM} cannot be built:\n{}", String::from_utf8_lossy(&output.stderr));
        let own = env::current_exe().unwrap();
        let built = own.ancestors().map(|folder| folder.join(PROGRAM)).find(|path| path.is_file());
        built.unwrap_or_else(|| panic!("cargo built {PROGRAM}, but it lies in no folder above {}", own.display()))
    })
}

/// Fake GPUs and fake programs.
pub(crate) struct Floor {
    pub(crate) machine: Machine,
    pub(crate) fake: Fake,
    /// Behind the programs, which end when it is gone.
    pub(crate) programs: TempDir,
}

impl Floor {
    pub(crate) fn new(spec: &str) -> Self {
        let program = program();
        let programs = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        Self { machine: Machine::new(spec), fake: Fake::install(program, programs.path()).unwrap(), programs }
    }

    pub(crate) fn settings(&self) -> Settings {
        installed(self.machine.settings(), self.programs.path(), self.machine.agent.path())
    }

    pub(crate) fn node(&self) -> Node {
        Node::open(Arc::new(self.machine.nvml()), &self.settings()).unwrap().0
    }

    /// The same, without waiting longer than so many milliseconds for programs.
    pub(crate) fn quick(&self, limit: u64) -> Settings {
        let mut settings = self.settings();
        if let Programs::Installed(installed) = &mut settings.programs {
            installed.limit = Duration::from_millis(limit);
        }
        settings
    }

    /// A node that does not wait long for programs.
    pub(crate) fn impatient(&self) -> Node {
        Node::open(Arc::new(self.machine.nvml()), &self.quick(1000)).unwrap().0
    }

    pub(crate) fn compute_mode(&self) -> u32 {
        self.machine.fake.state().unwrap().gpus[0].compute_mode
    }

    pub(crate) fn set_compute_mode(&self, mode: u32) {
        self.machine.fake.edit(|state| state.gpus[0].compute_mode = mode).unwrap();
    }

    pub(crate) fn running(&self) -> Vec<Running> {
        self.fake.running().unwrap()
    }

    /// The daemon, which is the only process.
    pub(crate) fn daemon(&self) -> u32 {
        let all = self.running();
        assert!(all.len() == 1 && !all[0].server, "{all:?}");
        all[0].pid
    }

    /// What was asked of the daemons, without the GPU.
    pub(crate) fn asked(&self) -> Vec<String> {
        let words = |line: String| line.split_once(' ').map(|(_, what)| what.to_owned()).unwrap_or_default();
        self.fake.journal().unwrap().into_iter().map(words).collect()
    }

    /// A client comes, for which the daemon starts a server; the driver lists both. Returns the server.
    pub(crate) fn come(&self, found: &Found, client: u32) -> u32 {
        let server = self.serve(&found.gpu.info.uuid);
        self.machine.fake.hold(0, None, client).unwrap();
        server
    }

    /// The daemon starts a server, which the driver lists.
    pub(crate) fn serve(&self, gpu: &str) -> u32 {
        let pipe = &self.folder(gpu).join("pipe");
        let mut control = Command::new(self.fake.program(CONTROL));
        let mut control = control.env("CUDA_MPS_PIPE_DIRECTORY", pipe).stdin(Stdio::piped()).spawn().unwrap();
        control.stdin.take().unwrap().write_all(b"start_server -uid 0\n").unwrap();
        assert!(control.wait().unwrap().success());
        let server = self.running().into_iter().rev().find(|one| one.server && one.pipe == *pipe).unwrap().pid;
        self.machine.fake.hold_process(0, server).unwrap();
        server
    }

    /// The folder of a GPU's daemon.
    pub(crate) fn folder(&self, gpu: &str) -> PathBuf {
        self.machine.agent.path().join("mps").join(gpu)
    }

    /// Nothing of MPS is left, and the mode is as it was.
    pub(crate) fn is_clean(&self, gpu: &str, mode: u32) -> bool {
        self.running().is_empty() && self.compute_mode() == mode && !self.folder(gpu).exists()
    }
}

/// With the programs of a folder.
pub(crate) fn installed(settings: Settings, programs: &Path, agent: &Path) -> Settings {
    let own = Installed::new(&agent.join("mps"));
    let (control, smi) = (programs.join(CONTROL), programs.join(SMI));
    Settings { programs: Programs::Installed(Installed { control, smi, limit: Duration::from_mins(1), ..own }), ..settings }
}

/// Shares of a GPU.
pub(crate) fn shares(gpu: &str, generation: i64, shares: &[u32]) -> Wish {
    Wish { cut: Cut::Mps, shares: shares.to_vec(), may_switch: true, ..wish(gpu, generation, &[]) }
}

/// All of a GPU, or parts of it in turn.
pub(crate) fn whole(gpu: &str, generation: i64, time_sliced: bool) -> Wish {
    Wish { cut: Cut::Shares, time_sliced, may_switch: true, ..wish(gpu, generation, &[]) }
}

/// How the sharing of a GPU is.
pub(crate) fn state(found: &Found) -> String {
    match found.sharing.as_ref().map(|sharing| &sharing.state) {
        None => "none".to_owned(),
        Some(PartState::Ready) => "ready".to_owned(),
        Some(PartState::Kept(problem)) => format!("kept: {problem}"),
        Some(PartState::Failed(problem)) => format!("failed: {problem}"),
    }
}

/// Kills a process, and waits until it is gone.
pub(crate) fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    // One that nobody waits for has no program any more.
    while fs::read_link(format!("/proc/{pid}/exe")).is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

//! Fake GPUs for a test: a folder with a copy of the fake library in it, opened by the real wrapper.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
    time::Duration,
};

use nvidia_ml::Fake;
use partita_core::model::Cut;
use partita_device::{Found, Node, Part, PartState, Settings, Users, Wish, mig::Spec, nvml::NvmlDriver};
use tempfile::TempDir;

const LIBRARY: &str = "libnvidia_ml.so";

/// The fake library: cargo has built it beside this test, as it builds all that a test needs; else it is built now.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let own = env::current_exe().unwrap();
        let beside = own.with_file_name(LIBRARY);
        if beside.exists() {
            return beside;
        }
        let output = Command::new(env!("CARGO")).args(["build", "--package", "partita-fake-nvml"]).output();
        let output = output.unwrap_or_else(|error| panic!("cargo cannot be run to build the fake library: {error}"));
        assert!(output.status.success(), "the fake library cannot be built:\n{}", String::from_utf8_lossy(&output.stderr));
        let built = own.ancestors().map(|folder| folder.join(LIBRARY)).find(|path| path.exists());
        built.unwrap_or_else(|| panic!("cargo built the fake library, but {LIBRARY} lies in no folder above {}", own.display()))
    })
}

/// The same without what debuggers need, which is most of it: every machine gets a copy.
fn small() -> &'static [u8] {
    static STRIPPED: OnceLock<Vec<u8>> = OnceLock::new();
    STRIPPED.get_or_init(|| {
        let to = tempfile::NamedTempFile::new().unwrap();
        let stripped = Command::new("strip").arg("-o").arg(to.path()).arg(library()).status().is_ok_and(|status| status.success());
        fs::read(if stripped { to.path() } else { library() }).unwrap()
    })
}

/// A folder for files that are written through to the disk, in memory where that can be: hundreds are.
fn fast() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A machine with fake GPUs.
pub(crate) struct Machine {
    pub(crate) folder: TempDir,
    pub(crate) agent: TempDir,
    pub(crate) fake: Fake,
}

impl Machine {
    /// With MIG off.
    pub(crate) fn new(spec: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = Fake::create(folder.path(), spec).unwrap();
        fs::write(folder.path().join(LIBRARY), small()).unwrap();
        Self { folder, agent: fast(), fake }
    }

    /// With MIG on.
    pub(crate) fn cut(spec: &str) -> Self {
        let machine = Self::new(spec);
        for gpu in 0..machine.fake.state().unwrap().gpus.len() {
            machine.fake.set_mig(gpu, true).unwrap();
        }
        machine
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.folder.path().join(LIBRARY)
    }

    pub(crate) fn nvml(&self) -> NvmlDriver {
        NvmlDriver::load(Some(&self.library())).unwrap()
    }

    pub(crate) fn settings(&self) -> Settings {
        let boot = self.fake.state().unwrap().boots;
        Settings::new(&self.agent.path().join("state.json"), &format!("boot-{boot}"))
    }

    pub(crate) fn node(&self) -> Node {
        let (node, damage) = Node::open(Arc::new(self.nvml()), &self.settings()).unwrap();
        assert_eq!(damage, None);
        node
    }

    /// A node of which a call may take so long only.
    pub(crate) fn impatient(&self, call_max: Duration) -> Node {
        Node::open(Arc::new(self.nvml()), &Settings { call_max, ..self.settings() }).unwrap().0
    }

    pub(crate) fn uuid(&self, gpu: usize) -> String {
        self.fake.state().unwrap().gpus[gpu].uuid.clone()
    }

    /// What is on a GPU: (profile, first slot, computes), sorted.
    pub(crate) fn truth(&self, gpu: usize) -> Vec<(String, u8, usize)> {
        let state = self.fake.state().unwrap();
        let grid = partita_core::model::catalog::builtin(&state.gpus[gpu].model).unwrap().grid.unwrap();
        let real = state.gpus[gpu].instances.iter().filter(|one| !one.phantom);
        let name = |profile: u8| grid.profiles[usize::from(profile)].name.clone();
        let computes = |one: &nvidia_ml::machine::Instance| one.compute.iter().filter(|compute| !compute.phantom).count();
        let mut all: Vec<_> = real.map(|one| (name(one.profile), one.start, computes(one))).collect();
        all.sort();
        all
    }
}

/// A layout that a GPU shall have.
pub(crate) fn wish(gpu: &str, generation: i64, partitions: &[(&str, u8)]) -> Wish {
    let partitions = partitions.iter().map(|(profile, start)| Spec { profile: (*profile).to_owned(), start: *start }).collect();
    Wish {
        gpu: gpu.to_owned(),
        generation: (1, generation),
        cut: Cut::Mig,
        partitions,
        shares: Vec::new(),
        time_sliced: false,
        may_switch: false,
    }
}

/// A layout as [`Machine::truth`] tells it.
pub(crate) fn truth(partitions: &[(&str, u8)]) -> Vec<(String, u8, usize)> {
    let mut all: Vec<_> = partitions.iter().map(|(profile, start)| ((*profile).to_owned(), *start, 1)).collect();
    all.sort();
    all
}

/// No pod uses anything.
pub(crate) const NOBODY: Users<'static> = &|_, _| Ok(Vec::new());

/// The part at a slot.
pub(crate) fn at<'f>(found: &'f Found, profile: &str, start: u8) -> &'f Part {
    let is = |part: &&Part| part.spec == Some(Spec { profile: profile.to_owned(), start });
    found.parts.iter().find(is).unwrap_or_else(|| panic!("no {profile} at {start} among {:#?}", found.parts))
}

/// Why a part is not as wanted.
pub(crate) fn why(part: &Part) -> String {
    match &part.state {
        PartState::Ready => "ready".to_owned(),
        PartState::Kept(problem) | PartState::Failed(problem) => problem.to_string(),
    }
}

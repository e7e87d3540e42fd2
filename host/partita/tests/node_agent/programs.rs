//! MPS's programs for an agent: real processes that serve nobody.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use partita_fake_mps::{CONTROL, Fake};
use tempfile::TempDir;

use crate::stage::{Agent, Stage};

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

/// The programs of one machine.
pub(crate) struct Floor {
    pub(crate) fake: Fake,
    /// Behind the programs, which end when it is gone.
    folder: TempDir,
}

impl Floor {
    pub(crate) fn new() -> Self {
        let program = program();
        let folder = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        Self { fake: Fake::install(program, folder.path()).unwrap(), folder }
    }

    /// Starts an agent that finds the programs.
    pub(crate) fn agent(&self, stage: &Stage, arguments: &[&str], variables: &[(&str, &str)]) -> Agent {
        let control = self.fake.program(CONTROL);
        let arguments = [arguments, &["--mps-control", control.to_str().unwrap()]].concat();
        let path = format!("{}:{}", self.folder.path().display(), env::var("PATH").unwrap());
        let variables = [variables, &[("PATH", path.as_str())]].concat();
        stage.agent_with(&arguments, &variables)
    }

    /// How many daemons and servers run.
    pub(crate) fn running(&self) -> usize {
        self.fake.running().unwrap().len()
    }
}
